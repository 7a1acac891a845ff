//! The tasks of an agent, one for each proxy it keeps a link to. Owns their number, their retries and what is shown of them. Which
//! proxies those are, the placement decides.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use remoteler_core::{HostId, fill_random};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{Astray, AuthCarrier};
use super::connect::{Registered, connect};
use super::counters::{AgentCounters, Tally};
use super::placement::{Placement, Slot};
use super::serve::{hold_registration, serve_streams};
use super::{AgentConfig, AgentState, ProxyLink, resume};
use crate::backoff::Backoff;
use crate::connection::{CloseReason, Link};
use crate::notice::ProxyAddress;

/// All of an agent.
pub(super) struct Fleet {
    config: Arc<AgentConfig>,
    plan: Mutex<Placement>,
    board: Mutex<BTreeMap<Slot, Posted>>,
    shown: watch::Sender<AgentState>,
    shown_links: watch::Sender<Vec<ProxyLink>>,
    /// Grows when waiting is over for whoever waits.
    at_once: watch::Sender<u64>,
    stop: CancellationToken,
    /// How long the streams may take to end once stopped.
    drain: watch::Sender<Duration>,
    tasks: TaskTracker,
    tally: Tally,
}

struct Posted {
    shown: ProxyLink,
    up: Option<Up>,
}

/// A link that stands.
#[derive(Clone)]
struct Up {
    link: Link,
    /// Whether its proxy takes streams to the auth service.
    auth: bool,
    /// Whether one of those led nowhere.
    astray: Astray,
    /// Ends the registration, and with it what the agent itself has in the link.
    unregister: CancellationToken,
}

/// How a link came to its end.
struct Ended {
    reason: CloseReason,
    /// Another proxy is to be dialled, now.
    moves_on: bool,
}

impl Fleet {
    pub(super) fn new(config: AgentConfig) -> Arc<Self> {
        let plan = Mutex::new(Placement::new(config.proxy.clone(), config.connections));
        Arc::new(Self {
            config: Arc::new(config),
            plan,
            board: Mutex::default(),
            shown: watch::Sender::new(AgentState::Connecting),
            shown_links: watch::Sender::new(Vec::new()),
            at_once: watch::Sender::new(0),
            stop: CancellationToken::new(),
            drain: watch::Sender::new(Duration::ZERO),
            tasks: TaskTracker::new(),
            tally: Tally::default(),
        })
    }

    pub(super) fn state(&self) -> watch::Receiver<AgentState> {
        self.shown.subscribe()
    }

    pub(super) fn links(&self) -> watch::Receiver<Vec<ProxyLink>> {
        self.shown_links.subscribe()
    }

    pub(super) fn counters(&self) -> AgentCounters {
        self.tally.sums()
    }

    pub(super) fn retry(&self) {
        self.at_once.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn network_changed(&self) {
        self.retry(); // first: what is begun for a link that is suspended now is begun once
        let links: Vec<Link> =
            self.board().values().filter_map(|posted| Some(posted.up.as_ref()?.link.clone())).collect();
        for link in links {
            self.tasks.spawn(async move { link.suspend().await });
        }
    }

    /// The links that lead to the auth service.
    pub(super) fn carriers(&self) -> Vec<AuthCarrier> {
        let board = self.board();
        let carrying = board.values().filter_map(|posted| posted.up.as_ref()).filter(|up| up.auth);
        carrying.map(|up| AuthCarrier::new(up.link.clone(), up.unregister.clone(), up.astray.clone())).collect()
    }

    /// Whether there are links, and all of them lead to the auth service.
    pub(super) fn all_carry(&self) -> bool {
        let board = self.board();
        let mut up = board.values().filter_map(|posted| posted.up.as_ref()).peekable();
        up.peek().is_some() && up.all(|up| up.auth)
    }

    pub(super) async fn shutdown(&self, deadline: Duration) {
        self.drain.send_replace(deadline);
        self.cut();
        self.tasks.wait().await;
    }

    pub(super) fn cut(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Starts the tasks that the plan wants and that do not run.
    pub(super) fn spawn_missing(self: &Arc<Self>) {
        while !self.stop.is_cancelled() {
            let Some(slot) = self.plan().missing() else { return };
            self.tasks.spawn(self.clone().run(slot));
        }
    }

    fn learn(self: &Arc<Self>, proxies: Vec<ProxyAddress>) {
        self.plan().learn(proxies);
        self.spawn_missing();
    }

    /// Keeps one link until the agent stops or the link is one too many.
    async fn run(self: Arc<Self>, slot: Slot) {
        let mut backoff = Backoff::for_agents();
        let (mut at_once, mut cuts) = (self.at_once.subscribe(), 0);
        // Why the last attempt failed: said once, not at each.
        let mut last: Option<Arc<str>> = None;
        while !self.stop.is_cancelled() {
            let Some(address) = self.plan().choose(slot, self.random()) else { break };
            self.post(slot, &address, None, AgentState::Connecting, None);
            let claim = |proxy| self.plan().claim(slot, proxy);
            at_once.mark_unchanged();
            let attempt = tokio::select! {
                attempt = Box::pin(connect(&self.config, &address, claim)) => attempt,
                () = resume::begun_anew(&at_once, &mut cuts) => {
                    backoff.reset();
                    continue;
                }
                () = self.stop.cancelled() => break,
            };
            cuts = 0;
            let reason: Arc<str> = match attempt {
                Ok(registered) => {
                    last = None;
                    let ended = self.keep(slot, &address, registered, &mut backoff).await;
                    if ended.moves_on {
                        continue;
                    }
                    ended.reason.to_string().into()
                }
                Err(error) => {
                    self.plan().fail(slot, &address);
                    readable(&error).into()
                }
            };
            if self.stop.is_cancelled() {
                break;
            }
            let wait = backoff.next(self.random());
            let wait_ms = wait.as_millis();
            if last.as_ref() == Some(&reason) {
                tracing::debug!(proxy = %address, %reason, "tunnel is still down, next attempt in {wait_ms} ms");
            } else {
                tracing::info!(proxy = %address, %reason, "tunnel is down, next attempt in {wait_ms} ms");
            }
            last = Some(reason.clone());
            let until = self.config.clock.now().plus(wait);
            self.post(slot, &address, None, AgentState::Waiting { until, reason }, None);
            tokio::select! {
                () = sleep(wait) => {}
                _ = at_once.changed() => backoff.reset(),
                () = self.stop.cancelled() => break,
            }
        }
        self.board().remove(&slot);
        self.show();
    }

    /// Serves a link until it ends, or until the proxy wants no more of it: then the rest is served beside the next one.
    async fn keep(self: &Arc<Self>, slot: Slot, address: &str, registered: Registered, backoff: &mut Backoff) -> Ended {
        let Registered { link, control, proxy, auth, keys } = registered;
        let up_since = Instant::now();
        self.tally.count(link.clone());
        if let Some(keys) = keys {
            let place = resume::Proxy { config: self.config.clone(), address: address.to_owned(), id: proxy };
            self.tasks.spawn(resume::keep_going(place, self.at_once.subscribe(), link.clone(), keys));
        }
        tracing::info!(proxy = %address, "tunnel is up");
        let unregister = CancellationToken::new();
        let up = Up { link: link.clone(), auth, astray: Astray::default(), unregister: unregister.clone() };
        self.tasks.spawn(serve_streams(self.config.clone(), link.clone(), self.tasks.clone()));
        // Weak: a link that is left to its streams keeps nothing else of the agent.
        let fleet = Arc::downgrade(self);
        let learn = move |proxies: Vec<ProxyAddress>| {
            if let Some(fleet) = fleet.upgrade() {
                fleet.learn(proxies);
            }
        };
        self.tasks.spawn(hold_registration(link.clone(), control, unregister.clone(), learn));
        let (reason, leaving) = tokio::select! {
            ended = self.show_while_of_use(slot, address, proxy, &up) => match ended {
                Some(reason) => (reason, false),
                None => {
                    // Should it come back, its streams go on, and nobody is given new ones there.
                    let link = link.clone();
                    self.tasks.spawn(async move {
                        link.resumed().await;
                        unregister.cancel();
                        link.drain("the agent has another proxy now");
                    });
                    (CloseReason::Peer { reason: "the proxy cannot be reached".into() }, true)
                }
            },
            true = link.going_away() => {
                unregister.cancel();
                (CloseReason::Peer { reason: "the proxy takes no new streams".into() }, true)
            }
            () = self.stop.cancelled() => {
                unregister.cancel();
                let deadline = *self.drain.borrow();
                link.shutdown("the agent stops", deadline).await;
                (link.closed().await, false)
            }
        };
        if up_since.elapsed() >= STABLE {
            backoff.reset();
        }
        let moves_on = self.plan().release(slot, leaving);
        self.spawn_missing();
        Ended { reason, moves_on }
    }

    /// Shows how the link stands, until it ends; `None` when it waits for a connection while another proxy could be had.
    async fn show_while_of_use(&self, slot: Slot, address: &str, proxy: HostId, up: &Up) -> Option<CloseReason> {
        let link = &up.link;
        loop {
            let state = AgentState::Connected { since: self.config.clock.now() };
            self.post(slot, address, Some(proxy), state, Some(up));
            if !link.suspended().await {
                return Some(link.closed().await);
            }
            let state = AgentState::Suspended { since: self.config.clock.now() };
            self.post(slot, address, Some(proxy), state, Some(up));
            while timeout(PATIENCE, link.resumed()).await.is_err() {
                if self.plan().has_another() {
                    return None;
                }
            }
        }
    }

    fn post(&self, slot: Slot, address: &str, proxy: Option<HostId>, state: AgentState, up: Option<&Up>) {
        let shown = ProxyLink { address: address.to_owned(), proxy, state };
        self.board().insert(slot, Posted { shown, up: up.cloned() });
        self.show();
    }

    fn show(&self) {
        let links: Vec<ProxyLink> = self.board().values().map(|posted| posted.shown.clone()).collect();
        let best = links.iter().map(|link| &link.state).min_by_key(|state| rank(state)).cloned();
        let state = best.unwrap_or(if self.stop.is_cancelled() { AgentState::Stopped } else { AgentState::Connecting });
        change(&self.shown_links, links);
        change(&self.shown, state);
    }

    fn random(&self) -> u64 {
        u64::from_ne_bytes(fill_random(&*self.config.entropy))
    }

    fn plan(&self) -> MutexGuard<'_, Placement> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, BTreeMap<Slot, Posted>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("links", &*self.shown_links.borrow()).finish_non_exhaustive()
    }
}

/// The state that counts for all: the best one.
fn rank(state: &AgentState) -> u8 {
    match state {
        AgentState::Connected { .. } => 0,
        AgentState::Suspended { .. } => 1,
        AgentState::Connecting => 2,
        AgentState::Waiting { .. } => 3,
        AgentState::Stopped => 4,
    }
}

fn change<T: PartialEq>(shown: &watch::Sender<T>, now: T) {
    shown.send_if_modified(|before| {
        let differs = *before != now;
        if differs {
            *before = now;
        }
        differs
    });
}

/// The error with its causes: what is shown in the state is all that people see of it.
fn readable(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// How long a link without a connection keeps its agent from looking for another proxy.
const PATIENCE: Duration = Duration::from_secs(10);
/// A link that lived so long was a success.
const STABLE: Duration = Duration::from_secs(30);
