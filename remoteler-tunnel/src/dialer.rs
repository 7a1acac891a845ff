//! How connections to proxies leave this machine. Owns the seam between what an agent or client wants to reach and the network it
//! is in. Knows nothing of TLS: whoever answers proves itself inside what is dialled.

use std::time::Duration;

use async_trait::async_trait;

use crate::connect::{ConnectError, connect_tcp, keep_little_unsent};
use crate::stream::BoxedStream;

/// Makes a byte stream to `host:port`.
///
/// Implementations: [`DirectDialer`] (TCP), [`crate::ProxyDialer`] (through an HTTP proxy), the testkit's network in memory.
///
/// A name is resolved anew in each call. Implementations bound their own time to 10 s; a dropped future leaves nothing behind.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// Reaches `address`.
    ///
    /// # Errors
    /// [`ConnectError`] naming the address and what is in the way.
    async fn dial(&self, address: &str) -> Result<BoxedStream, ConnectError>;
}

/// TCP, straight from this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirectDialer;

#[async_trait]
impl Dialer for DirectDialer {
    async fn dial(&self, address: &str) -> Result<BoxedStream, ConnectError> {
        let socket = connect_tcp(address, DEADLINE).await?;
        keep_little_unsent(&socket);
        Ok(Box::new(socket))
    }
}

const DEADLINE: Duration = Duration::from_secs(10);
