//! Where an agent's connections come from: each has an address of its own, as devices at many places have. Owns the choice of the address.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use async_trait::async_trait;
use remoteler_tunnel::{BoxedStream, ConnectError, Dialer, connect_tcp};
use tokio::{net::TcpSocket, time::timeout};

/// Dials from one address of 127.0.0.0/8, all of which Linux has on its loopback interface; to a proxy elsewhere as the system sees fit.
pub(crate) struct Source(Ipv4Addr);

impl Source {
    /// That of the agent with this number.
    pub(crate) fn of(index: usize) -> Self {
        let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
        Self(first.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)).into())
    }
}

#[async_trait]
impl Dialer for Source {
    async fn dial(&self, address: &str) -> Result<BoxedStream, ConnectError> {
        let proxy = match address.parse::<SocketAddr>() {
            Ok(proxy) if proxy.is_ipv4() && proxy.ip().is_loopback() && self.0.is_loopback() => proxy,
            _ => return Ok(Box::new(connect_tcp(address, DEADLINE).await?)),
        };
        let failed = |source| ConnectError::Connect { address: address.to_owned(), tried: 1, source };
        let connecting = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((self.0, 0).into())?;
            let stream = socket.connect(proxy).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        match timeout(DEADLINE, connecting).await {
            Ok(stream) => Ok(Box::new(stream.map_err(failed)?)),
            Err(late) => Err(failed(late.into())),
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(10);
