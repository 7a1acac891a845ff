//! Web sessions: browsers whose users have logged in to the account page. Owns how long they last and what ends them; each request looks at the store, the
//! user and the locks anew, so that whatever ends a session ends it at every proxy with the next request (I50).

use std::time::Duration;

use remoteler_core::{AuditKind, LockContext, Secret, Timestamp, UserName, WebSession, fill_random};
use serde::{Deserialize, Serialize};

use crate::{
    failure::ApiResult,
    fresh_logins::FRESH,
    issue::user_identity,
    records::{Batch, key},
    secret_hash,
    service::Inner,
    sso::SsoMark,
    users::UserRecord,
};

/// A web session as stored, under the hash of its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WebSessionRecord {
    user: UserName,
    /// When the user was made: another one of the name is somebody else.
    user_created: Timestamp,
    #[serde(default)]
    sso: Option<SsoMark>,
    /// Names it, and is no credential.
    sid: String,
    agent: String,
    remote: Option<String>,
    begun: Timestamp,
    /// When a second factor was shown in it.
    #[serde(default)]
    proven: Option<Timestamp>,
    seen: Timestamp,
    expires: Timestamp,
}

/// A session that was shown and is good.
pub(crate) struct Shown {
    pub(crate) record: WebSessionRecord,
    pub(crate) user: UserRecord,
    /// Of its secret.
    pub(crate) hash: String,
}

/// A session ends then, however much it is used.
const ABSOLUTE: Duration = Duration::from_secs(8 * 3600);
/// And then, when it is not used.
const IDLE: Duration = Duration::from_secs(1800);
/// How exactly it is known when a session was used.
const SEEN: Duration = Duration::from_secs(60);
/// Sessions of one user; the oldest goes when there is another one.
const MAX_SESSIONS: usize = 20;

impl WebSessionRecord {
    /// Whether the login was a moment ago.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        self.begun.plus(FRESH) > now
    }

    /// Whether a second factor was shown in it a moment ago.
    pub(crate) fn is_proven(&self, now: Timestamp) -> bool {
        self.proven.is_some_and(|shown| shown.plus(FRESH) > now)
    }

    /// When it ends, however much it is used.
    pub(crate) const fn ends_at_last(&self) -> Timestamp {
        self.expires
    }

    fn ends(&self) -> Timestamp {
        self.expires.min(self.seen.plus(IDLE))
    }
}

impl Inner {
    /// A new session of a user who has just proved to be there; its id is new with each login.
    pub(crate) async fn open_web_session(
        &self,
        user: &UserRecord,
        agent: &str,
        remote: Option<String>,
    ) -> ApiResult<Secret> {
        let now = self.clock.now();
        let mut others = self.web_sessions_of(&user.name).await?;
        others.sort_by_key(|(_, record)| record.begun);
        for (hash, record) in others.iter().take((others.len() + 1).saturating_sub(MAX_SESSIONS)) {
            self.end_web_session(hash, record, user.name.as_str()).await?;
        }
        let secret = secret_hash::draw(self.entropy.as_ref());
        let octets: [u8; 8] = fill_random(self.entropy.as_ref());
        let record = WebSessionRecord {
            user: user.name.clone(),
            user_created: user.created,
            sso: user.sso.clone(),
            sid: octets.iter().map(|octet| format!("{octet:02x}")).collect(),
            agent: agent.to_owned(),
            remote,
            begun: now,
            proven: None,
            seen: now,
            expires: now.plus(ABSOLUTE),
        };
        let hash = secret_hash::hash(&secret);
        let batch = Batch::new().create(&pointer_key(&hash), &user.name, Some(record.expires))?;
        let batch = batch.create(&session_key(&user.name, &hash), &record, Some(record.ends()))?;
        self.records.commit(batch).await?;
        Ok(secret)
    }

    /// The session of this secret, if it is one, and its user is there and is let in.
    pub(crate) async fn web_session(&self, secret: Option<&Secret>) -> ApiResult<Option<Shown>> {
        let Some(secret) = secret.filter(|secret| secret_hash::is_drawn(secret.reveal())) else { return Ok(None) };
        self.web_session_of(secret_hash::hash(secret), true).await
    }

    /// The session whose secret has this hash: what was begun in it goes on with it, and its use, where it is `in_use`, is use of the session.
    pub(crate) async fn web_session_of(&self, hash: String, in_use: bool) -> ApiResult<Option<Shown>> {
        let Some(name) = self.records.read::<UserName>(&pointer_key(&hash)).await? else { return Ok(None) };
        let key = session_key(&name, &hash);
        let Some(mut record) = self.records.read::<WebSessionRecord>(&key).await? else { return Ok(None) };
        let now = self.clock.now();
        if record.ends() <= now {
            return Ok(None);
        }
        let user = self.records.read::<UserRecord>(&key::of(key::USERS, &name)).await?;
        let same = |user: &UserRecord| user.created == record.user_created && user.sso == record.sso;
        let Some(user) = user.filter(same) else {
            self.end_web_session(&hash, &record, "").await?;
            return Ok(None);
        };
        let roles = self.roles_of(&user)?;
        let identity = user_identity(&self.cluster, &user.name, &roles, &user.traits);
        if self.check_locks(&LockContext::of_identity(&identity)).is_err() {
            self.end_web_session(&hash, &record, "").await?;
            return Ok(None);
        }
        if let Some(account) = &user.sso
            && self.usable_connector(&account.connector).await.is_err()
        {
            self.end_web_session(&hash, &record, "").await?;
            return Ok(None);
        }
        if in_use && record.seen.plus(SEEN) <= now {
            // Never one that was ended meanwhile: it is replaced, not written.
            if let Some((stored, revision)) = self.records.read_at::<WebSessionRecord>(&key).await? {
                record = WebSessionRecord { seen: now, ..stored };
                let batch = Batch::new().replace_until(&key, revision, &record, record.ends())?;
                match self.records.commit(batch).await {
                    Ok(()) => {}
                    Err(cause) if cause.is_conflict() => {}
                    Err(cause) => return Err(cause.into()),
                }
            }
        }
        Ok(Some(Shown { record, user, hash }))
    }

    /// Keeps that a second factor was shown in this session.
    pub(crate) async fn keep_proven(&self, shown: &mut Shown) -> ApiResult<()> {
        let key = session_key(&shown.user.name, &shown.hash);
        // Never one that was ended meanwhile: it is replaced, not written.
        if let Some((stored, revision)) = self.records.read_at::<WebSessionRecord>(&key).await? {
            shown.record = WebSessionRecord { proven: Some(self.clock.now()), ..stored };
            let batch = Batch::new().replace_until(&key, revision, &shown.record, shown.record.ends())?;
            self.records.commit(batch).await?;
        }
        Ok(())
    }

    /// The sessions of a user, by the hashes of their secrets.
    async fn web_sessions_of(&self, user: &UserName) -> ApiResult<Vec<(String, WebSessionRecord)>> {
        let prefix = session_key(user, "");
        let found = self.records.list::<WebSessionRecord>(&prefix).await?;
        let now = self.clock.now();
        let good = found.into_iter().filter(|(_, record, _)| record.ends() > now);
        Ok(good.map(|(key, record, _)| (key.trim_start_matches(&prefix).to_owned(), record)).collect())
    }

    /// What a user sees of their sessions, the newest first.
    pub(crate) async fn shown_sessions(&self, shown: &Shown) -> ApiResult<Vec<WebSession>> {
        let mut sessions = self.web_sessions_of(&shown.user.name).await?;
        sessions.sort_by_key(|(_, record)| std::cmp::Reverse(record.begun));
        let sessions = sessions.into_iter().map(|(hash, record)| WebSession {
            current: hash == shown.hash,
            expires: record.ends(),
            id: record.sid,
            agent: record.agent,
            remote: record.remote,
            begun: record.begun,
            seen: record.seen,
        });
        Ok(sessions.collect())
    }

    /// Ends the session of this name of a user's own; whether it was the one that asks.
    pub(crate) async fn end_session_of(&self, shown: &Shown, sid: &str) -> ApiResult<bool> {
        let sessions = self.web_sessions_of(&shown.user.name).await?;
        // I52: among the user's own and nobody else's.
        for (hash, record) in sessions.iter().filter(|(_, record)| record.sid == sid) {
            self.end_web_session(hash, record, shown.user.name.as_str()).await?;
            if *hash == shown.hash {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ends the session of this secret, if it is one.
    pub(crate) async fn end_own_session(&self, secret: Option<&Secret>) -> ApiResult<()> {
        match self.web_session(secret).await? {
            Some(shown) => self.end_web_session(&shown.hash, &shown.record, shown.user.name.as_str()).await,
            None => Ok(()),
        }
    }

    /// Ends all sessions of a user, but for one.
    pub(crate) async fn end_web_sessions(&self, by: &str, user: &UserName, but: Option<&str>) -> ApiResult<()> {
        for (hash, record) in self.web_sessions_of(user).await? {
            if but != Some(hash.as_str()) {
                self.end_web_session(&hash, &record, by).await?;
            }
        }
        Ok(())
    }

    async fn end_web_session(&self, hash: &str, record: &WebSessionRecord, by: &str) -> ApiResult<()> {
        let gone = Batch::new().delete(&session_key(&record.user, hash)).delete(&pointer_key(hash));
        self.records.commit(gone).await?;
        let (user, by, sid) = (record.user.to_string(), by.to_owned(), record.sid.clone());
        self.record(AuditKind::WebSessionEnd { user, by, sid }).await
    }
}

fn pointer_key(hash: &str) -> String {
    key::of(key::WEB_SESSIONS, hash)
}

/// A user's name holds no `/`.
fn session_key(user: &UserName, hash: &str) -> String {
    key::of(key::USER_WEB_SESSIONS, format_args!("{user}/{hash}"))
}
