//! Standard input and output as asynchronous streams. Owns how they are read without blocking others: pipes and Unix sockets are
//! made non-blocking while in use and set back afterwards, as ssh(1) does; terminals and files go through a thread.

use std::{
    io,
    os::{fd::BorrowedFd, unix::net::UnixStream as StdUnixStream},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{
    fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat},
    stdio,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixStream, unix::pipe},
};

/// Standard input.
pub(crate) enum Stdin {
    Pipe(Borrowed<pipe::Receiver>),
    Socket(Borrowed<UnixStream>),
    Thread(tokio::io::Stdin),
    /// As if it were `/dev/null`.
    Empty,
}

/// Standard output or standard error.
pub(crate) enum Stdout {
    Pipe(Borrowed<pipe::Sender>),
    Socket(Borrowed<UnixStream>),
    Stdout(tokio::io::Stdout),
    Stderr(tokio::io::Stderr),
}

/// A duplicate of a standard descriptor, in non-blocking mode while it is used.
pub(crate) struct Borrowed<T> {
    io: T,
    _set_back: SetBack,
}

/// Makes a descriptor blocking again when dropped, if it was before: what follows in the same shell counts on that.
pub(crate) struct SetBack(Option<BorrowedFd<'static>>);

impl SetBack {
    fn of(fd: BorrowedFd<'static>) -> Self {
        let blocking = fcntl_getfl(fd).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK));
        Self(blocking.then_some(fd))
    }
}

impl Drop for SetBack {
    fn drop(&mut self) {
        if let Some(fd) = self.0
            && let Ok(flags) = fcntl_getfl(fd)
        {
            let _ = fcntl_setfl(fd, flags - OFlags::NONBLOCK);
        }
    }
}

fn kind(fd: BorrowedFd<'_>) -> FileType {
    fstat(fd).map_or(FileType::Unknown, |found| FileType::from_raw_mode(found.st_mode))
}

/// The descriptor as a Unix socket, if it is one.
fn socket(fd: BorrowedFd<'_>) -> Option<UnixStream> {
    let stream = StdUnixStream::from(rustix::io::dup(fd).ok()?);
    stream.local_addr().ok()?; // fails for sockets of other families
    stream.set_nonblocking(true).ok()?;
    UnixStream::from_std(stream).ok()
}

pub(crate) fn stdin() -> Stdin {
    let fd = stdio::stdin();
    let set_back = SetBack::of(fd);
    let opened = match kind(fd) {
        FileType::Fifo => {
            let pipe = rustix::io::dup(fd).ok().and_then(|fd| pipe::Receiver::from_owned_fd(fd).ok());
            pipe.map(|pipe| Stdin::Pipe(Borrowed { io: pipe, _set_back: set_back }))
        }
        FileType::Socket => socket(fd).map(|socket| Stdin::Socket(Borrowed { io: socket, _set_back: set_back })),
        FileType::RegularFile
        | FileType::Directory
        | FileType::Symlink
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => None,
    };
    opened.unwrap_or_else(|| Stdin::Thread(tokio::io::stdin()))
}

pub(crate) fn stdout() -> Stdout {
    polled_output(stdio::stdout()).unwrap_or_else(|| Stdout::Stdout(tokio::io::stdout()))
}

pub(crate) fn stderr() -> Stdout {
    polled_output(stdio::stderr()).unwrap_or_else(|| Stdout::Stderr(tokio::io::stderr()))
}

fn polled_output(fd: BorrowedFd<'static>) -> Option<Stdout> {
    let set_back = SetBack::of(fd);
    match kind(fd) {
        FileType::Fifo => {
            let pipe = pipe::Sender::from_owned_fd(rustix::io::dup(fd).ok()?).ok()?;
            Some(Stdout::Pipe(Borrowed { io: pipe, _set_back: set_back }))
        }
        FileType::Socket => Some(Stdout::Socket(Borrowed { io: socket(fd)?, _set_back: set_back })),
        FileType::RegularFile
        | FileType::Directory
        | FileType::Symlink
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => None,
    }
}

impl AsyncRead for Stdin {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(&mut pipe.io).poll_read(cx, buf),
            Self::Socket(socket) => Pin::new(&mut socket.io).poll_read(cx, buf),
            Self::Thread(stdin) => Pin::new(stdin).poll_read(cx, buf),
            Self::Empty => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(&mut pipe.io).poll_write(cx, octets),
            Self::Socket(socket) => Pin::new(&mut socket.io).poll_write(cx, octets),
            Self::Stdout(stdout) => Pin::new(stdout).poll_write(cx, octets),
            Self::Stderr(stderr) => Pin::new(stderr).poll_write(cx, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(_) | Self::Socket(_) => Poll::Ready(Ok(())),
            Self::Stdout(stdout) => Pin::new(stdout).poll_flush(cx),
            Self::Stderr(stderr) => Pin::new(stderr).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Standard input and output as one stream, for a program that stands in for a connection.
///
/// Standard output cannot be half-closed while this process lives. So when the other side has sent everything, the whole stream fails
/// with [`io::ErrorKind::NotConnected`] after the last octet was written: time for the process to end.
pub(crate) struct Stdio {
    stdin: Stdin,
    stdout: Stdout,
}

impl Stdio {
    pub(crate) fn new() -> Self {
        Self { stdin: stdin(), stdout: stdout() }
    }
}

impl AsyncRead for Stdio {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdout).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stdout).poll_flush(cx))?;
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }
}
