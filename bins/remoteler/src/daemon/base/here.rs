//! The ground of a process that runs the auth service.

use std::sync::Arc;

use anyhow::{Context, bail};
use remoteler_auth::{AuthConfig, AuthService, Caller, SsoConfig};
use remoteler_client::{HostKeeper, HostState, LateLinks, LeaseKeeper};
use remoteler_core::{
    Clock, ClusterName, LiveWork, OsEntropy, SystemClock, TrustBundle, X509Purpose, verify_x509_chain,
};
use tokio_util::sync::CancellationToken;

use super::{Base, Place, keys, pods};
use crate::{
    config::{AuthSettings, Settings},
    host::{self, HostKeys},
    memory,
    paths::DataDir,
    services::identity_providers::IdentityProviders,
};

/// Opens the auth service and gets this host's identity from it.
pub(super) async fn base(
    settings: &Settings,
    auth: &AuthSettings,
    data_dir: &DataDir,
    stop: &CancellationToken,
) -> anyhow::Result<Base> {
    // Before there is a key in memory.
    memory::keep_to_ourselves().context("this process cannot keep its memory out of core files")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let cluster = match &auth.cluster {
        Some(configured) => configured.clone(),
        None => match HostState::load(data_dir.path())? {
            Some(state) => state.cluster_name().clone(),
            None => ClusterName::new("remoteler.local")?,
        },
    };
    let mut config = AuthConfig::new(data_dir.path(), cluster);
    config.settings = auth.cluster_config.clone();
    if let Some(file) = &auth.key_encryption_file {
        config = config.sealed_with_file(file)?;
    }
    if let Some(file) = &auth.breached_passwords_file {
        config = config.refusing_breached(file)?;
    }
    config.sso = SsoConfig { fetcher: Some(Arc::new(IdentityProviders::new(auth.sign_on.allow_internal))) };
    config.reviewer = pods::reviewer(auth.kubernetes_join.as_ref())?;
    let service = AuthService::open(keys::apply(config, &auth.keys).await?).await?;
    let state = host::local(settings, data_dir, &service, &*clock).await?;
    let verified = verified_self(&state, &service.trust_bundle(), &*clock)?;
    let policy = service.policy_source();
    let keeper = HostKeeper::new(state.clone(), data_dir.path().to_owned(), policy.clone(), clock.clone())?;
    let api = service.as_caller(verified);
    let leases = LeaseKeeper::new(api.clone());
    tokio::spawn(leases.clone().run(stop.clone()));
    Ok(Base {
        keys: HostKeys::new(&state, keeper.identities())?,
        live: LiveWork::counted_by(policy.clone(), clock.clone(), leases),
        policy,
        audit: service.audit_sink(),
        api,
        clock,
        entropy: Arc::new(OsEntropy),
        place: Place::Here(service),
        keeper: Some(keeper),
        links: LateLinks::default(),
        spool: None,
    })
}

/// The process proves to its own auth service who it is like everybody else: by its certificate.
fn verified_self(state: &HostState, trust: &TrustBundle, clock: &dyn Clock) -> anyhow::Result<Caller> {
    let identity = state.tls_client_identity()?;
    let verified = verify_x509_chain(identity.chain(), trust, X509Purpose::Client, clock.now())?;
    match verified.host() {
        Some(host) => Ok(Caller::Host { host, addr: None }),
        None => bail!("this host's own certificate is a user's"),
    }
}
