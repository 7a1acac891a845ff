//! Makes a fixture with the program of today: one of everything that is stored. Requests are written as JSON, so that a field they get later changes nothing here.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use remoteler_auth::{AuthConfig, AuthService, Caller};
use remoteler_core::{
    AuditEvent, AuditKind, Clock, ClusterName, ConnectionFields, JoinRequest, LoginRequest, ManualClock, NewUser,
    OsEntropy, RecordingChunk, RevocationTarget, RotateRequest, RotationKind, RotationPhase, RotationPlan, Secret,
    SessionFields, SessionId, SystemRole, Timestamp, UserName, X509Purpose, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const JOIN_TOKEN: &str = "a-token-of-the-fixture-and-nothing-else";
pub(crate) const RECORDING: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24}\n[0.5,\"o\",\"hello\"]\n";

/// What the tests must know of a fixture.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    /// What the clock showed.
    pub(crate) now: Timestamp,
    /// The host authority's.
    pub(crate) host_pins: Vec<String>,
    /// Bob's sign-up link.
    pub(crate) invite: String,
    /// Of gw-17.
    pub(crate) host_id: String,
    pub(crate) host_certificate: String,
    /// The one that was recorded.
    pub(crate) session: String,
    /// Events there were at the least.
    pub(crate) events: u64,
}

pub(crate) fn login_request(user: &str, password: &str) -> LoginRequest {
    let (ssh, tls) = keys();
    let request = json!({ "user": user, "password": password, "ssh_public_key": ssh, "tls_public_key": tls });
    serde_json::from_value(request).unwrap()
}

pub(crate) fn join_request(token: &Secret, name: &str, roles: &[SystemRole]) -> JoinRequest {
    let (ssh, tls) = keys();
    let request = json!({
        "token": token.reveal(), "node_name": name, "roles": roles, "ssh_public_key": ssh, "tls_public_key": tls,
    });
    serde_json::from_value(request).unwrap()
}

fn keys() -> (String, String) {
    // Any 32 octets are an Ed25519 public key's encoding as far as issuing goes.
    let key = ssh_key::public::Ed25519PublicKey(remoteler_core::fill_random(&OsEntropy));
    let ssh = ssh_key::PublicKey::from(ssh_key::public::KeyData::Ed25519(key)).to_openssh().unwrap();
    (ssh, rcgen::KeyPair::generate().unwrap().public_key_pem())
}

fn user(name: &str, logins: &[&str]) -> NewUser {
    let user = json!({ "name": name, "roles": ["access", "editor"], "traits": { "logins": logins, "team": ["blue"] } });
    serde_json::from_value(user).unwrap()
}

fn role() -> Value {
    json!({
        "kind": "role", "version": "v7", "metadata": { "name": "dba" },
        "spec": {
            "options": { "max_session_ttl": "4h" },
            "allow": { "logins": ["postgres"], "node_labels": { "env": ["dev", "staging"] } },
            "deny": { "node_labels": { "env": "production" } },
        },
    })
}

/// Fills `dir`.
pub(crate) async fn make(dir: &Path) {
    let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
    let clock = Arc::new(ManualClock::new(now));
    let cluster = ClusterName::new("root").unwrap();
    let config = AuthConfig { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..AuthConfig::new(dir, cluster.clone()) };
    let service = AuthService::open(config).await.unwrap();
    let admin = service.as_caller(Caller::LocalAdmin);
    let anybody = service.as_caller(Caller::Anonymous { addr: SocketAddr::from(([192, 0, 2, 1], 40_000)) });

    admin.create_user(user("ann", &["ann", "root"])).await.unwrap();
    admin.set_password(UserName::new("ann").unwrap(), Secret::new(PASSWORD)).await.unwrap();
    let invite = admin.create_user(user("bob", &["bob"])).await.unwrap().token.reveal().to_owned();
    admin.put_resource(serde_json::from_value(role()).unwrap(), false).await.unwrap();
    anybody.login(login_request("ann", PASSWORD)).await.unwrap();
    anybody.login(login_request("ann", "a wrong one, which counts")).await.unwrap_err();
    let target: RevocationTarget = "ssh-user-7".parse().unwrap();
    admin.revoke(serde_json::from_value(json!({ "target": target, "comment": "lost" })).unwrap()).await.unwrap();

    let token = json!({ "roles": ["node", "kube"], "ttl_seconds": 30 * 24 * 3600, "value": JOIN_TOKEN });
    admin.create_token(serde_json::from_value(token).unwrap()).await.unwrap();
    let mut join = join_request(&Secret::new(JOIN_TOKEN), "gw-17", &[SystemRole::Node, SystemRole::Kube]);
    join.kube_clusters = [serde_json::from_value(json!("staging")).unwrap()].into();
    let certs = anybody.join(join).await.unwrap();
    let certificate = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).unwrap();
    let host =
        verify_x509_chain(&[certificate], &service.trust_bundle(), X509Purpose::Client, now).unwrap().host().unwrap();
    let host = service.as_caller(Caller::Host { host, addr: Some(SocketAddr::from(([192, 0, 2, 7], 41_000))) });
    let id = certs.host_id;
    let node =
        json!({ "host_id": id, "name": "gw-17", "labels": { "env": "dev" }, "version": "0.0.0", "last_seen": now });
    host.announce_node(serde_json::from_value(node).unwrap()).await.unwrap();
    let kube =
        json!({ "host_id": id, "name": "staging", "labels": { "env": "dev" }, "version": "0.0.0", "last_seen": now });
    host.announce_kube(serde_json::from_value(kube).unwrap()).await.unwrap();

    let session = SessionId::from_uuid(uuid::Uuid::new_v4());
    let fields = SessionFields {
        sid: session.to_string(),
        user: "ann".into(),
        login: "root".into(),
        server_id: id.to_string(),
        server_hostname: "gw-17".into(),
    };
    let began = AuditKind::SessionStart {
        session: fields,
        connection: ConnectionFields::default(),
        interactive: true,
        size: None,
        initial_command: Vec::new(),
        role: None,
        with_mfa: None,
    };
    host.record_events(vec![AuditEvent::new(began, now, uuid::Uuid::new_v4(), cluster)]).await.unwrap();
    let chunk = RecordingChunk { session_id: session, offset: 0, octets: RECORDING.to_vec(), last: true };
    host.append_recording(chunk).await.unwrap();

    let begin = RotateRequest {
        kind: RotationKind::User,
        phase: RotationPhase::Init,
        plan: RotationPlan::Manual,
        force: false,
    };
    admin.rotate(begin).await.unwrap();
    let known = Known {
        now,
        host_pins: service.trust_bundle().host_pins().unwrap(),
        invite,
        host_id: id.to_string(),
        host_certificate: certs.tls_certificate,
        session: session.to_string(),
        events: service.event_log().verify().await.unwrap(),
    };
    fs::write(dir.join("fixture.json"), serde_json::to_vec_pretty(&known).unwrap()).unwrap();
}
