//! A running agent of a program. Owns its tasks: dropping it ends them and cuts its links.

use std::{sync::Arc, time::Duration};

use remoteler_core::{HostIdentity, Timestamp};
use remoteler_tunnel::{
    Agent as TunnelAgent, AgentConfig, AgentCounters, AgentState, AuthLinks, ListenError, ProxyLink, ServiceListener,
    Services,
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::builder::AgentBuilder;

/// Takes part in a cluster and serves under names, without listening on any port.
#[derive(Debug)]
pub struct Agent {
    tunnel: TunnelAgent,
    host: HostIdentity,
    services: Arc<Services>,
    stop: CancellationToken,
    state: watch::Receiver<TunnelState>,
    keeping: Option<AbortOnDropHandle<()>>,
    _showing: AbortOnDropHandle<()>,
}

/// How an agent's tunnels stand, all together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelState {
    /// Can be dialled through at least one proxy.
    Connected,
    /// The connection is lost; open streams wait for another one, which is being made.
    Suspended {
        /// Since when.
        since: Timestamp,
    },
    /// No link: none was made yet, or the last one could not be kept.
    Lost {
        /// What is in the way.
        reason: Arc<str>,
    },
}

/// What an agent has to do now, and what it has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Links to proxies that stand.
    pub links_up: usize,
    /// Links that wait for another connection.
    pub links_suspended: usize,
    /// Links that are being made.
    pub links_down: usize,
    /// What all links have carried since the agent was started.
    pub carried: AgentCounters,
}

impl Agent {
    /// An agent that finds its cluster through the proxy at `proxy` (`host:port`).
    #[must_use]
    pub fn builder(proxy: &str) -> AgentBuilder {
        AgentBuilder::new(proxy)
    }

    pub(super) fn start(
        config: AgentConfig,
        host: HostIdentity,
        services: Arc<Services>,
        stop: CancellationToken,
    ) -> Self {
        let tunnel = TunnelAgent::start(config);
        let mut inner = tunnel.state();
        let (shown, state) = watch::channel(summary(&inner.borrow()));
        let showing = tokio::spawn(async move {
            while inner.changed().await.is_ok() {
                let now = summary(&inner.borrow_and_update());
                shown.send_if_modified(|before| {
                    let differs = *before != now;
                    *before = now;
                    differs
                });
            }
        });
        Self { tunnel, host, services, stop, state, keeping: None, _showing: AbortOnDropHandle::new(showing) }
    }

    /// With a task that has something to say when it stops in order.
    pub(super) fn keeping(&mut self, task: tokio::task::JoinHandle<()>) {
        self.keeping = Some(AbortOnDropHandle::new(task));
    }

    pub(super) fn auth(&self) -> AuthLinks {
        self.tunnel.auth()
    }

    /// Who it is in its cluster.
    #[must_use]
    pub fn host(&self) -> &HostIdentity {
        &self.host
    }

    /// Serves under `name`: users dial `name@host`. The connections know who is calling; what they may do, the program decides.
    ///
    /// # Errors
    /// [`ListenError`] when that is no name or is taken.
    pub fn listen(&self, name: &str) -> Result<ServiceListener, ListenError> {
        self.services.listen(name)
    }

    /// Passes what comes for `name` on to `host:port`, until the handle is dropped.
    ///
    /// ```no_run
    /// # async fn device(agent: remoteler_client::sdk::Agent) -> Result<(), Box<dyn std::error::Error>> {
    /// let _pg = agent.forward("pg", "127.0.0.1:5432")?; // users: pg@edge-1
    /// agent.connected().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Every user of the cluster who is not locked gets there.
    ///
    /// # Errors
    /// [`ListenError`] when that is no name or is taken.
    pub fn forward(&self, name: &str, to: &str) -> Result<AbortOnDropHandle<()>, ListenError> {
        Ok(AbortOnDropHandle::new(tokio::spawn(self.services.forward(name, to)?)))
    }

    /// How its tunnels stand, now and later.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<TunnelState> {
        self.state.clone()
    }

    /// Waits until it can be dialled.
    pub async fn connected(&self) {
        // Fails only when the sender is gone, which lives as long as the agent that is borrowed here.
        let _ = self.state.clone().wait_for(|state| *state == TunnelState::Connected).await;
    }

    /// Its links, one by one.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<Vec<ProxyLink>> {
        self.tunnel.links()
    }

    /// How many of its links stand, and what they have carried.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = Counters { carried: self.tunnel.counters(), ..Counters::default() };
        for link in &*self.tunnel.links().borrow() {
            match link.state {
                AgentState::Connected { .. } => counters.links_up += 1,
                AgentState::Suspended { .. } => counters.links_suspended += 1,
                AgentState::Connecting | AgentState::Waiting { .. } | AgentState::Stopped => counters.links_down += 1,
            }
        }
        counters
    }

    /// For programs that hear from their system that the network is another one: connections are made anew at once, streams go on.
    pub fn network_changed(&self) {
        self.tunnel.network_changed();
    }

    /// Takes no new streams; waits up to `deadline` for those that are open, then ends them. The auth service is told that the agent stops, which
    /// takes 3 s at the most, so that its next run is believed as soon as that of others.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.tunnel.shutdown(deadline).await;
        self.stop.cancel();
        if let Some(keeping) = self.keeping.take() {
            // Fails only when the runtime ends.
            let _ = keeping.await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn summary(state: &AgentState) -> TunnelState {
    match state {
        AgentState::Connected { .. } => TunnelState::Connected,
        AgentState::Suspended { since } => TunnelState::Suspended { since: *since },
        AgentState::Connecting => TunnelState::Lost { reason: "the first connection is being made".into() },
        AgentState::Waiting { reason, .. } => TunnelState::Lost { reason: reason.clone() },
        AgentState::Stopped => TunnelState::Lost { reason: "the agent was shut down".into() },
    }
}

#[cfg(test)]
mod tests {
    use remoteler_core::Clock;
    use remoteler_tunnel::testkit::{Machine, TestCluster, TestProxy};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::{Instant, sleep},
    };

    use super::*;

    fn start(cluster: &TestCluster, proxy: &TestProxy, device: &Machine) -> Agent {
        let (config, services) = cluster.services_config("edge", proxy.address(), device);
        let host = config.host.clone();
        Agent::start(config, host, services, CancellationToken::new())
    }

    async fn lost(state: &mut watch::Receiver<TunnelState>) -> String {
        match &*state.wait_for(|state| matches!(state, TunnelState::Lost { .. })).await.unwrap() {
            TunnelState::Lost { reason } => reason.to_string(),
            TunnelState::Connected | TunnelState::Suspended { .. } => unreachable!("waited for the other one"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_tells_a_connection_that_is_lost_from_a_link_that_is() {
        let cluster = TestCluster::new(1);
        let proxy = cluster.start_proxy("p1");
        let device = cluster.net().machine("192.0.2.7");
        let agent = start(&cluster, &proxy, &device);
        let mut state = agent.state();
        assert_eq!(lost(&mut state).await, "the first connection is being made");
        agent.connected().await;

        device.silence(true);
        device.cut();
        let suspended = state.wait_for(|state| matches!(state, TunnelState::Suspended { .. })).await.unwrap().clone();
        assert_eq!(
            suspended,
            TunnelState::Suspended { since: cluster.clock().now() },
            "by the clock that it was given"
        );
        let counters = agent.counters();
        assert_eq!((counters.links_up, counters.links_suspended, counters.links_down), (0, 1, 0));
        device.silence(false);
        agent.connected().await;
        assert_eq!((agent.counters().links_up, agent.counters().carried.resumptions), (1, 1));

        drop(proxy); // and nobody is there for ten minutes
        let reason = lost(&mut state).await;
        assert!(reason.contains("no other connection within 600 s"), "{reason}");
        assert_eq!(agent.counters().links_down, 1);
        let _again = cluster.start_proxy("p1");
        agent.connected().await;
        assert_eq!(agent.counters().carried.links, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_end_in_peace_until_the_deadline_of_a_shutdown_and_then_is_told_why_it_ends() {
        let cluster = TestCluster::new(2);
        let proxy = cluster.start_proxy("p1");
        let agent = start(&cluster, &proxy, &cluster.net().machine("192.0.2.7"));
        let mut greeter = agent.listen("greeter").unwrap();
        agent.connected().await;
        let dialer = cluster.dialer("ann", proxy.address(), &cluster.net().machine("203.0.113.5"));
        let (stream, connection) = tokio::join!(dialer.dial("greeter@edge"), greeter.accept());
        let (mut stream, mut connection) = (stream.unwrap(), connection.unwrap());

        let (mut state, began) = (agent.state(), Instant::now());
        let stopping = tokio::spawn(agent.shutdown(Duration::from_secs(5)));
        sleep(Duration::from_secs(4)).await;
        assert!(!stopping.is_finished());
        stream.write_all(b"?").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), b'?');
        let refused = dialer.dial("greeter@edge").await.unwrap_err();
        assert!(refused.is_transient(), "{refused}");
        stopping.await.unwrap();

        assert!((5..6).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        let ended = connection.read_u8().await.unwrap_err().to_string();
        assert!(ended.contains("the agent stops"), "{ended}");
        assert!(stream.read_u8().await.is_err());
        assert_eq!(lost(&mut state).await, "the agent was shut down");
    }
}
