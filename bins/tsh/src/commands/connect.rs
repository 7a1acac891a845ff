//! From a host name to an authenticated SSH connection; what `tsh ssh` and `tsh scp` share.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use remoteler_client::StoredLogin;
use remoteler_core::{ClusterName, Login};
use remoteler_ssh::{ClientConfig, SshClient};

use crate::{
    context::{Context, clock, os_user},
    dial,
    openssh::Family,
    output::say,
    session_mfa,
    trust::Refresh,
};

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) family: Family,
    pub(crate) timeout: Option<Duration>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) keepalive_max: Option<usize>,
    pub(crate) quiet: bool,
    /// Nobody is there to be asked.
    pub(crate) batch: bool,
    /// Socket of the ssh-agent to be forwarded.
    pub(crate) agent: Option<PathBuf>,
}

/// Connects to `host` and logs in there as `account`, by default the name on this machine. What is revoked is fetched meanwhile if it was not
/// lately, and the node is verified with it.
pub(crate) async fn connect(
    context: &Context,
    login: &StoredLogin,
    cluster: &ClusterName,
    host: &str,
    account: Option<Login>,
    how: How,
) -> anyhow::Result<SshClient> {
    let node = dial::node_name(host, cluster)?;
    let account = match account {
        Some(account) => account,
        None => {
            let own = os_user().context("your name on this machine is not known; give a login: LOGIN@HOST")?;
            Login::new(&own).context("your name on this machine is no login; give one: LOGIN@HOST")?
        }
    };
    let timeout = how.timeout.unwrap_or(PATIENCE);
    let mut refresh = Refresh::start(context, login);
    let stream = dial::dial(login, cluster, &node, how.family, timeout).await?;
    let mut trust = login.trust.clone();
    if let Some(revoked) = refresh.revoked().await {
        trust.revoked = revoked;
    }
    let mut config = ClientConfig::new(
        account,
        format!("{node}.{cluster}"),
        Arc::new(trust),
        Arc::new(login.ssh_key.clone()),
        login.ssh_certificate.clone(),
        clock(),
    );
    config.deadline = timeout;
    config.keepalive = how.keepalive;
    config.keepalive_max = how.keepalive_max.unwrap_or(config.keepalive_max);
    config.agent = how.agent;
    if !how.batch {
        config.second_factor = Some(session_mfa::answerer());
    }
    if !how.quiet {
        config.notice = Arc::new(say);
    }
    tracing::debug!(account = %config.login, host = config.host, serial = login.ssh_certificate.serial(), "SSH handshake, and login with the certificate");
    let client = SshClient::connect(stream, config).await?;
    tracing::debug!(host = client.host(), "logged in; the node's certificate is of the cluster");
    Ok(client)
}

const PATIENCE: Duration = Duration::from_secs(30);
