//! Keeps one link going: when its connection is lost, makes others until the proxy takes one of them or says that the link is no more.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use remoteler_core::{HostId, fill_random};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::AgentConfig;
use super::connect::connect_proxy;
use crate::backoff::Backoff;
use crate::connection::{Hold, Link, TakeUpError};
use crate::link::DOUBT_AFTER;
use crate::resume::{Channel, EXPORT_CHANNEL, ResumeKeys};
use crate::stream::BoxedStream;
use crate::tls::ExportsKeys;

/// Where a link goes on. A proxy over TLS is one; a test has others.
pub(crate) trait Place: Send + Sync {
    /// Another connection to the proxy that has the link, and what is particular to it.
    fn connect(&self) -> impl Future<Output = Result<(BoxedStream, Channel), Failure>> + Send;
    /// Spreads the attempts.
    fn random(&self) -> u64;
    /// For the log.
    fn address(&self) -> &str;
}

/// Why a connection did not serve.
#[derive(Debug)]
pub(crate) enum Failure {
    /// None will: the link is lost.
    Lost(String),
    /// Another attempt may do.
    Again(String),
}

/// A proxy, over TLS.
pub(super) struct Proxy {
    pub(super) config: Arc<AgentConfig>,
    pub(super) address: String,
    pub(super) id: HostId,
}

impl Place for Proxy {
    async fn connect(&self) -> Result<(BoxedStream, Channel), Failure> {
        let (io, reached) =
            connect_proxy(&self.config, &self.address).await.map_err(|cause| Failure::Again(cause.to_string()))?;
        if reached != self.id {
            // Behind a balancer the next attempt may lead to the right one.
            return Err(Failure::Again(format!("proxy {reached} answered for {}", self.id)));
        }
        match io.export(EXPORT_CHANNEL) {
            Some(channel) => Ok((io, channel)),
            None => Err(Failure::Lost("the TLS session exports no keys".into())),
        }
    }

    fn random(&self) -> u64 {
        u64::from_ne_bytes(fill_random(&*self.config.entropy))
    }

    fn address(&self) -> &str {
        &self.address
    }
}

/// Until the link ends. Waits for nothing once `at_once` changes; what is under way then may lead through the network before, and is begun anew.
pub(crate) async fn keep_going(place: impl Place, mut at_once: watch::Receiver<u64>, link: Link, keys: ResumeKeys) {
    let mut attempts = Attempts { place, link: link.clone(), keys, number: 0, took: Duration::ZERO, unanswered: 0 };
    // A path that is lost is often back at once; one that is not, is asked for every few seconds while streams wait.
    let mut backoff = Backoff::new(Duration::from_millis(100), MOST_BETWEEN);
    let mut rest = LEAST_REST;
    let mut needless_at: Option<Instant> = None;
    let mut taken_up_at: Option<Instant> = None;
    let mut cuts = 0;
    while let Some(trouble) = trouble(&link).await {
        match trouble {
            Trouble::Doubted { since } => {
                at_once.mark_unchanged();
                let before = link.resumptions();
                let asked = tokio::select! {
                    biased;
                    asked = Box::pin(attempts.beside(since)) => asked,
                    () = begun_anew(&at_once, &mut cuts) => continue,
                };
                cuts = 0;
                if let Beside::GoesOn { held } = asked {
                    link.taken_up_since(before).await;
                    drop(held);
                    taken_up_at = Some(Instant::now());
                    rest = LEAST_REST;
                    let_go_if_changed(&link, &at_once).await;
                    continue;
                }
                // Needless, or as lost as this one: the next one waits longer, so that a proxy that is slow is not made slower.
                if needless_at.replace(Instant::now()).is_some_and(|at| at.elapsed() > FORGOTTEN_AFTER) {
                    rest = LEAST_REST;
                }
                let spread = Duration::from_millis(attempts.place.random() % 100);
                tokio::select! {
                    biased;
                    _ = timeout(rest + spread, link.suspended()) => rest = (2 * rest).min(MOST_REST),
                    Ok(()) = at_once.changed() => rest = LEAST_REST,
                }
                continue;
            }
            Trouble::Suspended
                if taken_up_at.is_some_and(|at| at.elapsed() < OF_USE)
                    && !at_once.has_changed().unwrap_or_default() =>
            {
                tokio::select! {
                    () = sleep(backoff.next(attempts.place.random())) => {}
                    Ok(()) = at_once.changed() => backoff.reset(),
                }
            }
            Trouble::Suspended => backoff.reset(),
        }
        while link.suspended_since().is_some() {
            at_once.mark_unchanged();
            let before = link.resumptions();
            let ended = tokio::select! {
                biased;
                ended = Box::pin(attempts.take_up()) => ended,
                () = begun_anew(&at_once, &mut cuts) => {
                    backoff.reset();
                    continue;
                }
            };
            cuts = 0;
            let (proxy, attempt) = (attempts.place.address(), attempts.number);
            match ended {
                Ok(()) => {
                    tracing::info!(proxy, attempt, "tunnel goes on over another connection");
                    // It may be lost again already: then the state has nothing to show of it.
                    link.taken_up_since(before).await;
                    taken_up_at = Some(Instant::now());
                    rest = LEAST_REST;
                    let_go_if_changed(&link, &at_once).await;
                    break;
                }
                Err(Failure::Lost(reason)) => {
                    link.give_up(&reason);
                    link.closed().await;
                    return;
                }
                Err(Failure::Again(reason)) => {
                    tracing::debug!(proxy, attempt, reason, "the tunnel has no other connection yet");
                }
            }
            tokio::select! {
                biased;
                () = sleep(backoff.next(attempts.place.random())) => {}
                Ok(()) = at_once.changed() => backoff.reset(),
            }
        }
    }
}

/// Waits until an attempt that begins now is to begin anew. One that is young goes on for a moment, longer after each that did: who is told of each event of
/// its system would else never finish one. Without an agent nobody calls, and the wait goes on.
pub(super) async fn begun_anew(at_once: &watch::Receiver<u64>, cuts: &mut u32) {
    let young = Instant::now() + YOUNG * 2_u32.pow((*cuts).min(MOST_DOUBLINGS));
    if at_once.clone().changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    sleep_until(young).await;
    *cuts += 1;
}

/// A connection that was taken up while the network changed is one of the network before, and may have stood too late to be let go with the others.
async fn let_go_if_changed(link: &Link, at_once: &watch::Receiver<u64>) {
    if at_once.has_changed().unwrap_or_default() {
        link.suspend().await;
    }
}

/// Why a link needs another connection.
enum Trouble {
    /// It has none.
    Suspended,
    /// The one it has is silent.
    Doubted {
        /// Since when.
        since: std::time::Instant,
    },
}

/// Waits for it; `None` when the link has ended.
async fn trouble(link: &Link) -> Option<Trouble> {
    tokio::select! {
        biased;
        suspended = link.suspended() => suspended.then_some(Trouble::Suspended),
        since = link.doubted() => Some(Trouble::Doubted { since }),
    }
}

/// What is done for a link that needs another connection.
struct Attempts<P> {
    place: P,
    link: Link,
    keys: ResumeKeys,
    /// Of the last one: the proxy takes each once.
    number: u32,
    /// What the last connection took to be made.
    took: Duration,
    /// How many questions in a row had no answer.
    unanswered: u32,
}

/// What came of a connection that was made beside another.
enum Beside {
    /// The link stays where it is.
    Keeps,
    /// It goes on there: nothing may be read any more of the one before, which is held until then.
    GoesOn { held: Option<Hold> },
}

/// A connection that stands.
struct Reached {
    io: BoxedStream,
    channel: Channel,
    took: Duration,
}

impl<P: Place> Attempts<P> {
    /// Makes another connection while the present one is silent. When it stands and the other has not said a word
    /// all the while, the proxy is asked there for the link: one that answers, and not here, is no longer behind this one. The present one is let go
    /// only when that says yes: who answers may be another process of the proxy, which does not reach the link. When the present one was given up
    /// meanwhile, nothing is held.
    async fn beside(&mut self, since: std::time::Instant) -> Beside {
        let connection = match self.reach().await {
            Ok(connection) => connection,
            Err(Failure::Again(cause) | Failure::Lost(cause)) => {
                let proxy = self.place.address();
                tracing::debug!(proxy, cause, "a tunnel's connection is silent, and there is no other");
                return Beside::Keeps;
            }
        };
        let held = if self.link.suspended_since().is_some() { None } else { self.link.hold(since) };
        if held.is_none() && self.link.suspended_since().is_none() {
            return Beside::Keeps;
        }
        let asked = self.ask(connection, MOST_HELD).await;
        let (proxy, attempt) = (self.place.address(), self.number);
        match asked {
            Ok(()) => {
                tracing::info!(proxy, attempt, "tunnel goes on over another connection, the one before was silent");
                Beside::GoesOn { held }
            }
            Err(Failure::Lost(reason) | Failure::Again(reason)) => {
                tracing::debug!(proxy, attempt, reason, "a tunnel's connection is silent and keeps its place");
                Beside::Keeps
            }
        }
    }

    async fn take_up(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let connection = self.reach().await?;
        self.ask(connection, ATTEMPT.saturating_sub(began.elapsed()).max(LEAST_SLOW)).await
    }

    /// The first connection that stands. One that takes much longer than another should has one beside it: of a handshake that is lost with its path
    /// nothing is heard for long.
    async fn reach(&mut self) -> Result<Reached, Failure> {
        let began = Instant::now();
        let reached = timeout(ATTEMPT, self.reach_one()).await;
        let reached = reached.unwrap_or_else(|_| Err(Failure::Again("no connection in time".to_owned())));
        if reached.is_err() {
            // A proxy that is slow is not asked twice as often.
            self.took = self.took.max(began.elapsed().min(MOST_LEARNT));
        }
        reached
    }

    async fn reach_one(&self) -> Result<Reached, Failure> {
        let mut connections = FuturesUnordered::new();
        connections.push(self.connect());
        let mut late = pin!(sleep(self.slow(self.took)));
        let mut alone = true;
        loop {
            tokio::select! {
                biased;
                Some(made) = connections.next() => match made {
                    Err(Failure::Again(_)) if !connections.is_empty() => {} // the other one may do
                    made => return made,
                },
                () = &mut late, if alone => {
                    alone = false;
                    // Of one that is heard again, only the queue may be long.
                    if self.link.suspended_since().or_else(|| self.link.doubted_since()).is_some() {
                        connections.push(self.connect());
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Result<Reached, Failure> {
        let since = Instant::now();
        let (io, channel) = self.place.connect().await?;
        Ok(Reached { io, channel, took: since.elapsed() })
    }

    /// Asks for the link on a connection that stands. Only there: the proxy refuses what it is asked later with a lower number.
    async fn ask(&mut self, Reached { io, channel, took }: Reached, most: Duration) -> Result<(), Failure> {
        let within = (self.slow(took) * 2_u32.pow(self.unanswered)).min(most);
        self.number += 1;
        self.took = took;
        let answer = timeout(within, Box::pin(self.link.take_up(io, &self.keys, self.number, &channel, took))).await;
        self.unanswered = if answer.is_ok() { 0 } else { (self.unanswered + 1).min(MOST_DOUBLINGS) };
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(TakeUpError::Resume(cause))) => Err(Failure::Lost(cause.to_string())),
            Ok(Err(cause @ TakeUpError::Io(_))) => Err(Failure::Again(cause.to_string())),
            Ok(Err(cause @ TakeUpError::Over)) => Err(Failure::Lost(cause.to_string())),
            Err(_) => Err(Failure::Again(format!("the proxy did not answer within {} ms", within.as_millis()))),
        }
    }

    /// More than a connection should take, or an answer on it, where another one took so long.
    fn slow(&self, took: Duration) -> Duration {
        (4 * self.link.patience()).max(2 * took).max(LEAST_SLOW)
    }
}

/// For one attempt, from the name's resolution to the proxy's answer.
const ATTEMPT: Duration = Duration::from_secs(10);
/// What an attempt that failed may say of how long one takes.
const MOST_LEARNT: Duration = Duration::from_millis(2500);
/// An attempt that is younger is not begun anew.
const YOUNG: Duration = Duration::from_millis(100);
/// A connection that was lost sooner is not made anew without a pause.
const OF_USE: Duration = Duration::from_millis(20);
/// For the proxy's answer while a connection is held: well before the other side doubts it.
const MOST_HELD: Duration = Duration::from_secs(DOUBT_AFTER.as_secs() / 2);
/// The least that a connection, or the answer on it, takes when something is wrong: what TCP waits before it sends the first octets again (RFC 6298).
const LEAST_SLOW: Duration = Duration::from_secs(1);
const MOST_DOUBLINGS: u32 = 4;
const MOST_BETWEEN: Duration = Duration::from_secs(2);
/// After a connection that was made beside a silent one and not needed.
const LEAST_REST: Duration = Duration::from_millis(500);
const MOST_REST: Duration = Duration::from_secs(30);
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
