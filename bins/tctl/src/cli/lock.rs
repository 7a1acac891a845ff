//! The flags of `tctl lock`.

use clap::{ArgGroup, Args};
use remoteler_core::{CaKind, ClusterName, KubeClusterName, Login, NodeName, RevocationTarget, RoleName, UserName};

use crate::commands::Ttl;

/// What is locked, and what those are told who are shut out. Several of the first together: all of them must fit.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("locked").required(true).multiple(true))]
pub(crate) struct LockArgs {
    /// This user
    #[arg(long, env = "REMOTELER_LOCK_USER", value_name = "USER", group = "locked")]
    pub(crate) user: Option<UserName>,
    /// Everybody whose certificate has this role
    #[arg(long, env = "REMOTELER_LOCK_ROLE", value_name = "ROLE", group = "locked")]
    pub(crate) role: Option<RoleName>,
    /// SSH as this operating-system account
    #[arg(long, env = "REMOTELER_LOCK_LOGIN", value_name = "LOGIN", group = "locked")]
    pub(crate) login: Option<Login>,
    /// The host of this name or host id: its links and everybody who wants to get there
    #[arg(long, env = "REMOTELER_LOCK_NODE", value_name = "NODE", group = "locked")]
    pub(crate) node: Option<NodeName>,
    /// The holder of a certificate: a serial of a user's SSH certificate, or a name such as tls-user-4f01 or key-ssh-…, as `tctl auth
    /// revoked` shows them
    #[arg(long, env = "REMOTELER_LOCK_SERIAL", value_name = "SERIAL", group = "locked", value_parser = serial)]
    pub(crate) serial: Option<RevocationTarget>,
    /// Users of this cluster
    #[arg(long, env = "REMOTELER_LOCK_CLUSTER", value_name = "CLUSTER", group = "locked")]
    pub(crate) cluster: Option<ClusterName>,
    /// Requests to this Kubernetes cluster
    #[arg(long, env = "REMOTELER_LOCK_KUBE_CLUSTER", value_name = "NAME", group = "locked")]
    pub(crate) kube_cluster: Option<KubeClusterName>,
    /// How long; without it, until the lock is removed
    #[arg(long, env = "REMOTELER_LOCK_TTL", value_name = "DURATION")]
    pub(crate) ttl: Option<Ttl>,
    /// One line for those who are shut out
    #[arg(long, env = "REMOTELER_LOCK_MESSAGE", default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) message: String,
    /// One line for administrators
    #[arg(long, env = "REMOTELER_LOCK_REASON", default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) reason: String,
}

fn serial(text: &str) -> Result<RevocationTarget, String> {
    let named = match text.parse::<u64>() {
        Ok(number) => RevocationTarget::ssh_serial(CaKind::User, number),
        Err(_) => text.parse(),
    };
    named.map_err(|cause| cause.to_string())
}
