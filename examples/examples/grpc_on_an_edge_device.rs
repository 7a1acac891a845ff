//! A device with no open port serves gRPC, knows who is calling, and lets one person in and not the other. The cluster is one in memory; a real
//! device begins with `remoteler_client::sdk::Agent::builder("proxy.example.com:3080")`.

use std::sync::Arc;

use remoteler_app::{GrpcCaller, GrpcIncoming};
use remoteler_client::sdk::Client;
use remoteler_tunnel::{Ways, testkit::TestCluster};
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Endpoint, transport::Server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cluster = TestCluster::new(1);
    let proxy = cluster.start_proxy("p1");

    // On the device.
    let device = cluster.net().machine("192.0.2.7");
    let (agent, services) = cluster.start_services("edge-1", proxy.address(), &device);
    let (_reporter, health) = tonic_health::server::health_reporter();
    let health = InterceptedService::new(health, |request: Request<()>| {
        let caller = request.extensions().get::<GrpcCaller>().ok_or_else(|| Status::internal("no caller"))?;
        match caller.0.user() {
            "ann" => Ok(request),
            user => Err(Status::permission_denied(format!("{user} has no business here"))),
        }
    });
    let incoming = GrpcIncoming(services.listen("health")?).into_stream();
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
    cluster.connected(&agent).await;

    // Somewhere else, as two people.
    for (user, admitted) in [("ann", true), ("bob", false)] {
        let tls = cluster.client_tls(Some(cluster.authorities().user(user)));
        let ways = Ways::through(Arc::new(cluster.net().machine("203.0.113.5")));
        let client = Client::new(proxy.address(), cluster.authorities().cluster().clone(), tls, ways);
        let channel = Endpoint::from_static("http://health.edge-1").connect_with_connector(client.connector()).await?;
        let answer = HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await;
        match &answer {
            Ok(answer) => println!("{user}: {:?}", answer.get_ref().status()),
            Err(status) => println!("{user}: {}", status.message()),
        }
        anyhow::ensure!(answer.is_ok() == admitted, "{user} was answered {answer:?}");
    }
    Ok(())
}
