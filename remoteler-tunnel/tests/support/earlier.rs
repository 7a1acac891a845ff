//! Processes of one proxy after each other, and what a later one reaches an earlier one by.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use remoteler_core::SystemRole;
use remoteler_tunnel::{Agent, AgentConfig, BoxedStream, EarlierProcess, Offer};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_util::io::InspectReader;

use super::{Echo, FaultRelay, Proxy, connected};

pub const SOON: Duration = Duration::from_secs(60);

/// Another process as this one reaches it.
pub struct Reached {
    process: Arc<Proxy>,
    trouble: Mutex<Option<Trouble>>,
    asked: AtomicUsize,
    /// One for each end of a connection that is held: by who passes, and by who has the link.
    pub near: Arc<()>,
    pub far: Arc<()>,
}

#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// It is no more.
    Ended,
    /// It has no descriptor left.
    Busy,
    /// It takes what is passed, and is silent.
    Speechless,
}

impl Reached {
    pub fn new(process: &Arc<Proxy>) -> Arc<Self> {
        let (process, trouble, asked) = (process.clone(), Mutex::default(), AtomicUsize::default());
        Arc::new(Self { process, trouble, asked, near: Arc::default(), far: Arc::default() })
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn has(&self, trouble: impl Into<Option<Trouble>>) {
        *self.trouble.lock().unwrap() = trouble.into();
    }

    /// Waits until so many connections are held by who passes them.
    pub async fn passes(&self, count: usize) {
        until(|| Arc::strong_count(&self.near) == 1 + count).await;
    }
}

pub async fn until(is: impl Fn() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
}

/// `io`, and one of `held` with it.
fn counted(io: DuplexStream, held: &Arc<()>) -> BoxedStream {
    let held = held.clone();
    Box::new(InspectReader::new(io, move |_| {
        let _ = &held;
    }))
}

#[async_trait]
impl EarlierProcess for Reached {
    async fn connect(&self) -> io::Result<BoxedStream> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (near, far) = duplex(64 * 1024);
        match *self.trouble.lock().unwrap() {
            Some(Trouble::Ended) => return Err(io::ErrorKind::BrokenPipe.into()),
            Some(Trouble::Busy) => return Err(io::Error::other("too many open files")),
            Some(Trouble::Speechless) => return Ok(Box::new(near)),
            None => {}
        }
        let (process, far) = (self.process.clone(), counted(far, &self.far));
        tokio::spawn(async move { process.tunnels.take_passed(far, &process.tls).await });
        Ok(counted(near, &self.near))
    }
}

/// A proxy with an agent behind a relay, and what it takes to lead that elsewhere.
pub async fn first_process() -> (Arc<Proxy>, FaultRelay, Agent) {
    let (first, relay, agent, _) = first_process_of_whom().await;
    (first, relay, agent)
}

/// The same, and the agent's certificate.
async fn first_process_of_whom() -> (Arc<Proxy>, FaultRelay, Agent, CertificateDer<'static>) {
    let first = Arc::new(Proxy::start(Default::default()).await);
    let relay = FaultRelay::start(first.address).await;
    let host = first.authorities.host_identity("edge", &[SystemRole::Node], &[]);
    let identity = first.authorities.host(&host);
    let certificate = identity.chain()[0].clone();
    let offer = Offer { ssh: Some(host.name.clone()), ..Offer::default() };
    let config = first.agent_config(host, offer, relay.address, Arc::new(Echo));
    let tls = first.authorities.client_tls(Some(identity), first.clock.clone());
    let agent = Agent::start(AgentConfig { tls, ..config });
    connected(&agent).await;
    (first, relay, agent, certificate)
}

pub async fn says_again(stream: &mut BoxedStream, octets: &[u8]) {
    let echoed = async {
        stream.write_all(octets).await.unwrap();
        let mut heard = vec![0; octets.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, octets);
    };
    timeout(SOON, echoed).await.unwrap();
}

/// Two processes of a proxy, and an agent whose stream is in a link of the first, over a connection that the second passes back.
pub struct Passed {
    pub first: Arc<Proxy>,
    pub second: Proxy,
    /// The first, as the second reaches it.
    pub before: Arc<Reached>,
    pub relay: FaultRelay,
    pub agent: Agent,
    pub certificate: CertificateDer<'static>,
    pub stream: BoxedStream,
}

impl Passed {
    pub async fn by_the_second() -> Self {
        let (first, relay, agent, certificate) = first_process_of_whom().await;
        let mut stream = first.dial("edge").await.unwrap();
        let before = Reached::new(&first);
        let second = first.next(vec![before.clone()]).await;
        relay.lead_to(second.address);
        relay.cut();
        says_again(&mut stream, b"by the second").await;
        before.passes(1).await;
        Self { first, second, before, relay, agent, certificate, stream }
    }

    /// The first process tells its agent to leave, which then has a link to the second.
    pub async fn tell_to_leave(&self) {
        self.first.router.drain("the proxy is stopping");
        until(|| !self.second.heard.0.lock().unwrap().is_empty()).await;
    }
}
