//! tonic over a service of an agent: a gRPC server with no open port, whose methods know who is calling. Owns no connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, stream};
use remoteler_tunnel::{Caller, ServiceConnection, ServiceListener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// The connections of a service, as tonic's `serve_with_incoming` takes them.
#[derive(Debug)]
pub struct GrpcIncoming(pub ServiceListener);

impl GrpcIncoming {
    /// One connection after the other; it ends with the agent.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<GrpcConnection>> + Send {
        stream::unfold(self.0, |mut listener| async move {
            let connection = listener.accept().await?;
            Some((Ok(GrpcConnection(connection)), listener))
        })
    }
}

/// Who is calling: what methods find as `request.extensions().get::<GrpcCaller>()`.
#[derive(Clone, Debug)]
pub struct GrpcCaller(pub Arc<Caller>);

/// A connection that tells tonic who is calling.
#[derive(Debug)]
pub struct GrpcConnection(ServiceConnection);

impl Connected for GrpcConnection {
    type ConnectInfo = GrpcCaller;

    fn connect_info(&self) -> GrpcCaller {
        GrpcCaller(self.0.peer().clone())
    }
}

impl AsyncRead for GrpcConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for GrpcConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
