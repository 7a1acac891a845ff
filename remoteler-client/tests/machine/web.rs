//! Login at a proxy: by the web certificate it shows, or by the user's wish whatever it shows.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use remoteler_client::{KeyPairs, ProxyAddr, WebClient, WebTrust};
use remoteler_core::{ApiError, ApiErrorKind, LoginRequest, Secret, SystemRole};

use crate::{
    cluster::Cluster,
    service::{self, Handler, Service, ok, ping, refused},
};

async fn proxy(cluster: &Arc<Cluster>) -> (Service, ProxyAddr) {
    let known = cluster.clone();
    let handler: Handler = Arc::new(move |what, body| match what {
        "GET /v1/webapi/ping" => ping(&known),
        "POST /v1/webapi/login" => {
            let request: LoginRequest = serde_json::from_slice(body).unwrap();
            if request.password.reveal() != "correct horse" {
                return refused(&ApiError::new(ApiErrorKind::Unauthenticated, "wrong user or password"));
            }
            let keys = KeyPairs::generate("x").unwrap();
            let keys = KeyPairs { ssh_public: request.ssh_public_key, tls_public: request.tls_public_key, ..keys };
            ok(&known.user_certs(&request.user, &keys, Duration::from_secs(60)))
        }
        other => panic!("{other}"),
    });
    let service = service::web(cluster.service(SystemRole::Proxy), handler).await;
    let addr = service.addr.parse().unwrap();
    (service, addr)
}

fn request(password: &str) -> LoginRequest {
    let keys = KeyPairs::generate("ann").unwrap();
    LoginRequest {
        user: "ann".into(),
        password: Secret::new(password),
        code: None,
        ssh_public_key: keys.ssh_public,
        tls_public_key: keys.tls_public,
        ttl_seconds: None,
        client_addr: None,
    }
}

#[tokio::test]
async fn a_user_logs_in_with_a_password() {
    let cluster = Arc::new(Cluster::new("root"));
    let (_service, addr) = proxy(&cluster).await;
    let web = WebClient::new(&addr, WebTrust::Insecure).unwrap();
    assert_eq!(web.ping().await.unwrap().cluster_name, cluster.name);
    assert_eq!(web.login(&request("correct horse")).await.unwrap().logins, ["root"]);
    let error = web.login(&request("wrong")).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ApiErrorKind::Unauthenticated, "wrong user or password"));
}

#[tokio::test]
async fn a_password_is_not_sent_to_a_proxy_whose_certificate_nobody_vouches_for() {
    let (service, asked) = silent(&Cluster::new("root")).await;
    let stranger = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let stranger = stranger.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let said = said_by_roots(&service.addr, &stranger.pem()).await;
    assert!(said.contains(&service.addr) && said.contains("certificate"), "{said}"); // I15
    assert!(said.contains("for a proxy with a certificate of its own making use --insecure"), "{said}");
    assert!(!said.contains("horse"), "{said}"); // I76
    assert_eq!((service.connections.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn a_machine_without_roots_asks_nobody_and_says_where_they_are_looked_for() {
    let (service, _) = silent(&Cluster::new("root")).await;
    let said = said_by_roots(&service.addr, "").await;
    assert!(said.contains("no root certificates") && said.contains("SSL_CERT_FILE"), "{said}");
    assert_eq!(service.connections.load(Ordering::SeqCst), 0);
}

/// A proxy, and how often it was asked anything.
async fn silent(cluster: &Cluster) -> (Service, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let handler: Handler = Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        refused(&ApiError::new(ApiErrorKind::Internal, "nobody was to ask"))
    });
    (service::web(cluster.service(SystemRole::Proxy), handler).await, asked)
}

/// What a login by these roots ends with, in one line. They are read where the environment says, so that it is another process which logs in.
async fn said_by_roots(addr: &str, roots: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("roots.pem");
    std::fs::write(&file, roots).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "web::child_that_logs_in_by_the_roots_of_its_machine", "--nocapture"]);
    child.env("WEB_TEST_PROXY", addr).env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR");
    let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let (_, said) = output.split_once("<said>").unwrap_or_else(|| panic!("{output}"));
    let (said, _) = said.split_once("</said>").unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said.to_owned()
}

#[tokio::test]
async fn child_that_logs_in_by_the_roots_of_its_machine() {
    let Ok(addr) = std::env::var("WEB_TEST_PROXY") else { return };
    let said = match WebClient::new(&addr.parse().unwrap(), WebTrust::SystemRoots) {
        Ok(web) => web.login(&request("correct horse")).await.unwrap_err().to_string(),
        Err(no_roots) => no_roots.to_string(),
    };
    println!("<said>{said}</said>");
}
