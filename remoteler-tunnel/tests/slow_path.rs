//! A path that is slower than what is sent over it, on real sockets: how much stands in front of what is urgent, counted in octets.
#![cfg(target_os = "linux")] // elsewhere the system keeps as much unsent as it likes
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use remoteler_tunnel::{AdmissionLimits, BoxedStream, DialHeader, StreamService};
use support::{Proxy, connected};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// Answers keystrokes, and hears everything else; or says without end what nobody asked for.
#[derive(Default)]
struct Terminal {
    /// Told of each answer that it has written.
    answered: Notify,
}

#[async_trait]
impl StreamService for Terminal {
    async fn serve(&self, mut stream: BoxedStream, _header: DialHeader) {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            if piece.first() == Some(&b'k') {
                if stream.write_all(&piece[..count]).await.is_err() {
                    return;
                }
                self.answered.notify_one();
            }
            while piece.first() == Some(&b'b') && stream.write_all(&[b'.'; 64 * 1024]).await.is_ok() {}
        }
    }
}

/// Which way is slow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slow {
    ToTheAgent,
    ToTheProxy,
}

/// Lets as much pass that way as the test says, and holds little of its own.
struct SlowRelay {
    address: SocketAddr,
    allowed: watch::Sender<usize>,
}

impl SlowRelay {
    fn start(to: SocketAddr, slow: Slow) -> Self {
        let near = socket();
        near.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = near.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        let allowed = watch::Sender::new(64 * 1024); // for handshakes
        let mut ways = [allowed.subscribe(), watch::Sender::new(usize::MAX).subscribe()];
        if slow == Slow::ToTheAgent {
            ways.reverse();
        }
        let [up, down] = ways;
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = socket().connect(to).await.unwrap();
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(from_near, to_far, up.clone()));
                tokio::spawn(pass(from_far, to_near, down.clone()));
            }
        });
        Self { address, allowed }
    }

    /// So many octets more pass, a megabyte in a second.
    async fn let_pass(&self, octets: usize) {
        for _ in 0..octets.div_ceil(PIECE) {
            self.allowed.send_modify(|allowed| *allowed += PIECE);
            sleep(Duration::from_millis(4)).await;
        }
    }
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut allowed: watch::Receiver<usize>) {
    let (mut passed, mut piece) = (0, [0; PIECE]);
    loop {
        // Who allows is dropped only where all is allowed, or at the end.
        let now = allowed.wait_for(|allowed| *allowed > passed).await.map_or(usize::MAX, |allowed| *allowed);
        let most = (now - passed).min(PIECE);
        let Ok(count @ 1..) = from.read(&mut piece[..most]).await else { return };
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
        passed += count;
    }
}

/// An agent that is reached by a slow path, its streams with more to be carried than that takes, and one for keystrokes.
async fn keystrokes_are_answered_beside_bulk(slow: Slow) {
    let proxy = Proxy::start(AdmissionLimits::default()).await;
    let relay = SlowRelay::start(proxy.address, slow);
    let terminal = Arc::new(Terminal::default());
    let agent = proxy.agent("edge", relay.address, terminal.clone());
    connected(&agent).await;
    let mut keys = proxy.dial("edge").await.unwrap();
    // More than the path takes in a second, whatever a single stream may send.
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(proxy.dial("edge").await.unwrap());
    }
    let mut bulk = tokio::task::JoinSet::new();
    for mut stream in streams {
        bulk.spawn(async move {
            match slow {
                Slow::ToTheAgent => while stream.write_all(&[b'.'; 64 * 1024]).await.is_ok() {},
                Slow::ToTheProxy => {
                    stream.write_u8(b'b').await.unwrap();
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            }
        });
    }

    for round in 1..=10 {
        relay.let_pass(128 * 1024).await;
        keys.write_u8(b'k').await.unwrap();
        keys.flush().await.unwrap();
        if slow == Slow::ToTheProxy {
            terminal.answered.notified().await; // what passes before that is not in its way
        }
        relay.let_pass(PATH + FRAME).await;
        let echo = timeout(SOON, keys.read_u8()).await;
        assert!(echo.is_ok_and(|echo| echo.is_ok_and(|echo| echo == b'k')), "keystroke {round} is still behind others");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keystroke_waits_behind_no_more_than_one_bulk_frame_of_ours() {
    keystrokes_are_answered_beside_bulk(Slow::ToTheAgent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_answers_waits_behind_no_more_than_one_bulk_frame_of_its_own() {
    keystrokes_are_answered_beside_bulk(Slow::ToTheProxy).await;
}

const SOON: Duration = Duration::from_secs(10);
const PIECE: usize = 4 * 1024;
const FRAME: usize = 16 * 1024;
/// What the path itself holds, in the relay and in the sockets that it reads.
const PATH: usize = (4 + 16) * 1024;
