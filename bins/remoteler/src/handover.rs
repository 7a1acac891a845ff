//! A daemon's process hands its ports to the next process of the same daemon, without closing them. Owns the words between the two, which go over
//! a socket pair that is the next process's standard input. Never passes on keys or connections: those end with the process that has them. What
//! comes back for links that it still has, comes by `links`.
//!
//! ```text
//! before → next   the listening sockets, their names, the run of the host
//! next → before   TAKE    the settings are read
//! before → next   YOURS   data directory, audit spool and the host's state are free
//! next → before   READY   everything runs
//! ```
//!
//! Whoever hears the end of the socket instead knows that the other is gone, and goes on as before or not at all.

#[cfg(feature = "server")]
pub(crate) mod links;

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use remoteler_core::InstanceId;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// The flag that makes a process the next one.
pub(crate) const SUCCESSOR: &str = "--successor";

const TAKE: u8 = b'T';
const YOURS: u8 = b'Y';
const READY: u8 = b'R';
/// How long the other may take for a step: reading a config, opening a state, starting.
const PATIENCE: Duration = Duration::from_secs(60);
/// The name of what processes before take connections by.
#[cfg(feature = "server")]
pub(crate) const LINKS: &str = "links";
/// Processes before, at most, that links still go on in; those before them have had the longest time.
#[cfg(feature = "server")]
pub(crate) const MOST_EARLIER: usize = 4;
/// More listening sockets than a daemon has services, and those of processes before.
const MOST_SOCKETS: usize = 8;
const MOST_OCTETS: usize = 4096;

/// What the sockets are, in their order, and which run of the host goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Inheritance {
    sockets: Vec<String>,
    instance: InstanceId,
}

/// Listening sockets by the name of their service.
pub(crate) type Ports = Vec<(String, OwnedFd)>;

/// The side of the process that was there before.
pub(crate) struct Successor {
    child: Child,
    words: tokio::net::UnixStream,
}

impl Successor {
    /// Starts the next process: `program` with the arguments that this one has, and `ports` in its hands.
    pub(crate) fn start(
        program: &Path,
        ports: &[(&str, BorrowedFd<'_>)],
        instance: InstanceId,
    ) -> anyhow::Result<Self> {
        ensure!(ports.len() <= MOST_SOCKETS, "{} ports are too many to hand over", ports.len());
        let (ours, theirs) = UnixStream::pair().context("no socket pair can be made")?;
        let args = std::env::args_os().skip(1).filter(|arg| arg != SUCCESSOR);
        let child = Command::new(program)
            .args(args)
            .arg(SUCCESSOR)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let sockets = ports.iter().map(|(name, _)| (*name).to_owned()).collect();
        let text = serde_json::to_vec(&Inheritance { sockets, instance })?;
        let fds: Vec<BorrowedFd<'_>> = ports.iter().map(|(_, fd)| *fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)), "the ports do not fit into a message");
        sendmsg(&ours, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)
            .context("the ports cannot be handed over")?;
        ours.set_nonblocking(true)?;
        Ok(Self { child, words: tokio::net::UnixStream::from_std(ours)? })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has read its settings and wants what only one process may have.
    pub(crate) async fn wants_to_take_over(&mut self) -> anyhow::Result<()> {
        hear(&mut self.words, TAKE).await.context("the next process did not get as far as its settings")
    }

    /// Says that it may have all that, and waits until it serves.
    pub(crate) async fn takes_over(&mut self) -> anyhow::Result<()> {
        self.words.write_u8(YOURS).await.context("the next process has ended")?;
        hear(&mut self.words, READY).await.context("the next process did not start")
    }

    /// Ends it: it came to nothing.
    pub(crate) fn end(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The side of the next process.
pub struct Predecessor {
    words: tokio::net::UnixStream,
    instance: InstanceId,
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "an agent listens where it is told, anew"))]
    ports: Mutex<Ports>,
}

impl Predecessor {
    /// Takes what the process before put on standard input.
    pub(crate) fn meet() -> anyhow::Result<Self> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("standard input cannot be read")?;
        let words = UnixStream::from(stdin);
        words.set_read_timeout(Some(PATIENCE)).context("standard input is no socket of a daemon")?;
        let (text, fds) =
            receive(&words).context("no ports came over standard input: is this the child of a daemon?")?;
        let Inheritance { sockets, instance } = serde_json::from_slice(&text).context("the ports have no names")?;
        ensure!(sockets.len() == fds.len(), "{} names of ports came with {} ports", sockets.len(), fds.len());
        let nothing = std::fs::File::open("/dev/null").context("/dev/null cannot be opened")?;
        rustix::stdio::dup2_stdin(&nothing).context("standard input cannot be let go")?;
        words.set_nonblocking(true)?;
        let ports = Mutex::new(sockets.into_iter().zip(fds).collect());
        Ok(Self { words: tokio::net::UnixStream::from_std(words)?, instance, ports })
    }

    /// Which run of the host goes on.
    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The port of a service, if it was handed over.
    #[cfg(feature = "server")]
    pub(crate) fn port(&self, service: &str) -> anyhow::Result<Option<tokio::net::TcpListener>> {
        let mut ports = self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(at) = ports.iter().position(|(name, _)| name == service) else { return Ok(None) };
        // In order: of the sockets behind it, the first is the latest process's.
        let (_, fd) = ports.remove(at);
        let listener = std::net::TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        Ok(Some(tokio::net::TcpListener::from_std(listener)?))
    }

    /// The sockets by which processes before take connections for links that they still have, the latest first.
    #[cfg(feature = "server")]
    pub(crate) fn links(&self) -> Vec<OwnedFd> {
        let mut ports = self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ports.extract_if(.., |(name, _)| name == LINKS).map(|(_, fd)| fd).collect()
    }

    #[cfg(all(test, feature = "server"))]
    pub(crate) fn with(words: tokio::net::UnixStream, instance: InstanceId, ports: Ports) -> Self {
        Self { words, instance, ports: Mutex::new(ports) }
    }

    /// Asks for what only one process may have, and waits until it is free.
    pub(crate) async fn take_over(&mut self) -> anyhow::Result<()> {
        self.words.write_u8(TAKE).await.context("the process before has ended")?;
        hear(&mut self.words, YOURS).await.context("the process before keeps its state")
    }

    /// Says that everything runs: the process before may take nothing new.
    pub(crate) async fn ready(&mut self) {
        // If it is gone it takes nothing new either.
        let _ = self.words.write_u8(READY).await;
    }
}

async fn hear(words: &mut tokio::net::UnixStream, wanted: u8) -> anyhow::Result<()> {
    match timeout(PATIENCE, words.read_u8()).await {
        Ok(Ok(word)) if word == wanted => Ok(()),
        Ok(Ok(word)) => bail!("it said {:?}", char::from(word)),
        Ok(Err(_)) => bail!("it has ended; its log says why"),
        Err(_) => bail!("it said nothing within {} s", PATIENCE.as_secs()),
    }
}

fn receive(words: &UnixStream) -> anyhow::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut octets = vec![0; MOST_OCTETS];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(words, &mut [IoSliceMut::new(&mut octets)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    ensure!(got.bytes > 0, "the other end is closed");
    ensure!(!got.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC), "more came than a daemon hands over");
    octets.truncate(got.bytes);
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok((octets, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_their_names_arrive_and_still_listen() {
        let (near, far) = UnixStream::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fds = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&near, &[IoSlice::new(b"proxy")], &mut ancillary, SendFlags::empty()).unwrap();
        drop(listener);

        let (text, mut received) = receive(&far).unwrap();

        assert_eq!((text.as_slice(), received.len()), (&b"proxy"[..], 1));
        let listener = std::net::TcpListener::from(received.remove(0));
        std::net::TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn who_is_nobodys_child_is_told_so() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(near);
        assert!(receive(&far).is_err());
    }
}
