//! One's own account as a browser sees and changes it: factors, web sessions, certificates, password. Values only; who may what is decided in the auth
//! service.

use serde::{Deserialize, Serialize};

use crate::{Factor, SecondFactor, Secret, Timestamp, UserName};

/// What somebody wants with their account.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case", deny_unknown_fields)]
pub enum AccountWish {
    /// To see it.
    Show,
    /// A web session, after a login.
    LogIn,
    /// That the web session ends.
    LogOut,
    /// A secret for an authenticator app.
    OfferTotp,
    /// That the app counts.
    AddTotp {
        /// Its name.
        name: String,
        /// A code of it.
        code: Secret,
    },
    /// To set up a security key.
    OfferKey,
    /// That the key counts.
    AddKey {
        /// Its name.
        name: String,
        /// Of the offer.
        token: Secret,
        /// What the key answered.
        answer: Secret,
    },
    /// That a factor counts no more.
    RemoveFactor {
        /// Its name.
        name: String,
    },
    /// That a web session ends.
    EndSession {
        /// As in [`WebSession`].
        id: String,
    },
    /// That certificates count no more.
    RevokeCertificates,
    /// Another password.
    ChangePassword {
        /// The one until now.
        password: Secret,
        /// The one to be.
        new_password: Secret,
    },
    /// To show a factor, by a code, so that others may be changed.
    ProveByCode {
        /// One-time code or recovery code.
        code: Secret,
    },
    /// To show one by touching a security key.
    AskKey,
    /// That the key answered.
    ProveByKey {
        /// Of the question.
        token: Secret,
        /// What the key answered.
        answer: Secret,
    },
}

/// What a user sees of their account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Who.
    pub user: UserName,
    /// Whether there is a password here; who logs in by an identity provider has none.
    pub has_password: bool,
    /// The identity provider's connector, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// Whether the login was a moment ago: changes of factors need that.
    pub fresh: bool,
    /// Whether one of the factors has to be shown before any is changed.
    #[serde(default)]
    pub proof_needed: bool,
    /// What the cluster wants.
    pub second_factor: SecondFactor,
    /// Whether a security key can be set up under the name of this page.
    pub keys_possible: bool,
    /// Second factors.
    pub factors: Vec<Factor>,
    /// Web sessions.
    pub sessions: Vec<WebSession>,
    /// Certificates that were issued and have not ended.
    pub certificates: Vec<OwnCertificate>,
}

/// A browser that is logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSession {
    /// Names it, and is no credential.
    pub id: String,
    /// Whether it is the one that asks.
    pub current: bool,
    /// What the browser says it is.
    pub agent: String,
    /// The address at its begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Since when.
    pub begun: Timestamp,
    /// When it was last used.
    pub seen: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// A certificate that a user holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCertificate {
    /// What it is known by, such as `user:tls:…`.
    pub name: String,
    /// When it ends.
    pub expires: Timestamp,
}
