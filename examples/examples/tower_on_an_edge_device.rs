//! A device with no open port serves a tower service over HTTP that knows who is calling, and lets one person in and not the other. The cluster is
//! one in memory; a real device begins with `remoteler_client::sdk::Agent::builder("proxy.example.com:3080")`.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming};
use remoteler_app::{HttpCaller, serve_http};
use remoteler_client::sdk::Client;
use remoteler_tunnel::{Ways, testkit::TestCluster};
use tower::service_fn;

async fn greet(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let user = request.extensions().get::<HttpCaller>().map(|HttpCaller(caller)| caller.user().to_owned());
    let (status, text) = match user.as_deref() {
        Some("ann") => (StatusCode::OK, "hello ann".to_owned()),
        somebody => (StatusCode::FORBIDDEN, format!("{} has no business here", somebody.unwrap_or("nobody"))),
    };
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cluster = TestCluster::new(1);
    let proxy = cluster.start_proxy("p1");

    // On the device.
    let device = cluster.net().machine("192.0.2.7");
    let (agent, services) = cluster.start_services("edge-1", proxy.address(), &device);
    tokio::spawn(serve_http(services.listen("greeter")?, service_fn(greet)));
    cluster.connected(&agent).await;

    // Somewhere else, as two people.
    for (user, status, text) in [("ann", 200, "hello ann"), ("bob", 403, "bob has no business here")] {
        let tls = cluster.client_tls(Some(cluster.authorities().user(user)));
        let ways = Ways::through(Arc::new(cluster.net().machine("203.0.113.5")));
        let client = Client::new(proxy.address(), cluster.authorities().cluster().clone(), tls, ways);
        let answer = client.get("http://greeter.edge-1/".parse()?).await?;
        let answered = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        println!("{user}: {answered}, {}", String::from_utf8_lossy(&body));
        anyhow::ensure!(answered == status && *body == *text.as_bytes(), "{user} was answered otherwise");
    }
    Ok(())
}
