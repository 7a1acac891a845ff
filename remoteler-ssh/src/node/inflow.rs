//! From a channel to a process or socket. Drains the channel at once into a bounded buffer of its own, because a channel that nobody
//! drains stops every other channel of its connection; when the buffer is full and nothing moves for a while, the channel is given up.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use remoteler_core::LiveSignal;
use russh::{ChannelMsg, ChannelReadHalf};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

/// How a channel's incoming side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client closed it, or the connection is gone.
    Closed,
    /// The buffer was full and the target took nothing for the stall limit.
    Stalled,
}

/// Copies all data of `source` to `target`, closes `target` at the client's end of file (and then cancels `done`), and goes on reading
/// until the channel is closed. What the target does not take any more is thrown away, as sshd does.
pub(super) async fn feed<W>(
    mut source: ChannelReadHalf,
    target: W,
    (stall_limit, live): (Duration, &LiveSignal),
    done: &CancellationToken,
) -> Ended
where
    W: AsyncWrite + Unpin,
{
    let (queue, chunks) = mpsc::channel::<Bytes>(SLOTS);
    let written = AtomicU64::new(0);
    let mut at_end = false;
    let reading = async {
        let mut queue = Some(queue);
        while let Some(message) = source.wait().await {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "requests reach the connection's handler, which answers them"
            )]
            match message {
                ChannelMsg::Data { data } => {
                    live.touch();
                    let Some(sender) = &queue else { continue };
                    match put(sender, data, &written, stall_limit).await {
                        Put::Done => {}
                        Put::TargetGone => queue = None,
                        Put::Stalled => return Ended::Stalled,
                    }
                }
                ChannelMsg::Eof => {
                    queue = None;
                    at_end = true;
                }
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        Ended::Closed
    };
    let writing = write_all(chunks, target, &written);
    tokio::pin!(writing);
    let ended = {
        tokio::pin!(reading);
        tokio::select! {
            ended = &mut reading => ended,
            result = &mut writing => {
                if let Err(error) = result {
                    tracing::trace!(%error, "a channel's target takes no more data");
                }
                done.cancel();
                return reading.await;
            }
        }
    };
    if ended == Ended::Closed && at_end {
        // The client said that this is all of it and hung up: the target still gets it.
        let _in_time = tokio::time::timeout(stall_limit, &mut writing).await;
    }
    ended
}

enum Put {
    Done,
    TargetGone,
    Stalled,
}

async fn put(queue: &mpsc::Sender<Bytes>, data: Bytes, written: &AtomicU64, stall_limit: Duration) -> Put {
    let reserved = queue.reserve();
    tokio::pin!(reserved);
    let mut before = written.load(Ordering::Relaxed);
    loop {
        match tokio::time::timeout(stall_limit, &mut reserved).await {
            Ok(Ok(slot)) => {
                slot.send(data);
                return Put::Done;
            }
            Ok(Err(_)) => return Put::TargetGone,
            Err(_) => {
                let now = written.load(Ordering::Relaxed);
                if now == before {
                    return Put::Stalled;
                }
                before = now;
            }
        }
    }
}

async fn write_all<W>(mut chunks: mpsc::Receiver<Bytes>, mut target: W, written: &AtomicU64) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    while let Some(mut chunk) = chunks.recv().await {
        while !chunk.is_empty() {
            let count = target.write_buf(&mut chunk).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
    target.shutdown().await
}

/// Packets of at most 32 KiB: 2 MiB, the client's first window.
const SLOTS: usize = 64;
