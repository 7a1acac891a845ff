//! The links that may be taken up on another connection, by id. Owns the table and who may: the same host, with a certificate that still covers
//! what was registered, and the secret of the link's first connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use remoteler_core::{HostId, HostIdentity, LiveGuard};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, watch};

use crate::connection::{Link, TakeUpError, read_body, refuse};
use crate::registration::Offer;
use crate::resume::{Channel, LinkId, ResumeKeys, ResumeRequest};
use crate::stream::BoxedStream;

/// Registered links of agents.
#[derive(Default)]
pub(super) struct Resumable {
    links: Mutex<HashMap<LinkId, Arc<Entry>>>,
}

struct Entry {
    host: HostId,
    offer: Offer,
    keys: ResumeKeys,
    link: Link,
    /// The host's place among live work, by the certificate that it showed last.
    live: Option<watch::Sender<Arc<LiveGuard>>>,
    /// The last attempt that was taken; held while one is.
    attempt: Arc<Turn<u32>>,
}

/// A link whose agent has proved that it is its own, and whose turn it is.
pub(super) struct Claimed {
    entry: Arc<Entry>,
    _turn: OwnedMutexGuard<u32>,
}

impl Claimed {
    /// Lets the link go on over `io`.
    pub(super) async fn go_on(
        self,
        io: BoxedStream,
        request: &ResumeRequest,
        channel: &Channel,
        live: Option<LiveGuard>,
    ) -> Result<(), TakeUpError> {
        let entry = &self.entry;
        entry.link.hand_over(io, &entry.keys, request, channel).await?;
        if let (Some(place), Some(live)) = (&entry.live, live) {
            place.send_replace(Arc::new(live));
        }
        Ok(())
    }
}

/// In the table until dropped.
pub(super) struct Kept {
    table: Arc<Resumable>,
    id: LinkId,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.table.lock().remove(&self.id);
    }
}

impl Resumable {
    /// Puts a link into the table that `host` registered with `offer`.
    pub(super) fn keep(
        self: &Arc<Self>,
        keys: ResumeKeys,
        host: HostId,
        offer: Offer,
        link: Link,
        live: Option<watch::Sender<Arc<LiveGuard>>>,
    ) -> Kept {
        let id = keys.id();
        self.lock().insert(id, Arc::new(Entry { host, offer, keys, link, live, attempt: Arc::default() }));
        Kept { table: Arc::clone(self), id }
    }

    /// Whether there is a link of that id here, whoever asks.
    pub(super) fn has(&self, request: &ResumeRequest) -> bool {
        self.lock().contains_key(&request.id)
    }

    /// Serves a connection on which a resumption was asked for. Who may not hears the same as who asks for what is not there.
    pub(super) async fn serve(
        &self,
        io: BoxedStream,
        request: &ResumeRequest,
        host: &HostIdentity,
        channel: &Channel,
        live: Option<LiveGuard>,
    ) -> Result<(), TakeUpError> {
        let Some(claimed) = self.claim(request, host, channel).await else {
            refuse(io, &UNKNOWN.into()).await;
            return Err(TakeUpError::Over);
        };
        claimed.go_on(io, request, channel, live).await
    }

    /// The link that is asked for, if this host may have it and this attempt is later than all that were taken; it is taken with that.
    pub(super) async fn claim(
        &self,
        request: &ResumeRequest,
        host: &HostIdentity,
        channel: &Channel,
    ) -> Option<Claimed> {
        let entry = self.find(request, host, channel)?;
        let mut attempt = entry.attempt.clone().lock_owned().await;
        if request.attempt <= *attempt {
            return None; // a later one was here first
        }
        *attempt = request.attempt;
        Some(Claimed { entry, _turn: attempt })
    }

    /// Tells a client that its link will not be taken up, and why.
    pub(super) async fn turn_away(mut io: BoxedStream, prefix: &[u8; 8], reason: &str) -> Result<(), TakeUpError> {
        // Read first: what is unread when the connection ends takes the answer with it.
        read_body(&mut io, prefix).await?;
        refuse(io, &reason.into()).await;
        Ok(())
    }

    fn find(&self, request: &ResumeRequest, host: &HostIdentity, channel: &Channel) -> Option<Arc<Entry>> {
        let entry = self.lock().get(&request.id).cloned()?;
        let its_own = entry.host == host.id && entry.offer.check(host).is_ok();
        (its_own && entry.keys.proves(request, channel)).then_some(entry)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LinkId, Arc<Entry>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const UNKNOWN: &str = "this proxy does not know it, or not any more; it may have been restarted";
