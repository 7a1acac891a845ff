//! Dials that a proxy passes on: the agent has its links to other proxies of the cluster, so these are asked. Owns the asking, proxy to proxy.
//! Whoever is asked looks at its own links alone, so no dial goes further than one proxy beyond the first.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use remoteler_core::{HostId, SystemRole, Verified, X509Purpose, with_causes};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::connect::connect_tls;
use crate::dial::{DialCode, DialHeader, DialReply, read_dial_reply, write_dial};
use crate::listener::ALPN_SSH;
use crate::notice::{MAX_PROXIES, ProxyAddress};
use crate::router::DialError;
use crate::stream::BoxedStream;
use crate::tls::{ClientTls, verified_peer};

/// Reaches agents that have no link here.
///
/// Implementations: [`PeerProxies`] (the other proxies of the cluster), [`NoOthers`].
///
/// Implementations bound their own time to 5 s; a dropped future leaves nothing behind.
#[async_trait]
pub trait OtherProxies: Send + Sync {
    /// A stream to the header's target through another proxy; `None` when none of them has its agent.
    ///
    /// # Errors
    /// [`DialError::Passed`]: one has the agent, and says why there is no stream.
    async fn dial(&self, header: &DialHeader) -> Result<Option<BoxedStream>, DialError>;
}

/// This proxy is the only one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOthers;

#[async_trait]
impl OtherProxies for NoOthers {
    async fn dial(&self, _header: &DialHeader) -> Result<Option<BoxedStream>, DialError> {
        Ok(None)
    }
}

/// The other proxies of the cluster: all of them are asked at once, each under its host certificate and ours.
pub struct PeerProxies {
    own: HostId,
    proxies: watch::Receiver<Vec<ProxyAddress>>,
    tls: ClientTls,
    asking: Semaphore,
}

impl PeerProxies {
    /// `own` is the host of this proxy, `proxies` those that there are now, and `tls` what is shown to them and whom to believe.
    #[must_use]
    pub fn new(own: HostId, proxies: watch::Receiver<Vec<ProxyAddress>>, tls: ClientTls) -> Self {
        Self { own, proxies, tls, asking: Semaphore::new(MOST_ASKING) }
    }

    async fn ask(&self, proxy: &ProxyAddress, header: &DialHeader) -> Result<BoxedStream, Answer> {
        let config =
            self.tls.to_cluster(&[SystemRole::Proxy], ALPN_SSH).map_err(|cause| Answer::None(with_causes(&cause)))?;
        let mut stream = connect_tls(&proxy.addr, config).await.map_err(|cause| Answer::None(with_causes(&cause)))?;
        let shown = stream.get_ref().1.peer_certificates();
        let peer = verified_peer(shown, &*self.tls.trust, X509Purpose::Server, &*self.tls.clock);
        match peer.map_err(|cause| Answer::None(with_causes(&cause)))? {
            Verified::Host(host) if host.identity().id == proxy.id => {}
            Verified::Host(_) | Verified::User(_) => return Err(Answer::None("another proxy answers there".into())),
        }
        write_dial(&mut stream, header).await.map_err(|cause| Answer::None(with_causes(&cause)))?;
        match read_dial_reply(&mut stream).await.map_err(|cause| Answer::None(with_causes(&cause)))? {
            DialReply::Connected => Ok(Box::new(stream)),
            // It has no link of that agent, or is of a version that passes nothing on and denies it to hosts.
            DialReply::Refused { code: DialCode::NotFound | DialCode::Denied | DialCode::Unknown, message } => {
                Err(Answer::None(message))
            }
            DialReply::Refused {
                code:
                    code @ (DialCode::BadRequest
                    | DialCode::Unreachable
                    | DialCode::Timeout
                    | DialCode::Busy
                    | DialCode::Internal),
                message,
            } => Err(Answer::Refused(DialError::Passed {
                target: header.target.clone(),
                proxy: proxy.addr.clone(),
                code,
                message,
            })),
        }
    }
}

/// What a proxy that was asked has to say, if not a stream.
enum Answer {
    /// The agent is not there, or the proxy cannot be asked.
    None(String),
    /// The agent is there, and this is in the way.
    Refused(DialError),
}

#[async_trait]
impl OtherProxies for PeerProxies {
    async fn dial(&self, header: &DialHeader) -> Result<Option<BoxedStream>, DialError> {
        let others: Vec<ProxyAddress> =
            self.proxies.borrow().iter().filter(|proxy| proxy.id != self.own).take(MAX_PROXIES).cloned().collect();
        if others.is_empty() {
            return Ok(None);
        }
        let asked = async {
            // Closed by nobody; whoever is one too many waits for a turn, within the deadline.
            let Ok(_turn) = self.asking.acquire().await else { return Ok(None) };
            let mut asked: FuturesUnordered<_> =
                others.iter().map(|proxy| async move { (proxy, Box::pin(self.ask(proxy, header)).await) }).collect();
            let mut refused = None;
            while let Some((proxy, answer)) = asked.next().await {
                match answer {
                    Ok(stream) => return Ok(Some(stream)),
                    Err(Answer::None(reason)) => {
                        tracing::debug!(proxy = %proxy.addr, target = %header.target, reason, "not reached through that proxy");
                    }
                    Err(Answer::Refused(error)) => refused = Some(error),
                }
            }
            refused.map_or(Ok(None), Err)
        };
        timeout(DEADLINE, asked).await.unwrap_or(Ok(None))
    }
}

impl fmt::Debug for PeerProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerProxies").field("own", &self.own).finish_non_exhaustive()
    }
}

const DEADLINE: Duration = Duration::from_secs(5);
/// Dials that are asked about at once; each is a connection to every other proxy.
const MOST_ASKING: usize = 64;
