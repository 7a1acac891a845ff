//! One stream of a link as its user holds it. Owns the user's claim on the stream: dropping it gives the stream up. Never
//! buffers: octets go straight into and out of the machine.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;

use super::{Shared, Wakers, now};
use crate::mux::ReadOutcome;
use crate::mux::error::Code;
use crate::mux::stream::StreamError;

/// A byte stream in a link. `shutdown` closes the writing half; dropping it before both halves are closed sends what was
/// written and then resets the stream, so the peer can tell an end from a loss.
///
/// A flush is a no-op: whatever was written is on its way. Reads and writes fail with an [`io::Error`] whose source is a
/// [`StreamError`].
pub struct MuxStream {
    shared: Arc<Shared>,
    id: u32,
}

impl MuxStream {
    pub(super) fn new(shared: Arc<Shared>, id: u32) -> Self {
        Self { shared, id }
    }

    /// Waits until the peer has taken the stream. One that was opened by the peer is taken already.
    ///
    /// # Errors
    /// The peer refused it, with a reason, or it ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn accepted(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| {
            let mut core = self.shared.lock();
            match core.mux.answer(self.id) {
                Some(answer) => Poll::Ready(answer),
                None => {
                    wait(&mut core.wakers.entry(self.id).or_default().answer, cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Ends the stream in both directions at once; nothing written and not yet sent goes out.
    pub fn reset(self, code: u16) {
        let mut core = self.shared.lock();
        core.mux.reset(self.id, code);
        self.shared.after(core);
    }

    /// Its number in the link, for logs.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl fmt::Debug for MuxStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MuxStream").field(&self.id).finish()
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        let _nobody_waits: Option<Box<Wakers>> = core.wakers.remove(&self.id);
        core.mux.release(self.id);
        self.shared.after(core);
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let turn = ready!(poll_proceed(cx));
        let mut core = self.shared.lock();
        let most = buf.remaining();
        let outcome = core.mux.read(self.id, most, now(), &mut |piece| buf.put_slice(piece));
        if outcome == Ok(ReadOutcome::Blocked) {
            wait(&mut core.wakers.entry(self.id).or_default().read, cx);
            return Poll::Pending;
        }
        self.shared.after(core);
        turn.made_progress();
        Poll::Ready(outcome.map(|_| ()).map_err(io_error))
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(octets)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let turn = ready!(poll_proceed(cx));
        let mut core = self.shared.lock();
        let mut written = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match core.mux.write(self.id, slice) {
                Ok(0) if written == 0 => {
                    wait(&mut core.wakers.entry(self.id).or_default().write, cx);
                    return Poll::Pending;
                }
                Ok(taken) => {
                    written += taken;
                    if taken < slice.len() {
                        break;
                    }
                }
                Err(_) if written > 0 => break, // told by the next call
                Err(error) => return Poll::Ready(Err(io_error(error))),
            }
        }
        self.shared.after(core);
        turn.made_progress();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut core = self.shared.lock();
        core.mux.finish(self.id);
        self.shared.after(core);
        Poll::Ready(Ok(()))
    }
}

/// A stream that the peer opened and nobody has taken yet. Dropping it refuses it.
pub struct IncomingStream {
    stream: Option<MuxStream>,
    metadata: Bytes,
}

impl IncomingStream {
    pub(super) fn new(shared: Arc<Shared>, id: u32, metadata: Bytes) -> Self {
        Self { stream: Some(MuxStream::new(shared, id)), metadata }
    }

    /// What the peer says the stream is for. Comes from outside: check it.
    #[must_use]
    pub fn metadata(&self) -> &Bytes {
        &self.metadata
    }

    /// Takes the stream.
    ///
    /// # Errors
    /// It is over already.
    pub fn accept(mut self) -> Result<MuxStream, StreamError> {
        let stream = self.stream.take().ok_or(StreamError::Unknown)?;
        let mut core = stream.shared.lock();
        core.mux.accept(stream.id)?;
        stream.shared.after(core);
        Ok(stream)
    }

    /// Refuses the stream. The reason is shown to people at the other end: no secrets in it.
    pub fn reject(mut self, code: Code, reason: &str) {
        self.refuse(code, reason);
    }

    fn refuse(&mut self, code: Code, reason: &str) {
        if let Some(stream) = self.stream.take() {
            let mut core = stream.shared.lock();
            core.mux.reject(stream.id, code.number(), reason);
            stream.shared.after(core);
        }
    }
}

impl fmt::Debug for IncomingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Drop for IncomingStream {
    fn drop(&mut self) {
        self.refuse(Code::Cancelled, "nobody took the stream");
    }
}

fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn io_error(error: StreamError) -> io::Error {
    let kind = match &error {
        StreamError::Rejected { .. } => io::ErrorKind::ConnectionRefused,
        StreamError::Reset { .. } | StreamError::Stalled { .. } | StreamError::LinkClosed { .. } => {
            io::ErrorKind::ConnectionReset
        }
        StreamError::Finished => io::ErrorKind::BrokenPipe,
        StreamError::Unknown => io::ErrorKind::NotConnected,
    };
    io::Error::new(kind, error)
}
