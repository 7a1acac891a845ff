//! How fast bytes get through what lies between a user and a node: the proxy's relay, and the link's multiplexer beside yamux. All of it
//! in memory and on one thread, so that what is measured is the software path and nothing of the network or the scheduler.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use remoteler_tunnel::{Limits, Link, Side, relay};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex},
    runtime::{Builder, Runtime},
};

/// Moved in one iteration.
const TOTAL: usize = 16 << 20;
/// Moved in one write.
const CHUNK: usize = 64 << 10;
/// What the connection below holds in each direction.
const WIRE: usize = 256 << 10;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    relay_throughput(&mut criterion);
    mux_throughput(&mut criterion);
    open_stream(&mut criterion);
    criterion.final_summary();
}

fn relay_throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("relay_throughput");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(20);
    group.bench_function("64KiB", |bencher| {
        let runtime = runtime();
        let (mut near, mut first) = duplex(WIRE);
        let (mut second, mut far) = duplex(WIRE);
        runtime.spawn(async move { relay(&mut first, &mut second).await });
        bencher.iter_custom(|iterations| runtime.block_on(timed(&mut near, &mut far, iterations)));
    });
    group.finish();
}

fn mux_throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mux_throughput");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(20);
    group.bench_function("connection_alone", |bencher| {
        let runtime = runtime();
        let (mut near, mut far) = duplex(WIRE);
        bencher.iter_custom(|iterations| runtime.block_on(timed(&mut near, &mut far, iterations)));
    });
    group.bench_function("link", |bencher| {
        let runtime = runtime();
        let (client, server) = runtime.block_on(async { links() });
        let (mut near, mut far) = runtime.block_on(async {
            let near = client.open("bench").expect("a new link takes a stream");
            let far = server.accept().await.expect("the link is up").accept().expect("the link is up");
            (near, far)
        });
        bencher.iter_custom(|iterations| runtime.block_on(timed(&mut near, &mut far, iterations)));
    });
    group.bench_function("yamux", |bencher| {
        let runtime = runtime();
        let (mut near, mut far) = runtime.block_on(yamux_streams());
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..iterations {
                    let send = async {
                        let chunk = [7; CHUNK];
                        for _ in 0..TOTAL / CHUNK {
                            near.write_all(&chunk).await.expect("the connection is up");
                        }
                        near.flush().await.expect("the connection is up");
                    };
                    let receive = async {
                        let (mut buffer, mut left) = (vec![0; CHUNK], TOTAL);
                        while left > 0 {
                            left -= far.read(&mut buffer).await.expect("the connection is up");
                        }
                    };
                    tokio::join!(send, receive);
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// A new stream on a link, until its first octet has come back.
fn open_stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mux");
    group.throughput(Throughput::Elements(1));
    group.bench_function("open_stream_and_echo", |bencher| {
        let runtime = runtime();
        let (client, server) = runtime.block_on(async { links() });
        runtime.spawn(async move {
            while let Some(incoming) = server.accept().await {
                let Ok(mut stream) = incoming.accept() else { break };
                tokio::spawn(async move {
                    if let Ok(octet) = stream.read_u8().await {
                        let _ = stream.write_u8(octet).await;
                        let _ = stream.shutdown().await;
                    }
                });
            }
        });
        bencher.iter(|| {
            runtime.block_on(async {
                let mut stream = client.open("bench").expect("the link takes a stream");
                stream.write_u8(7).await.expect("the link is up");
                stream.shutdown().await.expect("the link is up");
                stream.read_u8().await.expect("the link is up")
            })
        });
    });
    group.finish();
}

async fn timed<A, B>(near: &mut A, far: &mut B, iterations: u64) -> Duration
where
    A: AsyncWrite + Unpin,
    B: AsyncRead + Unpin,
{
    let start = Instant::now();
    for _ in 0..iterations {
        let send = async {
            let chunk = [7; CHUNK];
            for _ in 0..TOTAL / CHUNK {
                near.write_all(&chunk).await.expect("the connection is up");
            }
            near.flush().await.expect("the connection is up");
        };
        let receive = async {
            let (mut buffer, mut left) = (vec![0; CHUNK], TOTAL);
            while left > 0 {
                left -= far.read(&mut buffer).await.expect("the connection is up");
            }
        };
        tokio::join!(send, receive);
    }
    start.elapsed()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

fn links() -> (Link, Link) {
    let (near, far) = duplex(WIRE);
    (Link::start(near, Side::Client, Limits::client()), Link::start(far, Side::Server, Limits::server()))
}

/// The two ends of one stream; the connections below are driven by tasks of their own, as yamux wants.
async fn yamux_streams() -> (yamux::Stream, yamux::Stream) {
    let (near, far) = duplex(WIRE);
    let mut client = yamux::Connection::new(FuturesIo(near), yamux::Config::default(), yamux::Mode::Client);
    let mut server = yamux::Connection::new(FuturesIo(far), yamux::Config::default(), yamux::Mode::Server);
    let mut opened = poll_fn(|cx| client.poll_new_outbound(cx)).await.expect("a new connection takes a stream");
    tokio::spawn(async move { while poll_fn(|cx| client.poll_next_inbound(cx)).await.is_some() {} });
    let (give, take) = futures::channel::oneshot::channel();
    tokio::spawn(async move {
        let mut give = Some(give);
        while let Some(Ok(stream)) = poll_fn(|cx| server.poll_next_inbound(cx)).await {
            if let Some(give) = give.take() {
                let _ = give.send(stream);
            }
        }
    });
    // yamux announces a stream with its first data.
    opened.write_all(&[7]).await.expect("the connection is up");
    opened.flush().await.expect("the connection is up");
    let mut accepted = take.await.expect("the stream arrives");
    accepted.read_exact(&mut [0]).await.expect("the connection is up");
    (opened, accepted)
}

/// Tokio's stream as the `futures` traits see it.
struct FuturesIo(DuplexStream);

impl futures::io::AsyncRead for FuturesIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(octets);
        ready!(Pin::new(&mut self.get_mut().0).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl futures::io::AsyncWrite for FuturesIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
