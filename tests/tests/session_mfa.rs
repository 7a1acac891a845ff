//! A second factor for each session (I49): at the Kubernetes service request by request, and over a whole cluster with stock ssh, scp, `tsh` and kubectl,
//! whose users sit at pseudo terminals.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use expectrl::Expect;
use http::StatusCode;
use remoteler_core::{
    Clock, Identity, KubeClusterName, Policy, PolicySource, ProvenUserIdentity, Resource, Role, SessionId,
    SessionProof, SessionTarget, UserName,
};
use remoteler_tests::{
    ApiServer, AuthenticatorApp, Cluster, KubeCluster, KubeFixture, User, answer_code, ends, need, on_terminal,
};
use serde_json::{Value, json};

// I49
#[tokio::test]
async fn a_kubernetes_service_takes_a_request_with_the_proof_for_its_cluster_in_time_and_no_other() {
    let api_server = ApiServer::start().await.unwrap();
    api_server.expect("ann", &["developers"]);
    let fixture = KubeFixture::start(&api_server).await.unwrap();
    let spec = json!({
        "options": { "require_session_mfa": true },
        "allow": { "kubernetes_groups": ["developers"], "kubernetes_labels": { "env": "dev" } },
    });
    let document = json!({ "kind": "role", "version": "v7", "metadata": { "name": "strict" }, "spec": spec });
    let role = Role::from_document(&serde_json::from_value::<Resource>(document).unwrap()).unwrap();
    let roles = BTreeMap::from([(role.name().clone(), Arc::new(role))]);
    let trust = fixture.policy.policy().trust.clone();
    fixture.policy.replace(Policy::new(trust, roles));

    let plain = fixture.issue(&fixture.user("ann", &["strict"])).unwrap();
    let refused = fixture.get(&plain, "/api/v1/namespaces/dev/pods").await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let said = String::from_utf8_lossy(refused.body()).into_owned();
    assert!(said.contains("second factor"), "{said}");
    assert!(
        fixture.refusals().iter().any(|(_, error)| error.contains("require_session_mfa")),
        "{:?}",
        fixture.refusals()
    );
    assert!(api_server.seen().is_empty(), "nothing was sent");

    let session = SessionId::from_uuid(uuid::Uuid::from_u128(7));
    let proven = |by: &str, kube: &str, until: Duration| {
        let mut issue = fixture.user("ann", &["strict"]);
        let Identity::User(user) = issue.identity else { panic!("a user") };
        let target = SessionTarget::KubeCluster { name: KubeClusterName::new(kube).unwrap() };
        let expires = fixture.clock.now().plus(until);
        let proof = SessionProof::new(session, UserName::new(by).unwrap(), target, expires);
        let login_expires = expires.plus(Duration::from_secs(3600));
        issue.identity = Identity::ProvenUser(ProvenUserIdentity { user, proof, login_expires });
        issue.valid.1 = expires;
        fixture.issue(&issue).unwrap()
    };
    let minute = Duration::from_secs(60);
    let right = proven("ann", "staging", minute);
    assert_eq!(fixture.get(&right, "/api/v1/namespaces/dev/pods").await.unwrap().status(), StatusCode::OK);
    let seen = api_server.seen().len();
    for (what, wrong) in
        [("another cluster", proven("ann", "prod", minute)), ("another user", proven("eve", "staging", minute))]
    {
        let refused = fixture.get(&wrong, "/api/v1/namespaces/dev/pods").await;
        assert!(refused.is_err() || refused.is_ok_and(|answer| !answer.status().is_success()), "{what}");
    }
    fixture.clock.advance(minute);
    let late = fixture.get(&right, "/api/v1/namespaces/dev/pods").await;
    assert!(late.is_err() || late.is_ok_and(|answer| !answer.status().is_success()), "after its time");
    assert_eq!(api_server.seen().len(), seen);
    assert!(api_server.violations().is_empty(), "{:?}", api_server.violations()); // I56
}

/// `tsh mfa add`, with an app that is new.
fn with_app(user: &User) -> AuthenticatorApp {
    let mut tsh = user.tsh_command();
    tsh.args(["mfa", "add", "--name", "phone"]);
    let mut session = on_terminal(tsh);
    session.expect("Password of").unwrap();
    session.send_line(user.password()).unwrap();
    let shown = session.expect(expectrl::Regex("type this secret into it: [A-Z2-7]+\r?\n")).unwrap();
    let line = String::from_utf8_lossy(shown.get(0).unwrap()).into_owned();
    let mut app = AuthenticatorApp::new(line.rsplit(' ').next().unwrap().trim());
    answer_code(&mut session, &app.code());
    ends(session, 0);
    app
}

#[test]
fn factors_are_listed_and_removed_by_who_has_password_and_code() {
    let cluster = Cluster::start();
    let ann = cluster.user("ann", "access");
    let listed = || serde_json::from_str::<Value>(&ann.tsh(&["mfa", "ls", "--format", "json"]).ok().text()).unwrap();
    assert!(ann.tsh(&["mfa", "ls"]).ok().text().contains("You have no second factor; tsh mfa add sets one up"));
    assert_eq!(listed(), json!([]));
    let mut app = with_app(&ann);
    let factors = listed();
    let factor = &factors[0];
    assert_eq!(
        (factors.as_array().unwrap().len(), &factor["name"], &factor["kind"]),
        (1, &json!("phone"), &json!("totp"))
    );
    let text = ann.tsh(&["mfa", "ls"]).ok().text();
    let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], row[3]), ("phone", "totp", "never"), "{text}");

    let unknown = ann.tsh(&["mfa", "rm", "tablet"]).one_line_failure();
    assert!(unknown.contains("no second factor of that name; tsh mfa ls lists them"), "{unknown}");
    let remove = |password: &str, code: &str, status: i32| {
        let mut tsh = ann.tsh_command();
        tsh.args(["mfa", "rm", "phone"]);
        let mut session = on_terminal(tsh);
        session.expect("Password of ann:").unwrap();
        session.send_line(password).unwrap();
        if !code.is_empty() {
            answer_code(&mut session, code);
        }
        ends(session, status);
    };
    remove("another one", "", 1);
    remove(ann.password(), "000000", 1);
    assert_eq!(listed()[0]["name"], "phone");
    remove(ann.password(), &app.code(), 0);
    assert_eq!(listed(), json!([]));
    let event = cluster.event("mfa.delete", |event| event["user"] == "ann");
    assert_eq!(event["name"], "phone");
    // A password alone is enough again.
    ann.tsh(&["logout"]).ok();
    ann.login(&[]).ok();
}

/// A role as `access`, in which each session needs a second factor, for `user`.
fn demand(cluster: &Cluster, users: &[&User]) {
    let mut role = cluster.tctl_json(&["get", "role/access"]);
    role["metadata"] = json!({ "name": "strict" });
    role["spec"]["options"] = json!({ "require_session_mfa": "yes" });
    cluster.tctl_with_input(&["create", "-f"], &format!("{role}\n")).ok();
    for user in users {
        let name = format!("user/{}", user.name());
        let mut document: Value = cluster.tctl_json(&["get", &name]);
        document["spec"]["roles"] = json!(["strict"]);
        cluster.tctl_with_input(&["create", "-f"], &format!("{document}\n")).ok();
        user.tsh(&["logout"]).ok();
        user.login(&[]).ok();
    }
}

// I49
#[test]
fn stock_ssh_scp_and_tsh_ask_for_a_code_for_each_session_and_the_audit_log_names_it() {
    if !need(&["ssh", "scp"]) {
        return;
    }
    let cluster = Cluster::start();
    let edge = cluster.edge("edge-1");
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| cluster.user(name, "access"));
    demand(&cluster, &[&ann, &bob, &eve]);

    // Who has no factor hears how to get one, and explanations say that one is needed.
    let mut ssh = eve.openssh("ssh");
    ssh.args([Cluster::NODE, "true"]);
    let mut session = on_terminal(ssh);
    session.expect("tsh mfa add").unwrap();
    ends(session, 255);
    let explained = eve.tsh(&["explain", Cluster::NODE]).ok().text();
    assert!(explained.contains("with a second factor for each session"), "{explained}");

    let (mut ann_app, mut bob_app) = (with_app(&ann), with_app(&bob));
    let mut ssh = ann.openssh("ssh");
    ssh.args(["edge-1", "echo out-$((40+2))"]);
    let mut session = on_terminal(ssh);
    answer_code(&mut session, &ann_app.code());
    session.expect("out-42").unwrap();
    ends(session, 0);
    let start = cluster.event("session.start", |event| event["user"] == "ann");
    let proof = cluster.event("mfa_auth_challenge.validate", |event| event["user"] == "ann");
    assert_eq!(start["with_mfa"], proof["session"]);
    assert_eq!((&proof["code"], &proof["mfa_device"]), (&"T1016I".into(), &"phone".into()));
    assert_eq!(start["server_hostname"], "edge-1");

    let here = cluster.dir().join("file");
    std::fs::write(&here, "carried").unwrap();
    let there = cluster.dir().join("there");
    let mut scp = ann.openssh("scp");
    scp.arg(&here).arg(format!("{}:{}", Cluster::NODE, there.display()));
    let mut session = on_terminal(scp);
    answer_code(&mut session, &ann_app.code());
    ends(session, 0);
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "carried");

    // A wrong code, then the right one; and nobody to ask.
    let mut tsh = bob.tsh_command();
    tsh.args(["ssh", Cluster::NODE, "echo out-$((40+2))"]);
    let mut session = on_terminal(tsh);
    answer_code(&mut session, "000");
    session.expect("the code is wrong").unwrap();
    answer_code(&mut session, &bob_app.code());
    session.expect("out-42").unwrap();
    ends(session, 0);
    let batch = bob.tsh(&["ssh", "-o", "BatchMode=yes", Cluster::NODE, "true"]);
    assert_eq!(batch.code, Some(255));
    assert!(batch.stderr.contains("second factor"), "{}", batch.stderr);
    drop(edge);
}

// I49
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_asks_once_within_the_minute_and_again_when_the_proof_has_ended() {
    if !need(&["kubectl"]) {
        return;
    }
    let kube = KubeCluster::start("staging").await.unwrap();
    let ann = kube.ann();
    let here = tokio::task::spawn_blocking(move || {
        demand(&kube.cluster, &[&ann]);
        ann.tsh(&["kube", "login", "staging"]).ok();
        let mut app = with_app(&ann);
        let get = || on_terminal(ann.kubectl(&["get", "pods", "-o", "name", "--request-timeout=60s"]));
        let mut first = get();
        answer_code(&mut first, &app.code());
        ends(first, 0);
        // Nobody answers: it would wait for ever, were it asked.
        ends(get(), 0);
        ends(get(), 0);
        let proofs = kube.cluster.events("mfa_auth_challenge.validate");
        assert_eq!(proofs.len(), 1, "{proofs:?}");
        assert_eq!(proofs[0]["target"], "staging");
        let request = kube.cluster.event("kube.request", |event| event["with_mfa"] == proofs[0]["session"]);
        assert_eq!(request["user"], "ann");

        // As if a minute had passed.
        let host = kube.cluster.proxy().rsplit_once(':').unwrap().0.to_owned();
        let kept = ann.tsh_home().join("keys").join(host).join("ann.kube-sessions");
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        let mut sessions: Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
        sessions["staging"]["proven"]["expires"] = "2020-01-01T00:00:00.000Z".into();
        std::fs::write(&kept, sessions.to_string()).unwrap();
        let mut again = get();
        answer_code(&mut again, &app.code());
        ends(again, 0);
        assert_eq!(kube.cluster.events("mfa_auth_challenge.validate").len(), 2);
        ann.tsh(&["logout"]).ok();
        assert!(!kept.exists(), "nothing is left");
        kube
    });
    drop(here.await.unwrap());
}
