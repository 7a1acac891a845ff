//! Login through a browser: single sign-on by connectors, begun by `tsh`, carried through the proxy's pages, finished by the certificates that the
//! confirmed login grants. Owns the state of logins under way, which lies in the store, so that any proxy may answer; opens no connection
//! itself, asks no password, and believes nothing that a browser says of itself.

mod account;
mod begin;
mod conclude;
mod confirm;
mod connectors;
mod fetch;
mod github;
mod jws;
mod limits;
mod mapping;
mod oidc;
mod records;
mod redeem;
mod remembered;
mod round_trip;
#[cfg(feature = "saml")]
mod saml;
#[cfg(not(feature = "saml"))]
#[path = "sso/without_saml.rs"]
mod saml;
mod secrets;
mod steps;
mod stored;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) use account::SsoMark;
pub(crate) use conclude::Authenticated;
pub use fetch::{FetchError, Fetcher};
pub(crate) use records::{GONE, LoginRecord};

use self::limits::SsoLimits;

/// How people log in, besides by password. Which way is the default is a setting of the cluster, by file and document.
#[derive(Clone, Default)]
pub struct SsoConfig {
    /// Asks identity providers; without it nobody logs in through one.
    pub fetcher: Option<Arc<dyn Fetcher>>,
}

impl std::fmt::Debug for SsoConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SsoConfig").field("fetcher", &self.fetcher.is_some()).finish()
    }
}

/// What logins through browsers keep in memory: counters, and what providers published.
pub(crate) struct Sso {
    pub(crate) config: SsoConfig,
    providers: oidc::Providers,
    #[cfg(feature = "saml")]
    saml: saml::Providers,
    #[cfg(feature = "saml")]
    key_turns: saml::KeyTurns,
    limits: SsoLimits,
    /// Stored connectors that cannot be read, of which the log has been told.
    unread: Mutex<BTreeSet<String>>,
}

/// A login ends then, finished or not (I36).
const LOGIN_TTL: Duration = Duration::from_secs(600);
/// So long a confirmed login waits for its certificates to be fetched.
const GRANT_TTL: Duration = Duration::from_secs(120);
/// How long who polls is to wait between two questions.
const INTERVAL: Duration = Duration::from_secs(2);

impl Sso {
    pub(crate) fn new(config: SsoConfig) -> Self {
        Self {
            config,
            providers: oidc::Providers::default(),
            #[cfg(feature = "saml")]
            saml: saml::Providers::default(),
            #[cfg(feature = "saml")]
            key_turns: saml::KeyTurns::default(),
            limits: SsoLimits::default(),
            unread: Mutex::default(),
        }
    }
}
