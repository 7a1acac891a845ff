//! `tsh ls`: the servers that the user may see.

use std::sync::Arc;

use remoteler_core::{AuthApi, Labels, NodeRecord, Timestamp};

use crate::{
    cli,
    context::{Context, block_on, remote_auth},
    output::{self, Table},
    trust,
};

pub(crate) fn run(context: &Context, options: &cli::Ls) -> anyhow::Result<()> {
    let login = context.login()?;
    let (mut nodes, now) = block_on(async {
        trust::refresh_when_old(context, &login).await;
        let auth = remote_auth(&login)?;
        // Ages by the clock that wrote the times: this machine's may be wrong.
        let nodes = auth.nodes().await?.into_iter().map(Arc::unwrap_or_clone).collect::<Vec<NodeRecord>>();
        anyhow::Ok((nodes, auth.ping().await?.server_time))
    })??;
    nodes.retain(|node| options.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value)));
    nodes.sort_by(|first, second| first.name.cmp(&second.name));
    output::print(options.formatted.format, &nodes[..], |nodes| text(nodes, now))
}

fn text(nodes: &[NodeRecord], now: Timestamp) -> String {
    let mut table = Table::new(&["NODE", "ADDRESS", "SEEN", "LABELS"]);
    for node in nodes {
        let address = node.addr.clone().unwrap_or_else(|| "<- tunnel".into());
        table.row([node.name.to_string(), address, seen(node, now), labels_text(&node.labels)]);
    }
    table.into_text()
}

/// When a node was last heard of, and whether that is too long ago by what it says of itself.
fn seen(node: &NodeRecord, now: Timestamp) -> String {
    let age = now.since(node.last_seen);
    let silent = if age > node.heartbeat.silence() { " (silent)" } else { "" };
    format!("{}s ago{silent}", age.as_secs())
}

/// `env=prod,zone=a`
pub(crate) fn labels_text(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use remoteler_core::{Heartbeat, HostId, NodeName};

    use super::*;

    #[test]
    fn nodes_are_listed_with_how_they_are_reached_and_when_they_were_heard_of() {
        let id: HostId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        let node = |name: &str, addr: Option<&str>, labels: &[(&str, &str)]| NodeRecord {
            host_id: id,
            name: NodeName::new(name).unwrap(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            addr: addr.map(Into::into),
            version: "0.1.0".into(),
            last_seen: Timestamp::from_unix_seconds(if addr.is_none() { 24 } else { 88 }),
            heartbeat: Default::default(),
        };
        // Behind a tunnel it need not say so often that it is there.
        let seldom = NodeRecord { heartbeat: Heartbeat::every(Duration::from_secs(300)), ..node("gw-18", None, &[]) };
        let nodes = [
            node("gw-17", None, &[]),
            seldom,
            node("node-a", Some("10.0.0.7:3022"), &[("env", "prod"), ("zone", "a")]),
        ];
        assert_eq!(
            text(&nodes, Timestamp::from_unix_seconds(100)),
            "NODE    ADDRESS        SEEN              LABELS\n\
             gw-17   <- tunnel      76s ago (silent)  -\n\
             gw-18   <- tunnel      76s ago           -\n\
             node-a  10.0.0.7:3022  12s ago           env=prod,zone=a\n"
        );
    }
}
