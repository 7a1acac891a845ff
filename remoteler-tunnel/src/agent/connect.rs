//! One connection of an agent: reaches a proxy, proves who we are, registers. Owns nothing that lasts.

use remoteler_core::{HostId, SystemRole, Verified, X509Purpose};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::{AgentConfig, AgentError, SETUP_DEADLINE};
use crate::connection::{Link, MuxStream};
use crate::dial::{DialHeaderError, DialReply, read_registration_reply, write_message};
use crate::listener::ALPN_TUNNEL;
use crate::mux::Side;
use crate::registration::{MAX_REGISTRATION_LEN, Offer, REGISTRATION_METADATA, Registration};
use crate::resume::{EXPORT_KEYS, ResumeKeys};
use crate::stream::BoxedStream;
use crate::tls::{ExportsKeys, PeerError, verified_peer};

/// A link over which the agent can be dialled.
pub(super) struct Registered {
    pub(super) link: Link,
    /// The registration holds as long as this is open.
    pub(super) control: MuxStream,
    pub(super) proxy: HostId,
    /// Whether the proxy takes streams to the auth service.
    pub(super) auth: bool,
    /// With which it is taken up on another connection; `None` when it ends with its own.
    pub(super) keys: Option<ResumeKeys>,
}

/// Connects, and registers if `wanted` says so of the proxy that was reached.
pub(super) async fn connect(
    config: &AgentConfig,
    address: &str,
    wanted: impl FnOnce(HostId) -> bool,
) -> Result<Registered, AgentError> {
    timeout(SETUP_DEADLINE, async {
        let (stream, proxy) = connect_proxy(config, address).await?;
        if !wanted(proxy) {
            return Err(AgentError::Linked { proxy });
        }
        let keys = stream.export(EXPORT_KEYS).map(|exported| ResumeKeys::new(&exported));
        let link = match keys {
            Some(_) => Link::start_resumable(stream, Side::Client, config.limits, config.replay.clone()),
            None => Link::start(stream, Side::Client, config.limits),
        };
        let (control, auth) = register(&link, &config.offer).await?;
        Ok(Registered { link, control, proxy, auth, keys })
    })
    .await
    .unwrap_or(Err(AgentError::Timeout))
}

/// A TLS session with a proxy, in which both have proved who they are.
pub(super) async fn connect_proxy(
    config: &AgentConfig,
    address: &str,
) -> Result<(Box<TlsStream<BoxedStream>>, HostId), AgentError> {
    let tls = config.tls.to_cluster(&[SystemRole::Proxy], ALPN_TUNNEL)?;
    let stream = Box::new(config.ways.connect(address, tls).await?);
    let shown = stream.get_ref().1.peer_certificates();
    match verified_peer(shown, &*config.tls.trust, X509Purpose::Server, &*config.tls.clock)? {
        Verified::Host(host) => Ok((stream, host.identity().id)),
        Verified::User(_) => Err(PeerError::Anonymous.into()),
    }
}

async fn register(link: &Link, offer: &Offer) -> Result<(MuxStream, bool), AgentError> {
    link.ready().await?;
    let mut control = link.open(REGISTRATION_METADATA)?;
    let message = serde_json::to_vec(&Registration::new(offer.clone()))
        .map_err(|cause| DialHeaderError::Malformed(cause.to_string()))?;
    write_message(&mut control, &message, MAX_REGISTRATION_LEN).await?;
    match read_registration_reply(&mut control).await? {
        (DialReply::Connected, auth) => Ok((control, auth)),
        (DialReply::Refused { message, .. }, _) => Err(AgentError::Refused { message }),
    }
}
