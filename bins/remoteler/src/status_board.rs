//! What this daemon is and is connected to: services write it, `remoteler status` reads it over a local socket.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Mutex, PoisonError},
};

use remoteler_core::{SystemRole, Timestamp};
use serde::{Deserialize, Serialize};

/// State of the daemon, as `remoteler status --format json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Whether every service has started.
    pub ready: bool,
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Cluster.
    pub cluster: String,
    /// Name of this host.
    pub nodename: String,
    /// Its id.
    pub host_id: String,
    /// Services that run.
    pub roles: Vec<SystemRole>,
    /// Where they listen, by service.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// Reverse tunnels, by proxy.
    pub tunnels: BTreeMap<String, TunnelStatus>,
    /// Why this host has no part in its cluster any more, and what to do; absent while it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shut_out: Option<String>,
    /// That an administrator has locked this host, and what they say; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<String>,
}

/// State of one reverse tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// `connecting`, `connected` or `waiting`.
    pub state: String,
    /// Since when.
    pub since: Timestamp,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The status, shared by the services of one process.
#[derive(Debug, Default)]
pub(crate) struct StatusBoard(Mutex<DaemonStatus>);

impl StatusBoard {
    /// Changes the status.
    pub(crate) fn update(&self, change: impl FnOnce(&mut DaemonStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The status now.
    pub(crate) fn read(&self) -> DaemonStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Binds the local socket, 0600; a socket left by a killed process is replaced.
pub(crate) fn bind_local_socket(path: &Path) -> std::io::Result<tokio::net::UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause),
    }
    // The directory is 0700, so nobody reaches the socket between bind and chmod.
    let listener = tokio::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers each connection with the status as one JSON object, then closes it. Runs until dropped.
pub(crate) async fn serve(listener: tokio::net::UnixListener, board: std::sync::Arc<StatusBoard>) {
    use tokio::io::AsyncWriteExt;
    loop {
        match listener.accept().await {
            Ok((mut stream, _)) => {
                let text = serde_json::to_vec(&board.read()).unwrap_or_default();
                // A reader that went away is no failure of ours; one that does not read gets no more than the socket's buffer.
                let _ = tokio::time::timeout(std::time::Duration::from_secs(1), stream.write_all(&text)).await;
            }
            Err(cause) => {
                tracing::warn!(%cause, "the status socket does not accept");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}
