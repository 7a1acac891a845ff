//! Where session recordings are kept: an append-only byte string for each session.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{SessionId, Timestamp};

/// Why a recording could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// No such session, or nothing was recorded.
    #[error("session {0} has no recording")]
    NotFound(SessionId),
    /// The writer is not where the store is; it goes on from `expected`.
    #[error("the next octet of recording {session} is number {expected}, not {offset}")]
    Offset {
        /// Session.
        session: SessionId,
        /// Where the store is.
        expected: u64,
        /// Where the writer is.
        offset: u64,
    },
    /// Nothing may follow the end.
    #[error("recording {0} is complete; nothing can be added")]
    Complete(SessionId),
    /// The store failed.
    #[error("the recording store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is known of one recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingInfo {
    /// Session.
    pub session_id: SessionId,
    /// Whose session.
    pub user: String,
    /// As which account.
    pub login: String,
    /// On which node.
    pub node: String,
    /// When it began.
    pub started: Timestamp,
    /// Octets kept.
    pub size: u64,
    /// Whether its end has arrived.
    pub complete: bool,
}

/// Keeps recordings.
#[async_trait]
pub trait RecordingStore: Send + Sync {
    /// Adds `octets` at `offset`, which must be the present size; `last` closes the recording. Durable when it returns.
    ///
    /// # Errors
    /// [`RecordingError::Offset`] tells the writer where to go on.
    async fn append(&self, session: SessionId, offset: u64, octets: &[u8], last: bool) -> Result<(), RecordingError>;

    /// At most `limit` octets from `offset`; fewer at the end, none past it.
    ///
    /// # Errors
    /// [`RecordingError::NotFound`] when nothing was recorded.
    async fn read(&self, session: SessionId, offset: u64, limit: usize) -> Result<Vec<u8>, RecordingError>;
}
