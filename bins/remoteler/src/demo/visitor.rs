//! The demo's user: made by the administrator, logged in through the proxy like anybody, with keys made here.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use remoteler_client::{KeyPairs, ProxyAddr, WebClient, WebTrust};
use remoteler_core::{
    LoginRequest, NewUser, OsEntropy, RoleName, Secret, SystemClock, SystemRole, UserCerts, UserName, fill_random,
};
use remoteler_ssh::{ClientConfig, Exit, Program, PtyRequest, SessionIo, SessionRequest, SshClient, TerminalSize};
use remoteler_tunnel::{
    ALPN_SSH, ClientTls, DialHeader, DialReply, Replayed, SharedTlsIdentity, Target, TargetKind, TargetName,
    TlsIdentity, connect_tcp, read_dial_reply, write_dial,
};
use rustls::pki_types::ServerName;
use ssh_key::{Certificate, PrivateKey};
use tokio_rustls::TlsConnector;

use super::cluster::DemoCluster;

/// A user who is logged in.
pub(crate) struct Visitor {
    pub(crate) login: String,
    pub(crate) certs: UserCerts,
    key: Arc<PrivateKey>,
    pub(crate) identity: Arc<SharedTlsIdentity>,
    proxy: String,
}

impl Visitor {
    pub(crate) const NAME: &'static str = "ann";

    pub(crate) async fn create(cluster: &DemoCluster, dir: &Path) -> anyhow::Result<Self> {
        let login = os_user()?;
        let name = UserName::new(Self::NAME)?;
        let traits = [
            ("logins".to_owned(), vec![login.clone()]),
            ("kubernetes_groups".to_owned(), vec!["system:masters".to_owned()]),
        ];
        let user = NewUser { name: name.clone(), roles: [RoleName::new("access")?].into(), traits: traits.into() };
        match cluster.admin.create_user(user).await {
            Ok(_) => {}
            // A demo that is started again in the same directory finds its user.
            Err(cause) if cause.kind == remoteler_core::ApiErrorKind::Conflict => {}
            Err(cause) => return Err(cause.into()),
        }
        let password =
            Secret::new(fill_random::<12>(&OsEntropy).iter().map(|octet| format!("{octet:02x}")).collect::<String>());
        cluster.admin.set_password(name, password.clone()).await?;
        super::edge::write_private(&dir.join("ann.password"), &format!("{}\n", password.reveal()))?;

        let keys = KeyPairs::generate(Self::NAME)?;
        let proxy = cluster.proxy.to_string();
        let web = WebClient::new(&proxy.parse::<ProxyAddr>()?, WebTrust::Insecure)?;
        let certs = web
            .login(&LoginRequest {
                user: Self::NAME.into(),
                password,
                code: None,
                ssh_public_key: keys.ssh_public.clone(),
                tls_public_key: keys.tls_public.clone(),
                ttl_seconds: None,
                client_addr: None,
            })
            .await?;
        let identity = TlsIdentity::from_pem(certs.tls_certificate.as_bytes(), keys.tls_private.reveal().as_bytes())?;
        Ok(Self { login, key: Arc::new(keys.ssh_key()?), identity: SharedTlsIdentity::new(identity), certs, proxy })
    }

    /// Runs `command` on `node` over SSH, by way of the proxy; exit status and output.
    pub(crate) async fn run(&self, node: &str, command: &str, terminal: bool) -> anyhow::Result<(u32, String)> {
        let stream = self.dial(node).await?;
        let config = ClientConfig::new(
            self.login.parse()?,
            node.to_owned(),
            Arc::new(self.certs.trust.clone()),
            self.key.clone(),
            Certificate::from_openssh(&self.certs.ssh_certificate)?,
            Arc::new(SystemClock),
        );
        let client = SshClient::connect(stream, config).await?;
        let size = TerminalSize { cols: 80, rows: 24, width_px: 0, height_px: 0 };
        let pty = terminal.then(|| PtyRequest { term: "xterm".into(), size, modes: Vec::new() });
        let program = Program::Command(command.as_bytes().to_vec());
        let session = client.session(SessionRequest { program, pty, env: Vec::new() }).await?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let io = SessionIo { stdin: tokio::io::empty(), stdout: &mut out, stderr: &mut err };
        let (_keep, controls) = tokio::sync::mpsc::channel(1);
        let exit = session.run(io, controls, None).await?;
        client.disconnect().await;
        out.extend(err);
        let output = String::from_utf8_lossy(&out).replace('\r', "");
        match exit {
            Exit::Status(status) => Ok((status, output)),
            Exit::Signal { name, .. } => bail!("signal {name} ended it: {output}"),
            Exit::Unknown | Exit::Disconnected => bail!("it ended without a status: {output}"),
        }
    }

    async fn dial(
        &self,
        node: &str,
    ) -> anyhow::Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + use<>> {
        let trust = Arc::new(self.certs.trust.clone());
        let tls = ClientTls { identity: Some(self.identity.clone()), trust, clock: Arc::new(SystemClock) };
        let config = tls.to_cluster(&[SystemRole::Proxy], ALPN_SSH)?;
        let socket = connect_tcp(&self.proxy, std::time::Duration::from_secs(5)).await?;
        let name = ServerName::try_from(DemoCluster::NAME)?;
        let mut stream = TlsConnector::from(config).connect(name, Replayed::from(socket)).await?;
        let target = Target {
            cluster: self.certs.trust.cluster.clone(),
            kind: TargetKind::Ssh,
            name: TargetName::new(node)?,
            port: None,
        };
        write_dial(&mut stream, &DialHeader::new(target, None)).await?;
        match read_dial_reply(&mut stream).await? {
            DialReply::Connected => Ok(stream),
            DialReply::Refused { message, .. } => bail!("{message}"),
        }
    }
}

/// The OS user who runs this, in whose name the sessions are.
fn os_user() -> anyhow::Result<String> {
    let uid = nix::unistd::geteuid();
    let user =
        nix::unistd::User::from_uid(uid)?.with_context(|| format!("user id {uid} has no name on this machine"))?;
    Ok(user.name)
}
