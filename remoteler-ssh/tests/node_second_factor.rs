//! A node that wants a second factor for each session: who gets in, with which proof, and what everybody else is told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::Pin,
    process::Output,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use remoteler_core::{
    ApiError, ApiErrorKind, CaSet, Clock, ClusterName, ClusterSettings, HostId, Login, OsEntropy, Policy, PolicySource,
    Secret, SessionId, SessionProof, SessionProofRequest, SessionProven, SessionPurpose, SessionTarget, SystemClock,
    Timestamp, TrustBundle, UserName, random_uuid,
};
use remoteler_ssh::{ClientConfig, ConnectError, Program, Question, SessionError, SessionRequest, SshClient};
use support::{CLUSTER, Cluster, NODE, Wish, finish, new_key, own_login, text, user_certificate};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

const CODE: &str = "123456";

/// What the auth service of these tests has proven.
type Prove = dyn Fn(SessionId, UserName, SessionTarget, Timestamp) -> SessionProof + Send + Sync;

/// A node that wants a factor; `prove` makes what the auth service says to the right code.
async fn wanting(prove: Option<Box<Prove>>) -> (Cluster, Arc<Mutex<Vec<SessionProofRequest>>>) {
    let mut host_id: Option<HostId> = None;
    let cluster = Cluster::start_with(|config| host_id = Some(config.record.host_id)).await;
    let host_id = host_id.unwrap();
    let before = Policy::clone(&cluster.policy.policy());
    let settings = ClusterSettings { require_session_mfa: true, ..before.settings };
    cluster.policy.replace(Policy { settings, ..before });
    let asked = Arc::new(Mutex::new(Vec::new()));
    if let Some(prove) = prove {
        let (asked, clock) = (asked.clone(), cluster.clock.clone());
        cluster.node.ask_for_second_factors(Arc::new(move |request: SessionProofRequest| {
            asked.lock().unwrap().push(request.clone());
            let refused = |kind, message: &str| Err(ApiError::new(kind, message));
            let SessionPurpose::Ssh { user, login, .. } = request.purpose else { panic!("a node asks for SSH") };
            let answer = match request.code.as_ref().map(Secret::reveal) {
                None => refused(ApiErrorKind::SecondFactorNeeded, "a one-time code is needed, of: phone"),
                Some(CODE) => {
                    let (target, until) =
                        (SessionTarget::Node { host_id, login }, clock.now().plus(Duration::from_secs(60)));
                    let proof = prove(request.session, user, target, until);
                    Ok(SessionProven { proof, tls_certificate: None })
                }
                Some("nobody") => refused(ApiErrorKind::Denied, "ann has no second factor; run: tsh mfa add"),
                Some(_) => refused(ApiErrorKind::Unauthenticated, "the code is wrong or was used"),
            };
            Box::pin(async move { answer })
        }));
    }
    (cluster, asked)
}

async fn right() -> (Cluster, Arc<Mutex<Vec<SessionProofRequest>>>) {
    wanting(Some(Box::new(SessionProof::new))).await
}

/// Stock ssh whose user types `code` whenever it asks.
async fn ssh(cluster: &Cluster, key: &Path, code: &str) -> Output {
    let typing = cluster.path(&format!("askpass-{code}"));
    std::fs::write(&typing, format!("#!/bin/sh\necho '{code}'\n")).unwrap();
    std::fs::set_permissions(&typing, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut ssh = cluster.ssh(key, &["-o", "BatchMode=no"]);
    ssh.env("SSH_ASKPASS", typing).env("SSH_ASKPASS_REQUIRE", "force");
    finish(ssh.arg("echo got-in")).await
}

// I49
#[tokio::test(flavor = "multi_thread")]
async fn stock_ssh_types_a_code_behind_its_certificate_and_the_session_names_the_proof() {
    let (cluster, asked) = right().await;
    let key = cluster.user("ann", &Wish::default());
    let done = ssh(&cluster, &key, CODE).await;
    assert!(text(&done.stdout).contains("got-in"), "{}", text(&done.stderr));
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.iter().map(|request| request.code.is_some()).collect::<Vec<_>>(), [false, true]);
    let [start] = cluster.audit.wait_for("session.start", 1).await.try_into().unwrap();
    assert_eq!(start["with_mfa"], asked[1].session.to_string());

    // Each connection is another session.
    ssh(&cluster, &key, CODE).await;
    let starts = cluster.audit.wait_for("session.start", 2).await;
    assert_ne!(starts[0]["with_mfa"], starts[1]["with_mfa"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_none_is_wanted_none_is_asked_for() {
    let (cluster, asked) = right().await;
    let before = Policy::clone(&cluster.policy.policy());
    cluster.policy.replace(Policy { settings: ClusterSettings::default(), ..before });
    let done = cluster.run(&cluster.user("ann", &Wish::default()), "echo got-in").await;
    assert!(text(&done.stdout).contains("got-in"), "{}", text(&done.stderr));
    assert!(asked.lock().unwrap().is_empty());
    let [start] = cluster.audit.wait_for("session.start", 1).await.try_into().unwrap();
    assert_eq!(start.get("with_mfa"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_nobody_is_out_and_on_record() {
    let (cluster, _) = right().await;
    let done = cluster.run(&cluster.user("ann", &Wish::default()), "echo got-in").await;
    assert_eq!(done.status.code(), Some(255));
    assert!(!text(&done.stdout).contains("got-in"));
    let [event] = cluster.audit.wait_for("auth", 1).await.try_into().unwrap();
    assert_eq!(event["user"], "ann");
    assert_eq!(event["error"], "no second factor was shown for the session");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_wrong_codes_end_the_connection_and_who_has_no_factor_hears_what_to_do() {
    let (cluster, asked) = right().await;
    let key = cluster.user("ann", &Wish::default());
    let done = ssh(&cluster, &key, "000000").await;
    assert!(!text(&done.stdout).contains("got-in"));
    assert!(text(&done.stderr).contains("access denied: the code is wrong"), "{}", text(&done.stderr));
    assert_eq!(asked.lock().unwrap().len(), 4, "once without a code, three times with one");
    let done = ssh(&cluster, &key, "nobody").await;
    assert!(text(&done.stderr).contains("tsh mfa add"), "{}", text(&done.stderr));
    assert_eq!(cluster.audit.wait_for("auth", 2).await.len(), 2);
    assert!(cluster.audit.named("session.start").is_empty());
}

// I49
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_for_another_session_user_account_or_host_or_one_that_is_over_opens_nothing() {
    let ann = || UserName::new("ann").unwrap();
    let elsewhere = HostId::from_uuid(random_uuid(&OsEntropy));
    let wrong: [(&str, Box<Prove>); 6] = [
        (
            "session",
            Box::new(|_, user, target, until| {
                SessionProof::new(SessionId::from_uuid(random_uuid(&OsEntropy)), user, target, until)
            }),
        ),
        (
            "user",
            Box::new(|session, _, target, until| {
                SessionProof::new(session, UserName::new("eve").unwrap(), target, until)
            }),
        ),
        (
            "account",
            Box::new(move |session, _, target, until| {
                let SessionTarget::Node { host_id, .. } = target else { panic!("a node") };
                let login = Login::new("somebody-else").unwrap();
                SessionProof::new(session, ann(), SessionTarget::Node { host_id, login }, until)
            }),
        ),
        (
            "host",
            Box::new(move |session, _, target, until| {
                let SessionTarget::Node { login, .. } = target else { panic!("a node") };
                SessionProof::new(session, ann(), SessionTarget::Node { host_id: elsewhere, login }, until)
            }),
        ),
        (
            "Kubernetes cluster",
            Box::new(move |session, user, _, until| {
                SessionProof::new(session, user, SessionTarget::KubeCluster { name: "staging".parse().unwrap() }, until)
            }),
        ),
        (
            "time",
            Box::new(|session, user, target, until| {
                SessionProof::new(session, user, target, until.minus(Duration::from_secs(61)))
            }),
        ),
    ];
    for (what, prove) in wrong {
        let (cluster, _) = wanting(Some(prove)).await;
        let done = ssh(&cluster, &cluster.user("ann", &Wish::default()), CODE).await;
        assert!(!text(&done.stdout).contains("got-in"), "another {what} got in");
        let event = cluster.audit.wait_for("auth", 1).await.pop().unwrap();
        assert!(event["error"].as_str().unwrap().contains("the second factor"), "{what}: {event}");
        assert!(cluster.audit.named("session.start").is_empty(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_ask_nobody_says_so_and_lets_nobody_in() {
    let (cluster, _) = wanting(None).await;
    let done = ssh(&cluster, &cluster.user("ann", &Wish::default()), CODE).await;
    assert!(!text(&done.stdout).contains("got-in"));
    assert!(text(&done.stderr).contains("each session there needs a second factor"), "{}", text(&done.stderr));
}

fn config(cluster: &Cluster) -> ClientConfig {
    let key = new_key();
    let certificate = user_certificate(&cluster.user_ca, &key, &Wish::default());
    let set = |keys: Vec<_>| CaSet { ssh: keys, x509: Vec::new() };
    let name = ClusterName::new(CLUSTER).unwrap();
    let trust = TrustBundle::new(name, set(Vec::new()), set(vec![cluster.host_ca.public_key().clone()]));
    let (login, host) = (Login::new(own_login()).unwrap(), format!("{NODE}.{CLUSTER}"));
    ClientConfig::new(login, host, Arc::new(trust), Arc::new(key), certificate, Arc::new(SystemClock))
}

async fn connect(cluster: &Cluster, config: ClientConfig) -> Result<SshClient, ConnectError> {
    SshClient::connect(LateToClose::to(cluster.port).await, config).await
}

/// A connection whose closing takes as long as on a long way, so that the client is asked for more before it has heard why it ended.
struct LateToClose {
    stream: TcpStream,
    closing: Option<Pin<Box<Sleep>>>,
}

impl LateToClose {
    async fn to(port: u16) -> Self {
        Self { stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap(), closing: None }
    }
}

impl AsyncRead for LateToClose {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LateToClose {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closing = self.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(100))));
        ready!(closing.as_mut().poll(cx));
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_client_asks_its_user_and_says_when_there_is_none() {
    let (cluster, _) = right().await;
    let nobody = connect(&cluster, config(&cluster)).await.unwrap_err();
    assert!(matches!(nobody, ConnectError::SecondFactor { .. }), "{nobody}");

    let questions = Arc::new(Mutex::new(Vec::<Question>::new()));
    let asking = |codes: [&'static str; 3]| {
        let (questions, codes) = (questions.clone(), Mutex::new(codes.into_iter()));
        ClientConfig {
            second_factor: Some(Arc::new(move |question| {
                questions.lock().unwrap().push(question);
                let code = codes.lock().unwrap().next();
                Box::pin(async move { code.map(Secret::new) })
            })),
            ..config(&cluster)
        }
    };
    let client = connect(&cluster, asking(["1", CODE, ""])).await.unwrap();
    let request = SessionRequest { program: Program::Command(b"true".to_vec()), pty: None, env: Vec::new() };
    client.session(request.clone()).await.unwrap();
    let questions = questions.lock().unwrap().clone();
    assert_eq!(questions.len(), 2);
    assert!(questions[0].instructions.contains("of: phone") && questions[1].instructions.contains("wrong"));
    assert_eq!((questions[0].prompt.trim(), questions[0].echo), ("One-time code:", true));

    // What a server that lets nobody in had to say.
    let client = connect(&cluster, asking(["1", "2", "3"])).await.unwrap();
    let refused = client.session(request).await.map(drop).unwrap_err();
    assert!(matches!(&refused, SessionError::Disconnected { reason, .. } if reason.contains("wrong")), "{refused}");
}
