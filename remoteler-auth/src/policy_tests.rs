//! Policy tests live with the policy: stored beside roles and users, and run before each change of either. A change that makes a test fail
//! which did not fail before is refused and nothing is written. Decides nothing itself.

use std::sync::Arc;

use remoteler_core::{
    AuditKind, NewUser, Policy, PolicySource, PolicyTest, Resource, Role, RoleName, TestOutcome, TestWorld,
};

use crate::{
    failure::{ApiResult, bad_request, conflict, not_found},
    records::key,
    service::Inner,
    users::UserRecord,
};

/// Most tests: all of them run at each change.
const MAX_TESTS: usize = 1000;

/// What is about to change.
pub(crate) enum Change<'a> {
    /// A role is written.
    Role(&'a Role),
    /// A role is removed.
    NoRole(&'a RoleName),
    /// A user is written.
    User(&'a NewUser),
}

impl Inner {
    /// Refuses a change that breaks a policy test; [`Inner::changes`] is held by the caller.
    pub(crate) async fn keep_policy_tests(&self, change: Change<'_>) -> ApiResult<()> {
        let documents = self.records.list::<Resource>(key::POLICY_TESTS).await?;
        if documents.is_empty() {
            return Ok(());
        }
        let before = self.policy.policy();
        let (mut after, mut world) = (Policy::clone(&before), self.world().await?);
        let mut tests = Vec::with_capacity(documents.len());
        for (name, document, _) in documents {
            let test = PolicyTest::from_document(&document);
            let test = test.map_err(|cause| conflict(format!("stored policy_test {name} cannot be used: {cause}")))?;
            let held = !matches!(test.run(&before, &world), TestOutcome::Failed(_));
            tests.push((test, held));
        }
        match change {
            Change::Role(role) => drop(after.roles.insert(role.name().clone(), Arc::new(role.clone()))),
            Change::NoRole(name) => drop(after.roles.remove(name)),
            Change::User(user) => {
                drop(world.users.insert(user.name.clone(), (user.roles.clone(), user.traits.clone())));
            }
        }
        let orphan = tests.iter().filter(|(test, held)| *held && test.missing_role(&before).is_none());
        if let Some((test, role)) = orphan.filter_map(|(test, _)| Some((test, test.missing_role(&after)?))).next() {
            let name = test.name();
            return Err(conflict(format!(
                "policy_test {name} is about role {role}, which the change removes; remove the test first if this is what is meant (tctl rm policy_test/{name})"
            )));
        }
        let broken = tests.iter().filter(|(_, held)| *held).find_map(|(test, _)| match test.run(&after, &world) {
            TestOutcome::Failed(explanation) => Some((test, explanation)),
            TestOutcome::Passed(_) | TestOutcome::NotRun(_) => None,
        });
        match broken {
            None => Ok(()),
            Some((test, explanation)) => {
                let name = test.name();
                Err(conflict(format!(
                    "the change breaks policy_test {name}, which expects {}: {}; if this is what is meant, remove the test first (tctl rm policy_test/{name}) and write the new one after the change",
                    test.expect().as_str(),
                    explanation.sentence(),
                )))
            }
        }
    }

    /// Writes a policy test, which must come out as it expects; [`Inner::changes`] is held by the caller.
    pub(crate) async fn write_policy_test(&self, actor: String, document: Resource, replace: bool) -> ApiResult<()> {
        let test = PolicyTest::from_document(&document).map_err(|cause| bad_request(cause.to_string()))?;
        let name = test.name();
        if document.metadata.expires.is_some() {
            return Err(bad_request(format!("metadata.expires of policy_test {name} is refused: tests do not end")));
        }
        let key = key::of(key::POLICY_TESTS, name);
        let exists = self.records.read::<Resource>(&key).await?.is_some();
        if exists && !replace {
            return Err(conflict(format!("policy_test {name} exists already; use tctl create -f to replace it")));
        }
        if !exists && self.records.list::<Resource>(key::POLICY_TESTS).await?.len() >= MAX_TESTS {
            return Err(conflict(format!("there are {MAX_TESTS} policy tests already; remove some")));
        }
        match test.run(&self.policy.policy(), &self.world().await?) {
            TestOutcome::Passed(_) => {}
            TestOutcome::Failed(explanation) => {
                return Err(conflict(format!(
                    "policy_test {name} expects {} and fails already: {}; change roles or test first",
                    test.expect().as_str(),
                    explanation.sentence(),
                )));
            }
            TestOutcome::NotRun(absent) => {
                return Err(bad_request(format!(
                    "policy_test {name} cannot be run: {absent}; name labels or roles instead"
                )));
            }
        }
        self.record(AuditKind::PolicyTestCreate { user: actor, name: name.to_string() }).await?;
        self.records.write(&key, &document, None).await?;
        Ok(())
    }

    /// Removes a policy test; [`Inner::changes`] is held by the caller.
    pub(crate) async fn delete_policy_test(&self, actor: String, name: &str) -> ApiResult<()> {
        let name = RoleName::new(name).map_err(|cause| bad_request(cause.to_string()))?;
        let key = key::of(key::POLICY_TESTS, &name);
        if self.records.read::<Resource>(&key).await?.is_none() {
            return Err(not_found(format!("there is no policy_test {name}")));
        }
        let event = AuditKind::ResourceDelete { user: actor, kind: "policy_test".into(), name: name.to_string() };
        self.record(event).await?;
        self.records.delete(&key).await?;
        Ok(())
    }

    async fn world(&self) -> ApiResult<TestWorld> {
        let users = self.records.list::<UserRecord>(key::USERS).await?;
        Ok(TestWorld {
            users: users.into_iter().map(|(_, user, _)| (user.name, (user.roles, user.traits))).collect(),
            nodes: self.known_nodes().await?,
            kube_clusters: self.known_kube_clusters().await?,
        })
    }
}
