//! Documents of roles, users and policy tests as one change: checked together, as if all of them stood already, and written together or not at
//! all. So a role changes with the test that speaks of it, and a user with the role that is new.

use std::{collections::BTreeSet, sync::Arc};

use remoteler_core::{
    ApiError, AuditKind, NewUser, PolicySource, PolicyTest, Resource, ResourceKind, Revision, Role, RoleName, Verb,
};

use crate::{
    Caller,
    failure::{self, ApiResult, bad_request, conflict},
    policy_tests::{self, Change},
    records::{Batch, key},
    resources, roles,
    service::Inner,
    users::{self, UserRecord},
};

/// Most documents of one change: what one transaction of the store takes.
const MAX_DOCUMENTS: usize = remoteler_core::MAX_OPERATIONS;
/// How often it is tried to write while users change by themselves.
const ATTEMPTS: usize = 5;

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
        let (actor, kinds) = self.admit_kinds(caller, &documents, replace).await?;
        each_once(&kinds, &documents)?;
        let _turn = self.changes.write().await;
        let mut planned = Vec::with_capacity(documents.len());
        for (kind, document) in kinds.into_iter().zip(documents) {
            let name = short(&document.metadata.name);
            let plan = self.plan_document(kind, document, replace).await;
            planned.push(plan.map_err(|cause| of(kind, &name, cause))?);
        }
        self.check_holders(&planned)?;
        self.room_for_new_tests(&planned).await?;
        self.keep_policy_tests(&planned.iter().map(Planned::change).collect::<Vec<_>>()).await?;
        let mut batch = self.batch_of(&planned)?;
        let events = planned.iter().map(|one| one.event(&actor)).collect();
        self.audit_log.record_together(events).await.map_err(|cause| failure::audit(&cause))?;
        for attempt in 1.. {
            match self.records.commit(batch).await {
                Ok(()) => break,
                Err(cause) if cause.is_conflict() && attempt < ATTEMPTS => {
                    // A user signed up or changed a password meanwhile, which is no matter here.
                    self.look_again(&mut planned).await?;
                    batch = self.batch_of(&planned)?;
                }
                Err(cause) => return Err(cause.into()),
            }
        }
        self.enforce(planned);
        Ok(())
    }

    /// Who calls, once they may write documents of each of these kinds.
    async fn admit_kinds(
        &self,
        caller: &Caller,
        documents: &[Resource],
        replace: bool,
    ) -> ApiResult<(String, Vec<ResourceKind>)> {
        let kinds: Vec<_> = documents.iter().map(|document| kind_of(&document.kind)).collect();
        let mut wanted: BTreeSet<ResourceKind> = kinds.iter().flatten().copied().collect();
        // Who may write nothing at all is told nothing of what is wrong with it.
        wanted.extend(wanted.is_empty().then_some(ResourceKind::Role));
        let mut actor = String::new();
        for kind in wanted {
            actor = self.admit(caller, kind.as_str(), Verb::Create).await?;
            if replace {
                self.admit(caller, kind.as_str(), Verb::Update).await?;
            }
        }
        Ok((actor, kinds.into_iter().collect::<ApiResult<_>>()?))
    }

    /// Reads the users anew.
    async fn look_again(&self, planned: &mut [Planned]) -> ApiResult<()> {
        for one in planned {
            if let Planned::User { user, stands } = one {
                let found = self.records.read_at::<UserRecord>(&key::of(key::USERS, &user.name)).await?;
                if found.is_some() != stands.is_some() {
                    return Err(conflict(format!("user {} was made or removed meanwhile; try again", user.name)));
                }
                *stands = found.map(boxed);
            }
        }
        Ok(())
    }

    /// Decides by the new roles from here on.
    fn enforce(&self, planned: Vec<Planned>) {
        self.change_roles(|roles| {
            for one in planned {
                if let Planned::Role { role, .. } = one {
                    roles.insert(role.name().clone(), Arc::from(role));
                }
            }
        });
    }

    fn batch_of(&self, planned: &[Planned]) -> ApiResult<Batch> {
        let mut batch = Batch::new();
        for one in planned {
            batch = self.written(batch, one)?;
        }
        batch.check()?;
        Ok(batch)
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
                Planned::User { user, stands: stands.map(boxed) }
            }
            ResourceKind::Token
            | ResourceKind::Node
            | ResourceKind::KubeCluster
            | ResourceKind::App
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
            Planned::User { user, .. } => users::check(user, |role| known.contains(role))
                .map_err(|cause| of(ResourceKind::User, user.name.as_str(), cause)),
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

fn boxed<T, U>((record, revision): (T, U)) -> (Box<T>, U) {
    (Box::new(record), revision)
}

/// The kind, in the one word for it that is stored.
fn kind_of(text: &str) -> ApiResult<ResourceKind> {
    let kind = ResourceKind::parse(text).map_err(|cause| bad_request(cause.to_string()))?;
    if !matches!(kind, ResourceKind::Role | ResourceKind::User | ResourceKind::PolicyTest) {
        return Err(no_policy(kind));
    }
    if kind.as_str() != text {
        return Err(bad_request(format!("kind {text} of a document is refused: write {}", kind.as_str())));
    }
    Ok(kind)
}

fn no_policy(kind: ResourceKind) -> ApiError {
    let kind = kind.as_str();
    bad_request(format!("documents of kind {kind} are written one by one, not with roles, users and policy tests"))
}

/// There are some, not too many, and no two that stand for the same.
fn each_once(kinds: &[ResourceKind], documents: &[Resource]) -> ApiResult<()> {
    let count = documents.len();
    if count == 0 {
        return Err(bad_request("there is no document"));
    }
    if count > MAX_DOCUMENTS {
        return Err(bad_request(format!(
            "{count} documents of roles, users and policy tests are more than one change takes, {MAX_DOCUMENTS}; write them in several files"
        )));
    }
    let mut seen = BTreeSet::new();
    for (kind, Resource { metadata, .. }) in kinds.iter().zip(documents) {
        if !seen.insert((kind, metadata.name.as_str())) {
            return Err(bad_request(format!("{} {} is there twice", kind.as_str(), short(&metadata.name))));
        }
    }
    Ok(())
}

fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Of several documents, which it is that is refused.
fn of(kind: ResourceKind, name: &str, cause: ApiError) -> ApiError {
    let kind = kind.as_str();
    if cause.message.contains(&format!("{kind} {name}")) {
        return cause;
    }
    ApiError::new(cause.kind, format!("{kind} {name}: {}", cause.message))
}
