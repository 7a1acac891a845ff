//! How identity providers are asked: the seam to whoever opens connections. Owns its contract and no connection.

use async_trait::async_trait;
use http::{Request, Response};

/// Sends one request to an identity provider.
///
/// Implementations hold I43: `https` only, the host of the request and no other, no redirect is followed, 10 s and 1 MiB for the whole exchange, and no
/// address of an internal network unless the administrator allowed it; callers add no deadline. Dropping the future leaves nothing behind.
///
/// Implementations: the daemon's, over TLS; the tests' own providers.
#[async_trait]
pub trait Fetcher: Send + Sync {
    /// The whole answer, whatever its status is.
    ///
    /// # Errors
    /// [`FetchError`]
    async fn fetch(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError>;
}

/// Why an identity provider did not answer. The text is for the audit log, never for a browser.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);
