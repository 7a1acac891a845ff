//! Login through a browser: what `tsh` asks for and polls, and what the proxy passes on for a browser. Owns the form of these messages, the
//! one parser of a loopback address and the code that people compare; decides nothing.

use std::{collections::BTreeMap, fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    Account, AccountWish, Entropy, FactorAdded, OfferedTotp, ResourceKind, Secret, SignedUp, Timestamp, UserName,
};

/// `http://127.0.0.1:PORT/PATH` or `http://[::1]:PORT/PATH`: the only places that a login's answer is redirected to (I40, RFC 8252 section 7.3).
/// It is parsed by being written again: what does not come out the same is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LoopbackUrl {
    addr: SocketAddr,
    path: String,
}

/// Not a place on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("logins answer to http://127.0.0.1:PORT/ or http://[::1]:PORT/ only")]
pub struct NotLoopback;

impl LoopbackUrl {
    /// The URL of a listener at `addr`; `path` is of letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// [`NotLoopback`]
    pub fn new(addr: SocketAddr, path: &str) -> Result<Self, NotLoopback> {
        format!("http://{addr}/{path}").parse()
    }

    /// Its path, without the slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for LoopbackUrl {
    type Err = NotLoopback;

    fn from_str(text: &str) -> Result<Self, NotLoopback> {
        let (authority, path) =
            text.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or(NotLoopback)?;
        let addr: SocketAddr = authority.parse().map_err(|_| NotLoopback)?;
        let here = match addr {
            SocketAddr::V4(addr) => addr.ip() == &std::net::Ipv4Addr::LOCALHOST,
            SocketAddr::V6(addr) => addr.ip() == &std::net::Ipv6Addr::LOCALHOST && addr.scope_id() == 0,
        };
        let plain = path.len() <= 64 && path.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
        let url = Self { addr, path: path.to_owned() };
        if here && plain && addr.port() != 0 && url.to_string() == text { Ok(url) } else { Err(NotLoopback) }
    }
}

impl fmt::Display for LoopbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}/{}", self.addr, self.path)
    }
}

impl TryFrom<String> for LoopbackUrl {
    type Error = NotLoopback;

    fn try_from(text: String) -> Result<Self, NotLoopback> {
        text.parse()
    }
}

impl From<LoopbackUrl> for String {
    fn from(url: LoopbackUrl) -> Self {
        url.to_string()
    }
}

/// Letters of a code: no vowels, so that no words come about, and nothing that looks alike (RFC 8628 section 6.1).
const CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// A code that people compare or type, such as `BCDF-GHJK`: 34 bits, good for ten minutes and a few attempts.
#[must_use]
pub fn draw_login_code(entropy: &dyn Entropy) -> String {
    let mut code = String::with_capacity(9);
    while code.len() < 9 {
        let [octet]: [u8; 1] = crate::fill_random(entropy);
        // 240 is the largest multiple of 20 in an octet: what is above would make some letters likelier.
        if let Some(letter) = CODE_LETTERS.get(usize::from(octet % 20)).filter(|_| octet < 240) {
            code.push(char::from(*letter));
            if code.len() == 4 {
                code.push('-');
            }
        }
    }
    code
}

/// A code as it was typed, in its one form; `None` when it cannot be one.
#[must_use]
pub fn read_login_code(typed: &str) -> Option<String> {
    if typed.len() > 64 {
        return None;
    }
    let letters: String = typed.chars().filter(|c| !matches!(c, '-' | ' ')).collect::<String>().to_ascii_uppercase();
    let right = letters.len() == 8 && letters.bytes().all(|letter| CODE_LETTERS.contains(&letter));
    let (first, second) = letters.split_at_checked(4).filter(|_| right)?;
    Some(format!("{first}-{second}"))
}

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

/// What a test of a connector found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorReport {
    /// The name the user would have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Who it is at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Each claim with its values.
    #[serde(default)]
    pub claims: BTreeMap<String, Vec<String>>,
    /// Each mapping, in order.
    #[serde(default)]
    pub mappings: Vec<MappingOutcome>,
    /// Roles the user would have.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Why the login would be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What one mapping gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingOutcome {
    /// The mapping as it is written.
    pub mapping: String,
    /// The value that it matched; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<String>,
    /// Roles it gave.
    #[serde(default)]
    pub roles: Vec<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::OsEntropy;

    #[test]
    fn only_addresses_of_this_machine_are_answered_to() {
        // I40
        for right in ["http://127.0.0.1:1/", "http://127.0.0.1:65535/callback", "http://[::1]:8080/a-B_1"] {
            assert_eq!(right.parse::<LoopbackUrl>().unwrap().to_string(), right);
        }
        for wrong in [
            "https://127.0.0.1:1/",
            "http://127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:01/",
            "http://127.0.0.1:1",
            "http://127.0.0.2:1/",
            "http://127.1:1/",
            "http://0.0.0.0:1/",
            "http://localhost:1/",
            "http://user@127.0.0.1:1/",
            "http://127.0.0.1:1@evil.example/",
            "http://evil.example:1/",
            "http://127.0.0.1:1\\@evil.example/",
            "http:\\\\127.0.0.1:1/",
            "http:////127.0.0.1:1/",
            "http://127.0.0.1:1//evil.example",
            "http://127.0.0.1:1/a/b",
            "http://127.0.0.1:1/#f",
            "http://127.0.0.1:1/?q",
            "http://127.0.0.1:1/%0d",
            "http://127.0.0.1:1/\t",
            " http://127.0.0.1:1/",
            "HTTP://127.0.0.1:1/",
            "http://[::1%1]:1/",
            "http://[0:0:0:0:0:0:0:1]:1/",
            "http://[::ffff:127.0.0.1]:1/",
            "http://xn--127-0-0-1.example:1/",
            "http://127。0。0。1:1/",
            "javascript:alert(1)",
            "data:text/html,x",
            "",
        ] {
            assert_eq!(wrong.parse::<LoopbackUrl>(), Err(NotLoopback), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_for_a_loopback_address_leads_to_this_machine(text in "(http|https)://(127\\.0\\.0\\.1|\\[::1\\]|[a-z@\\\\.:\\[\\]0-9]{1,16})(:[0-9]{1,6})?[/\\\\?#@\t]{0,2}[a-z@:/.\\\\]{0,8}") {
            // I40
            if let Ok(url) = text.parse::<LoopbackUrl>() {
                let rest = text.strip_prefix("http://").unwrap();
                prop_assert!(rest.starts_with("127.0.0.1:") || rest.starts_with("[::1]:"), "{}", text);
                let uri: http_like::Parts = http_like::split(&text);
                prop_assert!(uri.authority.parse::<SocketAddr>().unwrap().ip().is_loopback());
                prop_assert_eq!(url.to_string(), text);
            }
        }
    }

    /// How a browser finds the authority: everything up to the first of `/ \ ? #`.
    mod http_like {
        pub(super) struct Parts<'a> {
            pub(super) authority: &'a str,
        }
        pub(super) fn split(text: &str) -> Parts<'_> {
            let rest = text.split_once("://").unwrap().1;
            Parts { authority: rest.split(['/', '\\', '?', '#']).next().unwrap() }
        }
    }

    #[test]
    fn a_code_is_read_however_it_is_typed_and_nothing_else_is_a_code() {
        let code = draw_login_code(&OsEntropy);
        assert_eq!(code.len(), 9);
        assert_eq!(read_login_code(&code).as_ref(), Some(&code));
        assert_eq!(read_login_code(&format!(" {} ", code.to_lowercase().replace('-', " "))), Some(code));
        for wrong in ["", "BCDF-GHJ", "BCDF-GHJA", "BCDF-GHJKL", "ÄÖÜß-GHJK", &"B".repeat(1000)] {
            assert_eq!(read_login_code(wrong), None, "{wrong}");
        }
    }
}
