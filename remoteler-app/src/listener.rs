//! `axum::serve` over a service of an agent: an app with no open port, whose handlers know who is calling. Owns no connection.

use std::{io, sync::Arc};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use remoteler_tunnel::{Caller, ServiceConnection, ServiceListener};

/// A service that `axum::serve` takes.
#[derive(Debug)]
pub struct AxumListener(pub ServiceListener);

/// Who is calling: what handlers take as `ConnectInfo<AxumCaller>` when the app is served with
/// `into_make_service_with_connect_info::<AxumCaller>()`.
#[derive(Clone, Debug)]
pub struct AxumCaller(pub Arc<Caller>);

impl Listener for AxumListener {
    type Io = ServiceConnection;
    type Addr = AxumCaller;

    async fn accept(&mut self) -> (ServiceConnection, AxumCaller) {
        match self.0.accept().await {
            Some(connection) => {
                let caller = AxumCaller(connection.peer().clone());
                (connection, caller)
            }
            // The agent is gone; whoever serves is stopped by its own owner.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<AxumCaller> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a service of an agent has no address of its own"))
    }
}

impl Connected<IncomingStream<'_, AxumListener>> for AxumCaller {
    fn connect_info(stream: IncomingStream<'_, AxumListener>) -> Self {
        stream.remote_addr().clone()
    }
}
