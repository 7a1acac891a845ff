//! Login through a browser: what `tsh` asks for and polls, and what the proxy passes on for a browser. Owns the form of these messages; decides nothing.

mod code;
mod loopback;
mod report;
mod steps;

pub use code::{draw_login_code, read_login_code};
pub use loopback::{LoopbackUrl, NotLoopback};
pub use report::{ConnectorReport, MappingOutcome};
use serde::{Deserialize, Serialize};
pub use steps::{BrowserAction, BrowserAnswer, BrowserStep, BrowserView, PageRefusal};

use crate::{ResourceKind, Secret, Timestamp};

/// `tsh` begins a login that a browser will finish.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginLogin {
    /// Connector wanted; absent: the cluster's, or the user's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// Where the browser brings the answer; absent: nowhere, it is polled for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<LoopbackUrl>,
    /// Public key to be certified for SSH, OpenSSH's one-line form.
    pub ssh_public_key: String,
    /// Public key to be certified for TLS: PEM of a SubjectPublicKeyInfo.
    pub tls_public_key: String,
    /// The key that the answer is sealed to: [`crate::AnswerKey::public`].
    pub answer_key: String,
    /// Life wanted, in seconds, at least [`crate::LEAST_LOGIN_TTL`]; absent: what the roles allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Name of the machine, for the page on which the login is confirmed.
    #[serde(default)]
    pub host: String,
    /// The client's address as the proxy saw it; only a proxy is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_addr: Option<String>,
}

/// A login that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginBegun {
    /// Part of the address that the browser opens.
    pub id: String,
    /// Shows later that it is the same client who asks.
    pub secret: Secret,
    /// To be compared with what the page shows, or typed there.
    pub code: String,
    /// The login must be finished by then.
    pub expires: Timestamp,
    /// How long to wait between two questions, in seconds.
    pub interval_seconds: u64,
}

/// How far a login is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginPoll {
    /// As begun.
    pub id: String,
    /// As begun.
    pub secret: Secret,
}

/// Answer to [`LoginPoll`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LoginProgress {
    /// Nobody has finished it yet.
    Pending,
    /// The question came too soon: wait longer.
    SlowDown,
    /// It was confirmed, and the sealed grant is here.
    Ready {
        /// Sealed with [`crate::seal_answer`].
        answer: String,
    },
    /// It will not be finished.
    Refused {
        /// Why, in one line.
        reason: String,
    },
    /// A test of a connector is over.
    Tested {
        /// What came out.
        report: ConnectorReport,
    },
}

/// Fetches what a confirmed login grants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedeemLogin {
    /// As begun.
    pub id: String,
    /// As begun.
    pub secret: Secret,
    /// What was in the sealed answer.
    pub grant: Secret,
    /// The client's address as the proxy saw it; only a proxy is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_addr: Option<String>,
}

/// Certificates, sealed with the key that follows the answer ([`crate::FollowKey`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCerts {
    /// JSON of [`crate::UserCerts`], sealed.
    pub sealed: String,
}

/// Ways to log in, for who has not yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginMethods {
    /// The cluster's `authentication.type`: `local`, `oidc`, `github` or `saml`.
    pub kind: String,
    /// The connector used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_connector: Option<String>,
    /// All that are enabled, in order of name.
    #[serde(default)]
    pub connectors: Vec<ConnectorChoice>,
}

/// A connector on the login page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorChoice {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: ResourceKind,
    /// What the page calls it.
    pub display: String,
}

/// The password form of the login page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalChoice {
    /// The form's token.
    pub token: Secret,
    /// User name filled in.
    #[serde(default)]
    pub user: String,
    /// Whether a one-time code may be needed.
    pub code: bool,
    /// What was wrong before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
