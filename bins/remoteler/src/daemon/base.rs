//! What every service of a process stands on: who this host is, whom it believes, where its events go, and its handle on the
//! auth service, which is in this process or elsewhere.

use std::sync::Arc;

use anyhow::{Context, bail};
use remoteler_auth::{AuthConfig, AuthService, Caller};
use remoteler_client::{
    AuthTrust, HostState, POLICY_PERIOD, Peer, PolicyRefresher, RemoteAuth, SpoolLimits, SpooledAudit, probe,
};
use remoteler_core::{
    AuditSink, AuthApi, Clock, Entropy, OsEntropy, PolicySource, SystemClock, TrustBundle, X509Purpose,
    verify_x509_chain,
};
use remoteler_tunnel::{ClientTls, PolicyTrust, ServerTls};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{AuthSettings, JoinSettings, Settings},
    host::{self, HostKeys},
    paths::DataDir,
};

/// The ground of one process.
pub(crate) struct Base {
    pub(crate) keys: HostKeys,
    pub(crate) policy: Arc<dyn PolicySource>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) api: Arc<dyn AuthApi>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) place: Place,
}

/// Where the auth service is.
pub(crate) enum Place {
    /// In this process.
    Here(AuthService),
    /// Elsewhere, reached directly.
    Direct(String),
    /// Elsewhere, reached through this proxy.
    ThroughProxy(String),
}

impl Base {
    /// Opens the auth service, or joins the cluster of one.
    pub(crate) async fn new(settings: &Settings, data_dir: &DataDir, stop: &CancellationToken) -> anyhow::Result<Self> {
        match (&settings.auth, &settings.join) {
            (Some(auth), _) => Self::here(settings, auth, data_dir).await,
            (None, Some(join)) => Self::elsewhere(settings, join, data_dir, stop).await,
            (None, None) => bail!("neither an auth service here nor the address of one is configured"),
        }
    }

    async fn here(settings: &Settings, auth: &AuthSettings, data_dir: &DataDir) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let service = AuthService::open(AuthConfig::new(data_dir.path(), auth.cluster.clone())).await?;
        let state = host::local(settings, data_dir, &service, &*clock).await?;
        let verified = verified_self(&state, &service.trust_bundle(), &*clock)?;
        Ok(Self {
            keys: HostKeys::from_state(&state)?,
            policy: service.policy_source(),
            audit: service.audit_sink(),
            api: service.as_caller(verified),
            clock,
            entropy: Arc::new(OsEntropy),
            place: Place::Here(service),
        })
    }

    async fn elsewhere(
        settings: &Settings,
        join: &JoinSettings,
        data_dir: &DataDir,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let state = host::joined(settings, join, data_dir).await?;
        let keys = HostKeys::from_state(&state)?;
        let mut refresher = PolicyRefresher::load(data_dir.path(), state.trust().clone())?;
        let policy = refresher.source();
        let trust = AuthTrust::Policy(policy.clone());
        let api: Arc<dyn AuthApi> = Arc::new(RemoteAuth::tls(&join.addr, Some(keys.tls.clone()), trust.clone())?);
        let audit =
            SpooledAudit::open(data_dir.path(), state.cluster_name().clone(), clock.clone(), SpoolLimits::default())
                .context("the audit spool cannot be opened")?;
        let audit = Arc::new(audit);
        {
            let (audit, api, stop) = (audit.clone(), api.clone(), stop.clone());
            tokio::spawn(async move { audit.upload(api, stop).await });
        }
        // A host that just joined knows no roles yet; one that starts while auth is away goes by those it knew last.
        if let Err(cause) = refresher.refresh(&*api).await {
            tracing::warn!(%cause, "the cluster's rules were not fetched; the last known ones are in force");
        }
        tokio::spawn(refresher.run(api.clone(), POLICY_PERIOD, stop.clone()));
        let place = match known_place(data_dir) {
            Some(place) if place.0 == join.addr => place.1,
            _ => {
                let peer = probe(&join.addr, Some(keys.tls.clone()), trust).await?;
                remember_place(data_dir, &join.addr, peer)?;
                peer
            }
        };
        let place = match place {
            Peer::Auth => Place::Direct(join.addr.clone()),
            Peer::Proxy => Place::ThroughProxy(join.addr.clone()),
        };
        Ok(Self { keys, policy, audit, api, clock, entropy, place })
    }

    /// How this process is a TLS server of the cluster.
    pub(crate) fn server_tls(&self) -> ServerTls {
        ServerTls {
            identity: self.keys.tls.clone(),
            trust: Arc::new(PolicyTrust(self.policy.clone())),
            clock: self.clock.clone(),
        }
    }

    /// How this process is a TLS client of the cluster.
    pub(crate) fn client_tls(&self) -> ClientTls {
        ClientTls {
            identity: Some(self.keys.tls.clone()),
            trust: Arc::new(PolicyTrust(self.policy.clone())),
            clock: self.clock.clone(),
        }
    }
}

/// The process proves to its own auth service who it is like everybody else: by its certificate.
fn verified_self(state: &HostState, trust: &TrustBundle, clock: &dyn Clock) -> anyhow::Result<Caller> {
    let identity = state.tls_identity()?;
    let verified = verify_x509_chain(identity.chain(), trust, X509Purpose::Client, clock.now())?;
    match verified.host() {
        Some(host) => Ok(Caller::Host(host)),
        None => bail!("this host's own certificate is a user's"),
    }
}

/// What answered at the address when this host was started before: a restart must work while nobody answers.
fn known_place(data_dir: &DataDir) -> Option<(String, Peer)> {
    let text = std::fs::read_to_string(data_dir.peer_file()).ok()?;
    let (kind, addr) = text.trim().split_once(' ')?;
    let peer = match kind {
        "auth" => Peer::Auth,
        "proxy" => Peer::Proxy,
        _ => return None,
    };
    Some((addr.to_owned(), peer))
}

fn remember_place(data_dir: &DataDir, addr: &str, peer: Peer) -> anyhow::Result<()> {
    let kind = match peer {
        Peer::Auth => "auth",
        Peer::Proxy => "proxy",
    };
    let path = data_dir.peer_file();
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, format!("{kind} {addr}\n"))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .with_context(|| format!("{} cannot be written", path.display()))
}
