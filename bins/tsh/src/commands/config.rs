//! `tsh config`: the ssh_config block with which plain OpenSSH reaches the cluster.

use std::env;

use anyhow::Context as _;
use remoteler_client::SshConfig;
use remoteler_core::AuthApi;

use crate::{
    cli,
    context::{Context, block_on, remote_auth},
    output::{self, Format},
};

pub(crate) fn run(context: &Context, options: &cli::Config) -> anyhow::Result<()> {
    let login = context.login()?;
    let bare = if options.bare {
        let nodes = block_on(async { anyhow::Ok(remote_auth(&login)?.nodes().await?) })??;
        nodes.into_iter().map(|node| node.name.clone()).collect()
    } else {
        Vec::new()
    };
    let block = SshConfig {
        cluster: context.cluster(&login)?,
        bare,
        proxy: login.profile.proxy.clone(),
        user: login.profile.user.clone(),
        tsh: env::current_exe().context("the path of this program is not known")?,
        home: context.store.home().to_owned(),
    };
    let text = block.to_text()?;
    output::print(Format::Text, &text, Clone::clone)
}
