//! Which proxies the cluster has, as this one tells its agents: a copy of the auth service's list, kept when that is away.

use std::{sync::Arc, time::Duration};

use remoteler_core::AuthApi;
use remoteler_tunnel::ProxyAddress;
use tokio::sync::watch;

/// Follows the list for as long as somebody listens.
pub(crate) async fn follow(api: Arc<dyn AuthApi>, told: watch::Sender<Vec<ProxyAddress>>) {
    loop {
        match api.proxies().await {
            Ok(proxies) => {
                let mut now: Vec<_> = proxies
                    .into_iter()
                    .map(|proxy| ProxyAddress { id: proxy.host_id, addr: proxy.public_addr })
                    .collect();
                now.sort();
                told.send_if_modified(|before| {
                    let differs = *before != now;
                    *before = now;
                    differs
                });
            }
            Err(cause) => tracing::debug!(%cause, "the list of proxies was not refreshed, the last one stays"),
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            () = told.closed() => return,
        }
    }
}

const REFRESH: Duration = Duration::from_secs(5);
