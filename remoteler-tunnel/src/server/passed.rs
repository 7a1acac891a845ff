//! Taking up a link of an earlier process of the same proxy, which made way and still carries it. Owns the message that goes before the
//! connection's octets, from the process that ended its TLS session to the one that has the link, and the asking. Never judges a proof: only
//! who has the link's secret can.
//!
//! ```text
//! here → earlier   | length: u16 | 1 | channel: 32 octets | request: 60 octets | length: u16, certificate … (the host's first) |
//! earlier → here   | 1: the link is here, what follows is for the agent | or | 0 |
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut};
use futures::FutureExt;
use remoteler_core::{LiveGuard, Verified, X509Purpose, with_causes};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::TunnelServer;
use crate::dial::{read_message, write_message};
use crate::relay::relay;
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
    /// It has ended, or takes nothing now.
    async fn connect(&self) -> io::Result<BoxedStream>;
}

/// The processes before, and who counts what is passed to them.
#[derive(Default)]
pub(super) struct Earlier {
    /// The latest first.
    processes: Vec<Arc<dyn EarlierProcess>>,
    passing: TaskTracker,
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
        Self { earlier: Earlier { processes, passing }, ..self }
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
        stream.write_all(&[HERE]).await.map_err(|cause| cause.to_string())?;
        let served = self.resumable.serve(stream, &request, host.identity(), &channel, live).await;
        tracing::debug!(node = %host.identity().name, ?served, "a link was to be taken up again, by a later process");
        served.map_err(|cause| cause.to_string())
    }

    /// Copies a connection to the earlier process that has its link, to its end or that of the host's right to be here; gives it back when
    /// none has it.
    pub(super) async fn pass_on(
        &self,
        mut stream: BoxedStream,
        passed: &Passed,
        live: Option<&LiveGuard>,
    ) -> Result<(), BoxedStream> {
        let Some(mut there) = self.earlier.with_the_link(passed).await else { return Err(stream) };
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
                relayed = relay(&mut stream, &mut there) => drop(relayed),
                _ = &mut ended => {}
            }
        };
        self.earlier.passing.track_future(copying).await;
        Ok(())
    }
}

impl Earlier {
    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    async fn with_the_link(&self, passed: &Passed) -> Option<BoxedStream> {
        let message = passed.to_octets()?;
        for process in &self.processes {
            let asking = async {
                let mut stream = process.connect().await.ok()?;
                write_message(&mut stream, &message, MAX_PASSED_LEN).await.ok()?;
                (stream.read_u8().await.ok()? == HERE).then_some(stream)
            };
            if let Ok(Some(stream)) = timeout(PATIENCE, asking).await {
                return Some(stream);
            }
        }
        None
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
/// What one process may take for saying whether it has a link: it only looks into its table.
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
