//! Links of agents that a process still carries when it has made way. Their agents' new connections reach the next process; that one passes
//! each back as one end of a socket pair. Owns the socket on which those come, from both sides. Never looks at what is copied.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use remoteler_tunnel::{BoxedStream, EarlierProcess, ServerTls, TunnelServer};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv,
    recvmsg, sendmsg,
};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

/// A process before this one, as this one reaches it.
pub(crate) struct Earlier(UnixStream);

impl Earlier {
    /// `socket` was handed down.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = StdUnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(socket)?))
    }
}

#[async_trait]
impl EarlierProcess for Earlier {
    async fn connect(&self) -> io::Result<BoxedStream> {
        let (near, far) = StdUnixStream::pair()?;
        near.set_nonblocking(true)?;
        self.0.async_io(Interest::WRITABLE, || send(&self.0, &far)).await?;
        Ok(Box::new(UnixStream::from_std(near)?))
    }
}

/// Whether the process at the other end of a socket that was handed down still takes connections.
pub(crate) fn is_there(socket: BorrowedFd<'_>) -> bool {
    let heard = recv(socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(heard, Err(rustix::io::Errno::AGAIN))
}

/// Gives `tunnels` what the processes after this one pass back, until none of them is there any more.
pub(crate) async fn take(socket: StdUnixStream, tunnels: Arc<TunnelServer>, tls: ServerTls) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = UnixStream::from_std(socket)?;
    each(&socket, |stream, turn| {
        let (tunnels, tls) = (tunnels.clone(), tls.clone());
        tokio::spawn(async move {
            tunnels.take_passed(Box::new(stream), &tls).await;
            drop(turn);
        });
    })
    .await;
    Ok(())
}

/// Takes connections to the end of the socket, and of nothing else: what is wrong with one of them is said, and the next one is taken.
async fn each(socket: &UnixStream, mut serve: impl FnMut(UnixStream, OwnedSemaphorePermit)) {
    let turns = Arc::new(Semaphore::new(MOST_AT_ONCE));
    let mut said_at: Option<Instant> = None;
    // Closed by nobody.
    while let Ok(turn) = turns.clone().acquire_owned().await {
        let passed = match socket.async_io(Interest::READABLE, || receive(socket)).await {
            Ok(None) => return,
            Ok(Some(passed)) => {
                passed.ok_or_else(|| io::Error::other("its descriptor did not arrive: is there one left?"))
            }
            Err(cause) => {
                sleep(A_MOMENT).await; // it may be the same at once
                Err(cause)
            }
        };
        match passed.and_then(stream) {
            Ok(stream) => serve(stream, turn),
            Err(cause) => {
                if said_at.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
                    said_at = Some(Instant::now());
                    tracing::warn!(%cause, "a connection that the next process passed back was lost; its agent makes another one");
                }
            }
        }
    }
}

fn stream(passed: OwnedFd) -> io::Result<UnixStream> {
    let passed = StdUnixStream::from(passed);
    passed.set_nonblocking(true)?;
    UnixStream::from_std(passed)
}

fn send(socket: &UnixStream, passed: impl AsFd) -> io::Result<()> {
    let fds = [passed.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("a descriptor does not fit into a message"));
    }
    sendmsg(socket, &[IoSlice::new(&[PASSED])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One connection; none in it where the descriptor did not arrive, and nothing at the end.
fn receive(socket: &UnixStream) -> io::Result<Option<Option<OwnedFd>>> {
    let mut octet = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut octet)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Ok(None);
    }
    let mut passed = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            passed = received.last();
        }
    }
    Ok(Some(passed))
}

const PASSED: u8 = b'L';
/// Connections whose agents have not proved anything here yet.
const MOST_AT_ONCE: usize = 256;
/// After an error of the socket itself.
const A_MOMENT: Duration = Duration::from_millis(100);
/// A line in the log for what is lost, at most.
const SAID_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn connections_arrive_one_by_one_until_the_last_holder_of_the_socket_is_gone() {
        let (near, far) = StdUnixStream::pair().unwrap();
        let kept = near.try_clone().unwrap();
        assert!(is_there(near.as_fd()));
        let earlier = Earlier::new(near.into()).unwrap();
        far.set_nonblocking(true).unwrap();
        let far = UnixStream::from_std(far).unwrap();
        for _ in 0..3 {
            let mut stream = earlier.connect().await.unwrap();
            stream.write_all(b"said").await.unwrap();
            let passed = far.async_io(Interest::READABLE, || receive(&far)).await.unwrap().unwrap().unwrap();
            let passed = StdUnixStream::from(passed);
            passed.set_nonblocking(true).unwrap();
            let mut heard = [0; 4];
            UnixStream::from_std(passed).unwrap().read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"said");
        }
        drop(earlier);
        assert_eq!(receive(&far).unwrap_err().kind(), io::ErrorKind::WouldBlock, "another process may hold it");
        drop(kept);
        assert!(far.async_io(Interest::READABLE, || receive(&far)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_connection_that_is_none_does_not_end_the_taking_of_others() {
        let (near, far) = UnixStream::pair().unwrap();
        let taking = tokio::spawn(async move {
            let mut taken = Vec::new();
            each(&far, |stream, _turn| taken.push(stream)).await;
            taken
        });
        // Files cannot be waited for, and one message comes without any.
        send(&near, std::fs::File::open("/proc/self/stat").unwrap()).unwrap();
        near.try_write(&[PASSED]).unwrap();
        let (mut heard, passed) = StdUnixStream::pair().unwrap();
        send(&near, &passed).unwrap();
        drop((near, passed));
        let mut taken = tokio::time::timeout(Duration::from_secs(60), taking).await.unwrap().unwrap();
        assert_eq!(taken.len(), 1);
        taken.remove(0).write_all(b"it").await.unwrap();
        let mut said = [0; 2];
        std::io::Read::read_exact(&mut heard, &mut said).unwrap();
        assert_eq!(&said, b"it");
    }

    #[tokio::test]
    async fn a_process_that_has_ended_is_not_reached() {
        let (near, far) = StdUnixStream::pair().unwrap();
        drop(far);
        assert!(!is_there(near.as_fd()));
        assert!(Earlier::new(near.into()).unwrap().connect().await.is_err());
    }
}
