//! Work that blocks, on threads for it. Owns the rule that no task waits for a token: see [`sign`].

use std::sync::Arc;

use remoteler_ca::{Authority, CaError};

use crate::failure::{self, ApiResult};

/// Does `work` on a thread for blocking work.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(cause) => std::panic::resume_unwind(cause.into_panic()),
    }
}

/// Signs with `authority`: at once where its keys are in memory, which takes microseconds, and on a thread of its own where a token is asked.
pub(crate) async fn sign<T: Send + 'static>(
    authority: &Arc<Authority>,
    issue: impl FnOnce(&Authority) -> Result<T, CaError> + Send + 'static,
) -> ApiResult<T> {
    let issued = if authority.is_in_token() {
        let authority = Arc::clone(authority);
        blocking(move || issue(&authority)).await
    } else {
        issue(authority)
    };
    issued.map_err(|cause| failure::authority(&cause))
}
