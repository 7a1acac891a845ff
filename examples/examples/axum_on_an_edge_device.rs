//! A device with no open port serves an axum app whose handlers know who is calling, and keeps its connections when its network changes.
//! The cluster is one in memory; a real device begins with `remoteler_client::sdk::Agent::builder("proxy.example.com:3080")`.

use axum::{Router, extract::ConnectInfo, routing::get};
use remoteler_app::{AxumCaller, AxumListener};
use remoteler_client::sdk::Client;
use remoteler_tunnel::{Ways, testkit::TestCluster};
use std::sync::Arc;

async fn who(ConnectInfo(AxumCaller(caller)): ConnectInfo<AxumCaller>) -> String {
    format!("hello {}, of cluster {}\n", caller.user(), caller.identity().cluster)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cluster = TestCluster::new(1);
    let proxy = cluster.start_proxy("p1");

    // On the device.
    let device = cluster.net().machine("192.0.2.7");
    let (agent, services) = cluster.start_services("edge-1", proxy.address(), &device);
    let app = Router::new().route("/", get(who)).into_make_service_with_connect_info::<AxumCaller>();
    tokio::spawn(axum::serve(AxumListener(services.listen("web")?), app).into_future());
    cluster.connected(&agent).await;

    // Somewhere else, as ann.
    let tls = cluster.client_tls(Some(cluster.authorities().user("ann")));
    let ways = Ways::through(Arc::new(cluster.net().machine("203.0.113.5")));
    let client = Client::new(proxy.address(), cluster.authorities().cluster().clone(), tls, ways);
    for network in ["at home", "on the road"] {
        let answer = client.get("http://web.edge-1/".parse()?).await?;
        let body = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 1024).await?;
        print!("{network}: {}", String::from_utf8_lossy(&body));
        anyhow::ensure!(*body == *b"hello ann, of cluster root\n", "the app took the caller for somebody else");
        device.readdress("198.51.100.9");
        agent.network_changed();
    }
    Ok(())
}
