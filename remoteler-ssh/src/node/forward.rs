//! `ssh -L`: one channel to one TCP connection dialled from this machine (RFC 4254 section 7.2). Owns also how octets pass between a channel and a
//! connection of this machine, whichever of them was first.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use remoteler_core::{ForwardDirection, LiveSignal, SessionId, random_uuid};
use russh::{
    Channel, ChannelOpenFailure,
    server::{ChannelOpenHandle, Msg},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::{
    node::{
        Node,
        authorize::{Permit, Refusal},
        inflow,
        outflow::{self, Progress, Stream},
        report::Forwarded,
    },
    process::Account,
};

/// Where a client wants to go.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) host: String,
    pub(super) port: u32,
}

impl Destination {
    pub(super) fn name(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            Ok(IpAddr::V4(_)) | Err(_) => {
                let host: String = self.host.chars().take(255).map(|c| if c.is_control() { '?' } else { c }).collect();
                format!("{host}:{}", self.port)
            }
        }
    }

    /// As it is recorded.
    pub(super) fn forwarded(&self, direction: ForwardDirection) -> Forwarded {
        Forwarded { direction, addr: self.name(), originator: None }
    }
}

/// What ends a forward beside its two ends.
#[derive(Clone)]
pub(super) struct Ends {
    /// Cancelled when the connection has ended.
    pub(super) gone: CancellationToken,
    /// Says when the rules end it, and is told that something happens.
    pub(super) live: LiveSignal,
}

impl Ends {
    pub(super) async fn ended(&self) {
        tokio::select! {
            () = self.gone.cancelled() => {}
            _ = self.live.ended() => {}
        }
    }
}

/// Serves one forwarded connection: account, audit, dial, then bytes. Says no to the client when any of them fails.
pub(super) async fn run(
    node: Arc<Node>,
    permit: Permit,
    destination: Destination,
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    ends: Ends,
) {
    let report = node.reporter.session(SessionId::from_uuid(random_uuid(&*node.entropy)), permit.access());
    let what = destination.forwarded(ForwardDirection::Local);
    // I20: a forward, too, belongs to an account that exists now.
    if let Err(error) = Account::find(permit.access().login()).await {
        report.port_refused(what, error.to_string()).await;
        return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    }
    if let Err(error) = report.port(what.clone()).await {
        tracing::warn!(%error, "a port is not forwarded: the audit log does not take events");
        return reply.reject(ChannelOpenFailure::ResourceShortage).await;
    }
    let dialled = tokio::select! {
        dialled = dial(&destination) => dialled,
        () = ends.ended() => return,
    };
    let stream = match dialled {
        Ok(stream) => stream,
        Err(error) => {
            report.port_refused(what, format!("cannot connect: {error}")).await;
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    };
    // What runs over a forward (`ssh -W`, `-L`) is given the same time to end as a session.
    let _count = node.session_began();
    reply.accept().await;
    copy(&node, channel, stream.into_split(), ends).await;
}

/// A forward that no role allows.
pub(super) async fn refuse(node: &Node, access: Option<Permitless>, what: Forwarded, refusal: &Refusal) {
    let Some(Permitless(access)) = access else { return };
    let report = node.reporter.session(SessionId::from_uuid(random_uuid(&*node.entropy)), &access);
    report.port_refused(what, refusal.to_string()).await;
}

/// Whose request was refused; nothing can be done with it but to name them.
pub(super) struct Permitless(pub(super) Arc<remoteler_core::SshAccess>);

async fn dial(destination: &Destination) -> io::Result<TcpStream> {
    let port = u16::try_from(destination.port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no such port"))?;
    let stream = tokio::time::timeout(DIAL, TcpStream::connect((destination.host.as_str(), port))).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Passes octets both ways until both ends are done, one of them is gone, or `ends` say so; then closes the channel.
pub(super) async fn copy<R, W>(node: &Node, channel: Channel<Msg>, (from, to): (R, W), ends: Ends)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (source, sink) = channel.split();
    let input_done = CancellationToken::new();
    let inward = inflow::feed(source, to, (node.config.limits.stall_limit, &ends.live), &input_done);
    let progress = Progress::of(ends.live.clone());
    let outward = async {
        let ended = outflow::copy(from, &sink, Stream::Output, None, (PIECE, &progress)).await;
        // The client may go on after our end of file; when it has ended, too, it waits for us to close (as `ssh -W` does).
        if ended.is_ok() && sink.eof().await.is_ok() {
            input_done.cancelled().await;
        }
    };
    let ended = tokio::select! {
        ended = inward => Some(ended),
        () = outward => None,
        () = ends.ended() => None,
    };
    if ended == Some(inflow::Ended::Stalled) {
        tracing::info!("a forwarded connection is closed: its target does not read");
    }
    let _sent = sink.close().await;
}

const DIAL: Duration = Duration::from_secs(15);
const PIECE: usize = 32 * 1024;
