//! Who this host is in the cluster: certified by the auth service in this process, or by joining one elsewhere.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, bail};
#[cfg(feature = "server")]
use remoteler_auth::{AuthService, LocalHost};
#[cfg(feature = "server")]
use remoteler_client::KeyPairs;
use remoteler_client::{HostClock, HostIdentities, HostState, JoinParams, PendingKeys, join};
use remoteler_core::{AppName, HostIdentity, KubeClusterName, Secret, SystemRole};
#[cfg(feature = "server")]
use remoteler_core::{Clock, RevocationTarget, TrustBundle};

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
    pub(crate) fn new(state: &HostState, shown: HostIdentities) -> anyhow::Result<Self> {
        Ok(Self { identity: state.identity()?, shown })
    }
}

fn kube_clusters(settings: &Settings) -> BTreeSet<KubeClusterName> {
    settings.kube.iter().map(|kube| kube.name.clone()).collect()
}

fn apps(settings: &Settings) -> BTreeSet<AppName> {
    settings.app.iter().flat_map(|service| &service.apps).map(|app| app.name.clone()).collect()
}

#[cfg(feature = "server")]
/// The identity of a host whose process runs the auth service: issued here, and again when name or services change. Keys that were revoked
/// are replaced: nothing is certified for them, and without this host nobody could take the revocation back.
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
            && *state.apps() == apps(settings)
            && state.fits(&auth.trust_bundle(), clock.now());
        if same {
            return Ok(stored.expect("it was just looked at"));
        }
    }
    let kept = stored.as_ref().map(HostState::keys).transpose()?;
    let keys = match kept {
        Some(keys) if !is_revoked(&keys, &auth.trust_bundle())? => keys,
        Some(_) => {
            tracing::warn!("a key of this host is revoked; it gets new ones and stays the same host");
            KeyPairs::generate(settings.nodename.as_str())?
        }
        None => KeyPairs::generate(settings.nodename.as_str())?,
    };
    let certs = auth
        .issue_local_host(LocalHost {
            name: settings.nodename.clone(),
            roles,
            kube_clusters,
            apps: apps(settings),
            ssh_public_key: keys.ssh_public.clone(),
            tls_public_key: keys.tls_public.clone(),
            host_id: stored.map(|state| state.host_id()),
        })
        .await?;
    let state = HostState::new(keys, certs, clock.now())?;
    state.save(data_dir.path())?;
    Ok(state)
}

#[cfg(feature = "server")]
fn is_revoked(keys: &KeyPairs, trust: &TrustBundle) -> anyhow::Result<bool> {
    for key in [&keys.ssh_public, &keys.tls_public] {
        if trust.revoked.contains(&RevocationTarget::key(key)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The identity of a host that joined a cluster elsewhere; joins at the first start.
pub(crate) async fn joined(
    settings: &Settings,
    join_settings: &JoinSettings,
    data_dir: &DataDir,
    clock: &HostClock,
) -> anyhow::Result<HostState> {
    if let Some(state) = HostState::load(data_dir.path())? {
        let (wanted, kube) = (settings.roles(), kube_clusters(settings));
        if !wanted.is_subset(state.roles())
            || !kube.is_subset(state.kube_clusters())
            || !apps(settings).is_subset(state.apps())
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
    let service_account = match &join_settings.service_account {
        Some(file) => Some(pod_token(file)?),
        None => None,
    };
    let params = JoinParams {
        addr: join_settings.addr.clone(),
        token: token.read()?,
        ca_pins: join_settings.ca_pins.clone(),
        insecure: join_settings.insecure,
        node_name: settings.nodename.clone(),
        roles: settings.roles(),
        kube_clusters: kube_clusters(settings),
        apps: apps(settings),
        service_account,
        keys: Some(PendingKeys::load_or_make(data_dir.path(), settings.nodename.as_str())?),
        ways: settings.ways(),
    };
    let state = join(params, clock).await.context("this host did not join the cluster")?;
    state.save(data_dir.path())?;
    PendingKeys::forget(data_dir.path())?;
    tracing::info!(cluster = %state.cluster_name(), host = %state.host_id(), "joined");
    Ok(state)
}

/// The token that the kubelet projects into the pod, for the cluster's name as its audience.
fn pod_token(file: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(file).with_context(|| {
        format!(
            "the pod's token in {} cannot be read; mount a projected serviceAccountToken whose audience is the cluster's name there, or \
             name another file in join_params.token_file",
            file.display()
        )
    })?;
    Ok(Secret::new(text.trim()))
}

fn names(roles: &BTreeSet<SystemRole>) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use remoteler_auth::{AuthConfig, Caller};
    use remoteler_core::{ClusterName, NewRevocation, RevocationReason, SystemClock};

    use super::*;
    use crate::config::{ConfigFile, Flags};

    #[tokio::test]
    async fn a_revoked_key_of_the_host_of_the_auth_service_keeps_nobody_from_taking_that_back() {
        let dir = tempfile::tempdir().unwrap();
        let flags = Flags {
            data_dir: Some(dir.path().to_owned()),
            roles: Some(vec![SystemRole::Auth, SystemRole::Node]),
            nodename: Some("main".into()),
            ..Flags::default()
        };
        let settings = Settings::new(ConfigFile::default(), flags).unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        let open = async || {
            let config = AuthConfig::new(dir.path(), ClusterName::new("root").unwrap());
            AuthService::open(config).await.unwrap()
        };
        let mut before = local(&settings, &data_dir, &open().await, &SystemClock).await.unwrap();
        for of_ssh in [true, false] {
            let KeyPairs { ssh_public, tls_public, .. } = before.keys().unwrap();
            let target = RevocationTarget::key(if of_ssh { &ssh_public } else { &tls_public }).unwrap();
            let wanted = NewRevocation {
                target,
                reason: RevocationReason::Unspecified,
                comment: String::new(),
                ttl_seconds: None,
            };
            open().await.as_caller(Caller::LocalAdmin).revoke(wanted).await.unwrap();

            let service = open().await;
            let after = local(&settings, &data_dir, &service, &SystemClock).await.unwrap();
            assert_eq!((after.host_id(), after.node_name()), (before.host_id(), before.node_name()));
            let keys = after.keys().unwrap();
            assert!(keys.ssh_public != ssh_public && keys.tls_public != tls_public);
            assert!(after.fits(&service.trust_bundle(), SystemClock.now()));
            service.as_caller(Caller::LocalAdmin).unrevoke(target).await.unwrap();
            drop(service);
            // Once it has new ones, it keeps them.
            let again = local(&settings, &data_dir, &open().await, &SystemClock).await.unwrap();
            assert_eq!(again.keys().unwrap().ssh_public, keys.ssh_public);
            before = again;
        }
    }
}
