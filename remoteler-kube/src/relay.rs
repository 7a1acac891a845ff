//! What remains of a connection after an upgrade: two byte streams, joined until one of them ends, the certificate does, or the rules end it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use remoteler_core::{LiveSignal, Timestamp};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};

use crate::farewell::{Frames, last_frames};

/// How long the second direction may take to end after the first has.
const LINGER: Duration = Duration::from_secs(5);
/// After the end of a login what has not been told and ended by then is cut.
const UNTOLD: Duration = Duration::from_secs(2);
/// How long a client may take to be told why it was cut.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// When a certificate that ends at `expires` has ended, on the machine's monotonic clock. A clock that is set later does not move it.
pub(crate) fn lifetime(now: Timestamp, expires: Timestamp) -> Instant {
    // A year is longer than any connection; further away the monotonic clock could overflow.
    const FAR: Duration = Duration::from_secs(365 * 86_400);
    Instant::now() + expires.since(now).min(FAR)
}

/// When work that began with a certificate is cut, if the table of live work did not end it with a word at the end of the login, which is `expires`.
pub(crate) fn cut_at(now: Timestamp, expires: Timestamp) -> Instant {
    lifetime(now, expires) + UNTOLD
}

/// Where a request leaves the work that begins when its connection has been upgraded. HTTP/1.1 upgrades a connection once, so one
/// place is enough; the connection's task does the work, and dropping that task ends both sides.
#[derive(Clone, Default)]
pub(crate) struct RelaySlot(Arc<Mutex<Option<BoxFuture<'static, ()>>>>);

impl RelaySlot {
    /// Leaves `work`.
    pub(crate) fn put(&self, work: BoxFuture<'static, ()>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
    }

    /// Takes what was left.
    pub(crate) fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Copies both ways. When one direction ends, the other has a few seconds; at `deadline`, and when `live` says so, both are cut; then the client of a WebSocket, whose
/// protocol stands beside, is told why, if a message may begin there. Both streams are closed on return.
pub(crate) async fn join<A, B>(
    mut client: A,
    mut upstream: B,
    deadline: Instant,
    live: Option<(&LiveSignal, Option<String>)>,
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = Frames::default();
    let ended =
        copy_both(&mut client, &mut upstream, deadline, live.as_ref().map(|(live, _)| *live), &mut frames).await;
    if let Some((live, Some(protocol))) = live
        && let Some(reason) = live.reason()
        && frames.between_messages()
    {
        let last = last_frames(&protocol, &reason.to_string());
        let _told = timeout(LAST_WORDS, async {
            client.write_all(&last).await?;
            client.shutdown().await
        })
        .await;
    }
    ended
}

async fn copy_both<A, B>(
    client: &mut A,
    upstream: &mut B,
    deadline: Instant,
    live: Option<&LiveSignal>,
    frames: &mut Frames,
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream);
    let touch = || live.into_iter().for_each(LiveSignal::touch);
    let mut up = std::pin::pin!(async {
        let copied = copy(&mut client_read, &mut upstream_write, |_| touch()).await;
        upstream_write.shutdown().await.and(copied)
    });
    let follow = |taken: &[u8]| {
        touch();
        frames.follow(taken);
    };
    let mut down = std::pin::pin!(async {
        let copied = copy(&mut upstream_read, &mut client_write, follow).await;
        client_write.shutdown().await.and(copied)
    });
    let told = async {
        match live {
            Some(live) => live.ended().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        reason = told => Err(io::Error::new(io::ErrorKind::PermissionDenied, reason)),
        ended = &mut up => { let _ = timeout(LINGER, &mut down).await; ended }
        ended = &mut down => { let _ = timeout(LINGER, &mut up).await; ended }
        () = sleep_until(deadline) => Err(io::Error::new(io::ErrorKind::TimedOut, "the certificate expired")),
    };
    ended
}

/// Copies to the end, and shows what was taken.
async fn copy<R, W>(from: &mut R, to: &mut W, mut taken: impl FnMut(&[u8])) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        let mut left = buffer.get(..count).unwrap_or_default();
        if left.is_empty() {
            return Ok(());
        }
        while !left.is_empty() {
            let count = to.write(left).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let (gone, rest) = left.split_at(count.min(left.len()));
            taken(gone);
            left = rest;
        }
        to.flush().await?;
    }
}

const PIECE: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_sides_are_closed_when_the_certificate_ends() {
        let (client, mut user) = tokio::io::duplex(64);
        let (upstream, mut api_server) = tokio::io::duplex(64);
        let began = Instant::now();

        join(client, upstream, began + Duration::from_secs(60), None).await.unwrap_err();

        assert_eq!(began.elapsed().as_secs(), 60);
        let mut rest = Vec::new();
        assert_eq!(user.read_to_end(&mut rest).await.unwrap(), 0);
        assert_eq!(api_server.read_to_end(&mut rest).await.unwrap(), 0);
    }

    // I58
    #[tokio::test(start_paused = true)]
    async fn a_side_that_will_not_end_is_cut_after_the_other_has() {
        let (client, mut user) = tokio::io::duplex(64);
        let (upstream, mut api_server) = tokio::io::duplex(64);
        api_server.write_all(b"last words").await.unwrap();
        api_server.shutdown().await.unwrap();
        let began = Instant::now();

        join(client, upstream, began + Duration::from_secs(3600), None).await.unwrap();

        assert_eq!(began.elapsed(), LINGER);
        let mut heard = Vec::new();
        user.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
    }
}
