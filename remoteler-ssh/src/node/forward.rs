//! `ssh -L`: one channel to one TCP connection dialled from this machine (RFC 4254 section 7.2).

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use remoteler_core::{LiveSignal, SessionId, random_uuid};
use russh::{
    Channel, ChannelOpenFailure,
    server::{ChannelOpenHandle, Msg},
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::{
    node::{
        Node,
        authorize::{Permit, Refusal},
        inflow,
        outflow::{self, Progress, Stream},
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
    fn name(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            Ok(IpAddr::V4(_)) | Err(_) => {
                let host: String = self.host.chars().take(255).map(|c| if c.is_control() { '?' } else { c }).collect();
                format!("{host}:{}", self.port)
            }
        }
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
    async fn ended(&self) {
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
    let name = destination.name();
    // I20: a forward, too, belongs to an account that exists now.
    if let Err(error) = Account::find(permit.access().login()).await {
        report.port_refused(name, error.to_string()).await;
        return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    }
    if let Err(error) = report.port(name.clone()).await {
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
            report.port_refused(name, format!("cannot connect: {error}")).await;
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    };
    // What runs over a forward (`ssh -W`, `-L`) is given the same time to end as a session.
    let _count = node.session_began();
    reply.accept().await;
    copy(&node, channel, stream, ends).await;
}

/// A forward that no role allows.
pub(super) async fn refuse(node: Arc<Node>, access: Option<Permitless>, destination: Destination, refusal: Refusal) {
    let Some(Permitless(access)) = access else { return };
    let report = node.reporter.session(SessionId::from_uuid(random_uuid(&*node.entropy)), &access);
    report.port_refused(destination.name(), refusal.to_string()).await;
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

async fn copy(node: &Node, channel: Channel<Msg>, stream: TcpStream, ends: Ends) {
    let (source, sink) = channel.split();
    let (from, to) = stream.into_split();
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
