//! A network in memory. Owns the octets under way. Order within a connection is kept, as TCP keeps it; when octets arrive, and whether
//! they do, the test decides.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep};

use crate::connect::ConnectError;
use crate::dialer::Dialer;
use crate::stream::BoxedStream;

/// The network: who listens where.
#[derive(Clone)]
pub struct Net {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    listeners: BTreeMap<String, mpsc::Sender<Arrival>>,
    accepted: BTreeMap<String, Vec<Weak<Mutex<Connection>>>>,
    random: u64,
    next_port: u16,
}

/// A connection that somebody made to a [`NetListener`].
pub struct Arrival {
    /// The connection.
    pub stream: BoxedStream,
    /// Where it comes from.
    pub source: SocketAddr,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Takes connections to one address until it is dropped.
#[derive(Debug)]
pub struct NetListener {
    arrivals: mpsc::Receiver<Arrival>,
}

impl NetListener {
    /// The next connection.
    pub async fn accept(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }
}

impl Net {
    /// An empty network. Delays are drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let shared = Shared { listeners: BTreeMap::new(), accepted: BTreeMap::new(), random: seed, next_port: 1024 };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Listens at `address` (`host:port`), in place of whoever did before.
    #[must_use]
    pub fn listen(&self, address: &str) -> NetListener {
        let (sender, arrivals) = mpsc::channel(1024);
        lock(&self.shared).listeners.insert(address.to_owned(), sender);
        NetListener { arrivals }
    }

    /// Nobody listens at `address` any more, and connections to it are reset: its process was killed.
    pub fn kill(&self, address: &str) {
        let mut shared = lock(&self.shared);
        shared.listeners.remove(address);
        let accepted = shared.accepted.remove(address).unwrap_or_default();
        drop(shared);
        for connection in accepted.iter().filter_map(Weak::upgrade) {
            lock(&connection).reset();
        }
    }

    /// A machine with an address of its own.
    ///
    /// # Panics
    /// When `ip` is no IP address.
    #[must_use]
    pub fn machine(&self, ip: &str) -> Machine {
        let weather =
            Weather { ip: address(ip), delay: Duration::ZERO, jitter: Duration::ZERO, uplink: None, silent: false };
        let (traffic, connections) = (Traffic::default(), Vec::new());
        let place = Place { weather, traffic, connections, leaves: None, overtaken: false, behind: None };
        Machine { net: self.clone(), place: Arc::new(Mutex::new(place)) }
    }

    /// The next of the numbers that the seed gives (SplitMix64).
    #[must_use]
    pub fn random(&self) -> u64 {
        let mut shared = lock(&self.shared);
        shared.random = shared.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = shared.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("listeners", &lock(&self.shared).listeners.keys()).finish_non_exhaustive()
    }
}

/// What went over the connections that a machine made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Octets of payload the machine sent.
    pub sent: u64,
    /// Octets of payload the machine received.
    pub received: u64,
    /// Writes, of both ends: TCP segments, where they are small.
    pub segments: u64,
    /// Connections that somebody took.
    pub connections: u64,
}

/// One machine's way into the network: makes connections, and loses them as the test says.
#[derive(Clone)]
pub struct Machine {
    net: Net,
    place: Arc<Mutex<Place>>,
}

struct Place {
    weather: Weather,
    traffic: Traffic,
    connections: Vec<Weak<Mutex<Connection>>>,
    /// When all that its connections were given will be on its way, where the uplink has a rate.
    leaves: Option<Instant>,
    /// Whether the next connection waits for the one after it.
    overtaken: bool,
    /// The one that waits.
    behind: Option<oneshot::Sender<()>>,
}

impl Place {
    /// When what is handed to the uplink now begins to leave: behind what waits there, of whichever connection.
    fn begins(&self) -> Instant {
        let now = Instant::now();
        self.leaves.filter(|_| self.weather.uplink.is_some()).map_or(now, |leaves| leaves.max(now))
    }
}

#[derive(Clone, Copy)]
struct Weather {
    ip: IpAddr,
    delay: Duration,
    jitter: Duration,
    /// Octets a second.
    uplink: Option<NonZeroU32>,
    silent: bool,
}

impl Machine {
    /// Resets every connection; how many there were.
    pub fn cut(&self) -> usize {
        let connections = {
            let mut place = lock(&self.place);
            place.leaves = None; // what waited in the sockets goes with them
            std::mem::take(&mut place.connections)
        };
        let live = connections.iter().filter_map(Weak::upgrade);
        live.filter(|connection| lock(connection).reset()).count()
    }

    /// Nothing arrives any more, and nothing is lost: a cable that is out, a process that is stopped. `false` ends it.
    pub fn silence(&self, silent: bool) {
        let connections = {
            let mut place = lock(&self.place);
            place.weather.silent = silent;
            place.connections.clone()
        };
        connections.iter().filter_map(Weak::upgrade).for_each(|connection| lock(&connection).wake());
    }

    /// Another address from now on: connections of the old one are heard of no more, by either side.
    ///
    /// # Panics
    /// When `ip` is no IP address.
    pub fn readdress(&self, ip: &str) {
        let mut place = lock(&self.place);
        place.weather.ip = address(ip);
        place.leaves = None;
        let connections = std::mem::take(&mut place.connections);
        drop(place);
        connections.iter().filter_map(Weak::upgrade).for_each(|connection| lock(&connection).dead = true);
    }

    /// How long octets are under way: `delay`, and up to `jitter` more.
    pub fn delay(&self, delay: Duration, jitter: Duration) {
        let mut place = lock(&self.place);
        (place.weather.delay, place.weather.jitter) = (delay, jitter);
    }

    /// The next connection that it makes arrives behind the one after that. Within a connection octets keep their order, as TCP keeps it.
    pub fn overtake_next(&self) {
        lock(&self.place).overtaken = true;
    }

    /// How many octets a second all its connections together carry away from it, in the order in which they were written: what is more waits in
    /// the sockets, 256 KiB in each, and then the writer does; a new connection begins behind it. Zero is no limit, which is how it begins.
    pub fn uplink(&self, octets_a_second: u32) {
        lock(&self.place).weather.uplink = NonZeroU32::new(octets_a_second);
    }

    /// What went over its connections so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        lock(&self.place).traffic
    }

    /// Waits for the connection that shall arrive before this one, if there shall be one; when this one begins to leave.
    async fn turn(&self) -> Instant {
        let held = {
            let mut place = lock(&self.place);
            std::mem::take(&mut place.overtaken).then(|| {
                let (release, held) = oneshot::channel();
                place.behind = Some(release);
                held
            })
        };
        if let Some(held) = held {
            // Without a later one it waits for good, as the test said.
            let _ = held.await;
        }
        lock(&self.place).begins()
    }

    fn under_way(&self, weather: Weather) -> Duration {
        let jitter = u64::try_from(weather.jitter.as_nanos()).unwrap_or(u64::MAX);
        weather.delay + Duration::from_nanos(if jitter == 0 { 0 } else { self.net.random() % jitter })
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("ip", &lock(&self.place).weather.ip).finish_non_exhaustive()
    }
}

#[async_trait]
impl Dialer for Machine {
    async fn dial(&self, address: &str) -> Result<BoxedStream, ConnectError> {
        let failed =
            |kind: io::ErrorKind| ConnectError::Connect { address: address.to_owned(), tried: 1, source: kind.into() };
        let weather = lock(&self.place).weather;
        if weather.silent {
            sleep(CONNECT_DEADLINE).await;
            return Err(failed(io::ErrorKind::TimedOut));
        }
        let begins = self.turn().await;
        tokio::time::sleep_until(begins + self.under_way(weather)).await;
        let listener = lock(&self.net.shared).listeners.get(address).cloned();
        let Some(listener) = listener else { return Err(failed(io::ErrorKind::ConnectionRefused)) };
        let port = {
            let mut shared = lock(&self.net.shared);
            shared.next_port = shared.next_port.checked_add(1).unwrap_or(1024);
            shared.next_port
        };
        let connection = Arc::new(Mutex::new(Connection::default()));
        let end = |side| End { connection: connection.clone(), machine: self.clone(), side, timer: None };
        let arrival = Arrival { stream: Box::new(end(1)), source: SocketAddr::new(weather.ip, port) };
        if listener.try_send(arrival).is_err() {
            return Err(failed(io::ErrorKind::ConnectionRefused));
        }
        {
            let mut shared = lock(&self.net.shared);
            let accepted = shared.accepted.entry(address.to_owned()).or_default();
            accepted.retain(|connection| connection.strong_count() > 0);
            accepted.push(Arc::downgrade(&connection));
        }
        let mut place = lock(&self.place);
        place.connections.retain(|connection| connection.strong_count() > 0);
        place.connections.push(Arc::downgrade(&connection));
        place.traffic.connections += 1;
        // It has arrived: whoever waits behind it leaves now.
        let behind = place.behind.take();
        drop(place);
        behind.into_iter().for_each(|release| release.send(()).unwrap_or_default());
        Ok(Box::new(end(0)))
    }
}

/// A connection: what each side has written and the other not read.
#[derive(Default)]
struct Connection {
    pipes: [Pipe; 2],
    /// Lost, and both sides know.
    reset: bool,
    /// Lost, and neither side knows.
    dead: bool,
}

#[derive(Default)]
struct Pipe {
    queue: VecDeque<(Instant, Bytes)>,
    queued: usize,
    last: Option<Instant>,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Connection {
    fn reset(&mut self) -> bool {
        let lives = !self.reset && !self.pipes.iter().all(|pipe| pipe.ended);
        self.reset = true;
        self.wake();
        lives
    }

    fn wake(&mut self) {
        for pipe in &mut self.pipes {
            pipe.reader.take().into_iter().chain(pipe.writer.take()).for_each(Waker::wake);
        }
    }
}

/// One end of a connection. Side 0 made it.
struct End {
    connection: Arc<Mutex<Connection>>,
    machine: Machine,
    side: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut connection = lock(&this.connection);
        if connection.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let silent = connection.dead || lock(&this.machine.place).weather.silent;
        let [one, other] = &mut connection.pipes;
        let pipe = if this.side == 0 { other } else { one };
        pipe.reader = Some(cx.waker().clone());
        if silent {
            return Poll::Pending;
        }
        let Some((at, piece)) = pipe.queue.front_mut() else {
            return if pipe.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        if *at > Instant::now() {
            let mut timer = Box::pin(tokio::time::sleep_until(*at));
            let woken = timer.as_mut().poll(cx).is_ready();
            this.timer = Some(timer);
            if !woken {
                return Poll::Pending;
            }
        }
        let take = piece.len().min(buf.remaining());
        buf.put_slice(piece.get(..take).unwrap_or_default());
        piece.advance(take);
        if piece.is_empty() {
            pipe.queue.pop_front();
        }
        pipe.queued -= take;
        if this.side == 0 {
            lock(&this.machine.place).traffic.received += take as u64;
        }
        pipe.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let weather = lock(&self.machine.place).weather;
        let under_way = self.machine.under_way(weather);
        let mut connection = lock(&self.connection);
        if connection.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let dead = connection.dead;
        let [one, other] = &mut connection.pipes;
        let pipe = if self.side == 0 { one } else { other };
        if pipe.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let take = octets.len().min(SOCKET_BUFFER.saturating_sub(pipe.queued));
        if take == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let octets = octets.get(..take).unwrap_or_default();
        // A connection of an address that is gone has no part in the uplink.
        let uplink = weather.uplink.filter(|_| self.side == 0 && !dead).map(NonZeroU32::get);
        let mut place = lock(&self.machine.place);
        let mut leaves = if uplink.is_some() { place.begins() } else { Instant::now() };
        for segment in octets.chunks(if uplink.is_some() { SEGMENT } else { take }) {
            leaves += uplink.map_or(Duration::ZERO, |rate| Duration::from_secs(segment.len() as u64) / rate);
            // Later octets never overtake earlier ones.
            let at = pipe.last.map_or(leaves + under_way, |last| last.max(leaves + under_way));
            pipe.last = Some(at);
            pipe.queue.push_back((at, Bytes::copy_from_slice(segment)));
        }
        if uplink.is_some() {
            place.leaves = Some(leaves);
        }
        pipe.queued += take;
        pipe.reader.take().into_iter().for_each(Waker::wake);
        place.traffic.segments += 1;
        if self.side == 0 {
            place.traffic.sent += take as u64;
        }
        Poll::Ready(Ok(take))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl End {
    fn end(&self) {
        let mut connection = lock(&self.connection);
        let [one, other] = &mut connection.pipes;
        let pipe = if self.side == 0 { one } else { other };
        pipe.ended = true;
        pipe.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.end();
        // Whoever writes to a process that is gone is told so.
        let mut connection = lock(&self.connection);
        let [one, other] = &mut connection.pipes;
        let (own, theirs) = if self.side == 0 { (one, other) } else { (other, one) };
        if !theirs.ended || !theirs.queue.is_empty() {
            theirs.ended = true;
        }
        own.reader.take().into_iter().chain(theirs.writer.take()).for_each(Waker::wake);
    }
}

fn address(ip: &str) -> IpAddr {
    ip.parse().unwrap_or_else(|_| {
        debug_assert!(false, "{ip} is no IP address");
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a socket takes before its writer waits.
const SOCKET_BUFFER: usize = 256 * 1024;
/// What leaves at once where an uplink has a rate.
const SEGMENT: usize = 1400;
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_later_connection_arrives_first_when_the_test_says_so() {
        let net = Net::new(1);
        let (mut listener, machine) = (net.listen("p1:3080"), net.machine("192.0.2.7"));
        machine.delay(Duration::from_millis(100), Duration::ZERO);
        machine.overtake_next();

        let say = async |octet: u8| {
            let mut stream = machine.dial("p1:3080").await.unwrap();
            stream.write_u8(octet).await.unwrap();
            stream
        };
        let mut hear = async || listener.accept().await.unwrap().stream.read_u8().await.unwrap();
        let _streams = tokio::join!(biased; say(1), say(2));
        assert_eq!([hear().await, hear().await], [2, 1]);

        let _streams = tokio::join!(biased; say(3), say(4));
        assert_eq!([hear().await, hear().await], [3, 4], "once, and no more");
    }
}
