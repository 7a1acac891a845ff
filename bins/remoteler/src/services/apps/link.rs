//! The way from a browser's connection to an app's service: TLS with the certificate of the session, then HTTP/1.1. Owns the connections that one browser's
//! connection keeps open; each is of one session.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1, http1::SendRequest},
};
use hyper_util::rt::TokioIo;
use remoteler_core::{AppName, SystemRole, Timestamp, Verified, X509Purpose};
use remoteler_tunnel::{ClientTls, DialHeader, SharedTlsIdentity, Target, TargetKind, TargetName, verified_peer};
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::{AppDoor, answer::Body, session::Session};

/// To the service, TLS included.
const DIAL: Duration = Duration::from_secs(15);
/// Idle connections of one browser's connection.
const MAX_IDLE: usize = 8;
const MAX_AGE: Duration = Duration::from_secs(60);
/// A connection whose certificate ends sooner takes no request.
const MARGIN: Duration = Duration::from_secs(5);

/// A connection to the service, and whose it is.
pub(super) struct Link {
    sender: SendRequest<Body>,
    session: Arc<Session>,
    /// End of the certificate that was shown.
    expires: Timestamp,
    since: Instant,
    driver: AbortOnDropHandle<()>,
}

type Sent = Result<Response<Incoming>, TrySendError<Request<Body>>>;

impl Link {
    /// The answer, or the request where nothing of it was sent; and the connection unless it has ended.
    ///
    /// A request that is handed over at the moment in which the connection ends may stay where nobody takes it, for as long as the sender lives
    /// (hyper, issue 4122). Without a sender hyper gives it back.
    pub(super) async fn send(mut self, request: Request<Body>) -> (Sent, Option<Self>) {
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        tokio::select! {
            biased;
            sent = &mut answer => (sent, Some(self)),
            _ = &mut self.driver => {
                drop(self);
                (answer.await, None)
            }
        }
    }
}

/// Idle ones.
#[derive(Default)]
pub(super) struct Links(Mutex<Vec<Link>>);

impl Links {
    /// One of this session that is ready.
    pub(super) async fn take(&self, session: &Arc<Session>, now: Timestamp) -> Option<Link> {
        loop {
            let mut link = {
                let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                // A session that has ended since, or another one of the same browser: its connections serve nobody else (I53).
                idle.retain(|link| {
                    Arc::ptr_eq(&link.session, session)
                        && link.since.elapsed() < MAX_AGE
                        && now.plus(MARGIN) < link.expires
                });
                idle.pop()?
            };
            if matches!(timeout(SETTLE, link.sender.ready()).await, Ok(Ok(()))) {
                return Some(link);
            }
        }
    }

    /// Keeps one whose last answer was read to its end.
    pub(super) fn give(&self, link: Link) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !link.sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(Link { since: Instant::now(), ..link });
        }
    }
}

/// How long one may need to be done with its last request.
const SETTLE: Duration = Duration::from_millis(20);

impl AppDoor {
    /// A new one.
    pub(super) async fn dial(&self, app: &AppName, session: &Arc<Session>, source: SocketAddr) -> anyhow::Result<Link> {
        timeout(DIAL, self.dial_now(app, session, source)).await.context("the app's service did not answer in time")?
    }

    async fn dial_now(&self, app: &AppName, session: &Arc<Session>, source: SocketAddr) -> anyhow::Result<Link> {
        let (identity, expires) = session.certificate().context("the session has no certificate")?;
        let name = TargetName::new(app.as_str())?;
        let target = Target { cluster: self.cluster.clone(), kind: TargetKind::App, name, port: None };
        let stream = self.router.dial(&DialHeader::new(target, Some(source))).await?;
        let config = self.as_user(identity).to_cluster(&[SystemRole::App], "http/1.1")?;
        let server_name = ServerName::try_from(app.server_name(&self.cluster))?;
        let tls =
            TlsConnector::from(config).connect(server_name, stream).await.context("no TLS with the app's service")?;
        let shown = tls.get_ref().1.peer_certificates();
        let service = verified_peer(shown, &*self.tls.trust, X509Purpose::Server, &*self.tls.clock)?;
        let covered = matches!(&service, Verified::Host(host) if host.identity().apps.contains(app));
        ensure!(covered, "who answers for app {app} is not certified for it");
        let (sender, connection) =
            http1::Builder::new().max_buf_size(super::MAX_HEADER_OCTETS).handshake(TokioIo::new(tls)).await?;
        let driver = tokio::spawn(async move {
            if let Err(cause) = connection.with_upgrades().await {
                tracing::debug!(%cause, "a connection to an app's service ended");
            }
        });
        let driver = AbortOnDropHandle::new(driver);
        Ok(Link { sender, session: session.clone(), expires, since: Instant::now(), driver })
    }

    /// As the user of a session, and not as the proxy.
    fn as_user(&self, identity: Arc<SharedTlsIdentity>) -> ClientTls {
        ClientTls { identity: Some(identity), trust: self.tls.trust.clone(), clock: self.tls.clock.clone() }
    }
}
