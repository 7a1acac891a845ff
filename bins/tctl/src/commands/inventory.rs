//! `tctl nodes`, `tctl kube` and `tctl apps`: what has announced itself.

use remoteler_core::{AuthApi, Labels, NodeRecord};

use crate::output::{Report, Table, joined};

/// Lists SSH servers.
pub(crate) async fn nodes(api: &dyn AuthApi) -> anyhow::Result<Report> {
    let nodes = api.nodes().await?;
    let nodes: Vec<&NodeRecord> = nodes.iter().map(AsRef::as_ref).collect();
    let mut table = Table::new(["NODE", "ADDRESS", "LABELS", "VERSION", "LAST SEEN", "HOST ID"]);
    for node in &nodes {
        let cells = [labels(&node.labels), node.version.clone(), node.last_seen.to_string(), node.host_id.to_string()];
        let [labels, version, last_seen, host_id] = cells;
        table.row([node.name.to_string(), address(node.addr.as_deref()), labels, version, last_seen, host_id]);
    }
    Report::new(table.render(), &nodes)
}

/// Lists Kubernetes clusters.
pub(crate) async fn kube_clusters(api: &dyn AuthApi) -> anyhow::Result<Report> {
    let clusters = api.kube_clusters().await?;
    let mut table = Table::new(["KUBE CLUSTER", "LABELS", "VERSION", "LAST SEEN", "HOST ID"]);
    for cluster in &clusters {
        let (labels, version) = (labels(&cluster.labels), cluster.version.clone());
        table.row([
            cluster.name.to_string(),
            labels,
            version,
            cluster.last_seen.to_string(),
            cluster.host_id.to_string(),
        ]);
    }
    Report::new(table.render(), &clusters)
}

/// Lists web applications.
pub(crate) async fn apps(api: &dyn AuthApi) -> anyhow::Result<Report> {
    let apps = api.apps().await?;
    let mut table = Table::new(["APPLICATION", "PUBLIC ADDRESS", "LABELS", "VERSION", "LAST SEEN", "HOST ID"]);
    for app in &apps {
        let own = app.public_addr.clone().unwrap_or_else(|| format!("{}.<proxy>", app.name));
        let cells = [labels(&app.labels), app.version.clone(), app.last_seen.to_string(), app.host_id.to_string()];
        let [labels, version, last_seen, host_id] = cells;
        table.row([app.name.to_string(), own, labels, version, last_seen, host_id]);
    }
    Report::new(table.render(), &apps)
}

fn address(addr: Option<&str>) -> String {
    addr.unwrap_or("<- tunnel").to_owned()
}

fn labels(labels: &Labels) -> String {
    joined(labels.iter().map(|(key, value)| format!("{key}={value}")))
}
