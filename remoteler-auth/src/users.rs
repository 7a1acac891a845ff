//! Users and their one-time sign-up links. Owns the user record; the password check at login is elsewhere.

use std::{collections::BTreeSet, time::Duration};

use remoteler_core::{
    AuditKind, BrowserView, FactorKind, Invite, Invited, Login, NewUser, PolicySource, RoleName, Secret, SignUpRequest,
    SignedUp, Timestamp, Traits, UserName, UserSummary, Verb,
};
use serde::{Deserialize, Serialize};

use crate::{
    Caller,
    ceremonies::{Asker, KeyQuestion},
    failure::{ApiResult, bad_request, conflict, not_found, rate_limited},
    policy_tests::Change,
    records::{Batch, key},
    secret_hash,
    service::Inner,
    sso::SsoMark,
};

/// A user as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) name: UserName,
    pub(crate) roles: BTreeSet<RoleName>,
    #[serde(default)]
    pub(crate) traits: Traits,
    /// PHC string.
    #[serde(default)]
    pub(crate) password: Option<String>,
    pub(crate) created: Timestamp,
    /// The only link that works now.
    #[serde(default)]
    pub(crate) invite: Option<InviteMark>,
    /// The account at an identity provider whose user it is; such a user has no password and no link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sso: Option<SsoMark>,
}

/// A security key at a sign-up, and who brings it.
pub(crate) struct ByKey<'a> {
    pub(crate) asker: Asker<'a>,
    /// Of the offer.
    pub(crate) token: Secret,
    pub(crate) answer: Secret,
    pub(crate) from: Option<String>,
}

/// What is kept of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InviteMark {
    hash: String,
    expires: Timestamp,
}

const INVITE_TTL: Duration = Duration::from_secs(3600);
/// Bounds of traits: an identity must fit into a certificate.
const MAX_TRAITS: usize = 64;
const MAX_TRAIT_OCTETS: usize = 256;
const MAX_TRAITS_OCTETS: usize = 8 * 1024;
const LINK_GONE: &str = "the sign-up link is wrong, was used or has expired; ask the administrator for a new one";

impl Inner {
    pub(crate) async fn create_user(&self, caller: &Caller, user: NewUser) -> ApiResult<Invite> {
        let actor = self.admit(caller, "user", Verb::Create).await?;
        let _turn = self.changes.write().await;
        self.check_user(&user)?;
        let key = key::of(key::USERS, &user.name);
        if self.records.read::<UserRecord>(&key).await?.is_some() {
            return Err(exists(&user.name));
        }
        self.keep_policy_tests(&[Change::User(&user)]).await?;
        let (invite, mark) = self.draw_invite(user.name.clone());
        let NewUser { name, roles, traits } = user;
        self.record(AuditKind::UserCreate { user: actor.clone(), name: name.to_string(), roles: texts(&roles) })
            .await?;
        self.record(invite_event(actor, &name, &mark)).await?;
        let link = Batch::new().write(&key::of(key::INVITES, &mark.hash), &name, Some(mark.expires))?;
        let created = self.clock.now();
        let record = UserRecord { name, roles, traits, password: None, created, invite: Some(mark), sso: None };
        self.records.commit(link.create(&key, &record, None)?).await?;
        Ok(self.with_proxy(invite).await)
    }

    pub(crate) async fn update_user(&self, caller: &Caller, user: NewUser) -> ApiResult<()> {
        let actor = self.admit(caller, "user", Verb::Update).await?;
        let _turn = self.changes.write().await;
        self.check_user(&user)?;
        let key = key::of(key::USERS, &user.name);
        let found = self.records.read_at::<UserRecord>(&key).await?;
        let (record, revision) = found.ok_or_else(|| unknown(&user.name))?;
        self.keep_policy_tests(&[Change::User(&user)]).await?;
        let NewUser { name, roles, traits } = user;
        self.record(AuditKind::UserUpdate { user: actor, name: name.to_string(), roles: texts(&roles) }).await?;
        let record = UserRecord { roles, traits, ..record };
        self.records.replace(&key, revision, &record).await?;
        Ok(())
    }

    pub(crate) async fn users(&self, caller: &Caller) -> ApiResult<Vec<UserSummary>> {
        self.admit(caller, "user", Verb::List).await?;
        let users = self.records.list::<UserRecord>(key::USERS).await?;
        Ok(users
            .into_iter()
            .map(|(_, user, _)| UserSummary {
                has_password: user.password.is_some(),
                name: user.name,
                roles: user.roles,
                traits: user.traits,
                created: user.created,
            })
            .collect())
    }

    pub(crate) async fn delete_user(&self, caller: &Caller, name: UserName) -> ApiResult<()> {
        let actor = self.admit(caller, "user", Verb::Delete).await?;
        let _turn = self.changes.write().await;
        let key = key::of(key::USERS, &name);
        let record = self.records.read::<UserRecord>(&key).await?.ok_or_else(|| unknown(&name))?;
        self.record(AuditKind::UserDelete { user: actor.clone(), name: name.to_string() }).await?;
        // What they hold is refused everywhere, and what runs by it ends. First: when this fails, the user is still there to be removed again.
        self.revoke_all_of(&actor, &name).await?;
        let gone = Batch::new().delete(&key).delete(&key::of(key::FACTORS, &name)).delete(&crate::mfa::offer_of(&name));
        let gone = match record.invite {
            Some(mark) => {
                gone.delete(&key::of(key::INVITES, &mark.hash)).delete(&key::of(key::FACTOR_OFFERS, &mark.hash))
            }
            None => gone,
        };
        let gone = match &record.sso {
            Some(account) => gone.delete(&account.key()),
            None => gone,
        };
        self.records.commit(gone).await?;
        self.end_web_sessions(&actor, &name, None).await?;
        // From here on no certificate is issued to them; this is for a login that was under way.
        self.revoke_all_of(&actor, &name).await
    }

    pub(crate) async fn reset_user(&self, caller: &Caller, name: UserName) -> ApiResult<Invite> {
        let actor = self.admit(caller, "user", Verb::Update).await?;
        let _turn = self.changes.write().await;
        let key = key::of(key::USERS, &name);
        let found = self.records.read_at::<UserRecord>(&key).await?;
        let (record, revision) = found.ok_or_else(|| unknown(&name))?;
        refuse_password_of_account(&record)?;
        let (invite, mark) = self.draw_invite(name);
        self.record(invite_event(actor.clone(), &record.name, &mark)).await?;
        let changed = Batch::new().write(&key::of(key::INVITES, &mark.hash), &record.name, Some(mark.expires))?;
        let changed = match &record.invite {
            Some(old) => {
                changed.delete(&key::of(key::INVITES, &old.hash)).delete(&key::of(key::FACTOR_OFFERS, &old.hash))
            }
            None => changed,
        };
        // Who lost the password or the device begins anew.
        let changed = changed.delete(&key::of(key::FACTORS, &record.name)).delete(&crate::mfa::offer_of(&record.name));
        let record = UserRecord { password: None, invite: Some(mark), ..record };
        self.records.commit(changed.replace(&key, revision, &record)?).await?;
        self.end_web_sessions(&actor, &record.name, None).await?;
        Ok(self.with_proxy(invite).await)
    }

    pub(crate) async fn set_password(&self, caller: &Caller, name: UserName, password: Secret) -> ApiResult<()> {
        let actor = self.admit(caller, "user", Verb::Update).await?;
        let key = key::of(key::USERS, &name);
        let found = self.records.read_at::<UserRecord>(&key).await?;
        let (record, revision) = found.ok_or_else(|| unknown(&name))?;
        refuse_password_of_account(&record)?;
        let hash = self.hash_password(&name, password).await?;
        self.record(AuditKind::PasswordChange { user: name.to_string(), by: actor.clone() }).await?;
        self.replace_password(&key, revision, record, hash, Batch::new()).await?;
        self.end_web_sessions(&actor, &name, None).await
    }

    /// Sets a password of somebody who has shown the one until now.
    pub(crate) async fn replace_own_password(&self, name: &UserName, password: Secret) -> ApiResult<()> {
        let key = key::of(key::USERS, name);
        let hash = self.hash_password(name, password).await?;
        let found = self.records.read_at::<UserRecord>(&key).await?;
        let (record, revision) = found.ok_or_else(|| unknown(name))?;
        self.record(AuditKind::PasswordChange { user: name.to_string(), by: name.to_string() }).await?;
        self.replace_password(&key, revision, record, hash, Batch::new()).await
    }

    pub(crate) async fn invited_user(&self, caller: &Caller, token: &Secret) -> ApiResult<Invited> {
        self.count_link_use(caller)?;
        let (record, _) = self.invited(token).await?;
        self.link_was_right(caller);
        let totp = match &record.invite {
            Some(mark) => self.offer_with_link(&record.name, &mark.hash, mark.expires).await?,
            None => None,
        };
        Ok(Invited { user: record.name, second_factor: self.second_factor(), totp })
    }

    pub(crate) async fn sign_up(&self, caller: &Caller, request: SignUpRequest) -> ApiResult<SignedUp> {
        let SignUpRequest { token, password, code } = request;
        self.count_link_use(caller)?;
        let (record, revision) = self.invited(&token).await?;
        self.link_was_right(caller);
        let hash = self.hash_password(&record.name, password).await?;
        let factor = self.factor_at_sign_up(&record.name, &secret_hash::hash(&token), code.as_ref()).await?;
        self.finish_sign_up(record, revision, hash, factor).await
    }

    /// Offers a security key for the user of a link, where one can be set up.
    pub(crate) async fn offer_key_with_link(&self, link: &Secret, asker: Asker<'_>) -> ApiResult<BrowserView> {
        let (record, _) = self.invited(link).await?;
        if !self.second_factor().takes(FactorKind::Webauthn) {
            return Ok(BrowserView::Nothing);
        }
        let offered = self.offer_key(&record.name, asker, &purpose(link)).await?;
        Ok(offered
            .map_or(BrowserView::Nothing, |KeyQuestion { token, options }| BrowserView::KeyOffer { token, options }))
    }

    /// As [`Inner::sign_up`], with a security key as the factor.
    pub(crate) async fn sign_up_by_key(
        &self,
        caller: &Caller,
        link: Secret,
        password: Secret,
        ByKey { asker, token, answer, from }: ByKey<'_>,
    ) -> ApiResult<SignedUp> {
        self.count_link_use(caller)?;
        let (record, revision) = self.invited(&link).await?;
        self.link_was_right(caller);
        if !self.second_factor().takes(FactorKind::Webauthn) {
            return Err(bad_request("security keys do not count here; use an authenticator app"));
        }
        let ceremony = self.take_question(&token, asker, &purpose(&link), from.as_deref()).await?;
        let hash = self.hash_password(&record.name, password).await?;
        let registered = self.registered(&ceremony, &answer)?;
        let factor = self.key_at_sign_up(&record.name, registered).await?;
        let offer = key::of(key::FACTOR_OFFERS, secret_hash::hash(&link));
        let factor = (factor.0.delete(&offer), factor.1);
        self.finish_sign_up(record, revision, hash, factor).await
    }

    async fn finish_sign_up(
        &self,
        record: UserRecord,
        revision: remoteler_core::Revision,
        hash: String,
        (factor, recovery_codes): (Batch, Vec<Secret>),
    ) -> ApiResult<SignedUp> {
        let name = record.name.clone();
        self.record(AuditKind::PasswordChange { user: name.to_string(), by: name.to_string() }).await?;
        // Password and link change in one write, which only one of several users of the link can win.
        match self.replace_password(&key::of(key::USERS, &name), revision, record, hash, factor).await {
            Ok(()) => Ok(SignedUp { user: name, recovery_codes }),
            Err(cause) if cause.kind == remoteler_core::ApiErrorKind::Conflict => Err(not_found(LINK_GONE)),
            Err(cause) => Err(cause),
        }
    }

    async fn hash_password(&self, user: &UserName, password: Secret) -> ApiResult<String> {
        let about = [user.as_str(), self.cluster.as_str(), "remoteler"];
        Ok(self.passwords.hash(password, &about, self.entropy.as_ref()).await?)
    }

    async fn replace_password(
        &self,
        key: &str,
        revision: remoteler_core::Revision,
        record: UserRecord,
        hash: String,
        changed: Batch,
    ) -> ApiResult<()> {
        let changed = match &record.invite {
            Some(used) => changed.delete(&key::of(key::INVITES, &used.hash)),
            None => changed,
        };
        self.limits.login_user.clear(record.name.as_str());
        let record = UserRecord { password: Some(hash), invite: None, ..record };
        Ok(self.records.commit(changed.replace(key, revision, &record)?).await?)
    }

    /// The user a link is for, while it works.
    async fn invited(&self, token: &Secret) -> ApiResult<(UserRecord, remoteler_core::Revision)> {
        let hash = secret_hash::hash(token);
        let gone = || not_found(LINK_GONE);
        let name: UserName = self.records.read(&key::of(key::INVITES, &hash)).await?.ok_or_else(gone)?;
        let found = self.records.read_at::<UserRecord>(&key::of(key::USERS, &name)).await?;
        let (record, revision) = found.ok_or_else(gone)?;
        let now = self.clock.now();
        let works = record.invite.as_ref().is_some_and(|mark| mark.hash == hash && mark.expires > now);
        if works { Ok((record, revision)) } else { Err(gone()) }
    }

    fn count_link_use(&self, caller: &Caller) -> ApiResult<()> {
        let Some(source) = caller.source() else { return Ok(()) };
        if self.limits.login_address.attempt(&source.to_string(), self.clock.now()) {
            return Ok(());
        }
        Err(rate_limited("too many failed attempts from this address; wait five minutes"))
    }

    fn link_was_right(&self, caller: &Caller) {
        if let Some(source) = caller.source() {
            self.limits.login_address.succeeded(&source.to_string());
        }
    }

    fn draw_invite(&self, user: UserName) -> (Invite, InviteMark) {
        let token = secret_hash::draw(self.entropy.as_ref());
        let expires = self.clock.now().plus(INVITE_TTL);
        let mark = InviteMark { hash: secret_hash::hash(&token), expires };
        (Invite { user, token, proxy_addr: None, expires }, mark)
    }

    async fn with_proxy(&self, invite: Invite) -> Invite {
        Invite { proxy_addr: self.proxy_addr().await, ..invite }
    }

    fn check_user(&self, user: &NewUser) -> ApiResult<()> {
        let policy = self.policy.policy();
        check(user, |role| policy.roles.contains_key(role))
    }
}

/// A user holds a role at least, and roles that there are.
pub(crate) fn check(user: &NewUser, known: impl Fn(&RoleName) -> bool) -> ApiResult<()> {
    if user.roles.is_empty() {
        return Err(bad_request(format!("user {} has no role; give at least one, such as access", user.name)));
    }
    if let Some(role) = user.roles.iter().find(|role| !known(role)) {
        return Err(bad_request(format!("there is no role {role}; tctl get role lists the roles there are")));
    }
    check_traits(&user.traits)
}

pub(crate) fn check_traits(traits: &Traits) -> ApiResult<()> {
    let texts = || traits.iter().flat_map(|(name, values)| values.iter().chain([name]));
    if traits.len() > MAX_TRAITS || texts().map(String::len).sum::<usize>() > MAX_TRAITS_OCTETS {
        return Err(bad_request(format!(
            "a user has at most {MAX_TRAITS} traits of {MAX_TRAITS_OCTETS} octets in all"
        )));
    }
    if let Some(text) = texts().find(|text| text.len() > MAX_TRAIT_OCTETS || text.chars().any(char::is_control)) {
        let start: String = text.chars().take(40).collect();
        return Err(bad_request(format!(
            "trait {start:?} is refused: at most {MAX_TRAIT_OCTETS} octets without control characters are allowed"
        )));
    }
    for login in traits.get("logins").into_iter().flatten() {
        Login::new(login).map_err(|cause| bad_request(cause.to_string()))?;
    }
    Ok(())
}

/// For what a key is offered with a link.
fn purpose(link: &Secret) -> String {
    format!("sign-up {}", secret_hash::hash(link))
}

/// Who is vouched for by an identity provider logs in there (I39).
fn refuse_password_of_account(user: &UserRecord) -> ApiResult<()> {
    let Some(account) = &user.sso else { return Ok(()) };
    let (name, connector) = (&user.name, &account.connector);
    Err(conflict(format!("user {name} logs in by connector {connector} and has no password here")))
}

fn invite_event(actor: String, name: &UserName, mark: &InviteMark) -> AuditKind {
    AuditKind::InviteCreate { user: actor, name: name.to_string(), expires: mark.expires.to_string() }
}

pub(crate) fn texts(roles: &BTreeSet<RoleName>) -> Vec<String> {
    roles.iter().map(ToString::to_string).collect()
}

fn unknown(name: &UserName) -> remoteler_core::ApiError {
    not_found(format!("there is no user {name}; tctl users ls lists the users there are"))
}

pub(crate) fn exists(name: &UserName) -> remoteler_core::ApiError {
    conflict(format!("user {name} exists already"))
}
