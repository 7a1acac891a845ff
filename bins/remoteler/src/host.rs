//! Who this host is in the cluster: certified by the auth service in this process, or by joining one elsewhere.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
#[cfg(feature = "server")]
use remoteler_auth::{AuthService, LocalHost};
#[cfg(feature = "server")]
use remoteler_client::KeyPairs;
use remoteler_client::{HostIdentities, HostState, JoinParams, join};
#[cfg(feature = "server")]
use remoteler_core::Clock;
use remoteler_core::{HostIdentity, KubeClusterName, SystemRole};

use crate::{
    config::{JoinSettings, Settings},
    paths::DataDir,
};

/// Keys and certificates of this host, ready for use and renewed by their keeper.
pub(crate) struct HostKeys {
    pub(crate) identity: HostIdentity,
    pub(crate) shown: HostIdentities,
}

impl HostKeys {
    pub(crate) fn new(state: &HostState, shown: HostIdentities) -> Self {
        let identity = HostIdentity {
            id: state.host_id(),
            name: state.node_name().clone(),
            cluster: state.cluster_name().clone(),
            roles: state.roles().clone(),
            kube_clusters: state.kube_clusters().clone(),
        };
        Self { identity, shown }
    }
}

fn kube_clusters(settings: &Settings) -> BTreeSet<KubeClusterName> {
    settings.kube.iter().map(|kube| kube.name.clone()).collect()
}

#[cfg(feature = "server")]
/// The identity of a host whose process runs the auth service: issued here, and again when name or services change.
pub(crate) async fn local(
    settings: &Settings,
    data_dir: &DataDir,
    auth: &AuthService,
    clock: &dyn Clock,
) -> anyhow::Result<HostState> {
    let stored = HostState::load(data_dir.path())?;
    let (roles, kube_clusters) = (settings.roles(), kube_clusters(settings));
    if let Some(state) = &stored {
        if state.cluster_name() != auth.cluster_name() {
            bail!(
                "the data directory holds a host of cluster {}, but the auth service here is of cluster {}",
                state.cluster_name(),
                auth.cluster_name()
            );
        }
        let same = *state.node_name() == settings.nodename
            && *state.roles() == roles
            && *state.kube_clusters() == kube_clusters
            && state.fits(&auth.trust_bundle(), clock.now());
        if same {
            return Ok(stored.expect("it was just looked at"));
        }
    }
    let keys = match &stored {
        Some(state) => state.keys()?,
        None => KeyPairs::generate(settings.nodename.as_str())?,
    };
    let certs = auth
        .issue_local_host(LocalHost {
            name: settings.nodename.clone(),
            roles,
            kube_clusters,
            ssh_public_key: keys.ssh_public.clone(),
            tls_public_key: keys.tls_public.clone(),
            host_id: stored.map(|state| state.host_id()),
        })
        .await?;
    let state = HostState::new(keys, certs, clock.now())?;
    state.save(data_dir.path())?;
    Ok(state)
}

/// The identity of a host that joined a cluster elsewhere; joins at the first start.
pub(crate) async fn joined(
    settings: &Settings,
    join_settings: &JoinSettings,
    data_dir: &DataDir,
) -> anyhow::Result<HostState> {
    if let Some(state) = HostState::load(data_dir.path())? {
        let (wanted, kube) = (settings.roles(), kube_clusters(settings));
        if !wanted.is_subset(state.roles())
            || !kube.is_subset(state.kube_clusters())
            || *state.node_name() != settings.nodename
        {
            bail!(
                "this host joined as {} ({}), and is now configured as {} ({}); to join anew, remove host.json from {} and give a fresh token",
                state.node_name(),
                names(state.roles()),
                settings.nodename,
                names(&wanted),
                data_dir.path().display()
            );
        }
        return Ok(state);
    }
    let Some(token) = &join_settings.token else {
        bail!(
            "this host has not joined yet and has no token; make one with `tctl tokens add` and give it with --token"
        );
    };
    if join_settings.ca_pins.is_empty() && join_settings.insecure {
        tracing::warn!(addr = join_settings.addr, "joining without a CA pin: whoever answers is believed");
    }
    let state = join(JoinParams {
        addr: join_settings.addr.clone(),
        token: token.read()?,
        ca_pins: join_settings.ca_pins.clone(),
        insecure: join_settings.insecure,
        node_name: settings.nodename.clone(),
        roles: settings.roles(),
        kube_clusters: kube_clusters(settings),
    })
    .await
    .context("this host did not join the cluster")?;
    state.save(data_dir.path())?;
    tracing::info!(cluster = %state.cluster_name(), host = %state.host_id(), "joined");
    Ok(state)
}

fn names(roles: &BTreeSet<SystemRole>) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}
