//! `tsh clusters`: the clusters that the login reaches.

use remoteler_core::AuthApi;
use serde::Serialize;

use crate::{
    context::{Context, block_on, remote_auth},
    output::{self, Format, Table},
};

#[derive(Serialize)]
struct Cluster {
    cluster_name: String,
    status: &'static str,
    cluster_type: &'static str,
    selected: bool,
}

pub(crate) fn run(context: &Context, format: Format) -> anyhow::Result<()> {
    let login = context.login()?;
    let online = block_on(async { anyhow::Ok(remote_auth(&login)?.ping().await.is_ok()) })??;
    let root = &login.identity.cluster;
    let clusters = [Cluster {
        cluster_name: root.to_string(),
        status: if online { "online" } else { "offline" },
        cluster_type: "root",
        selected: *root == login.profile.cluster,
    }];
    output::print(format, &clusters[..], |clusters| {
        let mut table = Table::new(&["CLUSTER", "STATUS", "TYPE", "SELECTED"]);
        for cluster in clusters {
            table.row([
                cluster.cluster_name.clone(),
                cluster.status.into(),
                cluster.cluster_type.into(),
                if cluster.selected { "*" } else { "" }.into(),
            ]);
        }
        table.into_text()
    })
}
