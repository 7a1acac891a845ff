//! The ways out of the network this machine is in: straight, or through what lets only HTTP pass. Owns the order in which they are
//! tried and what is remembered of it. On each way the peer proves itself in the same TLS session, so none of them needs to be trusted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::carrier::carry;
use crate::connect::{ConnectError, tls_over};
use crate::dialer::{Dialer, DirectDialer};
use crate::read_ahead::ReadAhead;
use crate::stream::BoxedStream;

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The TLS session goes to the address itself.
    Straight,
    /// The TLS session is inside a WebSocket (RFC 6455), inside whatever TLS the address speaks to browsers.
    WebSocket,
}

/// Remembers which way led to an address from the network this machine is in.
///
/// Implementations: [`NoMemory`], and a file in the state directory (`remoteler-client`). What is remembered is a hint: it changes which
/// way is tried first and nothing else, so a lost or wrong one costs an attempt.
pub trait WayMemory: Send + Sync {
    /// The way that worked last.
    fn recall(&self, address: &str) -> Option<Way>;
    /// This way has worked.
    fn remember(&self, address: &str, way: Way);
}

/// Remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMemory;

impl WayMemory for NoMemory {
    fn recall(&self, _address: &str) -> Option<Way> {
        None
    }
    fn remember(&self, _address: &str, _way: Way) {}
}

/// The ways out, as they are configured.
#[derive(Clone)]
pub struct Ways {
    dialer: Arc<dyn Dialer>,
    memory: Arc<dyn WayMemory>,
    websocket: bool,
    /// Until when the way over WebSocket is not tried again for an address, for it led nowhere. Shared by clones.
    barren: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl Default for Ways {
    /// Straight, over TCP.
    fn default() -> Self {
        Self::through(Arc::new(DirectDialer))
    }
}

impl Ways {
    /// Straight, and over nothing else, by what `dialer` makes of an address.
    #[must_use]
    pub fn through(dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer, memory: Arc::new(NoMemory), websocket: false, barren: Arc::default() }
    }

    /// Also over WebSocket, where the straight way fails like in a network that ends TLS or lets only HTTP pass.
    #[must_use]
    pub fn or_websocket(self, memory: Arc<dyn WayMemory>) -> Self {
        Self { memory, websocket: true, ..self }
    }

    /// Makes the TLS handshake of `tls` with whoever is at `address` (`host:port`).
    ///
    /// # Errors
    /// [`ConnectError`] of the straight way, when no way leads there.
    pub async fn connect(&self, address: &str, tls: Arc<ClientConfig>) -> Result<TlsStream<BoxedStream>, ConnectError> {
        if self.websocket && self.memory.recall(address) == Some(Way::WebSocket) {
            match self.over_websocket(address, tls.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(cause) => tracing::debug!(%cause, address, "the way over WebSocket does not lead there any more"),
            }
        }
        match self.straight(address, tls.clone()).await {
            Ok(stream) => {
                if self.websocket {
                    self.memory.remember(address, Way::Straight);
                }
                Ok(stream)
            }
            // Who is not believed on either way, as after a change of the authority, is not asked twice each time.
            Err(cause) if self.websocket && cause.is_between() && !self.is_barren(address) => {
                match self.over_websocket(address, tls).await {
                    Ok(stream) => {
                        tracing::info!(address, %cause, "the straight way is closed, the way over WebSocket is taken");
                        self.memory.remember(address, Way::WebSocket);
                        Ok(stream)
                    }
                    Err(second) => {
                        tracing::debug!(address, %second, "the way over WebSocket does not lead there either");
                        self.barren().insert(address.to_owned(), Instant::now() + BARREN_FOR);
                        Err(cause)
                    }
                }
            }
            Err(cause) => Err(cause),
        }
    }

    fn is_barren(&self, address: &str) -> bool {
        let mut barren = self.barren();
        let now = Instant::now();
        barren.retain(|_, until| *until > now);
        barren.contains_key(address)
    }

    fn barren(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Instant>> {
        self.barren.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn straight(&self, address: &str, tls: Arc<ClientConfig>) -> Result<TlsStream<BoxedStream>, ConnectError> {
        tls_over(ahead(self.dialer.dial(address).await?), address, tls).await
    }

    async fn over_websocket(
        &self,
        address: &str,
        tls: Arc<ClientConfig>,
    ) -> Result<TlsStream<BoxedStream>, ConnectError> {
        let carried = carry(self.dialer.dial(address).await?, address).await?;
        tls_over(ahead(carried), address, tls).await
    }
}

fn ahead(stream: BoxedStream) -> BoxedStream {
    Box::new(ReadAhead::new(stream))
}

/// How long the way over WebSocket is left alone after it led nowhere.
const BARREN_FOR: Duration = Duration::from_secs(60);

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ways").field("websocket", &self.websocket).finish_non_exhaustive()
    }
}
