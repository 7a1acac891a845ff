//! Keeps what a host shows to what the trust bundle demands: when a rotation of the host authority reaches another phase, its
//! certificates are renewed, put on disk, put in use, and only then is the phase acknowledged. Owns the identities that
//! configurations share; opens no connection of its own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use remoteler_core::{ApiError, AuthApi, Clock, PolicySource, TrustAck};
use remoteler_tunnel::SharedTlsIdentity;
use ssh_key::{Certificate, PrivateKey};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::host_state::{HostState, HostStateError};

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
    data_dir: PathBuf,
    policy: Arc<dyn PolicySource>,
    clock: Arc<dyn Clock>,
    shown: HostIdentities,
    ssh: watch::Sender<SshHostKey>,
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
        let (ssh, changes) = watch::channel(ssh(&state)?);
        let shown = HostIdentities {
            server: SharedTlsIdentity::new(state.tls_identity()?),
            client: SharedTlsIdentity::new(state.tls_client_identity()?),
            ssh: changes,
        };
        Ok(Self { state, data_dir, policy, clock, shown, ssh })
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
    pub async fn follow(&mut self, auth: &dyn AuthApi) -> Result<u64, KeeperError> {
        let trust = self.policy.policy().trust.clone();
        let generation = trust.rotation.generation;
        if !self.state.fits(&trust, self.clock.now()) {
            let certs = auth
                .renew_host()
                .await
                .map_err(|source| KeeperError::Auth { what: "new host certificates were not issued", source })?;
            let renewed = self.state.renewed(certs, self.clock.now())?;
            self.show(renewed)?;
            tracing::info!(phase = %trust.rotation.host, generation, "new host certificates are in use");
        } else if *self.state.trust() != trust {
            // A restart without the auth service must believe what is believed now.
            self.show(self.state.believing(trust))?;
        }
        auth.acknowledge_trust(TrustAck { generation })
            .await
            .map_err(|source| KeeperError::Auth { what: "the trust bundle was not acknowledged", source })?;
        Ok(generation)
    }

    /// Follows every change until `stop`, and says every 30 s that this host is there. A failure is logged once, and once more
    /// when it is over.
    pub async fn run(mut self, auth: Arc<dyn AuthApi>, stop: CancellationToken) {
        let mut acknowledged = None;
        let mut failing = false;
        let mut next = Instant::now();
        loop {
            let changed = acknowledged != Some(self.policy.policy().trust.rotation.generation);
            if Instant::now() >= next || (changed && !failing) {
                let Some(outcome) = stop.run_until_cancelled(self.follow(&*auth)).await else { return };
                next = Instant::now()
                    + match outcome {
                        Ok(generation) => {
                            acknowledged = Some(generation);
                            if std::mem::take(&mut failing) {
                                tracing::info!(generation, "the trust bundle is acknowledged again");
                            }
                            PERIOD
                        }
                        Err(error) => {
                            if !std::mem::replace(&mut failing, true) {
                                tracing::warn!(%error, "this host does not follow the rotation of authorities; it tries again");
                            }
                            RETRY
                        }
                    };
            }
            if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return;
            }
        }
    }

    fn show(&mut self, state: HostState) -> Result<(), HostStateError> {
        let (server, client, ssh) = (state.tls_identity()?, state.tls_client_identity()?, ssh(&state)?);
        state.save(&self.data_dir)?;
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

/// How often a host says that it is there.
const PERIOD: Duration = Duration::from_secs(30);
/// How long it waits after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// How often it looks whether the trust bundle is another.
const LOOK: Duration = Duration::from_millis(500);
