//! Policy tests live with the policy: stored beside roles and users, and run before each change of either. A change that makes a test fail
//! which did not fail before is refused and nothing is written. Decides nothing itself.

use std::{collections::BTreeMap, sync::Arc};

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
    /// A test is written.
    Test(&'a PolicyTest),
}

impl<'a> Change<'a> {
    fn test(&self) -> Option<(&'a RoleName, &'a PolicyTest)> {
        match self {
            Self::Test(test) => Some((test.name(), test)),
            Self::Role(_) | Self::NoRole(_) | Self::User(_) => None,
        }
    }
}

/// A test that did not fail before the change does not after it.
fn kept(test: &PolicyTest, before: &Policy, after: &Policy, world: &TestWorld) -> ApiResult<()> {
    let name = test.name();
    if test.missing_role(before).is_none()
        && let Some(role) = test.missing_role(after)
    {
        return Err(conflict(format!(
            "policy_test {name} is about role {role}, which the change removes; remove the test first if this is what is meant (tctl rm policy_test/{name})"
        )));
    }
    match test.run(after, world) {
        TestOutcome::Failed(explanation) => Err(conflict(format!(
            "the change breaks policy_test {name}, which expects {}: {}; if this is what is meant, write it together with the changed test (one file for tctl create -f), or remove the test first (tctl rm policy_test/{name})",
            test.expect().as_str(),
            explanation.sentence(),
        ))),
        TestOutcome::Passed(_) | TestOutcome::NotRun(_) => Ok(()),
    }
}

/// A new test comes out as it expects.
fn taken(test: &PolicyTest, after: &Policy, world: &TestWorld) -> ApiResult<()> {
    let name = test.name();
    match test.run(after, world) {
        TestOutcome::Passed(_) => Ok(()),
        TestOutcome::Failed(explanation) => Err(conflict(format!(
            "policy_test {name} expects {} and fails: {}; change roles or test first, or write both in one file",
            test.expect().as_str(),
            explanation.sentence(),
        ))),
        TestOutcome::NotRun(absent) => {
            Err(bad_request(format!("policy_test {name} cannot be run: {absent}; name labels or roles instead")))
        }
    }
}

/// The test a document describes.
pub(crate) fn check(document: &Resource) -> ApiResult<PolicyTest> {
    let test = PolicyTest::from_document(document).map_err(|cause| bad_request(cause.to_string()))?;
    if document.metadata.expires.is_some() {
        let name = test.name();
        return Err(bad_request(format!("metadata.expires of policy_test {name} is refused: tests do not end")));
    }
    Ok(test)
}

impl Inner {
    /// Refuses changes that, made together, break a policy test, and tests that would not come out as they expect. [`Inner::changes`] is held by
    /// the caller.
    pub(crate) async fn keep_policy_tests(&self, changes: &[Change<'_>]) -> ApiResult<()> {
        let documents = self.records.list::<Resource>(key::POLICY_TESTS).await?;
        let new: BTreeMap<&RoleName, &PolicyTest> = changes.iter().filter_map(Change::test).collect();
        if documents.is_empty() && new.is_empty() {
            return Ok(());
        }
        let before = self.policy.policy();
        let (mut after, mut world) = (Policy::clone(&before), self.world().await?);
        let mut held = Vec::with_capacity(documents.len());
        for (name, document, _) in documents {
            if new.keys().any(|written| written.as_str() == document.metadata.name) {
                continue;
            }
            let test = PolicyTest::from_document(&document);
            let test = test.map_err(|cause| conflict(format!("stored policy_test {name} cannot be used: {cause}")))?;
            // What failed before guards nothing.
            if !matches!(test.run(&before, &world), TestOutcome::Failed(_)) {
                held.push(test);
            }
        }
        for change in changes {
            match change {
                Change::Role(role) => drop(after.roles.insert(role.name().clone(), Arc::new(Role::clone(role)))),
                Change::NoRole(name) => drop(after.roles.remove(name)),
                Change::User(user) => {
                    drop(world.users.insert(user.name.clone(), (user.roles.clone(), user.traits.clone())));
                }
                Change::Test(_) => {}
            }
        }
        held.iter().try_for_each(|test| kept(test, &before, &after, &world))?;
        new.into_values().try_for_each(|test| taken(test, &after, &world))
    }

    /// Refuses a test too many; [`Inner::changes`] is held by the caller.
    pub(crate) async fn room_for_tests(&self, new: usize) -> ApiResult<()> {
        if self.records.list::<Resource>(key::POLICY_TESTS).await?.len() + new > MAX_TESTS {
            return Err(conflict(format!("there would be more than {MAX_TESTS} policy tests; remove some")));
        }
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
            apps: self.known_apps().await?,
        })
    }
}
