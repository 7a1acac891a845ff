//! Identities of one cluster in a directory, each as a host keeps its own. Owns the names of the subdirectories.

use std::{ops::Range, path::Path};

use anyhow::Context;
use remoteler_benches::Cluster;
use remoteler_client::{HostState, KeyPairs};
use remoteler_core::{
    Clock, HostCerts, HostId, HostIdentity, NodeName, OsEntropy, SystemClock, SystemRole, random_uuid,
};

/// Writes a proxy's identity and those of `count` hosts.
pub(crate) fn write(dir: &Path, count: usize) -> anyhow::Result<()> {
    let cluster = Cluster::new();
    issue(&cluster, PROXY, SystemRole::Proxy, dir)?;
    (0..count).try_for_each(|index| issue(&cluster, &host(index), SystemRole::Node, dir))
}

/// Reads the proxy's.
pub(crate) fn proxy(dir: &Path) -> anyhow::Result<HostState> {
    read(dir, PROXY)
}

/// Reads those of hosts, by their numbers.
pub(crate) fn hosts(dir: &Path, which: Range<usize>) -> anyhow::Result<Vec<HostState>> {
    which.map(|index| read(dir, &host(index))).collect()
}

/// Who this is, as certificates say it.
pub(crate) fn identity(state: &HostState) -> HostIdentity {
    HostIdentity {
        id: state.host_id(),
        name: state.node_name().clone(),
        cluster: state.cluster_name().clone(),
        roles: state.roles().clone(),
        kube_clusters: state.kube_clusters().clone(),
        apps: state.apps().clone(),
        labels: Default::default(),
        generation: 0,
    }
}

fn issue(cluster: &Cluster, name: &str, role: SystemRole, dir: &Path) -> anyhow::Result<()> {
    let keys = KeyPairs::generate(name)?;
    let mut profile = cluster.host_profile();
    profile.ssh_key = ssh_key::PublicKey::from_openssh(&keys.ssh_public)?;
    profile.tls_key = remoteler_ca::TlsPublicKey::from_pem(&keys.tls_public)?;
    profile.identity.id = HostId::from_uuid(random_uuid(&OsEntropy));
    profile.identity.name = NodeName::new(name)?;
    profile.identity.roles = [role].into();
    let (host_id, cluster_name) = (profile.identity.id, profile.identity.cluster.clone());
    let issued =
        cluster.host_authority.issue_host(profile.prepare(&cluster.host_authority, cluster.now, &OsEntropy)?)?;
    let certs = HostCerts {
        host_id,
        cluster_name,
        ssh_certificate: issued.ssh_certificate,
        tls_certificate: issued.tls_certificate_pem,
        tls_client_certificate: None,
        trust: cluster.policy.trust.clone(),
    };
    Ok(HostState::new(keys, certs, SystemClock.now())?.save(&dir.join(name))?)
}

fn read(dir: &Path, name: &str) -> anyhow::Result<HostState> {
    let path = dir.join(name);
    HostState::load(&path)?.with_context(|| format!("there is no identity in {}", path.display()))
}

fn host(index: usize) -> String {
    format!("host-{index}")
}

const PROXY: &str = "proxy";
