//! Local port forwarding (`-L`): each connection to a local listener becomes a channel to a target that the server connects
//! to. A connection that takes no octets for 30 s is closed alone, so that it cannot stop the others.

use std::{fmt, io, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use russh::{Channel, ChannelMsg, client::Msg};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::SshClient;

/// `[bind_address:]port:host:hostport`, as ssh(1) takes it after `-L`; after `-R` the two ends are swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardSpec {
    /// Local address; absent: loopback.
    pub bind: Option<String>,
    /// Local port; 0: any free one.
    pub port: u16,
    /// Where the server connects to.
    pub host: String,
    /// And on which port.
    pub host_port: u16,
}

/// Why a forward is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no forward; write [bind_address:]port:host:hostport")]
pub struct ForwardSpecError(String);

impl FromStr for ForwardSpec {
    type Err = ForwardSpecError;

    fn from_str(text: &str) -> Result<Self, ForwardSpecError> {
        let wrong = || ForwardSpecError(text.chars().take(200).collect());
        let parts = split_outside_brackets(text);
        let (bind, port, host, host_port) = match parts.as_slice() {
            [port, host, host_port] => (None, port, host, host_port),
            [bind, port, host, host_port] => (Some(bind.clone()), port, host, host_port),
            _ => return Err(wrong()),
        };
        if host.is_empty() || host.starts_with('-') {
            return Err(wrong());
        }
        Ok(Self {
            bind: bind.filter(|bind| !bind.is_empty()),
            port: port.parse().map_err(|_| wrong())?,
            host: host.clone(),
            host_port: host_port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        })
    }
}

impl fmt::Display for ForwardSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bind = self.bind.as_deref().unwrap_or("localhost");
        write!(f, "{bind}:{}:{}:{}", self.port, self.host, self.host_port)
    }
}

/// Splits at `:`, but not inside `[…]`, whose brackets fall away: `8080:[::1]:80`.
fn split_outside_brackets(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut bracketed = false;
    for c in text.chars() {
        match c {
            '[' => bracketed = true,
            ']' => bracketed = false,
            ':' if !bracketed => parts.push(String::new()),
            c => {
                if let Some(part) = parts.last_mut() {
                    part.push(c);
                }
            }
        }
    }
    parts
}

impl ForwardSpec {
    /// Listens where the forward says; with `any` on all addresses when it names none.
    ///
    /// # Errors
    /// The first address that cannot be listened on.
    pub async fn listen(&self, any: bool) -> io::Result<Vec<TcpListener>> {
        let host = match self.bind.as_deref() {
            Some("*") => "0.0.0.0",
            Some(bind) => bind,
            None if any => "0.0.0.0",
            None => "localhost",
        };
        let mut listeners = Vec::new();
        let mut failure = None;
        for address in tokio::net::lookup_host((host, self.port)).await? {
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                Err(cause) => failure = Some(cause),
            }
        }
        // A machine without IPv6 still resolves localhost to ::1.
        if listeners.is_empty() {
            Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
        } else {
            Ok(listeners)
        }
    }
}

/// Serves one listener until the connection to the server ends. `notice` is told, in one line, of connections that failed.
pub async fn serve_local_forward(
    client: Arc<SshClient>,
    listener: TcpListener,
    spec: ForwardSpec,
    notice: Arc<dyn Fn(&str) + Send + Sync>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) if connections.len() < MAX_CONNECTIONS => {
                    let (client, spec, notice) = (client.clone(), spec.clone(), notice.clone());
                    connections.spawn(async move {
                        if let Err(reason) = forward_one(&client, socket, peer, &spec).await {
                            notice(&format!("forward {spec}: {reason}"));
                        }
                    });
                }
                Ok((socket, _)) => drop(socket),
                // Out of file descriptors, mostly: wait for one to be freed.
                Err(cause) => {
                    notice(&format!("forward {spec}: {cause}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
        if client.is_closed() {
            return;
        }
    }
}

async fn forward_one(
    client: &SshClient,
    socket: TcpStream,
    peer: SocketAddr,
    spec: &ForwardSpec,
) -> Result<(), String> {
    let _ = socket.set_nodelay(true);
    let originator = peer.ip().to_string();
    let channel = client
        .direct_tcpip((&spec.host, spec.host_port), (&originator, peer.port()))
        .await
        .map_err(|cause| cause.to_string())?;
    carry(channel, socket.into_split()).await.map_err(|cause| cause.to_string())
}

/// Passes octets between a channel and a connection of this machine until both are done or one of them is gone.
pub(super) async fn carry<R, W>(channel: Channel<Msg>, (mut from_local, mut to_local): (R, W)) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut read, write) = channel.split();
    let up = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = from_local.read(&mut buffer).await?;
            match buffer.get(..count) {
                Some(octets) if !octets.is_empty() => {
                    write.data_bytes(Bytes::copy_from_slice(octets)).await.map_err(io::Error::other)?;
                }
                _ => break write.eof().await.map_err(io::Error::other),
            }
        }
    };
    let down = async {
        loop {
            match read.wait().await {
                Some(ChannelMsg::Data { data }) => tokio::time::timeout(STALLED, to_local.write_all(&data))
                    .await
                    .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it takes no octets; closed")))?,
                Some(ChannelMsg::Eof) => to_local.shutdown().await?,
                Some(ChannelMsg::Close) | None => break Ok::<_, io::Error>(()),
                Some(_) => {}
            }
        }
    };
    tokio::pin!(up, down);
    let mut sending = true;
    let ended = loop {
        tokio::select! {
            ended = &mut down => break ended,
            ended = &mut up, if sending => match ended {
                Ok(()) => sending = false,
                // A local reset: the server's half has nobody to go to any more.
                Err(_) => break Ok(()),
            },
        }
    };
    let _ = write.close().await;
    ended
}

const BUFFER: usize = 32 * 1024;
const MAX_CONNECTIONS: usize = 1000;
const STALLED: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_read_as_ssh_reads_it() {
        let spec: ForwardSpec = "8080:db.internal:5432".parse().unwrap();
        assert_eq!((spec.bind, spec.port, spec.host.as_str(), spec.host_port), (None, 8080, "db.internal", 5432));
        let spec: ForwardSpec = "[::1]:0:[fe80::1]:80".parse().unwrap();
        assert_eq!((spec.bind.as_deref(), spec.port, spec.host.as_str()), (Some("::1"), 0, "fe80::1"));
    }

    #[test]
    fn a_forward_without_a_target_is_refused() {
        for bad in ["8080", "8080:host", "8080:host:0", "x:host:1", "8080::1", "8080:-oProxy:1", "1:2:3:4:5"] {
            assert!(bad.parse::<ForwardSpec>().is_err(), "{bad}");
        }
    }
}
