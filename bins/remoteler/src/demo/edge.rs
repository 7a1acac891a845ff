//! The demo's edge node: a second process of this program that joins through the proxy and listens on nothing.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use remoteler_core::{NewToken, SystemRole};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::cluster::DemoCluster;
use crate::status::{DaemonStatus, read_status};

/// The running edge node.
pub(crate) struct EdgeProcess {
    child: tokio::sync::Mutex<Child>,
    data_dir: PathBuf,
    log: PathBuf,
    pub(crate) pid: u32,
}

impl EdgeProcess {
    pub(crate) const NAME: &'static str = "edge-1";

    pub(crate) async fn start(cluster: &DemoCluster, dir: &Path) -> anyhow::Result<Self> {
        let token = cluster
            .admin
            .create_token(NewToken { roles: [SystemRole::Node].into(), ttl_seconds: Some(600), ..NewToken::default() })
            .await?;
        // In a file, because an argument list can be read by everybody on the machine.
        let token_file = dir.join("edge.token");
        write_private(&token_file, token.token.reveal())?;
        let data_dir = dir.join("edge");
        let log = dir.join("edge.log");
        let output = std::fs::File::create(&log)?;
        let program = std::env::current_exe().context("this program's own path is unknown")?;
        let child = Command::new(program)
            .args(["start", "--roles", "node", "--nodename", Self::NAME, "--labels", "env=demo,place=edge"])
            .args(["--auth-server", &cluster.proxy.to_string(), "--ca-pin", &cluster.ca_pin])
            .arg("--token")
            .arg(&token_file)
            .arg("--data-dir")
            .arg(&data_dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("a second process of this program does not start")?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { child: child.into(), data_dir, log, pid })
    }

    /// Waits until its tunnel is up.
    pub(crate) async fn wait_connected(&self) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.lock().await.try_wait()? {
                bail!("it ended ({status}): {}", std::fs::read_to_string(&self.log).unwrap_or_default().trim());
            }
            let status = self.status().unwrap_or_default();
            if status.ready && status.tunnels.values().any(|tunnel| tunnel.state == "connected") {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("no tunnel within 20 s: {}", std::fs::read_to_string(&self.log).unwrap_or_default().trim());
            }
            sleep(Duration::from_millis(30)).await;
        }
    }

    fn status(&self) -> Option<DaemonStatus> {
        read_status(&self.data_dir).ok()
    }

    pub(crate) async fn stop(&self) {
        let mut child = self.child.lock().await;
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended meanwhile.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        if tokio::time::timeout(Duration::from_secs(5), child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }
}

pub(super) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    // What is there already, of an earlier demo or somebody's link, is removed itself and neither followed nor taken over.
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            return Err(cause).with_context(|| format!("{} cannot be replaced", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{} cannot be made", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_never_lands_behind_a_link_or_in_a_file_that_others_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("secret"), dir.path().join("elsewhere"));
        std::fs::write(&elsewhere, "before").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        for text in ["one", "two"] {
            write_private(&path, text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            let found = std::fs::symlink_metadata(&path).unwrap();
            assert!(found.is_file() && found.permissions().mode() & 0o777 == 0o600); // I67
        }
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "before");
    }
}
