//! The administrator's socket of a machine: who connects is known by the kernel's word (SO_PEERCRED).

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use remoteler_core::{AuditKind, AuditSink};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::HttpApi;
use crate::{AuthService, Caller};

/// Why the administrator's socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the administrator's socket {}", path.display())]
pub struct AdminSocketError {
    path: PathBuf,
    source: io::Error,
}

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Pause after a failed accept: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens `<data_dir>/auth.sock` with mode 0600, in place of one that an earlier process left.
///
/// The data directory must be held by this process: its lock is what says that no other process listens there.
///
/// # Errors
/// [`AdminSocketError`]
pub fn bind_admin_socket(data_dir: &Path) -> Result<UnixListener, AdminSocketError> {
    let path = data_dir.join("auth.sock");
    let bound = (|| {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(&path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there")),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(cause),
        }
        let listener = UnixListener::bind(&path)?; // the directory is 0700, so nobody gets in before the next line
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    })();
    bound.map_err(|source| AdminSocketError { path, source })
}

pub(super) async fn serve(api: &HttpApi, service: &AuthService, listener: UnixListener, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(one(api.clone(), service.clone(), stream, shutdown.clone()));
                }
                Err(cause) => {
                    tracing::warn!(error = &cause as &dyn std::error::Error, "the administrator's socket did not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn one(api: HttpApi, service: AuthService, stream: UnixStream, shutdown: CancellationToken) {
    let own = rustix::process::geteuid().as_raw();
    let uid = match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == own => {
            if let Err(cause) = api.serve_connection(stream, Caller::LocalAdmin, shutdown).await {
                tracing::debug!(error = &cause as &dyn std::error::Error, "a local connection ended early");
            }
            return;
        }
        Ok(peer) => peer.uid().to_string(),
        Err(_) => "unknown".to_owned(),
    };
    tracing::warn!(uid, "a process of another user was refused at the administrator's socket");
    let refused = AuditKind::AuthAttempt {
        user: format!("uid:{uid}"),
        service: "auth".into(),
        login: None,
        error: "only root and the daemon's own user may use the administrator's socket".into(),
        remote: None,
    };
    if let Err(cause) = service.audit_sink().record(refused).await {
        tracing::error!(error = &cause as &dyn std::error::Error, "a refusal was not audited");
    }
}
