//! A real `kube-apiserver` with its `etcd`, from a directory such as `KUBEBUILDER_ASSETS` names: no kubelet, so no pods that run.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rcgen::KeyPair;
use tempfile::TempDir;

/// Two processes in a directory of their own. Killed when dropped.
pub struct RealApiServer {
    kubeconfig: PathBuf,
    children: Vec<Child>,
    _dir: TempDir,
}

impl RealApiServer {
    /// Starts them. The API server needs some seconds more until it is ready.
    ///
    /// # Errors
    /// A program that is not there, or no directory.
    pub fn start(assets: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (client, peer, secure) = (free_port()?, free_port()?, free_port()?);
        let at = |name: &str| dir.path().join(name).display().to_string();
        let key = KeyPair::generate()?;
        fs::write(at("service-accounts.key"), key.serialize_pem())?;
        fs::write(at("service-accounts.pub"), key.public_key_pem())?;
        fs::write(at("tokens.csv"), "administrator-of-the-test,administrator,1,system:masters\n")?;
        fs::write(
            at("kubeconfig"),
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: real\ncontexts: [{{name: real, context: {{cluster: real, user: admin}}}}]\n\
                 clusters: [{{name: real, cluster: {{server: 'https://127.0.0.1:{secure}', insecure-skip-tls-verify: true}}}}]\n\
                 users: [{{name: admin, user: {{token: administrator-of-the-test}}}}]\n"
            ),
        )?;
        let etcd = [
            format!("--data-dir={}", at("etcd")),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        ];
        let api_server = [
            format!("--etcd-servers=http://127.0.0.1:{client}"),
            format!("--cert-dir={}", at("certificates")),
            format!("--secure-port={secure}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", at("service-accounts.pub")),
            format!("--service-account-signing-key-file={}", at("service-accounts.key")),
            format!("--token-auth-file={}", at("tokens.csv")),
        ];
        let kubeconfig = dir.path().join("kubeconfig");
        let mut running = Self { kubeconfig, children: Vec::new(), _dir: dir };
        for (program, arguments) in [("etcd", etcd.as_slice()), ("kube-apiserver", api_server.as_slice())] {
            let mut command = Command::new(assets.join(program));
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            running.children.push(command.spawn()?);
        }
        Ok(running)
    }

    /// The kubeconfig of its administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }
}

impl Drop for RealApiServer {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that was free a moment ago: these programs do not say which one they took.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
