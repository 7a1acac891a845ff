//! How long `kubectl`'s requests take at the Kubernetes service: mutual TLS in front, role check, audit, impersonation, TLS behind. The
//! client, the service and the API server's double share this process and its cores, so the rate is a floor of what the service does.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use remoteler_tests::{ApiServer, Certificate, KubeFixture};
use tokio::runtime::Builder;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    requests(&mut criterion);
    criterion.final_summary();
}

fn requests(criterion: &mut Criterion) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    let (api_server, fixture, certificate) = runtime.block_on(async {
        let api_server = ApiServer::start().await.expect("the double starts");
        api_server.expect("ann", &["developers", "viewers"]);
        let fixture = KubeFixture::start(&api_server).await.expect("the service starts");
        let certificate = fixture.issue(&fixture.user("ann", &["developer"])).expect("a certificate is issued");
        (api_server, fixture, certificate)
    });
    let target = format!("{}/api/v1/namespaces/dev/pods/web", fixture.prefix("staging"));

    let mut group = criterion.benchmark_group("kube_request");
    for connections in [1_u64, 8] {
        group.throughput(Throughput::Elements(connections)).sample_size(20);
        group.bench_function(format!("{connections}_connections"), |bencher| {
            let mut clients = runtime.block_on(connect(&fixture, &certificate, connections));
            bencher.iter_custom(|iterations| runtime.block_on(timed(&mut clients, &target, iterations)));
        });
    }
    group.finish();
    assert!(api_server.violations().is_empty(), "{:?}", api_server.violations().first());
}

type Client = SendRequest<Empty<Bytes>>;

async fn connect(fixture: &KubeFixture, certificate: &Certificate, count: u64) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let stream = fixture.connect(Some(certificate), "http/1.1").await.expect("the service accepts");
        let (client, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP starts");
        tokio::spawn(connection);
        clients.push(client);
    }
    clients
}

/// Each client sends `iterations` requests, one after the other; all clients at once.
async fn timed(clients: &mut [Client], target: &str, iterations: u64) -> Duration {
    let start = Instant::now();
    join_all(clients.iter_mut().map(|client| async move {
        for _ in 0..iterations {
            client.ready().await.expect("the connection stays");
            let request = Request::get(target).header("host", "proxy.example.com").body(Empty::new());
            let response = client.send_request(request.expect("the request is sound")).await.expect("an answer comes");
            assert!(response.status().is_success(), "{}", response.status());
            response.into_body().collect().await.expect("the answer is whole");
        }
    }))
    .await;
    start.elapsed()
}
