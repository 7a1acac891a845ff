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
use remoteler_core::{AnswerKey, AuditKind, Clock, LoginBegun, LoginPoll, LoginProgress, wire};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Cluster, begin_request, new_user};

/// Serves a router on this machine under a certificate that nobody knows; the port.
pub(crate) async fn serve(router: Router) -> u16 {
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
pub(crate) fn driver() -> Option<PathBuf> {
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
    let router = web_router(api, WebNames::new(None, []));
    let port = serve(router.clone()).await;
    // The same cluster at another origin.
    let other = serve(router).await;
    let mut links = Vec::new();
    for user in ["ann", "bob", "kay", "eve"] {
        let invite = cluster.admin().create_user(new_user(user, &["access"], &["root"])).await.unwrap();
        links.push(format!("https://localhost:{port}{}", wire::path(wire::WEB_INVITE, invite.token.reveal())));
    }
    let now = cluster.clock.now().unix_seconds();
    let page_of =
        |begun: &LoginBegun| format!("https://localhost:{port}{}", wire::path(wire::WEB_LOGIN_PAGE, &begun.id));
    let begun = begin(&cluster).await;
    let mut logins = Vec::new();
    for _ in 0..8 {
        logins.push(page_of(&begin(&cluster).await));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = serde_json::json!({
        "used": links[0], "shown": links[1], "now": now, "login": page_of(&begun), "code": begun.code,
        "kay": links[2], "eve": links[3], "logins": logins, "other": format!("https://localhost:{other}"),
        "script": root.join("assets/webauthn.js"),
    });
    let given = given.to_string();
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
    for shown in [
        "in light",
        "in dark",
        "in phone",
        "the QR code was read back",
        "keyboard alone",
        "password and code",
        "no other site frames",
        "no form of another",
        "set up with a security key",
        "password and security key",
        "factors came and went on the account page",
        "a replayed answer of a key was refused",
        "an answer for another user was refused",
        "an answer from another origin was refused",
        "a copied key was refused",
    ] {
        assert!(said.contains(shown), "{said}");
    }
    let poll = LoginPoll { id: begun.id, secret: begun.secret };
    assert!(matches!(cluster.anonymous().poll_login(poll).await.unwrap(), LoginProgress::Ready { .. }));
    let invited =
        cluster.anonymous().invited_user(remoteler_core::Secret::new(links[1].rsplit('/').next().unwrap())).await;
    assert!(invited.is_ok(), "bob's link was not used up by another site");
    keys_are_on_record(&cluster).await;
}

async fn begin(cluster: &Cluster) -> LoginBegun {
    cluster.anonymous().begin_login(begin_request(&AnswerKey::generate().unwrap())).await.unwrap()
}

/// What the browser did with keys, and what was done to it, is in the audit log.
async fn keys_are_on_record(cluster: &Cluster) {
    let added = cluster.events("mfa.add").await.into_iter().filter(
        |event| matches!(&event.kind, AuditKind::MfaAdd { mfa_device_type, .. } if mfa_device_type == "webauthn"),
    );
    assert_eq!(added.count(), 3);
    let answers = cluster.events("mfa_auth_challenge.validate").await;
    let of_kay = answers.into_iter().filter_map(|event| {
        let AuditKind::MfaValidate { user, success, error, mfa_device, .. } = event.kind else { return None };
        (user == "kay").then(|| (success, error.unwrap_or_default(), mfa_device))
    });
    let of_kay: Vec<_> = of_kay.collect();
    let right = of_kay.iter().filter(|(success, ..)| *success);
    assert_eq!(right.count(), 3, "{of_kay:?}");
    let cloned = of_kay.iter().filter(|(success, error, _)| !success && error.contains("counter went back"));
    assert_eq!(cloned.count(), 1, "{of_kay:?}"); // I48
    assert_eq!(of_kay.len(), 7, "{of_kay:?}");
    let failed = cluster
        .events("user.login")
        .await
        .into_iter()
        .filter(|event| matches!(&event.kind, AuditKind::UserLogin { user, success: false, .. } if user == "kay"));
    assert_eq!(failed.count(), 4);
}
