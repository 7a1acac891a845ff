//! What runs ends when the rules say so, and says why: locks, a certificate's end, silence; and how much one user may have at a time. Time is the
//! test's own: nothing ends but when it looks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use remoteler_core::{CaKind, ClusterSettings, LockTarget, Policy, PolicySource, RevocationTarget, Timestamp};
use support::{
    Cluster, Wish, finish,
    live::{Echo, at_once, lock, unlock, user},
    own_login, role, text,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Child,
    time::{Instant, timeout},
};

/// For what nobody is promised.
const PATIENCE: Duration = Duration::from_secs(30);

fn set(cluster: &Cluster, settings: ClusterSettings) {
    cluster.policy.replace(Policy { settings, ..Policy::clone(&cluster.policy.policy()) });
}

/// A client whose session the connection does not take would make a connection of its own.
const NO_OTHER_WAY: &str = "ProxyCommand=false";

const CAT_ON_TERMINAL: &str = "stty -echo; exec cat";

/// A port forward of stock `ssh` with a connection in it.
struct Forward {
    client: Child,
    near: TcpStream,
    far: TcpStream,
}

impl Forward {
    async fn start(cluster: &Cluster, key: &Path) -> Self {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let forward = format!("{local}:127.0.0.1:{}", target.local_addr().unwrap().port());
        let client = cluster.ssh(key, &["-N", "-L", &forward]).stderr(Stdio::piped()).spawn().unwrap();
        let connecting = async {
            loop {
                if let Ok(stream) = TcpStream::connect(("127.0.0.1", local)).await {
                    return stream;
                }
                tokio::task::yield_now().await;
            }
        };
        let near = timeout(Duration::from_secs(60), connecting).await.unwrap();
        let (far, _) = target.accept().await.unwrap();
        let mut forward = Self { client, near, far };
        forward.carries(b'x').await;
        forward
    }

    async fn carries(&mut self, octet: u8) {
        self.near.write_all(&[octet]).await.unwrap();
        assert_eq!(self.far.read_u8().await.unwrap(), octet);
    }

    /// Waits for its end; gives what the client says.
    async fn end(mut self) -> String {
        assert_eq!(self.far.read(&mut [0]).await.unwrap_or(0), 0);
        timeout(at_once(), self.client.wait()).await.expect("the forward ends").unwrap();
        let mut said = String::new();
        self.client.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        said
    }
}

// I79
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_ends_shell_command_forward_and_files_and_says_why_and_nothing_new_begins() {
    let cluster = Cluster::start().await;
    let (ann, bob) =
        (cluster.user("ann", &Wish::default()), cluster.user("bob", &Wish { user: "bob".into(), ..Wish::default() }));
    let shell = Echo::start(&cluster, &ann, &["-tt"], CAT_ON_TERMINAL).await;
    let command = Echo::start(&cluster, &ann, &[], "cat").await;
    // A program that does not hear is not waited for.
    let deaf =
        Echo::start(&cluster, &ann, &[], "trap '' HUP TERM; while read line; do echo $line; done; sleep 1000").await;
    let mut other = Echo::start(&cluster, &bob, &[], "cat").await;
    let forwarding = Forward::start(&cluster, &ann).await;
    assert_eq!(cluster.live.len(), 5);

    let began = Instant::now();
    lock(&cluster, user("ann"));
    assert_eq!(cluster.live.look().ended.len(), 4);
    for session in [shell, command, deaf] {
        let said = session.end(at_once()).await;
        assert!(said.contains("locked by an administrator (user ann): the laptop was stolen"), "{said}");
    }
    let said = forwarding.end().await;
    assert!(said.contains("the laptop was stolen"), "{said}");
    assert!(began.elapsed() < at_once(), "{:?}", began.elapsed());
    other.says("still here").await;

    let refused = finish(cluster.ssh(&ann, &[]).arg("true")).await;
    assert!(!refused.status.success() && text(&refused.stderr).contains("the laptop was stolen"), "{refused:?}");
    unlock(&cluster);
    assert!(cluster.run(&ann, "true").await.status.success());
}

// I32, I79
#[tokio::test(flavor = "multi_thread")]
async fn locks_on_login_role_node_and_serial_end_what_they_name_alone() {
    let cluster = Cluster::start().await;
    let ann = cluster.user("ann", &Wish::default());
    let node = |name: &str| LockTarget { node: Some(name.parse().unwrap()), ..LockTarget::default() };
    let certificate = std::fs::read_to_string(cluster.path("ann-cert.pub")).unwrap();
    let serial = ssh_key::Certificate::from_openssh(&certificate).unwrap().serial();
    let certificate =
        |authority, serial| LockTarget::of_serial(RevocationTarget::ssh_serial(authority, serial).unwrap());
    for (target, ends) in [
        (LockTarget { login: Some(own_login().parse().unwrap()), ..LockTarget::default() }, true),
        (LockTarget { login: Some("nobody-else".parse().unwrap()), ..LockTarget::default() }, false),
        (LockTarget { role: Some("dev".parse().unwrap()), ..LockTarget::default() }, true),
        (LockTarget { role: Some("elsewhere".parse().unwrap()), ..LockTarget::default() }, false),
        (node(support::NODE), true),
        (node("n2"), false),
        (LockTarget { user: Some("ann".parse().unwrap()), ..node("n2") }, false),
        (LockTarget { cluster: Some("test.example.com".parse().unwrap()), ..LockTarget::default() }, true),
        (LockTarget { cluster: Some("other.example.com".parse().unwrap()), ..LockTarget::default() }, false),
        (certificate(CaKind::User, serial), true),
        (certificate(CaKind::User, serial + 1), false),
        (certificate(CaKind::Host, serial), false),
    ] {
        let mut session = Echo::start(&cluster, &ann, &[], "cat").await;
        lock(&cluster, target.clone());
        assert_eq!(cluster.live.look().ended.len(), usize::from(ends), "{target}");
        if ends {
            assert!(session.end(at_once()).await.contains("the laptop was stolen"), "{target}");
        } else {
            session.says("still here").await;
            drop(session.input);
            session.client.wait().await.unwrap();
        }
        unlock(&cluster);
    }
}

// I78: with simulated time.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_with_their_certificate_where_that_is_set_and_not_a_moment_before() {
    let cluster = Cluster::start().await;
    let ann = cluster.user("ann", &Wish { window: (-60, 600), ..Wish::default() });
    let certificate = std::fs::read_to_string(cluster.path("ann-cert.pub")).unwrap();
    let end = ssh_key::Certificate::from_openssh(&certificate).unwrap().valid_before();
    let end = Timestamp::from_unix_seconds(i64::try_from(end).unwrap());
    let ends = ClusterSettings { disconnect_expired_cert: true, ..ClusterSettings::default() };
    for settings in [ClusterSettings::default(), ends] {
        set(&cluster, settings);
        cluster.clock.set(end.minus(Duration::from_secs(300)));
        let master = cluster.path("master").display().to_string();
        let control = format!("ControlPath={master}");
        let mut session = Echo::start(&cluster, &ann, &["-M", "-o", &control], "cat").await;
        let mut forwarding = Forward::start(&cluster, &ann).await;
        for before in [Duration::from_secs(60), Duration::from_millis(1)] {
            cluster.clock.set(end.minus(before));
            assert!(cluster.live.look().ended.is_empty());
            session.says("still here").await;
            forwarding.carries(b'y').await;
        }
        cluster.clock.set(end);
        let ended = cluster.live.look().ended.len();
        if settings.disconnect_expired_cert {
            assert_eq!(ended, 2);
            for said in [session.end(at_once()).await, forwarding.end().await] {
                assert!(said.contains("the certificate expired at"), "{said}");
            }
        } else {
            assert_eq!(ended, 0);
            session.says("it goes on").await;
            forwarding.carries(b'z').await;
            // Nothing new begins in it.
            let second = finish(cluster.ssh(&ann, &["-o", &control, "-o", NO_OTHER_WAY]).arg("true")).await;
            assert!(!second.status.success());
            drop(session.input);
            session.client.wait().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_in_which_nothing_happens_is_ended_and_says_why() {
    let cluster = Cluster::start().await;
    let ann = cluster.user("ann", &Wish::default());
    set(&cluster, ClusterSettings { client_idle_timeout_seconds: Some(30), ..ClusterSettings::default() });
    let mut session = Echo::start(&cluster, &ann, &["-tt"], CAT_ON_TERMINAL).await;
    cluster.live.look();
    for _ in 0..3 {
        cluster.clock.advance(Duration::from_secs(29));
        session.says("here").await;
        assert!(cluster.live.look().ended.is_empty());
    }
    cluster.clock.advance(Duration::from_millis(29_999));
    assert!(cluster.live.look().ended.is_empty());
    cluster.clock.advance(Duration::from_millis(1));
    assert_eq!(cluster.live.look().ended.len(), 1);
    let said = session.end(at_once()).await;
    assert!(said.contains("nothing happened for 30 s"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_no_more_sessions_and_connections_than_their_roles_allow() {
    let cluster = Cluster::start().await;
    let limited = role(
        r#"{"name":"limited","spec":{"options":{"max_sessions":2,"max_connections":2,"client_idle_timeout":"10s"},
            "allow":{"logins":["*"],"node_labels":{"env":"test"}}}}"#,
    );
    let mut policy = Policy::clone(&cluster.policy.policy());
    policy.roles.insert(limited.name().clone(), Arc::new(limited));
    cluster.policy.replace(policy);
    let ann = cluster.user("ann", &Wish { roles: vec!["limited".into()], ..Wish::default() });
    let control = format!("ControlPath={}", cluster.path("master").display());
    let mut first = Echo::start(&cluster, &ann, &["-M", "-o", &control], "cat").await;
    let second = Echo::start(&cluster, &ann, &["-o", &control], "cat").await;
    let third = finish(cluster.ssh(&ann, &["-o", &control, "-o", NO_OTHER_WAY]).arg("true")).await;
    assert_eq!(third.status.code(), Some(254), "{third:?}");
    assert!(text(&third.stderr).contains("2 sessions are open"), "{third:?}");
    let refused = cluster.audit.wait_for("session.rejected", 1).await;
    assert!(refused[0]["error"].as_str().unwrap().starts_with("2 sessions are open"), "{refused:?}");
    assert_eq!(refused[0]["reason"], "max_sessions limit reached");
    assert_eq!(refused[0]["maximum"], 2);
    drop(second.input);
    first.says("room again").await;

    let other = Echo::start(&cluster, &ann, &[], "cat").await;
    let beyond = finish(cluster.ssh(&ann, &[]).arg("true")).await;
    assert!(text(&beyond.stderr).contains("2 of your connections are open"), "{beyond:?}");
    let refused = cluster.audit.wait_for("session.rejected", 2).await;
    assert_eq!(refused[1]["reason"], "max_connections limit reached");
    drop((other.input, other.client));
    let again = async { while !cluster.run(&ann, "true").await.status.success() {} };
    timeout(Duration::from_secs(60), again).await.expect("a connection that has ended makes room");
    // What has ended is forgotten a moment later.
    let alone = async {
        while cluster.live.len() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, alone).await.expect("only the first connection is left");
    // The role's silence counts, though the cluster allows it.
    cluster.live.look();
    cluster.clock.advance(Duration::from_secs(11));
    assert_eq!(cluster.live.look().ended.len(), 1);
    assert!(first.end(at_once()).await.contains("nothing happened for 10 s"));
}
