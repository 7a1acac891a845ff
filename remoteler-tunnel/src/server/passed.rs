//! Taking up a link of an earlier process of the same proxy, which made way and still carries it. Owns the message that goes before the
//! connection's octets, from the process that ended its TLS session to the one that has the link, and the asking. Never judges a proof: only
//! who has the link's secret can.
//!
//! ```text
//! here → earlier   | length: u16 | 1 | channel: 32 octets | request: 60 octets | length: u16, certificate … (the host's first) |
//! earlier → here   | 1: the link is here, and the proof is good | or | 0: it is not, or not for who asks |
//! ```
//!
//! Behind the 1 go the octets of the connection both ways (`ordered`). Whoever closes instead has not said that the link is not there.

mod copy;
mod ordered;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut};
use futures::FutureExt;
use remoteler_core::{LiveGuard, Verified, X509Purpose, with_causes};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use self::copy::copy;
use self::ordered::Ordered;
use super::TunnelServer;
use crate::dial::{read_message, write_message};
use crate::resume::{Channel, RESUME_BODY_LEN, ResumeRequest};
use crate::stream::BoxedStream;
use crate::tls::{ServerTls, verified_peer};

/// A process of this proxy that has made way for this one, or for one before this, and still carries links.
///
/// The daemon's goes over a socket that was handed down. What is connected so is believed: it has to be out of reach of everybody else.
/// Implementations need not bound their time, callers do; a dropped future leaves nothing behind.
#[async_trait]
pub trait EarlierProcess: Send + Sync {
    /// A stream that comes out there at [`TunnelServer::take_passed`].
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset`: it has ended, and is not asked again. Anything else: it takes nothing now.
    async fn connect(&self) -> io::Result<BoxedStream>;
}

/// The processes before, and who counts what is passed to them.
#[derive(Default)]
pub(super) struct Earlier {
    /// The latest first; without those that have ended.
    processes: Mutex<Vec<Arc<dyn EarlierProcess>>>,
    passing: TaskTracker,
}

/// What the processes before say to a link that is asked for.
pub(super) enum Asked {
    /// One of them has it; what follows is for the agent.
    Here(Box<Ordered>),
    /// None of them has it, for who asks.
    Nowhere,
    /// One of them could not be asked just now.
    Unknown,
}

/// What the process that ended the TLS session knows of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) channel: Channel,
    pub(super) request: [u8; RESUME_BODY_LEN],
    /// As they were shown in the handshake, which has proved that the peer holds the first one's key.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl TunnelServer {
    /// Asks `processes`, the latest first, for links that are not known here. `passing` counts what is copied for them: a process that drains
    /// waits for it.
    #[must_use]
    pub fn after(self, processes: Vec<Arc<dyn EarlierProcess>>, passing: TaskTracker) -> Self {
        Self { earlier: Earlier { processes: Mutex::new(processes), passing }, ..self }
    }

    /// Serves a connection that a later process passes back: its agent wants to take up a link that may be here. Whose certificates those are
    /// is verified here once more, by `tls`, and the proof of the link's secret here alone.
    pub async fn take_passed(&self, stream: BoxedStream, tls: &ServerTls) {
        match timeout(DEADLINE, self.taken(stream, tls)).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::debug!(reason, "a connection that was passed back was not taken"),
            Err(_) => tracing::debug!("a connection that was passed back was not taken in time"),
        }
    }

    async fn taken(&self, mut stream: BoxedStream, tls: &ServerTls) -> Result<(), String> {
        let message = read_message(&mut stream, MAX_PASSED_LEN).await.map_err(|cause| with_causes(&cause))?;
        let Passed { channel, request, certificates } = Passed::parse(&message).ok_or("it was not understood")?;
        let request = ResumeRequest::parse(&request).map_err(|cause| with_causes(&cause))?;
        if !self.resumable.has(&request) {
            return stream.write_all(&[NOT_HERE]).await.map_err(|cause| cause.to_string());
        }
        let peer = verified_peer(Some(&certificates), &*tls.trust, X509Purpose::Client, &*tls.clock);
        let Verified::Host(host) = peer.map_err(|cause| with_causes(&cause))? else {
            return Err("a user's certificate was shown".into());
        };
        let live = self.enter(&host).map_err(|cause| with_causes(&cause))?;
        // Until the proof was found good nothing of who asks stays, here or on the way.
        let Some(claimed) = self.resumable.claim(&request, host.identity(), &channel).await else {
            return stream.write_all(&[NOT_HERE]).await.map_err(|cause| cause.to_string());
        };
        stream.write_all(&[HERE]).await.map_err(|cause| cause.to_string())?;
        let served = claimed.go_on(Box::new(Ordered::new(stream)), &request, &channel, live).await;
        tracing::debug!(node = %host.identity().name, ?served, "a link was to be taken up again, by a later process");
        served.map_err(|cause| cause.to_string())
    }

    /// Asks the processes before for the link.
    pub(super) async fn ask_earlier(&self, passed: &Passed) -> Asked {
        self.earlier.ask(passed).await
    }

    /// Copies a connection to the earlier process that has its link, to the end of either or that of the host's right to be here.
    pub(super) async fn pass_on(&self, mut stream: BoxedStream, mut there: Box<Ordered>, live: Option<&LiveGuard>) {
        let mut ended = std::pin::pin!(
            async {
                match live {
                    Some(live) => live.signal().ended().await,
                    None => std::future::pending().await,
                }
            }
            .fuse()
        );
        let copying = async {
            tokio::select! {
                () = copy(&mut stream, &mut there) => {}
                _ = &mut ended => {}
            }
            drop((stream, there));
        };
        self.earlier.passing.track_future(copying).await;
    }
}

impl Earlier {
    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    async fn ask(&self, passed: &Passed) -> Asked {
        let Some(message) = passed.to_octets() else { return Asked::Nowhere };
        let processes = self.lock().clone();
        let mut nowhere = true;
        for process in processes {
            match timeout(PATIENCE, ask(&*process, &message)).await {
                Ok(Ok(Some(there))) => return Asked::Here(Box::new(there)),
                Ok(Ok(None)) => {}
                Ok(Err(Unasked::Ended)) => self.lock().retain(|other| !Arc::ptr_eq(other, &process)),
                Ok(Err(Unasked::Now(cause))) => {
                    tracing::debug!(%cause, "an earlier process could not be asked for a link");
                    nowhere = false;
                }
                Err(_) => nowhere = false,
            }
        }
        if nowhere { Asked::Nowhere } else { Asked::Unknown }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<dyn EarlierProcess>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a process did not answer.
enum Unasked {
    /// It is no more, and its links with it.
    Ended,
    /// It may the next time.
    Now(io::Error),
}

async fn ask(process: &dyn EarlierProcess, message: &[u8]) -> Result<Option<Ordered>, Unasked> {
    let gone = |kind| matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
    let connected = process.connect().await;
    let mut stream =
        connected.map_err(|cause| if gone(cause.kind()) { Unasked::Ended } else { Unasked::Now(cause) })?;
    let told = write_message(&mut stream, message, MAX_PASSED_LEN).await;
    told.map_err(|cause| Unasked::Now(io::Error::other(cause)))?;
    match stream.read_u8().await.map_err(Unasked::Now)? {
        HERE => Ok(Some(Ordered::new(stream))),
        NOT_HERE => Ok(None),
        other => Err(Unasked::Now(io::Error::other(format!("it answered {other}")))),
    }
}

impl Passed {
    /// `None` when the certificates are too long, which no handshake of ours allows.
    fn to_octets(&self) -> Option<Vec<u8>> {
        let mut out = vec![VERSION];
        out.put_slice(&self.channel);
        out.put_slice(&self.request);
        for certificate in &self.certificates {
            out.put_u16(u16::try_from(certificate.len()).ok()?);
            out.put_slice(certificate);
        }
        (out.len() <= MAX_PASSED_LEN).then_some(out)
    }

    fn parse(mut octets: &[u8]) -> Option<Self> {
        if octets.try_get_u8() != Ok(VERSION) {
            return None;
        }
        let mut passed = Self { channel: Channel::default(), request: [0; RESUME_BODY_LEN], certificates: Vec::new() };
        octets.try_copy_to_slice(&mut passed.channel).ok()?;
        octets.try_copy_to_slice(&mut passed.request).ok()?;
        while !octets.is_empty() {
            let length = usize::from(octets.try_get_u16().ok()?);
            let (certificate, rest) = octets.split_at_checked(length)?;
            passed.certificates.push(CertificateDer::from(certificate.to_vec()));
            octets = rest;
        }
        Some(passed)
    }
}

const VERSION: u8 = 1;
const HERE: u8 = 1;
const NOT_HERE: u8 = 0;
/// More than a handshake's certificates may have.
const MAX_PASSED_LEN: usize = 60_000;
/// What one process may take for saying whether it has a link: it looks into its table and verifies a proof, and may be at an attempt before.
const PATIENCE: Duration = Duration::from_secs(2);
/// From the message to the link's answer.
const DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_arrives_as_it_was_and_nothing_else_is_understood() {
        let certificates = vec![CertificateDer::from(vec![3; 700]), CertificateDer::from(vec![4; 1])];
        let passed = Passed { channel: [1; 32], request: [2; RESUME_BODY_LEN], certificates };
        let octets = passed.to_octets().unwrap();
        assert_eq!(Passed::parse(&octets).as_ref(), Some(&passed));
        for length in (0..octets.len()).filter(|length| ![93, 93 + 702].contains(length)) {
            assert_eq!(Passed::parse(&octets[..length]), None, "{length} octets");
        }
        let mut later = octets;
        later[0] = 2;
        assert_eq!(Passed::parse(&later), None);
        let endless = vec![CertificateDer::from(vec![0; 65_535])];
        assert_eq!(Passed { certificates: endless, ..passed }.to_octets(), None);
    }
}
