//! The pages in a real browser, over TLS: how they look, whether everybody can use them, and what other sites can do to them. Pictures of each are left in
//! `target/screenshots`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use remoteler_auth::{Caller, RemoteAddr, WebNames, web_router};
use remoteler_core::{Clock, wire};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Cluster, new_user};

/// Serves a router on this machine under a certificate that nobody knows; the port.
async fn serve(router: Router) -> u16 {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, source)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone().layer(Extension(RemoteAddr(source))));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = TowerToHyperService::new(router);
                // A browser that goes away is no failure of the test.
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

/// Where the browser's driver lies (`cargo xtask test` puts it there); `None` after saying so, where a test may be skipped.
fn driver() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let driver = target.join("clients/pages");
    let missing = [driver.join("node_modules/playwright-core"), "/usr/bin/chromium".into(), "/usr/bin/node".into()];
    let missing: Vec<_> = missing.iter().filter(|path| !path.exists()).map(|path| path.display().to_string()).collect();
    if missing.is_empty() {
        return Some(driver);
    }
    let said = format!("needs {}; cargo xtask test installs it", missing.join(", "));
    assert!(std::env::var_os("REMOTELER_FULL_CHECK").is_none(), "{said}");
    eprintln!("SKIPPED: {said}");
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_right_in_a_browser_and_other_sites_can_do_nothing_to_them() {
    let Some(driver) = driver() else { return };
    let cluster = Cluster::start().await;
    let service = cluster.service.clone();
    let api = Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr }));
    let port = serve(web_router(api, WebNames::new(None, []))).await;
    let mut links = Vec::new();
    for user in ["ann", "bob"] {
        let invite = cluster.admin().create_user(new_user(user, &["access"], &["root"])).await.unwrap();
        links.push(format!("https://localhost:{port}{}", wire::path(wire::WEB_INVITE, invite.token.reveal())));
    }
    let now = cluster.clock.now().unix_seconds();
    let given = serde_json::json!({ "used": links[0], "shown": links[1], "now": now }).to_string();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("node");
    command
        .arg(root.join("../tests/pages/pages.mjs"))
        .arg(format!("https://localhost:{port}"))
        .arg(root.join("tests/fixtures/pages"))
        .arg(root.join("../target/screenshots"))
        .arg(given)
        .env("REMOTELER_TEST_PAGES", &driver);
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(Duration::from_secs(300), run).await.unwrap().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr)); // I50, I52, I54
    for shown in ["in light", "in dark", "in phone", "keyboard alone", "no other site frames", "no form of another"] {
        assert!(said.contains(shown), "{said}");
    }
    let invited =
        cluster.anonymous().invited_user(remoteler_core::Secret::new(links[1].rsplit('/').next().unwrap())).await;
    assert!(invited.is_ok(), "bob's link was not used up by another site");
}
