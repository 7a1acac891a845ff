//! A cluster that serves a Kubernetes cluster, the API server's double behind it, and ann who may use both.

use std::process::Command;

use tempfile::TempDir;

use crate::{ApiServer, Cluster, ClusterOptions, User, client, eventually};

/// The user of these tests.
const ANN: &str = "ann";

/// A cluster with the Kubernetes service. Stops when dropped.
pub struct KubeCluster {
    /// Behind the service.
    pub api_server: ApiServer,
    /// With auth service, proxy, node and Kubernetes service in one process.
    pub cluster: Cluster,
    name: &'static str,
    _dir: TempDir,
}

impl KubeCluster {
    /// Starts one whose Kubernetes cluster has this name.
    ///
    /// # Errors
    /// No port, or no directory.
    pub async fn start(name: &'static str) -> anyhow::Result<Self> {
        let api_server = ApiServer::start().await?;
        let dir = tempfile::tempdir()?;
        let kubeconfig = api_server.write_kubeconfig(dir.path())?;
        let extra_config = format!(
            "kubernetes_service:\n  enabled: yes\n  kubeconfig_file: {}\n  kube_cluster_name: {name}\n",
            kubeconfig.display()
        );
        let cluster = Cluster::start_with(ClusterOptions { extra_config, ..ClusterOptions::default() });
        api_server.expect(ANN, &["developers"]);
        Ok(Self { api_server, cluster, name, _dir: dir })
    }

    /// Ann, whom the API server knows as one of the developers, logged in and with an entry in her kubeconfig.
    #[must_use]
    pub fn ann(&self) -> User {
        let ann = User::create_with_traits(&self.cluster, ANN, "access", &["kubernetes_groups=developers"]);
        eventually("the Kubernetes cluster is listed", || {
            let listed = ann.tsh(&["kube", "ls"]).text();
            if listed.contains(self.name) { Ok(()) } else { Err(listed) }
        });
        ann.tsh(&["kube", "login", self.name]).ok();
        ann
    }
}

impl User {
    /// `kubectl` of this user in the namespace `dev`, to be asked for with [`crate::need`] before.
    ///
    /// # Panics
    /// Without `kubectl`.
    #[must_use]
    pub fn kubectl(&self, words: &[&str]) -> Command {
        let mut kubectl = Command::new(client("kubectl").expect("the test has asked for kubectl").path());
        self.environment(&mut kubectl);
        kubectl.args(["--namespace", "dev"]).args(words);
        kubectl
    }
}
