//! How this machine reaches a service: TLS to the auth service (directly or through a proxy), TLS to a proxy's web API, or the
//! socket of the daemon on this machine. Owns whom to believe in each case. Speaks no HTTP.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use remoteler_core::{Clock, PolicySource, SystemClock, SystemRole, TrustBundle, wire, with_causes};
use remoteler_tunnel::{
    AuthCarrier, AuthLinks, BoxedStream, ClientTls, Code, ConnectError as TunnelError, FirstContact, PolicyTrust,
    SharedTlsIdentity, StreamError, TlsConfigError, TlsIdentity, TrustSource, Ways, tls_over,
};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::net::UnixStream;

/// Why a service cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("{addr} cannot be reached: {reason}")]
    Unreachable {
        /// `host:port`, or the path of a socket.
        addr: String,
        /// Why, in one line.
        reason: String,
    },
    /// Somebody answers, who is not believed or does not believe us.
    #[error("no TLS session with {addr}: {reason}")]
    Refused {
        /// `host:port`.
        addr: String,
        /// Why, in one line.
        reason: String,
    },
    /// It did not finish in time.
    #[error("{addr} did not finish the TLS handshake within {} s", .within.as_secs())]
    Timeout {
        /// `host:port`.
        addr: String,
        /// The deadline.
        within: Duration,
    },
    /// This machine has no root certificates.
    #[error("this machine has no root certificates ({reason}); install them, or name a file of them in SSL_CERT_FILE")]
    NoRoots {
        /// What was found.
        reason: String,
    },
    /// Our own identity cannot be used.
    #[error(transparent)]
    Config(#[from] TlsConfigError),
}

/// By what the auth service is believed.
#[derive(Clone)]
pub enum AuthTrust {
    /// A host with the role `auth`, by these authorities.
    Bundle(TrustBundle),
    /// The same, by the authorities of a view that is kept up to date.
    Policy(Arc<dyn PolicySource>),
    /// A host whose authority has one of these pins (`sha256:<64 hex>`); for joining.
    Pins(Vec<String>),
    /// Whoever answers (I15). Only by the user's explicit wish.
    Insecure,
}

impl fmt::Debug for AuthTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle(bundle) => write!(f, "Bundle({})", bundle.cluster),
            Self::Policy(_) => f.write_str("Policy"),
            Self::Pins(pins) => f.debug_tuple("Pins").field(pins).finish(),
            Self::Insecure => f.write_str("Insecure"),
        }
    }
}

impl AuthTrust {
    /// A configuration for a host that may act as one of `roles`, speaking `protocol`.
    pub(crate) fn config(
        self,
        identity: Option<Arc<SharedTlsIdentity>>,
        roles: &[SystemRole],
        protocol: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<ClientConfig>, TlsConfigError> {
        let trust: Arc<dyn TrustSource> = match self {
            Self::Bundle(bundle) => Arc::new(bundle),
            Self::Policy(source) => Arc::new(PolicyTrust(source)),
            Self::Pins(pins) => return FirstContact::Pinned(pins).client_config(clock, protocol),
            Self::Insecure => return FirstContact::Insecure.client_config(clock, protocol),
        };
        ClientTls { identity, trust, clock }.to_cluster(roles, protocol)
    }
}

/// By what a proxy's web certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebTrust {
    /// The root certificates of this machine (or of the file in `SSL_CERT_FILE`) and the name in the address.
    SystemRoots,
    /// Whatever is shown (I15). Only by the user's explicit wish: who is in the path sees the password.
    Insecure,
}

/// A way to one service.
pub(crate) enum Connector {
    /// TLS over TCP; the identity is what the configuration shows.
    Tls {
        addr: String,
        config: Arc<ClientConfig>,
        identity: Option<Arc<SharedTlsIdentity>>,
        hint: &'static str,
        ways: Ways,
    },
    /// TLS in a stream inside a link of this host's agent.
    Linked { addr: String, config: Arc<ClientConfig>, identity: Option<Arc<SharedTlsIdentity>>, links: LateLinks },
    /// A socket of this machine.
    Unix(PathBuf),
}

/// The links of this host's agent, which is started after the first calls to the auth service were made. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LateLinks(Arc<OnceLock<AuthLinks>>);

impl LateLinks {
    /// From now on there is an agent. Only the first one counts.
    pub fn lead_through(&self, links: AuthLinks) {
        let _first = self.0.set(links);
    }

    /// Whether a stream could be opened now.
    pub(crate) fn are_open(&self) -> bool {
        self.0.get().is_some_and(AuthLinks::is_open)
    }

    /// Whether every proxy to which there is a link takes such streams, and there is one.
    pub(crate) fn are_all(&self) -> bool {
        self.0.get().is_some_and(AuthLinks::are_all)
    }
}

/// A connection, and the link that carries it if one does.
pub(crate) struct Connected {
    pub(crate) stream: BoxedStream,
    pub(crate) carrier: Option<AuthCarrier>,
}

impl Connector {
    pub(crate) fn auth(
        addr: &str,
        identity: Option<Arc<SharedTlsIdentity>>,
        trust: AuthTrust,
    ) -> Result<Self, ConnectError> {
        Self::auth_by_clock(addr, identity, trust, Arc::new(SystemClock))
    }

    pub(crate) fn auth_by_clock(
        addr: &str,
        identity: Option<Arc<SharedTlsIdentity>>,
        trust: AuthTrust,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConnectError> {
        let config = trust.config(identity.clone(), &[SystemRole::Auth], wire::ALPN_AUTH, clock)?;
        Ok(Self::Tls { addr: addr.into(), config, identity, hint: "", ways: Ways::default() })
    }

    pub(crate) fn web(addr: &str, trust: WebTrust) -> Result<Self, ConnectError> {
        let config = match trust {
            WebTrust::SystemRoots => system_roots_config()?,
            WebTrust::Insecure => FirstContact::Insecure.client_config(Arc::new(SystemClock), HTTP)?,
        };
        let hint = match trust {
            WebTrust::SystemRoots => "; for a proxy with a certificate of its own making use --insecure",
            WebTrust::Insecure => "",
        };
        Ok(Self::Tls { addr: addr.into(), config, identity: None, hint, ways: Ways::default() })
    }

    /// The same, by other ways out of this network.
    pub(crate) fn by(self, other: &Ways) -> Self {
        match self {
            Self::Tls { addr, config, identity, hint, .. } => {
                Self::Tls { addr, config, identity, hint, ways: other.clone() }
            }
            other @ (Self::Linked { .. } | Self::Unix(_)) => other,
        }
    }

    /// The same through links, where it leads to an auth service elsewhere.
    pub(crate) fn through(&self, links: &LateLinks) -> Option<Self> {
        match self {
            Self::Tls { addr, config, identity, .. } => {
                let (addr, config, identity) = (addr.clone(), config.clone(), identity.clone());
                Some(Self::Linked { addr, config, identity, links: links.clone() })
            }
            Self::Linked { .. } | Self::Unix(_) => None,
        }
    }

    /// The ways out that it takes.
    pub(crate) fn ways(&self) -> Ways {
        match self {
            Self::Tls { ways, .. } => ways.clone(),
            Self::Linked { .. } | Self::Unix(_) => Ways::default(),
        }
    }

    /// What the service is called in messages.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Tls { addr, .. } | Self::Linked { addr, .. } => addr.clone(),
            Self::Unix(path) => path.display().to_string(),
        }
    }

    /// What goes into the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        match self {
            Self::Tls { addr, .. } | Self::Linked { addr, .. } => addr,
            Self::Unix(_) => "localhost",
        }
    }

    /// What a connection opened now shows of us.
    pub(crate) fn identity(&self) -> Option<TlsIdentity> {
        match self {
            Self::Tls { identity, .. } | Self::Linked { identity, .. } => {
                identity.as_ref().map(|identity| identity.current())
            }
            Self::Unix(_) => None,
        }
    }

    /// Connects: 10 s for TCP and for TLS each at the most.
    pub(crate) async fn connect(&self) -> Result<Connected, ConnectError> {
        match self {
            Self::Tls { addr, config, hint, ways, .. } => match ways.connect(addr, config.clone()).await {
                Ok(stream) => Ok(Connected { stream: Box::new(stream), carrier: None }),
                Err(error) => Err(failure(error, hint)),
            },
            Self::Linked { addr, config, links, .. } => {
                let reason = "there is no link that leads to the auth service".to_owned();
                let mut failed = ConnectError::Unreachable { addr: addr.clone(), reason };
                // The proxy of one may not reach the auth service, and that of another may.
                for _ in 0..LINKS_TRIED {
                    let Some(opened) = links.0.get().and_then(AuthLinks::open) else { break };
                    match tls_over(opened.stream, addr, config.clone()).await {
                        Ok(stream) => {
                            return Ok(Connected { stream: Box::new(stream), carrier: Some(opened.carrier) });
                        }
                        Err(error) => {
                            let busy = is_busy(&error);
                            failed = failure(error, "");
                            if busy {
                                break; // it leads there all the same
                            }
                            opened.carrier.leads_nowhere();
                        }
                    }
                }
                Err(failed)
            }
            Self::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Connected { stream: Box::new(stream), carrier: None }),
                Err(cause) => {
                    let reason = format!("{cause}; is the daemon running, and are you its user or root?");
                    Err(ConnectError::Unreachable { addr: path.display().to_string(), reason })
                }
            },
        }
    }
}

/// What a `host:port` turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An auth service itself.
    Auth,
    /// A proxy, through which the auth service and a reverse tunnel are reached.
    Proxy,
}

/// Finds out what answers at `addr`, by offering it the ALPN `remoteler-tunnel`: a proxy takes it and shows a host certificate with the
/// role `proxy`; an auth service knows no such protocol and refuses with the alert `no_application_protocol` (RFC 7301 section 3.2).
/// What answers is verified as `trust` says, and nothing is sent to it but the handshake.
///
/// # Errors
/// [`ConnectError`] when nobody answers or the one who does is not believed.
pub async fn probe(
    addr: &str,
    identity: Option<Arc<SharedTlsIdentity>>,
    trust: AuthTrust,
    clock: Arc<dyn Clock>,
) -> Result<Peer, ConnectError> {
    probe_by(addr, identity, trust, clock, &Ways::default()).await
}

/// As [`probe`], by `ways`.
///
/// # Errors
/// As [`probe`].
pub async fn probe_by(
    addr: &str,
    identity: Option<Arc<SharedTlsIdentity>>,
    trust: AuthTrust,
    clock: Arc<dyn Clock>,
    ways: &Ways,
) -> Result<Peer, ConnectError> {
    let config = trust.config(identity, &[SystemRole::Proxy], remoteler_tunnel::ALPN_TUNNEL, clock)?;
    match ways.connect(addr, config).await {
        Ok(stream) => Ok(match stream.get_ref().1.alpn_protocol() {
            Some(_) => Peer::Proxy,
            None => Peer::Auth,
        }),
        Err(TunnelError::Handshake { source, .. }) if is_unknown_protocol(&source) => Ok(Peer::Auth),
        Err(error) => Err(failure(error, "")),
    }
}

fn is_busy(error: &TunnelError) -> bool {
    let TunnelError::Handshake { source, .. } = error else { return false };
    let rejected = source.get_ref().and_then(|inner| inner.downcast_ref::<StreamError>());
    rejected.is_some_and(|error| matches!(error, StreamError::Rejected { code, .. } if *code == Code::Busy.number()))
}

fn is_unknown_protocol(cause: &io::Error) -> bool {
    cause
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)))
}

/// What of a failed connection is said here: of who is not reached the innermost reason, since the outer ones name the address again.
pub(crate) fn failure(error: TunnelError, hint: &str) -> ConnectError {
    match error {
        TunnelError::Handshake { address, reason, .. } => {
            ConnectError::Refused { addr: address, reason: format!("{reason}{hint}") }
        }
        TunnelError::Timeout { address, within } => ConnectError::Timeout { addr: address, within },
        TunnelError::Resolve { ref address, .. }
        | TunnelError::Inward { ref address, .. }
        | TunnelError::Connect { ref address, .. } => {
            ConnectError::Unreachable { addr: address.clone(), reason: innermost(&error) }
        }
        TunnelError::HttpProxy { address, proxy, reason } => ConnectError::Unreachable {
            addr: address,
            reason: format!("the HTTP proxy {proxy} does not lead there: {reason}"),
        },
        TunnelError::WebSocket { address, reason } => {
            ConnectError::Unreachable { addr: address, reason: format!("no connection over WebSocket: {reason}") }
        }
        // A reason of a later version.
        other => ConnectError::Unreachable { addr: String::new(), reason: with_causes(&other) },
    }
}

fn system_roots_config() -> Result<Arc<ClientConfig>, ConnectError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let reason = loaded.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
        return Err(ConnectError::NoRoots { reason });
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsConfigError::from)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP.as_bytes().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// How many links one call tries.
const LINKS_TRIED: usize = 2;
/// ALPN of the web API (RFC 7301 section 6).
const HTTP: &str = "http/1.1";

fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), with_causes)
}
