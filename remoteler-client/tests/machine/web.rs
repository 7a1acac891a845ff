//! Login at a proxy: by the web certificate it shows, or by the user's wish whatever it shows.

use std::{sync::Arc, time::Duration};

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
    let (service, addr) = proxy(&Arc::new(Cluster::new("root"))).await;
    let error = match WebClient::new(&addr, WebTrust::SystemRoots) {
        Ok(web) => web.login(&request("correct horse")).await.unwrap_err().to_string(),
        Err(no_roots) => no_roots.to_string(),
    };
    assert!(error.contains("--insecure") || error.contains("SSL_CERT_FILE"), "{error}"); // I15
    assert!(!error.contains("horse") && error.lines().count() == 1, "{error}"); // I76
    drop(service);
}
