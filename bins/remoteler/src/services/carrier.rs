//! Connections to the one port that come inside a WebSocket of the web API. Owns their tasks and deadlines: what is carried is a stranger
//! until its own TLS session says otherwise, as on a socket.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::rt::TokioIo;
use remoteler_auth::RemoteAddr;
use remoteler_tunnel::{
    AdmissionLimits, Admissions, CARRIER_PATH, Connection, OnePort, Wire, accept_carrier, carried, until_somebody,
};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::proxy::ProxyHandler;

/// Where carried connections go.
pub(crate) struct Carrier {
    /// Made after the web API, which is a part of it.
    port: OnceLock<Arc<OnePort<ProxyHandler>>>,
    admissions: Arc<Admissions>,
    connections: TaskTracker,
}

impl Carrier {
    pub(crate) fn new(connections: TaskTracker) -> Arc<Self> {
        let admissions = Admissions::new(AdmissionLimits::default());
        Arc::new(Self { port: OnceLock::new(), admissions, connections })
    }

    /// Says where they go. Before that nothing is carried.
    pub(crate) fn open(&self, port: &Arc<OnePort<ProxyHandler>>) {
        // Set once, at the start.
        let _ = self.port.set(port.clone());
    }

    /// The route of the web API.
    pub(crate) fn route(self: &Arc<Self>) -> Router {
        let carrier = self.clone();
        let carry = move |Extension(RemoteAddr(source)): Extension<RemoteAddr>, request: Request| {
            let carrier = carrier.clone();
            async move { carrier.carry(source, request) }
        };
        Router::new().route(CARRIER_PATH, get(carry))
    }

    fn carry(&self, source: SocketAddr, mut request: Request) -> Response {
        let Some(answer) = accept_carrier(&request) else {
            return (StatusCode::BAD_REQUEST, "this path is for WebSockets").into_response();
        };
        let Some(port) = self.port.get().cloned() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
        let Some(admission) = self.admissions.admit(source.ip()) else {
            tracing::debug!(%source, "too many unauthenticated connections, a carried one was turned away");
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let deadline = Instant::now() + self.admissions.limits().deadline;
        let upgrade = hyper::upgrade::on(&mut request);
        self.connections.spawn(async move {
            let upgraded = match timeout(UPGRADE, upgrade).await {
                Ok(Ok(upgraded)) => upgraded,
                Ok(Err(cause)) => return tracing::debug!(%source, %cause, "a WebSocket was not made"),
                Err(_) => return,
            };
            let stream = Wire::Inside(Box::new(carried(TokioIo::new(upgraded)).await));
            let connection = Connection { stream, source, admission: admission.clone() };
            until_somebody(port.handle(connection), admission, deadline).await;
        });
        answer.map(|()| Body::empty())
    }
}

const UPGRADE: Duration = Duration::from_secs(10);
