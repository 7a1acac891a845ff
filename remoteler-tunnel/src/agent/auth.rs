//! Streams to the auth service inside the links of an agent: what waits there for minutes is lost with the link and not before, since the link
//! finds out by itself that its path is gone, and goes on over another one. Owns the choice of the link. Never looks into a stream.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use crate::connection::{Link, MuxStream};
use crate::registration::AUTH_METADATA;

/// The way to the auth service through the links of an agent. Clones are the same; it outlives its agent and leads nowhere then.
#[derive(Clone, Debug)]
pub struct AuthLinks(Weak<Fleet>);

/// A stream whose other end is at the auth service; TLS begins in it.
#[derive(Debug)]
pub struct AuthStream {
    /// The octets.
    pub stream: MuxStream,
    /// What carries them.
    pub carrier: AuthCarrier,
}

/// The link of such a stream.
#[derive(Clone, Debug)]
pub struct AuthCarrier {
    link: Link,
    ending: CancellationToken,
    astray: Astray,
}

/// Since when a link has led nowhere, if it did the last time. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Astray(Arc<Mutex<Option<Instant>>>);

impl AuthLinks {
    pub(super) fn new(fleet: Weak<Fleet>) -> Self {
        Self(fleet)
    }

    /// Opens a stream through a link that has a connection and whose proxy takes it; `None` when there is none. One that led nowhere a short while
    /// ago ([`AuthCarrier::leads_nowhere`]) is not tried.
    #[must_use]
    pub fn open(&self) -> Option<AuthStream> {
        let carriers = self.0.upgrade()?.carriers();
        carriers.into_iter().filter(AuthCarrier::may_lead).find_map(|carrier| {
            let stream = carrier.link.open(AUTH_METADATA).ok()?;
            Some(AuthStream { stream, carrier })
        })
    }

    /// Whether [`AuthLinks::open`] finds one.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.upgrade().is_some_and(|fleet| fleet.carriers().iter().any(AuthCarrier::may_lead))
    }

    /// Whether there are links, and their proxies take such streams, all of them: none is of an earlier version.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.0.upgrade().is_some_and(|fleet| fleet.all_carry())
    }
}

impl AuthCarrier {
    pub(super) const fn new(link: Link, ending: CancellationToken, astray: Astray) -> Self {
        Self { link, ending, astray }
    }

    /// For who opened a stream and found nobody at its end, or got no answer there: for half a minute other ways are tried first, since finding
    /// out may have taken long.
    pub fn leads_nowhere(&self) {
        *self.astray.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it is open, and has not led nowhere a short while ago.
    #[must_use]
    pub fn may_lead(&self) -> bool {
        let astray = *self.astray.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_open() && astray.is_none_or(|since| since.elapsed() >= ASTRAY)
    }

    /// Whether octets get through now, as far as is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.ending.is_cancelled() && self.link.suspended_since().is_none()
    }

    /// Waits until the link is to end: it waits for its streams then.
    pub async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Waits until the link has been without a connection for some seconds, or has ended: what waits in it is not told of anything, for as long
    /// as the link is kept.
    pub async fn lost(&self) {
        while self.link.suspended().await && timeout(LOST, self.link.resumed()).await.is_ok() {}
    }
}

/// A path that changes is back sooner, mostly, and what waits goes on at no cost.
const LOST: Duration = Duration::from_secs(5);
/// For how long a link is not tried that led nowhere.
const ASTRAY: Duration = Duration::from_secs(30);
