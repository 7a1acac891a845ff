//! systemd's `Type=notify` (sd_notify(3)): one datagram to the socket named in `NOTIFY_SOCKET`.

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixDatagram},
};

/// Tells the service manager `state`, for example `READY=1`. Does nothing when there is none; a failure is logged.
pub(crate) fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(cause) = send(&path.to_string_lossy(), state) {
        tracing::warn!(%cause, "the service manager was not told {state}");
    }
}

fn send(path: &str, state: &str) -> std::io::Result<()> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}
