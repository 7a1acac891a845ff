//! Logins under way as they are stored, each under the hash of its id, and the states that identity providers bring back. Owns their one-time
//! use: whoever takes one, nobody takes it again.

use remoteler_core::{ConnectorReport, LoopbackUrl, Resource, Revision, Secret, Timestamp};
use serde::{Deserialize, Serialize};

use super::{account::UserMark, conclude::Authenticated, limits::ALL};
use crate::{
    failure::{ApiResult, conflict, not_found},
    records::{Batch, RecordError, key},
    secret_hash,
    service::Inner,
};

/// A login under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoginRecord {
    pub(super) id: String,
    pub(super) asked: Asked,
    /// The connector that the client named.
    pub(super) connector: Option<String>,
    pub(super) code: String,
    /// Hash of the client's secret.
    pub(super) secret: String,
    /// Name of the client's machine, as it says.
    pub(super) host: String,
    /// The client's address.
    pub(super) remote: Option<String>,
    /// What the login counts for.
    pub(super) source: Option<String>,
    pub(super) expires: Timestamp,
    /// How often its page was opened: each time a state is kept.
    pub(super) opened: u8,
    /// Hash of the cookie of the one browser that may finish it.
    pub(super) browser: Option<String>,
    pub(super) stage: Stage,
    /// The user as it was when somebody was proven to be it; absent before, and for accounts that are made at the end.
    #[serde(default)]
    pub(super) proven: Option<UserMark>,
}

/// What is to come of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked {
    /// Certificates for these keys.
    Certificates { ssh: String, tls: String, answer_key: String, ttl: Option<u64>, redirect: Option<LoopbackUrl> },
    /// A report on this connector.
    Report(Box<Resource>),
    /// A web session of the browser.
    Account,
}

impl LoginRecord {
    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether a web session is to come of it, and nothing for a program.
    pub(crate) fn is_for_account(&self) -> bool {
        matches!(self.asked, Asked::Account)
    }
}

/// How far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// Begun; a browser may be at an identity provider for it.
    Open,
    /// The provider has said who it is; nobody has confirmed yet.
    Confirming(Authenticated),
    /// Confirmed: who shows the grant gets the certificates.
    Approved {
        who: Authenticated,
        /// Hash.
        grant: String,
        /// Key of the message with the certificates.
        follow: Secret,
        /// The sealed grant, where it is polled for.
        answer: Option<String>,
    },
    Refused(String),
    Tested(Box<ConnectorReport>),
}

/// What a state stands for: one request to one provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PendingState {
    /// Id of the login.
    pub(crate) login: String,
    /// The connector whose callback may bring it.
    pub(crate) connector: String,
    /// Hash of the cookie of the browser that was sent away.
    pub(crate) browser: String,
    /// Where the provider was told to send the browser back to.
    pub(crate) redirect_url: String,
    pub(crate) secrets: ProviderSecrets,
}

/// What the provider's answer must fit to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProviderSecrets {
    Oidc {
        nonce: Secret,
        verifier: Secret,
    },
    Github {
        verifier: Secret,
    },
    /// Id of the request.
    Saml {
        request: String,
    },
    /// A response was posted and believed; the browser comes back with its cookie, which it does not bring along when another site posts.
    SamlProven {
        who: Authenticated,
        report: Box<ConnectorReport>,
    },
}

pub(crate) const GONE: &str = "this login is unknown, was finished or has expired; start again with tsh login";

impl Inner {
    /// A login by its id.
    pub(crate) async fn login_at(&self, id: &str) -> ApiResult<(LoginRecord, Revision)> {
        let gone = || not_found(GONE);
        if id.len() > 64 {
            return Err(gone());
        }
        let found = self.records.read_at::<LoginRecord>(&login_key(id)).await?;
        let (record, revision) = found.ok_or_else(gone)?;
        if record.expires <= self.clock.now() { Err(gone()) } else { Ok((record, revision)) }
    }

    /// Stores a new one, and its code if it is typed somewhere.
    pub(super) async fn create_login(&self, record: &LoginRecord) -> ApiResult<()> {
        let batch = Batch::new().create(&login_key(&record.id), record, Some(record.expires))?;
        let code = secret_hash::hash(&Secret::new(&record.code));
        let batch = batch.create(&key::of(key::LOGIN_CODES, code), &record.id, Some(record.expires))?;
        self.records.commit(batch).await.map_err(|cause| match cause {
            conflict if RecordError::is_conflict(&conflict) => changed(),
            other => other.into(),
        })
    }

    /// The id of the login with this code.
    pub(super) async fn login_of_code(&self, code: &str) -> ApiResult<Option<String>> {
        let hash = secret_hash::hash(&Secret::new(code));
        Ok(self.records.read::<String>(&key::of(key::LOGIN_CODES, hash)).await?)
    }

    /// Writes the next stage, if nobody else has moved it on.
    pub(super) async fn move_login(&self, record: &LoginRecord, revision: Revision) -> ApiResult<()> {
        let batch = Batch::new().replace_until(&login_key(&record.id), revision, record, record.expires)?;
        match self.records.commit(batch).await {
            Ok(()) => Ok(()),
            Err(cause) if cause.is_conflict() => Err(changed()),
            Err(other) => Err(other.into()),
        }
    }

    /// Takes the login away: of several at once one gets `true`.
    pub(super) async fn end_login(&self, record: &LoginRecord) -> ApiResult<bool> {
        let code = secret_hash::hash(&Secret::new(&record.code));
        let taken = self.records.delete(&login_key(&record.id)).await?;
        self.records.delete(&key::of(key::LOGIN_CODES, code)).await?;
        if taken {
            if let Some(source) = &record.source {
                self.sso.limits.begun.succeeded(source);
            }
            self.sso.limits.all.succeeded(ALL);
        }
        Ok(taken)
    }

    /// Remembers a request to a provider; gives the state that it takes along.
    pub(crate) async fn remember_state(&self, pending: &PendingState) -> ApiResult<Secret> {
        let state = secret_hash::draw(self.entropy.as_ref());
        let expires = self.clock.now().plus(super::LOGIN_TTL);
        self.records.create(&state_key(&state), pending, Some(expires)).await?;
        Ok(state)
    }

    /// What a state stands for, once (I36): a state that is shown again, or to another at the same time, is unknown.
    pub(crate) async fn take_state(&self, state: &Secret) -> ApiResult<Option<PendingState>> {
        let key = state_key(state);
        let Some(pending) = self.records.read::<PendingState>(&key).await? else { return Ok(None) };
        Ok(self.records.delete(&key).await?.then_some(pending))
    }
}

fn login_key(id: &str) -> String {
    key::of(key::LOGINS, secret_hash::hash(&Secret::new(id)))
}

fn state_key(state: &Secret) -> String {
    key::of(key::LOGIN_STATES, secret_hash::hash(state))
}

fn changed() -> remoteler_core::ApiError {
    conflict("the login was moved on in another window; go back to that one, or start again with tsh login")
}
