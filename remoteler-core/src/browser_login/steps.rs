//! What a browser does in a login, and what it is shown: the messages between a proxy and the auth service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConnectorChoice, LocalChoice, LoopbackUrl};
use crate::{Account, AccountWish, FactorAdded, OfferedTotp, Secret, SignedUp, UserName};

/// What a browser does, as the proxy saw it. `browser` is the value of its cookie, if it has one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrowserStep {
    /// What.
    pub step: BrowserAction,
    /// Value of the browser's cookie for logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<Secret>,
    /// `https://` and the name and port under which the browser reached the proxy.
    pub origin: String,
    /// The browser's address as the proxy saw it; only a proxy is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_addr: Option<String>,
}

/// Steps of a browser in a login.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum BrowserAction {
    /// Opens the address of a login.
    Open {
        /// The login.
        id: String,
        /// The connector that was chosen on its page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connector: Option<String>,
    },
    /// Proves a local user by password, and by a code where that is needed.
    Password {
        /// The login.
        id: String,
        /// The form's token.
        token: Secret,
        /// As typed.
        user: String,
        /// As typed.
        password: Secret,
        /// As typed, if anything was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Secret>,
    },
    /// Types a code on another machine.
    EnterCode {
        /// As typed.
        code: String,
    },
    /// Comes back from the identity provider.
    Callback {
        /// In the path.
        connector: String,
        /// In the query or the form.
        params: BTreeMap<String, String>,
    },
    /// Looks at what is to be confirmed.
    Review {
        /// The login.
        id: String,
    },
    /// Confirms or declines.
    Decide {
        /// The login.
        id: String,
        /// The form's token.
        token: Secret,
        /// Whether it is confirmed.
        approve: bool,
    },
    /// Asks for what an identity provider of SAML needs to know of us.
    SamlMetadata {
        /// The connector.
        connector: String,
    },
    /// Proves a local user by a security key, or by a code instead, after the password.
    Key {
        /// The login.
        id: String,
        /// What was asked ([`BrowserView::Touch`]).
        token: Secret,
        /// What the key answered: JSON of a `PublicKeyCredential` (WebAuthn Level 2).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Secret>,
        /// As typed, if anything was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Secret>,
    },
    /// Asks whether a security key can be set up with a sign-up link, here.
    OfferKey {
        /// Of the link.
        invite: Secret,
    },
    /// Signs up with a security key.
    SignUpByKey {
        /// Of the link.
        invite: Secret,
        /// The password to be.
        password: Secret,
        /// What was offered ([`BrowserView::KeyOffer`]).
        token: Secret,
        /// What the key answered.
        answer: Secret,
    },
    /// Sees or changes what is one's own.
    Account {
        /// Value of the cookie of the web session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<Secret>,
        /// What the browser says it is.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        agent: String,
        /// What.
        wish: AccountWish,
    },
    /// Was refused by the proxy before it came to a step: nothing is done but that it is on record.
    Refused {
        /// Why.
        because: PageRefusal,
    },
    /// Asks where the login at an identity provider ends.
    Logout {
        /// The connector.
        connector: String,
    },
    /// Wants to go to a web application.
    LaunchApp {
        /// Its name.
        app: String,
        /// [`crate::app_state_hash`] of the state cookie that the browser has there.
        state: String,
        /// Where it wants to go there.
        path: String,
        /// Value of the cookie of the web session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<Secret>,
        /// As typed, where a session there needs a second factor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Secret>,
        /// What was asked ([`BrowserView::AppFactor`]), where a key answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Secret>,
        /// What the key answered: JSON of a `PublicKeyCredential` (WebAuthn Level 2).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Secret>,
    },
    /// Opens the page on which a security key is touched for one session.
    OpenSession {
        /// The session.
        id: String,
    },
    /// Shows a security key for one session.
    TouchSession {
        /// The session.
        id: String,
        /// What was asked ([`BrowserView::SessionTouch`]).
        token: Secret,
        /// What the key answered: JSON of a `PublicKeyCredential` (WebAuthn Level 2).
        answer: Secret,
    },
}

/// Why a proxy shows a browser no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageRefusal {
    /// It was asked under a name that is not the proxy's.
    ForgedHost,
    /// A form was sent from another site, or is not the one that was shown to this browser.
    ForeignForm,
    /// The page was to be shown within one of another site.
    Framed,
    /// The answer of a login was to go elsewhere than to the client's own machine.
    ForeignRedirect,
}

impl PageRefusal {
    /// For the audit log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ForgedHost => "a page was asked for under a name that is not the proxy's",
            Self::ForeignForm => "a form came from another site, or was not the one that was shown to this browser",
            Self::Framed => "a page was to be shown within a page of another site",
            Self::ForeignRedirect => "the answer of a login was to go elsewhere than to the client's own machine",
        }
    }
}

/// What the browser is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrowserAnswer {
    /// What.
    pub view: BrowserView,
    /// A new value for the browser's cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_browser: Option<Secret>,
}

/// Views of a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "view", rename_all = "snake_case")]
pub enum BrowserView {
    /// Goes to the identity provider, or to another page of ours.
    Redirect {
        /// An `https` URL, or a path of ours.
        to: String,
    },
    /// Chooses among connectors.
    Choose {
        /// The login.
        id: String,
        /// The connectors.
        connectors: Vec<ConnectorChoice>,
        /// The form for users with a password, where it is shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        local: Option<LocalChoice>,
        /// Whether it is a login to the account page, and not of a program.
        #[serde(default)]
        account: bool,
    },
    /// Asks whether it is the user's own login.
    Confirm {
        /// The login.
        id: String,
        /// Who.
        user: UserName,
        /// Name of the machine that asks, as it says.
        host: String,
        /// Its address.
        address: String,
        /// The code that `tsh` shows.
        code: String,
        /// The form's token.
        token: Secret,
    },
    /// Confirmed or declined: the browser brings the answer to the listener of `tsh`.
    Deliver {
        /// Where.
        redirect: LoopbackUrl,
        /// The sealed grant, or what went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<String>,
    },
    /// It is over; the tab may be closed.
    Finished {
        /// Whether it was a success.
        success: bool,
        /// What to say.
        message: String,
    },
    /// Our metadata for an identity provider of SAML.
    SamlMetadata {
        /// XML.
        document: String,
    },
    /// The password was right: a security key is asked for. On the account page too, to be shown before others are changed.
    Touch {
        /// The login; empty on the account page.
        id: String,
        /// Stands for the question; its answer brings it back, once.
        token: Secret,
        /// JSON of a `CredentialRequestOptions` (WebAuthn Level 2), binary values in base64url.
        options: String,
        /// Whether a code may be typed instead.
        code: bool,
        /// What was wrong before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A security key can be set up.
    KeyOffer {
        /// Stands for the offer; the answer brings it back, once.
        token: Secret,
        /// JSON of a `CredentialCreationOptions`, binary values in base64url.
        options: String,
    },
    /// There is nothing to be shown.
    Nothing,
    /// An account was set up.
    SignedUp(SignedUp),
    /// The browser has a web session now.
    SessionBegun {
        /// For its cookie.
        session: Secret,
    },
    /// There is no web session: one has to be begun.
    NoSession,
    /// What one's own is.
    Account(Box<Account>),
    /// An authenticator app can be set up.
    TotpOffer(OfferedTotp),
    /// A factor was added; its recovery codes are shown once.
    Codes(FactorAdded),
    /// Posts a form to the identity provider (SAML 2.0 Bindings section 3.5).
    Submit {
        /// An `https` URL.
        to: String,
        /// Its fields, all hidden.
        fields: BTreeMap<String, String>,
    },
    /// Goes back to a web application with a code that begins a session there, once and within a minute.
    AppLaunched {
        /// `https://` and the name and port of the application.
        origin: String,
        /// The code.
        code: Secret,
    },
    /// Asks for a second factor for a session with a web application (I49).
    AppFactor {
        /// The application.
        app: String,
        /// Its origin.
        origin: String,
        /// Who.
        user: UserName,
        /// Whether a code may be typed.
        codes: bool,
        /// Stands for the question to a security key; its answer brings it back, once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Secret>,
        /// JSON of a `CredentialRequestOptions` (WebAuthn Level 2), binary values in base64url.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        options: Option<String>,
        /// What was wrong before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Shows who begins which session, and asks for a security key (I49).
    SessionTouch {
        /// The session.
        id: String,
        /// Who.
        user: UserName,
        /// Name of the node or Kubernetes cluster.
        place: String,
        /// As which account, on nodes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login: Option<String>,
        /// From where, as far as it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// The code that the terminal shows.
        code: String,
        /// Stands for the question; its answer brings it back, once.
        token: Secret,
        /// JSON of a `CredentialRequestOptions` (WebAuthn Level 2), binary values in base64url.
        options: String,
        /// What was wrong before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}
