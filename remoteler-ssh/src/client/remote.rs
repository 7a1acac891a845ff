//! What the server may bring to the user's machine: connections to ports that it was asked to listen on (`ssh -R`), and to the user's ssh-agent (`ssh -A`).
//! Owns what was asked for, and dials that and nothing else; every other channel of a server is refused.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use russh::{
    Channel, ChannelOpenFailure,
    client::{ChannelOpenHandle, Msg},
};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::Notify,
    task::JoinSet,
};

use super::{ForwardSpec, SessionError, SshClient, forward::carry};

/// What the user asked the server for. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Shared>);

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    answered: Notify,
}

#[derive(Default)]
struct Table {
    /// By the address that was asked for and the port.
    forwards: BTreeMap<(String, u32), ForwardSpec>,
    /// Requests whose port the server chooses and that it has not told yet; connections may be there before.
    unanswered: usize,
}

impl Asked {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose connection it is; waits while the server's answer to a request may be under way.
    async fn whose(&self, place: &(String, u32)) -> Option<ForwardSpec> {
        loop {
            let answered = self.0.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            {
                let table = self.table();
                let found = table.forwards.get(place).cloned();
                if found.is_some() || table.unanswered == 0 {
                    return found;
                }
            }
            answered.await;
        }
    }
}

/// The tasks that carry what a server brings, as long as the connection.
pub(super) struct Inbound {
    asked: Asked,
    /// Where the user's agent listens, if it is forwarded.
    agent: Option<Arc<PathBuf>>,
    notice: Arc<dyn Fn(&str) + Send + Sync>,
    tasks: JoinSet<()>,
}

impl Inbound {
    pub(super) fn new(asked: Asked, agent: Option<PathBuf>, notice: Arc<dyn Fn(&str) + Send + Sync>) -> Self {
        Self { asked, agent: agent.map(Arc::new), notice, tasks: JoinSet::new() }
    }

    /// A connection to a port that the server listens on.
    pub(super) async fn forwarded(&mut self, channel: Channel<Msg>, place: (String, u32), reply: ChannelOpenHandle) {
        if !self.has_room() {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        let (asked, notice) = (self.asked.clone(), self.notice.clone());
        self.tasks.spawn(async move {
            let Some(spec) = asked.whose(&place).await else {
                return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            };
            match dial(TcpStream::connect((spec.host.as_str(), spec.host_port))).await {
                Ok(socket) => {
                    let _ = socket.set_nodelay(true);
                    reply.accept().await;
                    if let Err(cause) = carry(channel, socket.into_split()).await {
                        notice(&format!("forward {spec}: {cause}"));
                    }
                }
                Err(cause) => {
                    notice(&format!("forward {spec}: cannot connect to {}:{}: {cause}", spec.host, spec.host_port));
                    reply.reject(ChannelOpenFailure::ConnectFailed).await;
                }
            }
        });
    }

    /// A connection to the user's agent.
    pub(super) async fn agent(&mut self, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let Some(path) = self.agent.clone() else {
            return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        };
        if !self.has_room() {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        let notice = self.notice.clone();
        self.tasks.spawn(async move {
            match dial(UnixStream::connect(&*path)).await {
                Ok(socket) => {
                    reply.accept().await;
                    if let Err(cause) = carry(channel, socket.into_split()).await {
                        notice(&format!("the forwarded ssh-agent: {cause}"));
                    }
                }
                Err(cause) => {
                    notice(&format!("the ssh-agent at {} does not answer: {cause}", path.display()));
                    reply.reject(ChannelOpenFailure::ConnectFailed).await;
                }
            }
        });
    }

    fn has_room(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.len() < MAX_CONNECTIONS
    }
}

async fn dial<S>(connecting: impl Future<Output = io::Result<S>>) -> io::Result<S> {
    tokio::time::timeout(DIAL, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl SshClient {
    /// Asks the server to listen on `spec`'s port and to bring each connection here, from where it goes to `spec`'s host. Yields the port, which the server
    /// chooses if `spec` has 0. Ends with the connection.
    ///
    /// # Errors
    /// [`SessionError::Refused`] when the server does not.
    ///
    /// # Cancel safety
    /// Not cancel safe: the server may listen all the same, and what it brings waits for an answer that nobody notes.
    pub async fn remote_forward(&self, spec: &ForwardSpec) -> Result<u16, SessionError> {
        let address = match spec.bind.as_deref() {
            None => "localhost",
            Some("*") => "",
            Some(bind) => bind,
        };
        let place = (address.to_owned(), u32::from(spec.port));
        {
            let mut table = self.asked.table();
            if spec.port == 0 {
                table.unanswered += 1;
            } else if table.forwards.contains_key(&place) {
                let what = format!("remote forward {spec}: the port is forwarded already");
                return Err(SessionError::Refused { host: self.host.clone(), what });
            } else {
                table.forwards.insert(place.clone(), spec.clone());
            }
        }
        let answer = self.handle.tcpip_forward(address, place.1).await;
        let port = match &answer {
            Ok(port) if spec.port == 0 => u16::try_from(*port).ok().filter(|port| *port != 0),
            Ok(_) => Some(spec.port),
            Err(_) => None,
        };
        {
            let mut table = self.asked.table();
            match port {
                Some(port) if spec.port == 0 => {
                    table.forwards.insert((address.to_owned(), u32::from(port)), spec.clone());
                }
                Some(_) => {}
                None => drop(table.forwards.remove(&place)),
            }
            if spec.port == 0 {
                table.unanswered -= 1;
            }
        }
        self.asked.0.answered.notify_waiters();
        match (port, answer) {
            (Some(port), _) => Ok(port),
            (None, Ok(_) | Err(russh::Error::RequestDenied)) => {
                let what = format!("remote forward {spec}: your roles do not allow it, or the port is taken");
                Err(SessionError::Refused { host: self.host.clone(), what })
            }
            (None, Err(cause)) => self.explained(Err(cause.into())).await,
        }
    }
}

/// As `ssh -L` of this crate.
const MAX_CONNECTIONS: usize = 1000;
const DIAL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_faster_than_the_answer_waits_for_it_and_a_foreign_one_does_not() {
        let asked = Asked::default();
        let place = ("localhost".to_owned(), 4711);
        assert_eq!(asked.whose(&place).await, None);
        asked.table().unanswered = 1;
        let mut waiting = waiting_for(asked.clone(), place.clone());
        assert!(tokio::time::timeout(Duration::ZERO, &mut waiting).await.is_err(), "the answer is not there yet");
        let spec: ForwardSpec = "0:db:5432".parse().unwrap();
        {
            let mut table = asked.table();
            table.forwards.insert(place.clone(), spec.clone());
            table.unanswered = 0;
        }
        asked.0.answered.notify_waiters();
        assert_eq!(waiting.await, Some(spec));
        assert_eq!(asked.whose(&("localhost".into(), 4712)).await, None);
    }

    fn waiting_for(asked: Asked, place: (String, u32)) -> std::pin::Pin<Box<dyn Future<Output = Option<ForwardSpec>>>> {
        Box::pin(async move { asked.whose(&place).await })
    }
}
