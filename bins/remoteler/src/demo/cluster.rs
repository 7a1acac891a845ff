//! The demo's cluster: auth, proxy and node in this process, on loopback.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use remoteler_core::AuthApi;

use crate::{
    Daemon,
    config::{ConfigFile, Flags, Settings},
};

/// The running cluster.
pub(crate) struct DemoCluster {
    daemon: Daemon,
    pub(crate) admin: Arc<dyn AuthApi>,
    pub(crate) proxy: SocketAddr,
    pub(crate) ca_pin: String,
    pub(crate) data_dir: std::path::PathBuf,
}

impl DemoCluster {
    pub(crate) const NAME: &'static str = "demo.remoteler.local";
    pub(crate) const NODE: &'static str = "hub";
    pub(crate) const KUBE: &'static str = "demo";

    pub(crate) async fn start(dir: &Path, kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let data_dir = dir.join("cluster");
        let port = |wanted: u16| free_port(wanted);
        let mut text = format!(
            "remoteler: {{ nodename: {}, data_dir: {:?} }}\n\
             auth_service: {{ listen_addr: \"127.0.0.1:{}\", cluster_name: {} }}\n\
             proxy_service: {{ listen_addr: \"127.0.0.1:{}\" }}\n\
             ssh_service: {{ listen_addr: \"127.0.0.1:{}\", labels: {{ env: demo, place: hub }} }}\n",
            Self::NODE,
            data_dir,
            port(3025),
            Self::NAME,
            port(3080),
            port(3022),
        );
        if let Some(path) = kubeconfig {
            let path = std::path::absolute(path)?;
            text.push_str(&format!(
                "kubernetes_service: {{ kubeconfig_file: {path:?}, kube_cluster_name: {} }}\n",
                Self::KUBE
            ));
        }
        let file = ConfigFile::parse(&text).map_err(anyhow::Error::msg)?;
        let daemon = Daemon::start(Settings::new(file, Flags::default())?).await?;
        let admin = daemon.admin().context("the demo's daemon runs the auth service")?;
        let proxy = daemon.status().listeners.get("proxy").copied().context("the demo's daemon runs a proxy")?;
        let ca_pin =
            admin.trust_bundle().await?.host_pins()?.into_iter().next().context("the host authority has a key")?;
        Ok(Self { daemon, admin, proxy, ca_pin, data_dir })
    }

    pub(crate) async fn stop(&self) {
        self.daemon.shutdown(Duration::from_secs(3)).await;
    }
}

/// The usual port where it is free, so that the printed commands look as they will later; any other one where it is not.
fn free_port(wanted: u16) -> u16 {
    match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
        Ok(_) => wanted,
        Err(_) => 0,
    }
}
