//! Peers that hold an agent's certificate and mean harm: malformed frames, floods, credit that was never given, links of others. The proxy ends
//! their links, stays the size that it has, and serves everybody else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use remoteler_core::SystemClock;
use remoteler_tests::{Cluster, eventually, need, run};
use remoteler_tunnel::{
    ALPN_TUNNEL, EXPORT_CHANNEL, EXPORT_KEYS, ExportsKeys, FirstContact, FrameType, HEADER_LEN, Header, Hello, Payload,
    REGISTRATION_METADATA, RESUME, ResumeKeys, SharedTlsIdentity, TlsIdentity,
};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Peers at once, unless `REMOTELER_HOSTILE_PEERS` says another number.
const PEERS: u64 = 50;

fn peers() -> u64 {
    std::env::var("REMOTELER_HOSTILE_PEERS").map_or(PEERS, |text| text.parse().expect("a number of peers"))
}
/// Frames that a peer writes at a time, whether or not anybody reads them.
const FRAMES: usize = 2000;

/// A host that joined, and whose keys are now in other hands.
struct Villain {
    proxy: String,
    config: Arc<rustls::ClientConfig>,
    links: AtomicU64,
    counts: Counts,
}

/// What the proxy has judged.
#[derive(Default)]
struct Counts {
    /// Malformed frames: the first of a link is its last.
    malformed: AtomicU64,
    /// Frames that mean nothing where they come, and that the proxy has acknowledged: it bears some.
    borne: AtomicU64,
    /// Links that it ended, and resumptions that it refused.
    ended: AtomicU64,
}

impl Counts {
    fn now(&self) -> [u64; 3] {
        [&self.malformed, &self.borne, &self.ended].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Villain {
    fn new(cluster: &Cluster) -> Self {
        let mut edge = cluster.edge("mallory");
        let state = std::fs::read(edge.data_dir().join("host.json")).unwrap();
        edge.process().kill_hard();
        let state: Value = serde_json::from_slice(&state).unwrap();
        let text = |field: &str| state[field].as_str().unwrap().as_bytes().to_vec();
        let identity = TlsIdentity::from_pem(&text("tls_certificate"), &text("tls_private_key")).unwrap();
        let config = FirstContact::Insecure.client_config(Arc::new(SystemClock), ALPN_TUNNEL).unwrap();
        let mut config = rustls::ClientConfig::clone(&config);
        config.client_auth_cert_resolver = SharedTlsIdentity::new(identity);
        let proxy = cluster.proxy().to_owned();
        Self { proxy, config: Arc::new(config), links: AtomicU64::default(), counts: Counts::default() }
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(&self.proxy).await?;
        let name = ServerName::try_from(Cluster::NAME).unwrap();
        let stream = TlsConnector::from(self.config.clone()).connect(name, socket).await?;
        self.links.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    /// One link with one kind of harm, to the end that the proxy makes of it.
    async fn harm(&self, kind: u64) -> std::io::Result<()> {
        let mut stream = self.connect().await?;
        let mut wire = BytesMut::new();
        match kind % KINDS {
            6 => return self.resume(stream).await,
            7 => return self.wear_out(stream).await,
            _ => hello().put(&mut wire),
        }
        match kind % KINDS {
            // Another one first each time: the others are not looked at any more.
            0 => (0..FRAMES).for_each(|at| malformed(kind as usize / KINDS as usize + at, &mut wire)),
            // Streams that nobody takes.
            1 => sequenced(
                &mut wire,
                &mut 0,
                (0..FRAMES as u32).map(|at| (2 * at + 1, Payload::Open(Bytes::from_static(b"{}")))),
            ),
            // More than there is credit for.
            2 => sequenced(
                &mut wire,
                &mut 0,
                [(1, Payload::Open(Bytes::from_static(REGISTRATION_METADATA)))]
                    .into_iter()
                    .chain((0..40).map(|_| (1, Payload::Data(Bytes::from_static(&[b'x'; 16_000]))))),
            ),
            // More credit than can be counted.
            3 => sequenced(&mut wire, &mut 0, (0..FRAMES).map(|_| (0, Payload::Window(i32::MAX as u32)))),
            // Questions without an ear for the answers.
            4 => (0..FRAMES as u64).for_each(|nonce| unsequenced(&mut wire, Payload::Ping(nonce, 0))),
            // Streams that come and go.
            _ => sequenced(
                &mut wire,
                &mut 0,
                (0..FRAMES as u32 / 2).flat_map(|at| {
                    let id = 2 * at + 1;
                    [(id, Payload::Open(Bytes::from_static(b"{}"))), (id, Payload::Reset(1))]
                }),
            ),
        }
        let written = stream.write_all(&wire).await;
        // Whatever is answered: it ends.
        let mut answer = vec![0; 16 * 1024];
        while timeout(LIMIT, stream.read(&mut answer)).await.expect("the proxy ends the link")? > 0 {}
        self.counts.ended.fetch_add(1, Ordering::Relaxed);
        if kind.is_multiple_of(KINDS) {
            self.counts.malformed.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    /// Ends of a stream that is over, again and again: each is judged and borne, until there were too many. What the proxy has judged, its
    /// acknowledgement says.
    async fn wear_out(&self, mut stream: TlsStream<TcpStream>) -> std::io::Result<()> {
        let mut wire = BytesMut::new();
        hello().put(&mut wire);
        let first = [
            (1, Payload::Open(Bytes::from_static(REGISTRATION_METADATA))),
            (3, Payload::Open(Bytes::from_static(b"{}"))),
            (3, Payload::Reset(1)),
        ];
        let mut sent = 0;
        sequenced(&mut wire, &mut sent, first);
        let mut arrived = BytesMut::new();
        let mut greeted = false;
        for nonce in 1.. {
            sequenced(&mut wire, &mut sent, (0..FRAMES).map(|_| (3, Payload::Fin)));
            unsequenced(&mut wire, Payload::Ping(nonce, 0));
            stream.write_all(&wire.split()).await?;
            while !acknowledges(&mut arrived, &mut greeted, sent) {
                if timeout(LIMIT, stream.read_buf(&mut arrived)).await.expect("an answer or an end")? == 0 {
                    self.counts.ended.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
            }
            self.counts.borne.fetch_add(FRAMES as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Somebody else's link by its id, and the link of before by octets that were good once.
    async fn resume(&self, mut stream: TlsStream<TcpStream>) -> std::io::Result<()> {
        let keys = ResumeKeys::new(&stream.export(EXPORT_KEYS).unwrap());
        let channel = stream.export(EXPORT_CHANNEL).unwrap();
        let mut request = keys.request(1, 0, &channel);
        stream.write_all(&request).await?;
        refused(&mut stream).await?;
        let mut again = self.connect().await?;
        again.write_all(&request).await?; // as it was seen on the other connection
        refused(&mut again).await?;
        let mut other = self.connect().await?;
        request[8..24].fill(7); // an id that might be somebody's
        other.write_all(&request).await?;
        refused(&mut other).await?;
        self.counts.ended.fetch_add(3, Ordering::Relaxed);
        Ok(())
    }
}

const KINDS: u64 = 8;
const LIMIT: Duration = Duration::from_secs(30);

fn hello() -> Hello {
    Hello {
        minor: 0,
        features: RESUME,
        max_streams: 100,
        stream_window: 65_536,
        link_window: 65_536,
        max_data: 16_372,
        max_metadata: 4096,
    }
}

/// A frame that cannot be: of an unknown type, with a reserved octet, of a length that its type does not have, or out of sequence.
fn malformed(at: usize, wire: &mut BytesMut) {
    let frame: [u8; 12] = match at % 4 {
        0 => [0x7f, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        1 => [0x11, 9, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0],
        2 => [0x05, 0, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0],
        _ => [0x06, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0],
    };
    wire.extend_from_slice(&frame);
}

/// Frames of which the first has this number, which is then the next one's.
fn sequenced(wire: &mut BytesMut, sequence: &mut u32, frames: impl IntoIterator<Item = (u32, Payload)>) {
    for (stream, payload) in frames {
        let before = wire.len();
        Header { kind: payload.kind(), length: payload.wire_len(), stream, sequence: *sequence, prompt: false }
            .put(wire);
        payload.put(wire);
        *sequence += (wire.len() - before) as u32;
    }
}

/// Whether what arrived says that all octets up to there did, or more; takes what is read.
fn acknowledges(arrived: &mut BytesMut, greeted: &mut bool, sent: u32) -> bool {
    if !*greeted && matches!(Hello::take(arrived), Ok(Some(_))) {
        *greeted = true;
    }
    while *greeted && let Ok(Some(header)) = Header::peek(arrived) {
        if arrived.len() < HEADER_LEN + header.length {
            return false;
        }
        let payload = arrived.split_to(HEADER_LEN + header.length).split_off(HEADER_LEN).freeze();
        if let Ok(Payload::Pong(_, ack)) = Payload::decode(header.kind, payload)
            && ack == sent
        {
            return true;
        }
    }
    false
}

fn unsequenced(wire: &mut BytesMut, payload: Payload) {
    assert!(!FrameType::is_sequenced(payload.kind()));
    Header { kind: payload.kind(), length: payload.wire_len(), stream: 0, sequence: 0, prompt: false }.put(wire);
    payload.put(wire);
}

async fn refused(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    let mut prefix = [0; 9];
    timeout(LIMIT, stream.read_exact(&mut prefix)).await.expect("an answer")?;
    assert_eq!((&prefix[..4], prefix[8]), (&b"RLNR"[..], 1), "the link of another connection was taken up");
    Ok(())
}

/// Does harm for so long.
fn attack(villain: &Arc<Villain>, length: Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let until = Instant::now() + length;
    runtime.block_on(async {
        let peers = (0..peers()).map(|peer| {
            let villain = villain.clone();
            tokio::spawn(async move {
                for kind in peer.. {
                    // A proxy that closes while we write, or takes no more from us for now, is what we are after.
                    let _ = villain.harm(kind).await;
                    if Instant::now() > until {
                        break;
                    }
                }
            })
        });
        for peer in peers.collect::<Vec<_>>() {
            peer.await.unwrap();
        }
    });
}

/// The most that a process held since this was last asked, in KiB: what an allocator gives back by chance in the moment of looking does not count.
fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap(); // proc_pid_clear_refs(5)
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

// I25, I26, I27
#[test]
fn hostile_agents_lose_their_links_and_the_proxy_serves_on_and_does_not_grow() {
    if !need(&["ssh"]) {
        return;
    }
    let mut cluster = Cluster::start();
    let villain = Arc::new(Villain::new(&cluster));
    let edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    let reaches = || {
        let out = run(ann.openssh("ssh").args(["-o", "BatchMode=yes", "edge-1", "echo up"]));
        if out.text() == "up\n" { Ok(()) } else { Err(out.stderr) }
    };
    reaches().unwrap();
    let process = cluster.daemon().id();
    peak_kib(process); // of its start
    let attacked_beside_users = |length| {
        std::thread::scope(|scope| {
            let attacking = scope.spawn(|| attack(&villain, length));
            while !attacking.is_finished() {
                reaches().expect("an honest user during the attack");
            }
        });
    };
    // What any load makes it hold is there after this: caches of the store, which its users fill, among it.
    attacked_beside_users(Duration::from_secs(12));
    let (before, log_before) = (peak_kib(process), cluster.daemon().log().len());

    let (seconds, counted) = (Duration::from_secs(6), villain.counts.now());
    let began = Instant::now();
    attacked_beside_users(seconds);
    let took = began.elapsed().as_secs_f64();

    let (after, log) = (peak_kib(process), cluster.daemon().log());
    let log_after = log.len();
    let counts = villain.counts.now();
    let [malformed, borne, ended] = [0, 1, 2].map(|of| counts[of] - counted[of]);
    let (links, a_second) = (villain.links.load(Ordering::Relaxed), borne as f64 / took);
    println!(
        "in {took:.1} s {malformed} links ended at their first malformed frame and {ended} links and resumptions in all, \
         of {links} with those before; {a_second:.0} frames without effect a second were judged; \
         it held {before} KiB at the most before, {after} KiB then; {} octets of log",
        log_after - log_before,
    );
    assert!(counts[0] > 10 && counts[2] > 2 * KINDS, "few links were ended: {counts:?}");
    assert!(a_second > 10_000.0, "only {a_second:.0} frames a second were judged and borne");
    assert!(after <= before + before / 20, "{before} KiB before, {after} KiB after");
    assert!(!log.contains("panicked"), "{log}");
    assert!(log_after - log_before < 1024 * 1024, "{} octets of log", log_after - log_before);
    eventually("the edge node still has its tunnel, and is reached", reaches);
    edge.wait_connected();
}
