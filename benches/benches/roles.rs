//! What a user with many roles waits for: the decision about one login, and the list of ten thousand nodes.

use std::{collections::BTreeMap, hint::black_box, net::SocketAddr, sync::Arc};

use criterion::{Criterion, Throughput};
use remoteler_auth::{AuthConfig, AuthService, Caller, Database, EventLog, RecordingFiles, SqliteStorage};
use remoteler_benches::Cluster;
use remoteler_client::KeyPairs;
use remoteler_core::{
    AuthApi, Clock, ClusterName, HostId, KubeClusterName, KubeRecord, KubeRequest, Labels, LoginRequest, NewUser,
    NodeRecord, OsEntropy, Policy, Resource, Role, RoleName, Secret, SshCertificatePurpose, Storage, SystemClock,
    Timestamp, UserIdentity, UserName, Verified, VerifiedUser, Visibility, X509Purpose, authorize_kube_request,
    authorize_ssh, random_uuid, verify_ssh_certificate, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use ssh_key::Certificate;
use tokio::runtime::Runtime;

const ROLES: usize = 100;
const LABELS: usize = 50;
const NODES: usize = 10_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    decide(&mut criterion);
    list(&mut criterion);
    criterion.final_summary();
}

/// Roles of the kinds that people write: exact values, lists, globs, regular expressions, expressions, templates, and denials.
fn role(number: usize) -> Value {
    let labels = match number % 5 {
        0 => json!({ "label-07": format!("other-{number}"), "label-12": "value-12" }),
        1 => json!({ "label-03": ["a", "b", "value-*"], "label-40": "^value-[0-9]+$" }),
        2 => json!({ "label-21": "*", "absent": "*" }),
        3 => json!({ "label-33": "^(value|other)-33$", "label-34": "{{external.team}}-34" }),
        _ => json!({}),
    };
    let mut allow = json!({
        "logins": ["{{internal.logins}}", format!("login-{number}")],
        "node_labels": labels,
        "kubernetes_labels": { "*": "*" },
        "kubernetes_groups": ["developers"],
        "kubernetes_resources": [{ "kind": "pod", "namespace": format!("ns-{number}"), "name": "*", "verbs": ["get", "list"] }],
    });
    if number % 5 == 4 {
        allow["node_labels_expression"] = json!(
            "labels[\"label-05\"] == \"value-05\" && contains(user.spec.traits[\"teams\"], labels[\"label-06\"])"
        );
    }
    let deny = json!({ "node_labels": { "label-49": format!("forbidden-{number}") }, "logins": ["nobody"] });
    json!({ "options": { "max_session_ttl": "8h" }, "allow": allow, "deny": deny })
}

fn roles() -> BTreeMap<RoleName, Arc<Role>> {
    let role = |number: usize| {
        let name = RoleName::new(format!("role-{number:03}")).expect("digits are part of role names");
        let spec = serde_json::from_value(role(number)).expect("the document is a role's");
        let role = Role::new(name.clone(), &spec).expect("the role is good");
        (name, Arc::new(role))
    };
    (0..ROLES).map(role).collect()
}

fn labels() -> Labels {
    (0..LABELS).map(|number| (format!("label-{number:02}"), format!("value-{number:02}"))).collect()
}

fn identity(cluster: &Cluster, policy: &Policy) -> UserIdentity {
    let UserIdentity { user, cluster: realm, logins, .. } = cluster.user_profile().identity;
    let traits = [("logins", "root"), ("teams", "apps"), ("team", "value")]
        .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
        .into();
    UserIdentity { user, cluster: realm, roles: policy.roles.keys().cloned().collect(), traits, logins }
}

fn decide(criterion: &mut Criterion) {
    let cluster = Cluster::new();
    let policy = Policy::new(cluster.policy.trust.clone(), roles());
    let identity = identity(&cluster, &policy);
    let profile = remoteler_ca_profile(&cluster, identity.clone());
    let user = verified(&cluster, profile);
    let (node, login) = (NodeRecord { labels: labels(), ..cluster.node() }, cluster.login());
    let kube = KubeRecord {
        host_id: HostId::from_uuid(random_uuid(&OsEntropy)),
        name: KubeClusterName::new("staging").expect("the constant is a name"),
        labels: labels(),
        addr: None,
        version: "0.1.0".into(),
        last_seen: Timestamp::default(),
        heartbeat: Default::default(),
    };
    let pods = KubeRequest::of_kind("pod", "list", Some("ns-99".into()), None).expect("the constants are known");
    assert!(authorize_ssh(&user, &policy, &node, &login).is_ok(), "some role allows it, so all are looked at");
    assert!(authorize_kube_request(&user, &policy, &kube, &pods).is_ok());

    let mut group = criterion.benchmark_group("decide_ssh_access");
    group.throughput(Throughput::Elements(1));
    group.bench_function("100_roles_50_labels", |bencher| {
        bencher.iter(|| authorize_ssh(black_box(&user), &policy, &node, &login).is_ok());
    });
    let stranger = NodeRecord { labels: Labels::new(), ..cluster.node() };
    group.bench_function("100_roles_refused_with_reasons", |bencher| {
        bencher.iter(|| authorize_ssh(black_box(&user), &policy, &stranger, &login).is_err());
    });
    group.finish();
    let mut group = criterion.benchmark_group("decide_kube_request");
    group.throughput(Throughput::Elements(1));
    group.bench_function("100_roles_50_labels", |bencher| {
        bencher.iter(|| authorize_kube_request(black_box(&user), &policy, &kube, &pods).is_ok());
    });
    group.finish();
    let mut group = criterion.benchmark_group("filter_nodes");
    let nodes: Vec<NodeRecord> = (0..NODES).map(|number| node_record(&cluster.node(), number)).collect();
    group.bench_function("10000", |bencher| {
        bencher.iter(|| {
            let visible = Visibility::of(black_box(&identity), &policy);
            nodes.iter().filter(|node| visible.node(node)).count()
        });
    });
    group.finish();
}

fn remoteler_ca_profile(cluster: &Cluster, identity: UserIdentity) -> remoteler_ca::UserProfile {
    remoteler_ca::UserProfile { identity, ..cluster.user_profile() }
}

fn verified(cluster: &Cluster, profile: remoteler_ca::UserProfile) -> VerifiedUser {
    let prepared = profile.prepare(&cluster.user_authority, cluster.now, &OsEntropy).expect("the profile is good");
    let issued = cluster.user_authority.issue_user(prepared).expect("the authority signs");
    let certificate = Certificate::from_openssh(&issued.ssh_certificate).expect("the certificate was written by us");
    verify_ssh_certificate(&certificate, &cluster.policy.trust, SshCertificatePurpose::User, cluster.now)
        .ok()
        .and_then(Verified::user)
        .expect("the certificate is good")
}

fn node_record(like: &NodeRecord, number: usize) -> NodeRecord {
    let env = ["dev", "staging", "prod"][number % 3];
    let labels = [("env", env), ("team", "apps"), ("region", "eu-west-1"), ("arch", "aarch64"), ("os", "linux")];
    NodeRecord {
        name: format!("node-{number}").parse().expect("digits are part of node names"),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..like.clone()
    }
}

/// `AuthApi::nodes` of a user who may see two thirds of ten thousand nodes, from the database on disk.
fn list(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads can be started");
    let dir = tempfile::Builder::new().prefix("roles").tempdir_in(".").expect("the directory can be written");
    let user = runtime.block_on(user_of_many_nodes(dir.path()));
    let seen = runtime.block_on(user.nodes()).expect("the user may list nodes").len();
    assert_eq!(seen, NODES - NODES / 3);
    let mut group = criterion.benchmark_group("list_nodes");
    group.sample_size(20).throughput(Throughput::Elements(NODES as u64));
    group.bench_function("10000", |bencher| {
        bencher.iter(|| runtime.block_on(user.nodes()).expect("the user may list nodes").len());
    });
    group.finish();
}

async fn user_of_many_nodes(dir: &std::path::Path) -> Arc<dyn AuthApi> {
    let cluster = ClusterName::new("bench.example.com").expect("the constant is a cluster name");
    let database = Arc::new(Database::open(&dir.join("data")).expect("the database can be made"));
    let storage = Arc::new(SqliteStorage::new(Arc::clone(&database)));
    let like = Cluster::new().node();
    for number in 0..NODES {
        let record = node_record(&like, number);
        let value = serde_json::to_vec(&record).expect("a record has a JSON form");
        storage.put(&format!("nodes/{}", record.name), &value, None).await.expect("the record is written");
    }
    let recordings = RecordingFiles::open(&dir.join("recordings")).expect("the directory can be made");
    let config = AuthConfig::new(dir.join("data"), cluster);
    let service = AuthService::with_stores(config, storage, EventLog::new(database), recordings)
        .await
        .expect("the service starts");
    let admin = service.as_caller(Caller::LocalAdmin);
    let spec =
        json!({ "allow": { "logins": ["root"], "node_labels": { "env": ["dev", "staging"], "team": "^a.*$" } } });
    let role = json!({ "kind": "role", "version": "v7", "metadata": { "name": "dev" }, "spec": spec });
    let role: Resource = serde_json::from_value(role).expect("the document is a role's");
    admin.put_resource(role, false).await.expect("the role is good");
    let name = UserName::new("ann").expect("the constant is a user name");
    let roles = [RoleName::new("dev").expect("the constant is a role name")].into();
    let user = NewUser { name: name.clone(), roles, traits: BTreeMap::new() };
    admin.create_user(user).await.expect("the user is new");
    let password = Secret::new("correct horse battery staple");
    admin.set_password(name, password.clone()).await.expect("the password is long");
    let keys = KeyPairs::generate("bench").expect("keys can be made");
    let request = LoginRequest {
        user: "ann".into(),
        password,
        code: None,
        ssh_public_key: keys.ssh_public.clone(),
        tls_public_key: keys.tls_public.clone(),
        ttl_seconds: None,
        client_addr: None,
    };
    let anonymous = Caller::Anonymous { addr: SocketAddr::from(([192, 0, 2, 1], 40_000)) };
    let certs = service.as_caller(anonymous).login(request).await.expect("the password is right");
    let certificate = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).expect("it was written by us");
    let user = verify_x509_chain(&[certificate], &service.trust_bundle(), X509Purpose::Client, SystemClock.now())
        .ok()
        .and_then(Verified::user)
        .expect("the certificate is good");
    service.as_caller(Caller::User { user, addr: None })
}
