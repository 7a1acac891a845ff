//! People who come from an identity provider, in a real browser: their security keys on the account page and for single sessions, and logins of a program on
//! another machine. What the browser cannot do, the provider's and the node's part, it asks of routes that the test adds to the pages.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    response::Redirect,
    routing::get,
};
use remoteler_auth::{Caller, WebNames, web_router};
use remoteler_core::{
    AnswerKey, AuditKind, AuthApi, BeginLogin, Clock, LoginBegun, LoginPoll, LoginProgress, OsEntropy, Secret,
    SessionId, SessionProofRequest, SessionPurpose, SystemRole, UserName, random_uuid,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    identity_provider::{ISSUER, Idp, cluster_with},
    pages::{driver, serve},
    support::{Cluster, begin_request},
};

struct World {
    cluster: Cluster,
    idp: Idp,
    node: Arc<dyn AuthApi>,
    device: Mutex<Option<LoginBegun>>,
}

type Shared = State<Arc<World>>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    to: String,
    name: String,
    session: String,
    seconds: u64,
}

/// What the provider does with a browser that comes to it.
async fn provider(State(world): Shared, Query(Asked { to, .. }): Query<Asked>) -> Redirect {
    let now = world.cluster.clock.now().unix_seconds();
    world.idp.change(|provider| {
        provider.wrong.insert("iat".into(), json!(now));
        provider.wrong.insert("exp".into(), json!(now + 300));
    });
    let params = form_urlencoded::Serializer::new(String::new()).extend_pairs(world.idp.authorize(&to)).finish();
    Redirect::to(&format!("/web/callback/idp?{params}"))
}

/// Who the provider says it is from now on.
async fn who(State(world): Shared, Query(Asked { name, .. }): Query<Asked>) -> Json<Value> {
    world.idp.change(|provider| {
        provider.wrong.insert("sub".into(), json!(name));
        provider.claims["email"] = json!(format!("{name}@example.com"));
        provider.userinfo["sub"] = json!(name);
    });
    Json(json!({}))
}

fn beginning(session: SessionId, name: &str, code: Option<Secret>) -> SessionProofRequest {
    let user = UserName::new(format!("{name}@example.com")).unwrap();
    let purpose = SessionPurpose::Ssh { user, login: "root".parse().unwrap(), remote: Some("192.0.2.9:41000".into()) };
    SessionProofRequest { session, purpose, code }
}

/// A session begins at the node: what it says on the terminal.
async fn begin(State(world): Shared, Query(Asked { name, session, .. }): Query<Asked>) -> Json<Value> {
    let session = session.parse().unwrap_or_else(|_| SessionId::from_uuid(random_uuid(&OsEntropy)));
    let said = world.node.prove_session(beginning(session, &name, None)).await.unwrap_err();
    Json(json!({ "session": session.to_string(), "kind": format!("{:?}", said.kind), "said": said.message }))
}

/// Enter is pressed on the terminal.
async fn enter(State(world): Shared, Query(Asked { session, name, .. }): Query<Asked>) -> Json<Value> {
    let session: SessionId = session.parse().unwrap();
    let answer = world.node.prove_session(beginning(session, &name, Some(Secret::new("")))).await;
    Json(match answer {
        Ok(proven) => json!({ "user": proven.proof.user().as_str(), "session": proven.proof.session().to_string() }),
        Err(cause) => json!({ "kind": format!("{:?}", cause.kind), "said": cause.message }),
    })
}

async fn later(State(world): Shared, Query(Asked { seconds, .. }): Query<Asked>) -> Json<Value> {
    world.cluster.clock.advance(Duration::from_secs(seconds));
    Json(json!({ "now": world.cluster.clock.now().unix_seconds() }))
}

/// `tsh login --device`: the code that it shows.
async fn device(State(world): Shared) -> Json<Value> {
    let key = AnswerKey::generate().unwrap();
    let request = BeginLogin { connector: Some("idp".into()), host: "build-7".into(), ..begin_request(&key) };
    let begun = world.cluster.anonymous().begin_login(request).await.unwrap();
    let code = begun.code.clone();
    *world.device.lock().await = Some(begun);
    Json(json!({ "code": code }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_from_a_provider_has_keys_for_sessions_and_logs_programs_in_elsewhere() {
    // I36, I41, I48, I49
    let Some(driver) = driver() else { return };
    let idp = Idp::new();
    let cluster = cluster_with(Arc::new(idp.clone())).await;
    let joined = cluster.join("db-1", &[SystemRole::Node, SystemRole::Proxy], &[]).await;
    let node = cluster.as_host(&joined);
    let world = Arc::new(World { cluster, idp, node, device: Mutex::default() });
    let service = world.cluster.service.clone();
    let pages =
        web_router(Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr })), WebNames::new(None, []));
    let played = Router::new()
        .route("/test/idp", get(provider))
        .route("/test/who", get(who))
        .route("/test/begin", get(begin))
        .route("/test/enter", get(enter))
        .route("/test/later", get(later))
        .route("/test/device", get(device))
        .with_state(Arc::clone(&world));
    let port = serve(played.merge(pages)).await;
    let base = format!("https://localhost:{port}");
    let connector = json!({
        "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
        "spec": {
            "issuer_url": ISSUER, "client_id": "remoteler", "client_secret": "canary-secret",
            "redirect_url": format!("{base}/web/callback/idp"), "display": "Acme",
            "claims_to_roles": [{ "claim": "groups", "value": "ssh-users", "roles": ["access"] }],
        },
    });
    world.cluster.admin().put_resource(serde_json::from_value(connector).unwrap(), false).await.unwrap();
    world.node.announce_proxy(format!("localhost:{port}")).await.unwrap();

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("node");
    command
        .arg(root.join("../tests/pages/touch.mjs"))
        .arg(&base)
        .arg(root.join("../target/screenshots"))
        .arg(root.join("assets/webauthn.js"))
        .env("REMOTELER_TEST_PAGES", &driver);
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(Duration::from_secs(300), run).await.unwrap().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for shown in [
        "a first key was set up after a login at the provider",
        "a key was shown before an app was added",
        "a session began by a touch, once",
        "nothing began before the touch, too late after it, or elsewhere",
        "a replayed answer began nothing",
        "no other browser and no other user answers for a session",
        "a question that comes again under its number is another one",
        "a program elsewhere was logged in by its code",
    ] {
        assert!(said.contains(shown), "{said}");
    }
    is_on_record(&world.cluster).await;
    let begun = world.device.lock().await.take().unwrap();
    let poll = LoginPoll { id: begun.id, secret: begun.secret };
    assert!(matches!(world.cluster.anonymous().poll_login(poll).await.unwrap(), LoginProgress::Ready { .. }));
}

async fn is_on_record(cluster: &Cluster) {
    let answers = cluster.events("mfa_auth_challenge.validate").await;
    let of_sessions = answers.iter().filter_map(|event| {
        let AuditKind::MfaValidate { user, session: Some(_), target: Some(_), login: Some(login), success, .. } =
            &event.kind
        else {
            return None;
        };
        Some((user.as_str(), login.as_str(), *success))
    });
    let ann = "ann@example.com";
    let right = |wanted: bool| of_sessions.clone().filter(|found| *found == (ann, "root", wanted)).count();
    assert_eq!((right(true), right(false)), (2, 4), "{answers:?}");
    let attempts = cluster.events("auth").await;
    let foreign = |event: &&remoteler_core::AuditEvent| matches!(&event.kind, AuditKind::AuthAttempt { error, .. } if error.contains("another browser"));
    assert_eq!(attempts.iter().filter(foreign).count(), 2, "{attempts:?}");
}
