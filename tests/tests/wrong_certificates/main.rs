//! Every certificate that is not the right one, at every listener of a running cluster: refused, nothing runs, and the audit log says why.
//! Besides, what the node refuses to a client whose signature or wish is wrong. The clients check nothing and show what they are given.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bearer;
mod door;
mod node;
mod revoked;

use std::future::Future;

use remoteler_core::{CaKind, Identity, SSH_PARSER_STACK, SystemRole};
use remoteler_tests::{ApiServer, Cluster, ClusterOptions, Edge, User, eventually, need};
use serde_json::Value;

use self::{
    bearer::{Bearer, Window, authority, forge, host_identity, stolen_authority, user_identity},
    door::{Door, Knock, knock},
};

/// The Kubernetes cluster of the daemon.
const KUBE: &str = "here";
/// The node behind a tunnel, and the Kubernetes cluster beside it.
const EDGE: &str = "edge-1";
const EDGE_KUBE: &str = "there";
/// Somebody else's cluster.
const LEAF: &str = "leaf.example.com";

/// What is shown, where, and what the audit log says of it: any of these.
struct Wrong {
    what: &'static str,
    shown: Option<Bearer>,
    at: Vec<Door>,
    reasons: &'static [&'static str],
}

/// A cluster with every service, and an API server's double behind it.
struct Scene {
    cluster: Cluster,
    api_server: ApiServer,
    /// Of a user who may log in to the node, use Kubernetes, and list users.
    right: Bearer,
    /// Of the daemon.
    host: Bearer,
    edge: Edge,
    _kubeconfig: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let api_server = ApiServer::start().await.unwrap();
        api_server.expect("eve", &["developers"]);
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = api_server.write_kubeconfig(dir.path()).unwrap();
        let kubernetes = |name| {
            let kubeconfig = kubeconfig.display();
            format!(
                "kubernetes_service:\n  enabled: yes\n  kubeconfig_file: {kubeconfig}\n  kube_cluster_name: {name}\n"
            )
        };
        let options = ClusterOptions { extra_config: kubernetes(KUBE), ..ClusterOptions::default() };
        let cluster = Cluster::start_with(options);
        let config = cluster.dir().join("edge.yaml");
        std::fs::write(&config, format!("ssh_service:\n  enabled: yes\n{}", kubernetes(EDGE_KUBE))).unwrap();
        let edge = Edge::join(&cluster, EDGE, &["-c", config.to_str().unwrap()]);
        let eve = User::create_with_traits(&cluster, "eve", "access,editor", &["kubernetes_groups=developers"]);
        let (right, host) = (Bearer::of_login(&eve), Bearer::of_host(&cluster.data_dir()));
        Self { cluster, api_server, right, host, edge, _kubeconfig: dir }
    }

    /// Who is let in at `door`.
    fn right_at(&self, door: Door) -> &Bearer {
        if door == Door::ProxyTunnel { &self.host } else { &self.right }
    }

    async fn everybody_right_gets_in(&self) {
        for door in Door::ALL {
            let Knock { admitted, said, .. } = knock(&self.cluster, &self.right, door, Some(self.right_at(door))).await;
            assert!(admitted, "the right certificate at {door:?}: {said}");
        }
    }

    /// All that was done for somebody, once the edge daemon has told what it did: each request to an API server has its event.
    fn done(&self) -> Vec<usize> {
        eventually("all requests are in the audit log", || {
            let (requests, events) = (self.api_server.seen().len(), self.cluster.events("kube.request").len());
            if events == requests { Ok(()) } else { Err(format!("{requests} requests, {events} events")) }
        });
        let kinds = ["session.start", "exec", "sftp", "port", "kube.request", "cert.create", "instance.join"];
        let mut counts: Vec<_> = kinds.iter().map(|kind| self.cluster.events(kind).len()).collect();
        let links = self.cluster.events("tunnel.connect");
        counts.push(links.iter().filter(|link| link["success"] == true).count());
        counts.push(self.api_server.seen().len());
        counts
    }
}

/// Where anybody but an agent belongs.
fn not_the_tunnel() -> Vec<Door> {
    Door::ALL.into_iter().filter(|door| *door != Door::ProxyTunnel).collect()
}

fn wrong_certificates(scene: &Scene, other: &Cluster) -> Vec<Wrong> {
    let cluster = &scene.cluster;
    let everywhere = || Door::ALL.to_vec();
    let unknown: &[&str] = &["was not signed by", "UnknownIssuer"];
    let (user, host) = (user_identity("eve", Cluster::NAME), host_identity(cluster, Cluster::NAME, KUBE));
    let mut node = host.clone();
    if let Identity::Host(node) = &mut node {
        node.roles = [SystemRole::Node].into();
    }
    let wrong = |what, shown, reasons| Wrong { what, shown: Some(shown), at: everywhere(), reasons };

    let theirs = Bearer::of_login(&User::create(other, "eve", "access,editor"));
    let adam = User::create(cluster, "adam", "access,editor");
    adam.log_in_for_a_second(cluster);
    let ended = Bearer::of_login(&adam).expire();
    let (own_users, own_hosts) = (stolen_authority(cluster, CaKind::User), stolen_authority(cluster, CaKind::Host));
    let made = |name, kind, identity: &_| forge(&authority(name, kind), identity, Window::Hour);

    vec![
        Wrong {
            what: "no certificate",
            shown: None,
            at: everywhere(),
            reasons: &["no acceptable certificate", "no certificate", "a certificate is needed"],
        },
        Wrong {
            what: "the host's certificate in place of a user's",
            shown: Some(scene.host.clone()),
            // It is a proxy's, and proxies pass dials on to each other there.
            at: not_the_tunnel().into_iter().filter(|door| *door != Door::ProxySsh).collect(),
            reasons: &["was not signed by the user authority", "may not", "a user certificate is"],
        },
        Wrong {
            what: "a node's certificate in place of a user's",
            shown: Some(forge(&own_hosts, &node, Window::Hour)),
            at: vec![Door::ProxySsh],
            reasons: &["a user's is needed"],
        },
        Wrong {
            what: "the user's certificate in place of a host's",
            shown: Some(scene.right.clone()),
            at: vec![Door::ProxyTunnel],
            reasons: &["where an agent's is needed"],
        },
        wrong("a user of a self-made authority", made(Cluster::NAME, CaKind::User, &user), unknown),
        wrong("a host of a self-made authority", made(Cluster::NAME, CaKind::Host, &host), unknown),
        wrong("a user of another cluster of the same name", theirs, unknown),
        wrong("a host of another cluster of the same name", Bearer::of_host(&other.data_dir()), unknown),
        wrong("our user, signed by a leaf cluster's authority", made(LEAF, CaKind::User, &user), unknown),
        wrong("our host, signed by a leaf cluster's authority", made(LEAF, CaKind::Host, &host), unknown),
        wrong(
            "a leaf cluster's user, signed by our user authority",
            forge(&own_users, &user_identity("eve", LEAF), Window::Hour),
            &["says cluster leaf.example.com"],
        ),
        wrong(
            "a leaf cluster's host, signed by our host authority",
            forge(&own_hosts, &host_identity(cluster, LEAF, KUBE), Window::Hour),
            &["says cluster leaf.example.com", "not signed by the user authority"],
        ),
        wrong(
            "a user, signed by our host authority",
            forge(&own_hosts, &user, Window::Hour),
            &["a host certificate is needed", "not signed by the user authority"],
        ),
        wrong(
            "a host, signed by our user authority",
            forge(&own_users, &host, Window::Hour),
            &["a user certificate is needed"],
        ),
        wrong("a user for ever", forge(&own_users, &user, Window::ForEver), &["must have an end"]),
        wrong("an expired login", ended, &["expired", "Expired"]),
    ]
}

// I1, I3, I12
#[test]
fn every_wrong_certificate_at_every_listener_is_refused_and_stands_in_the_audit_log() {
    if !need(&["sqlite3"]) {
        return;
    }
    with_room(async {
        let scene = Scene::new().await;
        let other = Cluster::start();
        scene.everybody_right_gets_in().await;
        let wrongs = wrong_certificates(&scene, &other);
        let before = scene.done();

        let mut refused = Vec::new();
        for wrong in &wrongs {
            for door in &wrong.at {
                let Knock { admitted, from, said } =
                    knock(&scene.cluster, &scene.right, *door, wrong.shown.as_ref()).await;
                assert!(!admitted, "{} got in at {door:?}: {said}", wrong.what);
                refused.push((wrong, *door, from.to_string()));
            }
        }

        let host = bearer::host_state(&scene.cluster.data_dir())["host_id"].clone();
        eventually("each refusal is in the audit log", || {
            let mut events = scene.cluster.events("auth");
            events.extend(scene.cluster.events("tunnel.connect").into_iter().filter(|link| link["success"] == false));
            let mut missing = Vec::new();
            for (wrong, door, from) in &refused {
                // The API tells of a verified caller's refusal by name, without an address.
                let mine = |event: &Value| {
                    event.get("addr.remote").map_or(event["user"] == host, |remote| remote == from.as_str())
                };
                let fits = |event: &Value| {
                    let error = event["error"].as_str().unwrap_or_default();
                    (event["event"] == "tunnel.connect" || event["service"] == door.service())
                        && mine(event)
                        && wrong.reasons.iter().any(|reason| error.contains(reason))
                };
                // An event stands for one refusal.
                match events.iter().position(fits) {
                    Some(at) => drop(events.swap_remove(at)),
                    None => {
                        let near: Vec<_> = events.iter().filter(|event| mine(event)).collect();
                        missing.push(format!("{} at {door:?} from {from}; found {near:?}", wrong.what));
                    }
                }
            }
            if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
        });

        assert_eq!(scene.done(), before, "nothing was done for anybody");
        scene.everybody_right_gets_in().await;
        assert_eq!(scene.api_server.violations(), Vec::<String>::new());
    });
}

/// Runs a test on threads with the stack that the parser of SSH certificates needs: these clients parse what they forge.
fn with_room(test: impl Future<Output = ()> + Send + 'static) {
    let run = || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).thread_stack_size(SSH_PARSER_STACK).enable_all().build().unwrap().block_on(test);
    };
    let thread = std::thread::Builder::new().stack_size(SSH_PARSER_STACK).spawn(run).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
