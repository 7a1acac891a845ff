//! The peer: OpenSSH's server on loopback, which believes the cluster's authority of users, so that the same key and certificate
//! opens both.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::Context;

use super::{
    cluster::Cluster,
    process::Daemon,
    shell::{eventually, free_port, output, quiet_shell},
};

/// The running server.
#[derive(Debug)]
pub(super) struct Sshd {
    /// The listener; its children are the sessions.
    pub(super) daemon: Daemon,
    client_config: PathBuf,
    dir: PathBuf,
}

impl Sshd {
    pub(super) fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let dir = cluster.dir();
        let program = find().context("sshd is not installed; `cargo xtask test` installs it on Debian")?;
        let (key, authority, port) = (dir.join("sshd_key"), dir.join("sshd_ca.pub"), free_port()?);
        output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key), "")?;
        fs::write(&authority, format!("{}\n", cluster.user_authority()?.trim()))?;
        let config = dir.join("sshd_config");
        // Debian's defaults, but for what a server of a bench needs: its own files, and room for sessions that open at once.
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nTrustedUserCAKeys {}\nAuthorizedKeysFile none\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\nMaxStartups 500\nLogLevel ERROR\n",
            key.display(),
            authority.display()
        );
        fs::write(&config, text)?;
        // As root it wants a directory to confine itself in; as another user it wants none, and this may fail.
        let _ = fs::create_dir_all("/run/sshd");
        let mut command = Command::new(program);
        command.args(["-D", "-e", "-f"]).arg(&config);
        let daemon = Daemon::start(&mut quiet_shell(command), &dir.join("sshd.log"))?;
        let client_config = dir.join("sshd_client_config");
        let key = cluster.user_key();
        let text = format!(
            "Host sshd\n HostName 127.0.0.1\n Port {port}\n IdentityFile {key}\n CertificateFile {key}-cert.pub\n IdentitiesOnly yes\n \
             PreferredAuthentications publickey\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n",
            key = key.display()
        );
        fs::write(&client_config, text)?;
        let mut server = Self { daemon, client_config, dir: dir.to_owned() };
        eventually("sshd lets the user in", || {
            server.daemon.check()?;
            output(server.ssh().args([Self::HOST, "true"]), "")
        })?;
        Ok(server)
    }

    /// What the client calls it.
    pub(super) const HOST: &str = "sshd";

    /// Stock `ssh`, ready for arguments.
    pub(super) fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.client_config).env("HOME", &self.dir).env_remove("SSH_AUTH_SOCK");
        command
    }
}

/// It must be started by its full path.
fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    dirs.map(|dir| dir.join("sshd")).find(|candidate| candidate.is_file())
}
