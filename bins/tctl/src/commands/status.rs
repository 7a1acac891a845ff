//! `tctl status`: the cluster at a glance.

use remoteler_core::AuthApi;
use serde_json::json;

use crate::output::{Report, fields};

/// Asks for it.
pub(crate) async fn status(api: &dyn AuthApi) -> anyhow::Result<Report> {
    let ping = api.ping().await?;
    let pins = api.trust_bundle().await?.host_pins()?;
    let text = fields(&[
        ("Cluster", ping.cluster_name.to_string()),
        ("Version", ping.server_version.clone()),
        ("Time", ping.server_time.to_string()),
        ("CA pin", pins.join(", ")),
    ]);
    let value = json!({
        "cluster_name": ping.cluster_name,
        "server_version": ping.server_version,
        "server_time": ping.server_time,
        "client_version": env!("CARGO_PKG_VERSION"),
        "ca_pins": pins,
    });
    Report::new(text, &value)
}
