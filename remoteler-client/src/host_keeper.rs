//! Keeps what a host shows to what the trust bundle demands: when a rotation of the host authority reaches another phase, its
//! certificates are renewed, put on disk, put in use, and only then is the phase acknowledged. Owns the identities that
//! configurations share. Opens no connection but the one that finds out whether the host is shut out.

use std::{path::PathBuf, sync::Arc, time::Duration};

use remoteler_core::{
    ApiError, ApiErrorKind, Clock, Heartbeat, HostApi, InstanceId, OsEntropy, Policy, PolicySource, SharedPolicy,
    TrustAck, TrustAcked, random_uuid,
};
use remoteler_tunnel::{SharedTlsIdentity, Ways};
use ssh_key::{Certificate, PrivateKey};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    connector::{AuthTrust, LateLinks},
    host_clock::{HostClock, correct_clock_by},
    host_state::{HostState, HostStateError},
    standing::{ShutOut, shut_out},
    state_store::{DirStore, StateStore},
};

/// Why a host does not show what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// The auth service did not answer or refused.
    #[error("{what}: {source}")]
    Auth {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        source: ApiError,
    },
    /// What it sent cannot be used, or not be kept.
    #[error(transparent)]
    State(#[from] HostStateError),
}

/// An SSH host key with the certificate to be shown for it.
#[derive(Clone, Debug)]
pub struct SshHostKey {
    /// Key.
    pub key: PrivateKey,
    /// Certificate.
    pub certificate: Certificate,
}

/// What the services of a host show. Clones share it.
#[derive(Clone, Debug)]
pub struct HostIdentities {
    /// Where it is the TLS server.
    pub server: Arc<SharedTlsIdentity>,
    /// Where it is the TLS client.
    pub client: Arc<SharedTlsIdentity>,
    /// Where it is the SSH server; changes are told to whoever listens.
    pub ssh: watch::Receiver<SshHostKey>,
}

/// Owner of a host's state while its services run.
pub struct HostKeeper {
    state: HostState,
    store: Arc<dyn StateStore>,
    policy: Arc<dyn PolicySource>,
    clock: Arc<dyn Clock>,
    shown: HostIdentities,
    ssh: watch::Sender<SshHostKey>,
    elsewhere: Option<Elsewhere>,
    /// How seldom the auth service lets it speak, as it said last; one of an earlier version does not say.
    longest: Option<Heartbeat>,
    heartbeat: watch::Sender<Heartbeat>,
    standing: watch::Sender<Option<ShutOut>>,
    /// By which generation of the trust bundle it has said that it acts.
    acknowledged: Option<u64>,
}

/// What a host needs whose auth service is in another process: it may be shut out, and comes back by what a rejoin writes.
struct Elsewhere {
    addr: String,
    policy: Arc<SharedPolicy>,
    /// Which run of the daemon this is, so that a copy of this disk that runs at the same time is told from it.
    instance: InstanceId,
    /// Corrected when nothing is believed for its sake.
    clock: HostClock,
    /// How it is reached.
    ways: Ways,
    /// How seldom the host may speak, and the links whose proxies know that it does.
    seldom: Option<(Heartbeat, LateLinks)>,
}

impl HostKeeper {
    /// Begins with `state`, which is kept in `data_dir`; `policy` says what is believed at each moment.
    ///
    /// # Errors
    /// [`HostStateError`] when a key or certificate in it cannot be used.
    pub fn new(
        state: HostState,
        data_dir: PathBuf,
        policy: Arc<dyn PolicySource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, HostStateError> {
        Self::new_in(state, Arc::new(DirStore::new(data_dir)), policy, clock)
    }

    /// The same with the state in another store.
    ///
    /// # Errors
    /// As [`HostKeeper::new`].
    pub fn new_in(
        state: HostState,
        store: Arc<dyn StateStore>,
        policy: Arc<dyn PolicySource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, HostStateError> {
        let (ssh, changes) = watch::channel(ssh(&state)?);
        let shown = HostIdentities {
            server: SharedTlsIdentity::new(state.tls_identity()?),
            client: SharedTlsIdentity::new(state.tls_client_identity()?),
            ssh: changes,
        };
        let (heartbeat, standing) = (watch::Sender::default(), watch::Sender::new(None));
        Ok(Self {
            state,
            store,
            policy,
            clock,
            shown,
            ssh,
            elsewhere: None,
            longest: None,
            heartbeat,
            standing,
            acknowledged: None,
        })
    }

    /// Says where the auth service is, and whose view of it to replace when this host has joined again while it runs.
    #[must_use]
    pub fn with_auth_at(self, addr: impl Into<String>, policy: Arc<SharedPolicy>) -> Self {
        let instance = InstanceId::from_uuid(random_uuid(&OsEntropy));
        let clock = HostClock::default();
        Self {
            elsewhere: Some(Elsewhere {
                addr: addr.into(),
                policy,
                instance,
                clock,
                ways: Ways::default(),
                seldom: None,
            }),
            ..self
        }
    }

    /// Goes on as this run of the daemon: the process that was it before has stopped saying so.
    #[must_use]
    pub fn continuing(mut self, instance: InstanceId) -> Self {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.instance = instance;
        }
        self
    }

    /// Says by which ways the auth service is reached.
    #[must_use]
    pub fn by_ways(mut self, ways: &Ways) -> Self {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.ways = ways.clone();
        }
        self
    }

    /// Lets the host speak seldom while it is reached through `links`: every five minutes, and where octets are paid for every half hour. While
    /// there are none, or one of them leads to a proxy of a version that forgets hosts sooner, it speaks every 30 s as others do.
    #[must_use]
    pub fn seldom(mut self, links: &LateLinks, metered: bool) -> Self {
        if let Some(elsewhere) = &mut self.elsewhere {
            let period = if metered { METERED_PERIOD } else { LINKED_PERIOD };
            elsewhere.seldom = Some((Heartbeat::every(period), links.clone()));
        }
        self
    }

    /// How often the host says that it is there, as it has told the auth service; changes are told.
    #[must_use]
    pub fn heartbeat(&self) -> watch::Receiver<Heartbeat> {
        self.heartbeat.subscribe()
    }

    /// Says by which clock this host goes, which is corrected when the auth service is not believed for its sake.
    #[must_use]
    pub fn by_clock(mut self, clock: HostClock) -> Self {
        self.clock = Arc::new(clock.clone());
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.clock = clock;
        }
        self
    }

    /// Whether the host is shut out of its cluster, and why; changes are told.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Option<ShutOut>> {
        self.standing.subscribe()
    }

    /// What is shown, for configurations that follow every change.
    #[must_use]
    pub fn identities(&self) -> HostIdentities {
        self.shown.clone()
    }

    /// Brings what is shown into line with the present trust bundle and acknowledges it; its generation.
    ///
    /// # Errors
    /// [`KeeperError`]; what was shown before is still shown, unless the new certificates are in use already and only the
    /// acknowledgement failed.
    ///
    /// # Cancel safety
    /// A dropped future leaves the old certificates or the new ones in use, on disk and in memory alike; calling again goes on.
    pub async fn follow(&mut self, auth: &dyn HostApi) -> Result<u64, KeeperError> {
        let trust = self.policy.policy().trust.clone();
        let generation = trust.rotation.generation;
        if !self.state.fits(&trust, self.clock.now()) {
            self.renew(auth).await?;
            tracing::info!(phase = %trust.rotation.host, generation, "new host certificates are in use");
        } else if *self.state.trust() != trust {
            // A restart without the auth service must believe what is believed now.
            self.show(self.state.believing(trust))?;
        }
        if self.acknowledge(auth, generation).await?.renew {
            self.renew(auth).await?;
            tracing::debug!("new host certificates of the next generation are in use");
            // By showing them the host lets the auth service know that it has them.
            self.acknowledge(auth, generation).await?;
        }
        Ok(generation)
    }

    async fn renew(&mut self, auth: &dyn HostApi) -> Result<(), KeeperError> {
        let certs = auth
            .renew_host(self.instance())
            .await
            .map_err(|source| KeeperError::Auth { what: "new host certificates were not issued", source })?;
        let renewed = self.state.renewed(certs, self.clock.now())?;
        Ok(self.show(renewed)?)
    }

    async fn acknowledge(&mut self, auth: &dyn HostApi, generation: u64) -> Result<TrustAcked, KeeperError> {
        // One that fails may be answered by another auth service the next time, of a version that knows of no heartbeats.
        let heartbeat = self.longest.take().map(|longest| self.wanted_heartbeat().min(longest));
        let acked = auth
            .acknowledge_trust(TrustAck { generation, instance: self.instance(), heartbeat })
            .await
            .map_err(|source| KeeperError::Auth { what: "the trust bundle was not acknowledged", source })?;
        self.longest = acked.longest_heartbeat;
        self.acknowledged = Some(generation);
        let heartbeat = heartbeat.unwrap_or_default();
        self.heartbeat.send_if_modified(|said| std::mem::replace(said, heartbeat) != heartbeat);
        Ok(acked)
    }

    fn wanted_heartbeat(&self) -> Heartbeat {
        let seldom = self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.seldom.as_ref());
        seldom.filter(|(_, links)| links.are_all()).map(|(heartbeat, _)| *heartbeat).unwrap_or_default()
    }

    /// Which run of the daemon this is, where the auth service is elsewhere.
    #[must_use]
    pub fn instance(&self) -> Option<InstanceId> {
        self.elsewhere.as_ref().map(|elsewhere| elsewhere.instance)
    }

    /// Follows every change until `stop`, and says as often as it has told that this host is there. A failure is logged once, and once more
    /// when it is over. A host that is shut out asks every 30 s only, and takes over what a rejoin writes within 2 s; any other
    /// within 30 s and before its next word. After `stop` it says its last word.
    pub async fn run(mut self, auth: Arc<dyn HostApi>, stop: CancellationToken) {
        self.run_until(&auth, &stop).await;
        self.say_farewell(&*auth).await;
    }

    /// For a host that is gone in order and spoke seldom: its next run may speak for it as soon as that of others. Takes 3 s at the most.
    pub async fn say_farewell(&mut self, auth: &dyn HostApi) {
        let seldom = !self.heartbeat.borrow().is_default();
        let Some(generation) = self.acknowledged.filter(|_| seldom && self.standing.borrow().is_none()) else { return };
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.seldom = None;
        }
        // When it is not heard, the one before counts.
        let _ = tokio::time::timeout(FAREWELL, self.acknowledge(auth, generation)).await;
    }

    /// The same for a keeper that rests after `stop` and may be run again.
    pub async fn run_until(&mut self, auth: &Arc<dyn HostApi>, stop: &CancellationToken) {
        let mut acknowledged = None;
        let mut failing = false;
        let mut next = Instant::now();
        let mut changes = self.policy.changes();
        // Whether the rules are others than those by which the certificates were judged.
        let mut replaced = false;
        let mut spoke = None;
        loop {
            let policy = self.policy.policy();
            let changed = acknowledged != Some(policy.trust.rotation.generation)
                || std::mem::take(&mut replaced) && !self.state.fits(&policy.trust, self.clock.now());
            // Before each word: one by the old certificates, after a rejoin wrote new ones, would be that of a copy.
            if self.take_over() {
                next = Instant::now();
            }
            // Who has lost its links may be shut out, and is to know it as soon as others.
            if let Some(spoke) = spoke {
                next = next.min(spoke + self.wanted_heartbeat().period());
            }
            if Instant::now() >= next || (changed && !failing) {
                let Some(outcome) = stop.run_until_cancelled(self.follow(&**auth)).await else { return };
                next = Instant::now()
                    + match outcome {
                        Ok(generation) => {
                            acknowledged = Some(generation);
                            spoke = Some(Instant::now());
                            self.standing.send_if_modified(|standing| standing.take().is_some());
                            if std::mem::take(&mut failing) {
                                tracing::info!(generation, "the trust bundle is acknowledged again");
                            }
                            self.heartbeat.borrow().period()
                        }
                        Err(error) => {
                            let first = !std::mem::replace(&mut failing, true);
                            spoke = None;
                            let Some(shut_out) = stop.run_until_cancelled(self.examine(&error)).await else { return };
                            match shut_out {
                                Some(()) => PERIOD,
                                None => {
                                    if first {
                                        tracing::warn!(%error, "this host does not follow the rotation of authorities; it tries again");
                                    }
                                    RETRY
                                }
                            }
                        }
                    };
            }
            let soon = if self.standing.borrow().is_some() { RETRY } else { PERIOD };
            let look = next.min(Instant::now() + soon);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(look) => {}
                // What tells of changes lives as long as the view.
                Ok(()) = changes.changed() => replaced = true,
            }
        }
    }

    /// Looks whether a failure is one that only a rejoin ends, and says so, once.
    async fn examine(&self, error: &KeeperError) -> Option<()> {
        let elsewhere = self.elsewhere.as_ref()?;
        let before = *self.standing.borrow();
        let found = match error {
            KeeperError::Auth { source, .. } if source.kind == ApiErrorKind::Copied => Some(ShutOut::Copied),
            KeeperError::Auth { .. } | KeeperError::State(_) => {
                let (client, policy) = (self.shown.client.clone(), self.policy.clone());
                shut_out(&elsewhere.addr, client, policy, self.clock.clone(), &elsewhere.ways).await
            }
        };
        let found = match (found, before) {
            // What a copy has is revoked; that it is a copy says more.
            (Some(ShutOut::Revoked), Some(ShutOut::Copied)) => before,
            (found, _) => found,
        };
        // Who is shut out stays so while nobody answers.
        let Some(reason) = found else {
            if before.is_none() {
                let trust = AuthTrust::Policy(self.policy.clone());
                if let Err(error) = correct_clock_by(&elsewhere.clock, &elsewhere.addr, trust, &elsewhere.ways).await {
                    tracing::debug!(%error, "the clock was not compared");
                }
            }
            return before.map(drop);
        };
        if self.standing.send_replace(Some(reason)) != Some(reason) {
            tracing::error!("this host is shut out of cluster {}: {reason}", self.state.cluster_name());
        }
        Some(())
    }

    /// Takes over what a rejoin has written meanwhile; whether there was anything.
    fn take_over(&mut self) -> bool {
        let Some(elsewhere) = &self.elsewhere else { return false };
        let state = match HostState::load_from(&*self.store) {
            Ok(Some(state)) if state.succeeds(&self.state) => state,
            Ok(_) => return false,
            Err(error) => {
                tracing::debug!(%error, "the host's state on disk cannot be read");
                return false;
            }
        };
        // Whom to believe goes first: with it the certificates are shown to nobody who cannot judge them.
        let trust = state.trust().clone();
        elsewhere.policy.replace(Policy { trust, ..Policy::clone(&elsewhere.policy.policy()) });
        if let Err(error) = self.put_in_use(state) {
            tracing::warn!(%error, "what a rejoin wrote cannot be used");
            return false;
        }
        self.standing.send_replace(None);
        tracing::info!("this host has joined again; its new certificates are in use");
        true
    }

    fn show(&mut self, state: HostState) -> Result<(), HostStateError> {
        state.save_to(&*self.store)?;
        self.put_in_use(state)
    }

    fn put_in_use(&mut self, state: HostState) -> Result<(), HostStateError> {
        let (server, client, ssh) = (state.tls_identity()?, state.tls_client_identity()?, ssh(&state)?);
        self.shown.server.replace(server);
        self.shown.client.replace(client);
        self.ssh.send_if_modified(|shown| {
            let other = shown.certificate != ssh.certificate;
            if other {
                *shown = ssh;
            }
            other
        });
        self.state = state;
        Ok(())
    }
}

fn ssh(state: &HostState) -> Result<SshHostKey, HostStateError> {
    Ok(SshHostKey { key: state.ssh_private_key()?, certificate: state.ssh_certificate()? })
}

/// How often a host looks whether it has joined again, and says that it is there when it is not reached through links.
const PERIOD: Duration = Heartbeat::SHORTEST.period();
/// How often one speaks that is: a word is two calls of some 500 octets each.
const LINKED_PERIOD: Duration = Duration::from_secs(300);
/// The same where octets are paid for.
const METERED_PERIOD: Duration = Duration::from_secs(1800);
/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long it waits after a failure.
const RETRY: Duration = Duration::from_secs(2);
