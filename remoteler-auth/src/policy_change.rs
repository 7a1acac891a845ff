//! Documents of roles, users and policy tests as one change: checked together, as if all of them stood already, and written together or not at
//! all. So a role changes with the test that speaks of it, and a user with the role that is new.

use std::collections::BTreeSet;

use remoteler_core::{
    AuditKind, NewUser, PolicySource, PolicyTest, Resource, ResourceKind, Revision, Role, RoleName, Verb,
};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict},
    policy_tests::{self, Change},
    records::{Batch, key},
    resources, roles,
    service::Inner,
    users::{self, UserRecord},
};

/// Most documents of one change: what one transaction of the store takes.
const MAX_DOCUMENTS: usize = remoteler_core::MAX_OPERATIONS;

/// A document that was read, and what stands where it goes.
enum Planned {
    Role { role: Box<Role>, document: Resource },
    User { user: NewUser, stands: Option<(Box<UserRecord>, Revision)> },
    Test { test: Box<PolicyTest>, document: Resource, new: bool },
}

impl Planned {
    fn change(&self) -> Change<'_> {
        match self {
            Self::Role { role, .. } => Change::Role(role),
            Self::User { user, .. } => Change::User(user),
            Self::Test { test, .. } => Change::Test(test),
        }
    }

    fn event(&self, actor: &str) -> AuditKind {
        let user = actor.to_owned();
        match self {
            Self::Role { role, .. } => AuditKind::RoleCreate { user, name: role.name().to_string() },
            Self::User { user: one, stands: None } => {
                AuditKind::UserCreate { user, name: one.name.to_string(), roles: users::texts(&one.roles) }
            }
            Self::User { user: one, stands: Some(_) } => {
                AuditKind::UserUpdate { user, name: one.name.to_string(), roles: users::texts(&one.roles) }
            }
            Self::Test { test, .. } => AuditKind::PolicyTestCreate { user, name: test.name().to_string() },
        }
    }
}

impl Inner {
    /// Writes documents of roles, users and policy tests, all of them or none.
    pub(crate) async fn put_policy(&self, caller: &Caller, documents: Vec<Resource>, replace: bool) -> ApiResult<()> {
        let kinds = kinds_of(&documents)?;
        let mut actor = None;
        for kind in kinds.iter().collect::<BTreeSet<_>>() {
            actor = Some(self.admit(caller, kind.as_str(), Verb::Create).await?);
            if replace {
                self.admit(caller, kind.as_str(), Verb::Update).await?;
            }
        }
        let Some(actor) = actor else { return Ok(()) };
        let _turn = self.changes.write().await;
        let mut planned = Vec::with_capacity(documents.len());
        for (kind, document) in kinds.into_iter().zip(documents) {
            planned.push(self.plan_document(kind, document, replace).await?);
        }
        self.check_holders(&planned)?;
        self.room_for_new_tests(&planned).await?;
        self.keep_policy_tests(&planned.iter().map(Planned::change).collect::<Vec<_>>()).await?;
        for one in &planned {
            self.record(one.event(&actor)).await?;
        }
        let mut batch = Batch::new();
        for one in &planned {
            batch = self.written(batch, one)?;
        }
        self.records.commit(batch).await?;
        if planned.iter().any(|one| matches!(one, Planned::Role { .. })) {
            self.reload_policy().await?;
        }
        Ok(())
    }

    async fn plan_document(&self, kind: ResourceKind, document: Resource, replace: bool) -> ApiResult<Planned> {
        let planned = match kind {
            ResourceKind::Role => {
                let role = roles::check(&document)?;
                self.refuse_existing(&key::of(key::ROLES, role.name()), &document, replace).await?;
                Planned::Role { role: Box::new(role), document }
            }
            ResourceKind::PolicyTest => {
                let test = policy_tests::check(&document)?;
                let new = self.refuse_existing(&key::of(key::POLICY_TESTS, test.name()), &document, replace).await?;
                Planned::Test { test: Box::new(test), document, new }
            }
            ResourceKind::User => {
                let user = resources::user_of(document)?;
                let stands = self.records.read_at::<UserRecord>(&key::of(key::USERS, &user.name)).await?;
                if stands.is_some() && !replace {
                    return Err(users::exists(&user.name));
                }
                Planned::User { user, stands: stands.map(|(record, revision)| (Box::new(record), revision)) }
            }
            ResourceKind::Token
            | ResourceKind::Node
            | ResourceKind::KubeCluster
            | ResourceKind::Lock
            | ResourceKind::ClusterAuthPreference
            | ResourceKind::ClusterNetworkingConfig
            | ResourceKind::SessionRecordingConfig
            | ResourceKind::Oidc
            | ResourceKind::Github
            | ResourceKind::Saml => return Err(no_policy(kind)),
        };
        Ok(planned)
    }

    /// Whether it is new.
    async fn refuse_existing(&self, key: &str, document: &Resource, replace: bool) -> ApiResult<bool> {
        let exists = self.records.read::<Resource>(key).await?.is_some();
        if exists && !replace {
            let Resource { kind, metadata, .. } = document;
            let name = &metadata.name;
            return Err(conflict(format!("{kind} {name} exists already; use tctl create -f to replace it")));
        }
        Ok(!exists)
    }

    async fn room_for_new_tests(&self, planned: &[Planned]) -> ApiResult<()> {
        let new = planned.iter().filter(|one| matches!(one, Planned::Test { new: true, .. })).count();
        if new > 0 { self.room_for_tests(new).await } else { Ok(()) }
    }

    /// Users hold roles that there are, or that are about to be.
    fn check_holders(&self, planned: &[Planned]) -> ApiResult<()> {
        let policy = self.policy.policy();
        let mut known: BTreeSet<&RoleName> = policy.roles.keys().collect();
        known.extend(planned.iter().filter_map(|one| match one {
            Planned::Role { role, .. } => Some(role.name()),
            Planned::User { .. } | Planned::Test { .. } => None,
        }));
        planned.iter().try_for_each(|one| match one {
            Planned::User { user, .. } => users::check(user, |role| known.contains(role)),
            Planned::Role { .. } | Planned::Test { .. } => Ok(()),
        })
    }

    fn written(&self, batch: Batch, one: &Planned) -> ApiResult<Batch> {
        Ok(match one {
            Planned::Role { role, document } => batch.write(&key::of(key::ROLES, role.name()), document, None)?,
            Planned::Test { test, document, .. } => {
                batch.write(&key::of(key::POLICY_TESTS, test.name()), document, None)?
            }
            Planned::User { user, stands } => {
                let key = key::of(key::USERS, &user.name);
                let NewUser { name, roles, traits } = user.clone();
                match stands {
                    Some((record, revision)) => {
                        batch.replace(&key, *revision, &UserRecord { roles, traits, ..UserRecord::clone(record) })?
                    }
                    None => {
                        let created = self.clock.now();
                        let (password, invite, sso) = (None, None, None);
                        batch.create(&key, &UserRecord { name, roles, traits, password, created, invite, sso }, None)?
                    }
                }
            }
        })
    }
}

/// The kinds of the documents, each of which stands for another record.
fn kinds_of(documents: &[Resource]) -> ApiResult<Vec<ResourceKind>> {
    let count = documents.len();
    if count > MAX_DOCUMENTS {
        return Err(bad_request(format!(
            "{count} documents of roles, users and policy tests are more than one change takes, {MAX_DOCUMENTS}; write them in several files"
        )));
    }
    let mut seen = BTreeSet::new();
    let mut kinds = Vec::with_capacity(count);
    for Resource { kind, metadata, .. } in documents {
        let name = metadata.name.as_str();
        let kind = ResourceKind::parse(kind).map_err(|cause| bad_request(cause.to_string()))?;
        if !seen.insert((kind, name)) {
            let name: String = name.chars().take(80).collect();
            return Err(bad_request(format!("{} {name} is there twice", kind.as_str())));
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

fn no_policy(kind: ResourceKind) -> remoteler_core::ApiError {
    bad_request(format!(
        "documents of kind {} are written one by one, not with roles, users and policy tests",
        kind.as_str()
    ))
}
