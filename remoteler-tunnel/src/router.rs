//! Turns a target into a byte stream: to an address of this network, through an agent's link, or to a service in this
//! process. Owns the table of links. Never decides who may dial what: the target's own service does, with the user's
//! certificate.

pub(crate) mod dialling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use remoteler_core::{Clock, HostId, HostIdentity, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connect::ConnectError;
use crate::connection::Link;
use crate::dial::{DialCode, DialHeader, Target, TargetKind};
use crate::mux::error::{Code, OpenError};
use crate::mux::stream::StreamError;
use crate::passing::{NoOthers, OtherProxies};
use crate::service::ServiceAddress;
use crate::stream::BoxedStream;

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At `host:port`, which this process reaches.
    Address(String),
    /// Behind the link of this host's agent.
    Agent(HostId),
    /// In this process.
    Local,
}

/// Knows where targets are. Implemented over the cluster's inventory.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Finds the target; `None` when there is no such.
    ///
    /// # Errors
    /// What people should read when the inventory itself cannot be asked.
    async fn locate(&self, target: &Target) -> Result<Option<Place>, String>;
}

/// Serves streams of one kind: an SSH node, a Kubernetes service. Used by agents and for services in the proxy's own process.
#[async_trait]
pub trait StreamService: Send + Sync {
    /// Serves one stream to its end. The header comes from a proxy of the cluster and says what it was dialled as; it proves
    /// nothing about the user.
    async fn serve(&self, stream: BoxedStream, header: DialHeader);
}

/// Why there is no stream to a target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No such target.
    #[error("no {target} is known")]
    NotFound {
        /// What was dialled.
        target: Target,
    },
    /// The inventory does not answer.
    #[error("{target} cannot be looked up: {reason}")]
    Lookup {
        /// What was dialled.
        target: Target,
        /// Why.
        reason: String,
    },
    /// Its agent has no link.
    #[error("{target} is known but its tunnel is down{}", since(.down_since))]
    TunnelDown {
        /// What was dialled.
        target: Target,
        /// Since when, if it was up since this proxy started.
        down_since: Option<Timestamp>,
    },
    /// Its address does not answer.
    #[error("{target} is known but does not answer")]
    Connect {
        /// What was dialled.
        target: Target,
        /// Why.
        source: ConnectError,
    },
    /// No stream can be opened in its link.
    #[error("{target} is known but its tunnel takes no stream")]
    Open {
        /// What was dialled.
        target: Target,
        /// Why.
        source: OpenError,
    },
    /// Its agent did not take the stream.
    #[error("the agent of {target} did not take the stream")]
    Refused {
        /// What was dialled.
        target: Target,
        /// Why.
        source: StreamError,
    },
    /// No answer in time.
    #[error("{target} did not answer within {} s", within.as_secs())]
    Timeout {
        /// What was dialled.
        target: Target,
        /// The deadline.
        within: Duration,
    },
    /// It should be in this process and is not.
    #[error("{target} is said to be served here, but no such service runs")]
    NotHere {
        /// What was dialled.
        target: Target,
    },
    /// Its agent has a link to another proxy, through which there is no stream either.
    #[error("{target} is behind proxy {proxy}, which says: {message}")]
    Passed {
        /// What was dialled.
        target: Target,
        /// `host:port` of the other proxy.
        proxy: String,
        /// For programs, as the other proxy says it.
        code: DialCode,
        /// Its explanation.
        message: String,
    },
}

impl DialError {
    /// The code of the dial reply that tells it.
    #[must_use]
    pub fn code(&self) -> DialCode {
        match self {
            Self::NotFound { .. } => DialCode::NotFound,
            Self::Lookup { .. } | Self::NotHere { .. } => DialCode::Internal,
            Self::Timeout { .. } => DialCode::Timeout,
            Self::Passed { code, .. } => *code,
            Self::Open { source: OpenError::TooMany { .. }, .. } => DialCode::Busy,
            Self::Refused { source: StreamError::Rejected { code, .. }, .. } if *code == Code::Busy.number() => {
                DialCode::Busy
            }
            Self::TunnelDown { .. } | Self::Connect { .. } | Self::Open { .. } | Self::Refused { .. } => {
                DialCode::Unreachable
            }
        }
    }
}

/// An agent with a link now.
#[derive(Clone, Debug)]
pub struct AttachedAgent {
    /// The host.
    pub host: HostId,
    /// Since when.
    pub since: Timestamp,
    /// Streams open in its link.
    pub streams: usize,
    /// For how long its link has been without a connection, if it is.
    pub suspended: Option<Duration>,
}

/// Says which attachment is meant when it ends: a newer link of the same agent is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    host: HostId,
    generation: u64,
}

/// The table of links and services, and the way to them.
pub struct Router {
    inventory: Arc<dyn Inventory>,
    clock: Arc<dyn Clock>,
    local: HashMap<TargetKind, Arc<dyn StreamService>>,
    agents: Mutex<Agents>,
    dial_deadline: Duration,
    others: Arc<dyn OtherProxies>,
    started: Instant,
    /// Changes when a link has been attached.
    attached: watch::Sender<u64>,
}

#[derive(Default)]
struct Agents {
    up: BTreeMap<HostId, Attached>,
    down: BTreeMap<HostId, Timestamp>,
    /// Hosts with services, by name: who has a link under it.
    names: BTreeMap<String, HostId>,
    generation: u64,
}

struct Attached {
    link: Link,
    since: Timestamp,
    generation: u64,
}

impl Router {
    /// `local` are the services in this process. A dial may take 10 s.
    #[must_use]
    pub fn new(
        inventory: Arc<dyn Inventory>,
        clock: Arc<dyn Clock>,
        local: HashMap<TargetKind, Arc<dyn StreamService>>,
    ) -> Self {
        let (dial_deadline, others) = (dialling::DIAL_DEADLINE, Arc::new(NoOthers));
        let (agents, attached) = (Mutex::default(), watch::Sender::new(0));
        Self { inventory, clock, local, agents, dial_deadline, others, started: Instant::now(), attached }
    }

    /// Asks `others` for agents that have no link here.
    #[must_use]
    pub fn beside(self, others: Arc<dyn OtherProxies>) -> Self {
        Self { others, ..self }
    }

    /// Services are where their host's link is: no inventory knows them.
    fn host_of_service(&self, target: &Target) -> Option<HostId> {
        let address: ServiceAddress = target.name.as_str().parse().ok()?;
        let named = self.lock().names.get(&*address.host).copied();
        named.or_else(|| address.host.parse().ok())
    }

    /// Gives a host the name that its services are dialled by. False when another host has it and a link (I28).
    pub(crate) fn take_name(&self, host: &HostIdentity) -> bool {
        let mut agents = self.lock();
        let held = agents.names.get(host.name.as_str()).copied();
        if held.is_some_and(|other| other != host.id && agents.up.contains_key(&other)) {
            return false;
        }
        if held.is_none() && agents.names.len() >= MOST_REMEMBERED {
            let Agents { names, up, .. } = &mut *agents;
            names.retain(|_, host| up.contains_key(host));
        }
        agents.names.insert(host.name.to_string(), host.id);
        true
    }

    /// Puts a link into the table. A link that the agent had before is closed at once: whoever makes a new one has lost it.
    /// Unless it is going away: then the agent was asked to make a new one, and the streams of the old one may end in peace.
    pub fn attach(&self, host: HostId, link: Link) -> Attachment {
        let mut agents = self.lock();
        agents.generation += 1;
        let generation = agents.generation;
        agents.down.remove(&host);
        let attached = Attached { link, since: self.clock.now(), generation };
        let displaced = agents.up.insert(host, attached);
        drop(agents);
        self.attached.send_modify(|count| *count = count.wrapping_add(1));
        if let Some(displaced) = displaced.filter(|displaced| displaced.link.is_open()) {
            displaced.link.close(Code::Displaced, "a newer link of the same agent took its place");
        }
        Attachment { host, generation }
    }

    /// Takes a link out of the table, unless a newer one has taken its place; says whether it was there.
    pub fn detach(&self, attachment: Attachment) -> bool {
        let Attachment { host, generation } = attachment;
        let mut agents = self.lock();
        if agents.up.get(&host).is_none_or(|attached| attached.generation != generation) {
            return false;
        }
        agents.up.remove(&host);
        while agents.down.len() >= MOST_REMEMBERED {
            agents.down.pop_first();
        }
        agents.down.insert(host, self.clock.now());
        true
    }

    /// Ends the link of an agent, for example because its host was locked; says whether there was one.
    pub fn disconnect(&self, host: HostId, reason: &str) -> bool {
        let link = self.lock().up.get(&host).map(|attached| attached.link.clone());
        link.is_some_and(|link| {
            link.close(Code::Denied, reason);
            true
        })
    }

    /// The agents that have links, in the order of their ids.
    #[must_use]
    pub fn agents(&self) -> Vec<AttachedAgent> {
        let agents = self.lock();
        let attached = agents.up.iter();
        attached
            .map(|(host, attached)| AttachedAgent {
                host: *host,
                since: attached.since,
                streams: attached.link.stream_count(),
                suspended: attached.link.suspended_since().map(|since| Instant::from_std(since).elapsed()),
            })
            .collect()
    }

    /// Tells every agent that no new streams come from here: they move to other proxies, and their links end with their last stream.
    pub fn drain(&self, reason: &str) {
        let links: Vec<Link> = self.lock().up.values().map(|attached| attached.link.clone()).collect();
        links.iter().for_each(|link| link.drain(reason));
    }

    /// Takes no new streams on any link; waits up to `deadline` for those that are open, then ends them.
    pub async fn shutdown(&self, reason: &str, deadline: Duration) {
        let links: Vec<Link> = self.lock().up.values().map(|attached| attached.link.clone()).collect();
        futures::future::join_all(links.iter().map(|link| link.shutdown(reason, deadline))).await;
    }

    fn lock(&self) -> MutexGuard<'_, Agents> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("agents", &self.lock().up.len()).finish_non_exhaustive()
    }
}

fn since(down_since: &Option<Timestamp>) -> String {
    down_since.map(|moment| format!(" since {moment}")).unwrap_or_default()
}

/// Agents of which is remembered since when they are down.
const MOST_REMEMBERED: usize = 20_000;
