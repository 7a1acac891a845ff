//! Web applications: what services announce of them, under which address browsers reach them, and what passes between proxy, service and auth service
//! in their sessions. Values only; who may use one is decided in `access`, what a session is in the auth service.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::{
    AppName, ClusterName, Heartbeat, HostId, Labels, Policy, Secret, SessionId, Timestamp, UserIdentity, UserName,
    Visibility,
};

/// A web application behind one of our services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// The host of the service.
    pub host_id: HostId,
    /// What it is called.
    pub name: AppName,
    /// `host` or `host:port` under which browsers reach it, at the proxy; absent: its name in front of the proxy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_addr: Option<String>,
    /// What roles match against.
    #[serde(default)]
    pub labels: Labels,
    /// Version of the program.
    pub version: String,
    /// `host:port` where the proxy reaches the service; absent: in the proxy's own process or through the reverse tunnel of `host_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// When it was last heard of; set by the auth service.
    pub last_seen: Timestamp,
    /// How often it says that it is there.
    #[serde(rename = "heartbeat_seconds", default, skip_serializing_if = "Heartbeat::is_default")]
    pub heartbeat: Heartbeat,
}

impl AppRecord {
    /// Whether `user` may know of it.
    #[must_use]
    pub fn visible_to(&self, user: &UserIdentity, policy: &Policy) -> bool {
        Visibility::of(user, policy).app(self)
    }

    /// Where browsers reach it at the proxy whose public address is `proxy` (`host:port`); `None` when neither that nor its own is an address.
    #[must_use]
    pub fn address(&self, proxy: &str) -> Option<AppAddress> {
        let of_proxy = AppAddress::parse(proxy);
        let port = of_proxy.as_ref().and_then(|address| address.port);
        let named = match &self.public_addr {
            Some(own) => AppAddress::parse(own)?,
            None => AppAddress::parse(&format!("{}.{}", self.name, of_proxy?.host))?,
        };
        Some(AppAddress { port: named.port.or(port), ..named })
    }
}

/// A DNS name in lower case and, where it is said, a port: where browsers reach an application or a proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppAddress {
    host: String,
    port: Option<u16>,
}

impl AppAddress {
    /// Of an application that browsers reach nowhere, below [`ClusterName::app_suffix`]. `None` when that is no name.
    #[must_use]
    pub fn within(cluster: &ClusterName, app: &AppName) -> Option<Self> {
        Self::parse(&format!("{app}.{}", cluster.app_suffix()))
    }

    /// Whether it is below that suffix: what an application announces as its own is not.
    #[must_use]
    pub fn is_within(&self, cluster: &ClusterName) -> bool {
        let above = self.host.strip_suffix(&cluster.app_suffix());
        above.is_some_and(|above| above.ends_with('.'))
    }

    /// Reads `host` or `host:port`. A number for a host is none, for its cookies and certificates are others.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
            None => (text, None),
        };
        let label = |label: &str| {
            let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(fits)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last_is_a_name =
            host.rsplit('.').next().is_some_and(|last| last.bytes().any(|octet| octet.is_ascii_alphabetic()));
        let host = host.to_ascii_lowercase();
        (host.len() <= 253 && last_is_a_name && host.split('.').all(label)).then_some(Self { host, port })
    }

    /// The name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; that of HTTPS where none is said.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(443)
    }

    /// `https://host`, with the port where it is not that of HTTPS: the origin, and the audience of the application's tokens.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("https://{self}")
    }
}

impl fmt::Display for AppAddress {
    /// As a browser writes it into `Host`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port() {
            443 => f.write_str(&self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

/// What stands in the address of [`crate::wire::WEB_LAUNCH`] for the value of the browser's state cookie: 64 hex digits of its SHA-256.
#[must_use]
pub fn app_state_hash(state: &Secret) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, state.reveal().as_bytes());
    digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Turns the one-time code of a launch into a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppCodeRequest {
    /// The code.
    pub code: Secret,
    /// Value of the browser's state cookie. Absent: it has none, and the code is burnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Secret>,
    /// Where the browser brought it.
    pub app: AppName,
}

/// A session with a web application has begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppSessionOpened {
    /// For the cookie at the application's own address.
    pub secret: Secret,
    /// When it ends at the latest.
    pub expires: Timestamp,
    /// Path and query at the application that the browser wanted; begins with one `/`.
    pub path: String,
}

/// Asks whether a session goes on and, with a key, for a certificate in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppCertificateRequest {
    /// Value of the session's cookie.
    pub secret: Secret,
    /// Where it was shown: it counts there alone.
    pub app: AppName,
    /// The proxy's own key: PEM of a SubjectPublicKeyInfo. Absent: the session is looked at, and nothing is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_public_key: Option<String>,
    /// Whether the user did something in it since it was asked for last: that is use of the login too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_use: bool,
}

/// A session that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppCertified {
    /// For the key that was given: PEM of an X.509 certificate of the user, for this application alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// When that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<Timestamp>,
    /// The session's name in the audit log. No credential.
    pub session: SessionId,
    /// Whose.
    pub user: UserName,
    /// When the session ends at the latest.
    pub expires: Timestamp,
}

/// Sessions that are asked for at once, at most.
pub const MAX_APP_SESSIONS_ASKED: usize = 1000;

/// Asks which sessions with the service's applications have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSessionsRequest {
    /// Their names, from the certificates that were shown; at most [`MAX_APP_SESSIONS_ASKED`].
    pub sessions: Vec<SessionId>,
}

/// Those of the sessions that were asked for which have ended, with whatever is none of the service's applications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSessionsEnded {
    /// Their names.
    pub ended: Vec<SessionId>,
}

/// Asks for an identity token for whoever showed a certificate at an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppTokenRequest {
    /// Where.
    pub app: AppName,
    /// The certificates that were shown, the leaf first: base64 of DER, as in `x5c` of RFC 7515 section 4.1.6.
    pub chain: Vec<String>,
}

impl AppTokenRequest {
    /// For the holder of `chain` at `app`.
    #[must_use]
    pub fn new(app: AppName, chain: &[CertificateDer<'_>]) -> Self {
        Self { app, chain: chain.iter().map(|certificate| STANDARD.encode(certificate)).collect() }
    }

    /// The certificates; `None` when one of them is not base64.
    #[must_use]
    pub fn certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.chain.iter().map(|text| STANDARD.decode(text).ok().map(CertificateDer::from)).collect()
    }
}

/// An identity token (RFC 7519), its audience the application's address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppToken {
    /// The token.
    pub token: Secret,
    /// When it ends.
    pub expires: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(public_addr: Option<&str>) -> AppRecord {
        AppRecord {
            host_id: "0190d7a4-6ba1-7000-8000-000000000001".parse().unwrap(),
            name: AppName::new("billing").unwrap(),
            public_addr: public_addr.map(str::to_owned),
            labels: Labels::new(),
            version: "1".into(),
            addr: None,
            last_seen: Timestamp::from_unix_seconds(0),
            heartbeat: Heartbeat::default(),
        }
    }

    #[test]
    fn an_application_is_reached_under_its_own_address_or_its_name_before_the_proxys() {
        let at = |own, proxy| record(own).address(proxy).map(|address| address.origin());
        assert_eq!(at(None, "proxy.example.com:443").as_deref(), Some("https://billing.proxy.example.com"));
        assert_eq!(at(None, "proxy.example.com:3080").as_deref(), Some("https://billing.proxy.example.com:3080"));
        assert_eq!(
            at(Some("money.example.com"), "p.example.com:3080").as_deref(),
            Some("https://money.example.com:3080")
        );
        assert_eq!(at(Some("money.example.com:443"), "p:3080").as_deref(), Some("https://money.example.com"));
        assert_eq!(at(None, "127.0.0.1:3080"), None);
        assert_eq!(at(Some("money.example.com"), "127.0.0.1:3080").as_deref(), Some("https://money.example.com"));
    }

    #[test]
    fn what_is_no_plain_name_of_a_host_is_no_address() {
        for bad in [
            "",
            ":443",
            "a b",
            "a..b",
            "-a.b",
            "[::1]:443",
            "10.0.0.1",
            "a.b:0",
            "a.b:70000",
            "a.b/c",
            "u@a.b",
            "a_b.c",
        ] {
            assert_eq!(AppAddress::parse(bad), None, "{bad:?}");
        }
        assert_eq!(AppAddress::parse("Money.Example.com").unwrap().host(), "money.example.com");
    }

    #[test]
    fn an_application_that_browsers_reach_nowhere_has_a_name_that_is_announced_by_none() {
        let cluster: ClusterName = "root.example.com".parse().unwrap();
        let within = AppAddress::within(&cluster, &AppName::new("billing").unwrap()).unwrap();
        assert_eq!(within.origin(), "https://billing.app.root.example.com");
        let is_within = |host: &str| AppAddress::parse(host).unwrap().is_within(&cluster);
        assert!(within.is_within(&cluster) && is_within("a.b.APP.root.example.com:8443"));
        assert!(!is_within("billing.root.example.com") && !is_within("myapp.root.example.com"));
    }

    #[test]
    fn a_chain_is_read_back_as_it_was_shown() {
        let chain = [CertificateDer::from(vec![1, 2, 3]), CertificateDer::from(vec![4])];
        let request = AppTokenRequest::new(AppName::new("billing").unwrap(), &chain);
        assert_eq!(request.certificates().unwrap(), chain);
        assert_eq!(AppTokenRequest { chain: vec!["?".into()], ..request }.certificates(), None);
    }
}
