//! Flags of the commands about roles: `explain` and `test`.

use std::path::PathBuf;

use clap::Args;
use remoteler_core::{AppName, KubeClusterName, Login, NodeName, UserName};

/// What is to be explained.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Whom it is about
    #[arg(long, env = "REMOTELER_EXPLAIN_USER", value_name = "NAME")]
    pub(crate) user: UserName,
    /// Account on the node; without it each account that the roles give
    #[arg(long, env = "REMOTELER_EXPLAIN_LOGIN", value_name = "LOGIN", conflicts_with_all = ["kube", "app"])]
    pub(crate) login: Option<Login>,
    /// One node; without it, --kube and --app every node, Kubernetes cluster and application
    #[arg(long, env = "REMOTELER_EXPLAIN_NODE", value_name = "NAME", conflicts_with_all = ["kube", "app"])]
    pub(crate) node: Option<NodeName>,
    /// One Kubernetes cluster
    #[arg(long, env = "REMOTELER_EXPLAIN_KUBE", value_name = "NAME", conflicts_with = "app")]
    pub(crate) kube: Option<KubeClusterName>,
    /// One web application
    #[arg(long, env = "REMOTELER_EXPLAIN_APP", value_name = "NAME")]
    pub(crate) app: Option<AppName>,
}

/// What is to be tested.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Files of documents: roles, users and policy tests; nodes, Kubernetes clusters and applications, where tests name them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}
