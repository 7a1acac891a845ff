//! `tsh ls`: the servers that the user may see.

use remoteler_core::{AuthApi, Labels, NodeRecord};

use crate::{
    cli,
    context::{Context, block_on, remote_auth},
    output::{self, Table},
};

pub(crate) fn run(context: &Context, options: &cli::Ls) -> anyhow::Result<()> {
    let login = context.login()?;
    let mut nodes = block_on(async { anyhow::Ok(remote_auth(&login)?.nodes().await?) })??;
    nodes.retain(|node| options.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value)));
    nodes.sort_by(|first, second| first.name.cmp(&second.name));
    output::print(options.formatted.format, &nodes[..], text)
}

fn text(nodes: &[NodeRecord]) -> String {
    let mut table = Table::new(&["NODE", "ADDRESS", "LABELS"]);
    for node in nodes {
        let address = node.addr.clone().unwrap_or_else(|| "<- tunnel".into());
        table.row([node.name.to_string(), address, labels_text(&node.labels)]);
    }
    table.into_text()
}

/// `env=prod,zone=a`
pub(crate) fn labels_text(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use remoteler_core::{HostId, NodeName, Timestamp};

    use super::*;

    #[test]
    fn nodes_are_listed_with_how_they_are_reached() {
        let id: HostId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        let node = |name: &str, addr: Option<&str>, labels: &[(&str, &str)]| NodeRecord {
            host_id: id,
            name: NodeName::new(name).unwrap(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            addr: addr.map(Into::into),
            version: "0.1.0".into(),
            last_seen: Timestamp::default(),
        };
        let nodes =
            [node("gw-17", None, &[]), node("node-a", Some("10.0.0.7:3022"), &[("env", "prod"), ("zone", "a")])];
        assert_eq!(
            text(&nodes),
            "NODE    ADDRESS        LABELS\n\
             gw-17   <- tunnel\n\
             node-a  10.0.0.7:3022  env=prod,zone=a\n"
        );
    }
}
