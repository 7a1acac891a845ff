//! A value of each type that travels, as it is serialised, against its schema.

use remoteler_core::{
    ApiError, ApiErrorKind, AuditEvent, AuditKind, CaSet, ClusterName, EventQuery, Heartbeat, HostCerts, HostId,
    InstanceId, Invite, JoinMethod, JoinRequest, Jwk, KeyPlace, KeyPlaces, KubeClusterName, KubeRecord, Labels,
    LoginRequest, Metadata, NewToken, NewUser, NodeName, NodeRecord, Ping, ProxyRecord, RecordingInfo, RejoinProof,
    Resource, RotateRequest, RotationKind, RotationPhase, RotationPlan, RotationStatus, RotationView, Secret,
    ServiceContact, SessionId, SignUpRequest, SystemRole, Timestamp, TokenCreated, TokenScope, TokenSummary, Traits,
    TrustAck, TrustAcked, TrustBundle, UserCerts, UserName, UserSummary, wire,
};
use serde::Serialize;
use uuid::Uuid;

use super::*;

/// Values with every optional field set, by schema.
fn samples() -> Vec<(&'static str, Value)> {
    fn value<T: Serialize>(value: T) -> Value {
        serde_json::to_value(value).unwrap()
    }
    let backup =
        || remoteler_core::BackupStatus { id: "x".into(), size: Some(1), sha256: Some("y".into()), clear_keys: true };
    let cluster = || ClusterName::new("root").unwrap();
    let user = || UserName::new("ann").unwrap();
    let secret = || Secret::new("s");
    let now = Timestamp::default();
    let host_id = HostId::from_uuid(Uuid::nil());
    let labels = || Labels::from([("a".into(), "b".into())]);
    let authority = || CaSet { ssh: Vec::new(), x509: vec![vec![1]] };
    let jwk = || Jwk::es256(&[4; 65]).unwrap();
    let target = || "ssh-user-1".parse::<remoteler_core::RevocationTarget>().unwrap();
    let trust = || TrustBundle {
        tokens: vec![jwk()],
        revoked: std::iter::once(target()).collect(),
        ..TrustBundle::new(cluster(), authority(), authority())
    };
    let roles = || std::collections::BTreeSet::from([SystemRole::Node]);
    let scope = || TokenScope { roles: roles(), names: Some("gw-*".into()), labels: labels() };
    let instance = InstanceId::from_uuid(Uuid::nil());
    let traits = || Traits::from([("logins".into(), vec!["root".into()])]);
    let text = |text: &str| Some(text.to_owned());
    let key_places = || {
        let place = KeyPlace::Token { token: "ca".into() };
        KeyPlaces { ssh: place.clone(), x509: place }
    };
    let contact = || ServiceContact {
        host_id,
        name: NodeName::new("n").unwrap(),
        roles: roles(),
        generation: 1,
        last_contact: now,
        heartbeat: Heartbeat::LONGEST,
    };
    let metadata = || Metadata { name: "n".into(), description: text("d"), labels: labels(), expires: Some(now) };
    let kind = AuditKind::RoleDelete { user: "ann".into(), name: "r".into() };
    vec![
        ("ApiError", value(ApiError::new(ApiErrorKind::Denied, "m"))),
        ("Ping", value(Ping { cluster_name: cluster(), server_version: "1".into(), server_time: now })),
        ("CaSet", value(authority())),
        ("TrustBundle", value(trust())),
        (
            "LoginRequest",
            value(LoginRequest {
                user: "ann".into(),
                password: secret(),
                code: Some(secret()),
                ssh_public_key: "k".into(),
                tls_public_key: "k".into(),
                ttl_seconds: Some(1),
                client_addr: text("a"),
            }),
        ),
        (
            "UserCerts",
            value(UserCerts {
                ssh_certificate: "c".into(),
                tls_certificate: "c".into(),
                expires: now,
                roles: Default::default(),
                logins: Vec::new(),
                trust: trust(),
                logout_connector: Some("idp".into()),
            }),
        ),
        ("SignUpRequest", value(SignUpRequest { token: secret(), password: secret(), code: Some(secret()) })),
        ("InviteQuery", value(wire::InviteQuery { token: secret() })),
        (
            "JoinRequest",
            value(JoinRequest {
                token: secret(),
                node_name: NodeName::new("n").unwrap(),
                roles: roles(),
                kube_clusters: Default::default(),
                apps: ["a".parse().unwrap()].into(),
                ssh_public_key: "k".into(),
                tls_public_key: "k".into(),
                without_pin: true,
                rejoin: Some(RejoinProof { host_id, signed_at: now, signature: "s".into() }),
                service_account: Some(secret()),
            }),
        ),
        ("RejoinProof", value(RejoinProof { host_id, signed_at: now, signature: "s".into() })),
        (
            "HostCerts",
            value(HostCerts {
                host_id,
                cluster_name: cluster(),
                ssh_certificate: "c".into(),
                tls_certificate: "c".into(),
                tls_client_certificate: text("c"),
                trust: trust(),
            }),
        ),
        ("Jwk", value(jwk())),
        (
            "NewRevocation",
            value(remoteler_core::NewRevocation {
                target: target(),
                reason: Default::default(),
                comment: "c".into(),
                ttl_seconds: Some(1),
            }),
        ),
        (
            "Revocation",
            value(remoteler_core::Revocation {
                target: target(),
                reason: Default::default(),
                comment: "c".into(),
                revoked_by: "ann".into(),
                since: now,
                until: Some(now),
            }),
        ),
        (
            "RevocationList",
            value(remoteler_core::RevocationList {
                name: "user.krl".parse().unwrap(),
                number: 1,
                made: now,
                next_update: now,
                files: vec![vec![1]],
            }),
        ),
        ("RotationView", value(RotationView::default())),
        ("TrustAck", value(TrustAck { generation: 1, instance: Some(instance), heartbeat: Some(Heartbeat::LONGEST) })),
        ("TrustAcked", value(TrustAcked { renew: true, longest_heartbeat: Some(Heartbeat::LONGEST) })),
        ("RenewQuery", value(wire::RenewQuery { instance: Some(instance) })),
        (
            "ConnectorSecretsRequest",
            value(wire::ConnectorSecretsRequest { kind: remoteler_core::ResourceKind::Oidc, name: Some("x".into()) }),
        ),
        ("RejoinTokenRequest", value(wire::RejoinTokenRequest { node: "n".into() })),
        ("RotationPlan", value(RotationPlan::Automatic { grace_seconds: 1 })),
        (
            "RotateRequest",
            value(RotateRequest {
                kind: RotationKind::User,
                phase: RotationPhase::Init,
                plan: RotationPlan::Manual,
                force: true,
            }),
        ),
        ("ServiceContact", value(contact())),
        (
            "RotationStatus",
            value(RotationStatus {
                kind: RotationKind::User,
                phase: RotationPhase::Init,
                since: now,
                plan: RotationPlan::Manual,
                generation: 1,
                waiting: vec![contact()],
                offline: vec![contact()],
                keys: vec![key_places()],
            }),
        ),
        ("KeyPlaces", value(key_places())),
        ("KeyPlace", value(key_places().ssh)),
        (
            "NodeRecord",
            value(NodeRecord {
                host_id,
                name: NodeName::new("n").unwrap(),
                labels: labels(),
                addr: text("a:1"),
                version: "1".into(),
                last_seen: now,
                heartbeat: Heartbeat::LONGEST,
            }),
        ),
        (
            "KubeRecord",
            value(KubeRecord {
                host_id,
                name: KubeClusterName::new("n").unwrap(),
                labels: labels(),
                addr: text("a:1"),
                version: "1".into(),
                last_seen: now,
                heartbeat: Heartbeat::LONGEST,
            }),
        ),
        ("ProxyRecord", value(ProxyRecord { host_id, public_addr: "a:1".into(), last_seen: now })),
        ("ProxyAnnouncement", value(wire::ProxyAnnouncement { public_addr: "a:1".into() })),
        ("AuditEvent", value(AuditEvent::new(kind, now, Uuid::nil(), cluster()))),
        (
            "EventQuery",
            value(EventQuery {
                from: Some(now),
                to: Some(now),
                event: text("e"),
                user: text("u"),
                limit: Some(1),
                target: text("t"),
                outcome: Some(remoteler_core::EventOutcome::Failure),
                before: Some(Uuid::nil()),
            }),
        ),
        (
            "RecordingInfo",
            value(RecordingInfo {
                session_id: SessionId::from_uuid(Uuid::nil()),
                user: "u".into(),
                login: "l".into(),
                node: "n".into(),
                started: now,
                size: 1,
                complete: true,
            }),
        ),
        ("ChunkQuery", value(wire::ChunkQuery { offset: 0, last: true })),
        ("OffsetQuery", value(wire::OffsetQuery { offset: 0 })),
        ("NewUser", value(NewUser { name: user(), roles: Default::default(), traits: traits() })),
        (
            "UserSummary",
            value(UserSummary {
                name: user(),
                roles: Default::default(),
                traits: traits(),
                has_password: true,
                created: now,
            }),
        ),
        ("Invite", value(Invite { user: user(), token: secret(), proxy_addr: text("p"), expires: now })),
        ("PasswordChange", value(wire::PasswordChange { password: secret() })),
        (
            "NewToken",
            value(NewToken {
                roles: roles(),
                ttl_seconds: Some(1),
                value: Some(secret()),
                uses: Some(1),
                names: text("gw-*"),
                labels: labels(),
            }),
        ),
        (
            "TokenCreated",
            value(TokenCreated {
                token: secret(),
                expires: now,
                scope: scope(),
                uses: Some(1),
                host_id: Some(host_id),
                ca_pin: "p".into(),
                ca_pins: vec!["p".into()],
                proxy_addr: text("p"),
            }),
        ),
        (
            "TokenSummary",
            value(TokenSummary {
                id: "i".into(),
                join_method: JoinMethod::Kubernetes,
                scope: scope(),
                expires: Some(now),
                uses_left: Some(1),
                host_id: Some(host_id),
                service_accounts: vec!["a:b".parse().unwrap()],
            }),
        ),
        ("TokenRevocation", value(wire::TokenRevocation { id_or_token: secret() })),
        ("Metadata", value(metadata())),
        (
            "Resource",
            value(Resource { kind: "role".into(), version: "v7".into(), metadata: metadata(), spec: json!({}) }),
        ),
        ("ReplaceQuery", value(wire::ReplaceQuery { replace: true })),
    ]
    .into_iter()
    .chain(sign::tests::samples(&trust()))
    .chain([("BackupStatus", value(backup()))])
    .chain(explain::tests::samples())
    .chain(mfa::tests::samples())
    .chain(leases::tests::samples())
    .chain(evidence::tests::samples(now))
    .chain(policy::tests::samples(&trust()))
    .chain(logins::tests::samples())
    .chain(account::tests::samples())
    .chain(session_mfa::tests::samples())
    .chain(apps::tests::samples())
    .collect()
}

#[test]
fn the_schemas_have_exactly_the_fields_of_the_types() {
    let schemas = schemas();
    let samples = samples();
    for (name, sample) in &samples {
        check(name, schemas.get(*name).unwrap(), sample);
    }
    let plain = ["Size", "SignRequest"];
    let shown = samples.iter().map(|(name, _)| *name).chain(plain).chain(logins::tests::PLAIN);
    let shown: Vec<&str> = shown.chain(session_mfa::tests::PLAIN).collect();
    assert!(schemas.keys().all(|name| shown.contains(&name.as_str())), "a schema has no sample");
}

fn check(name: &str, schema: &Value, sample: &Value) {
    let properties = schema["properties"].as_object().unwrap();
    let fields = sample.as_object().unwrap();
    for (field, property) in properties {
        let value = fields.get(field).unwrap_or_else(|| panic!("{name} has no field {field}"));
        let fits = match property["type"].as_str() {
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") | None => value.is_object(),
            Some(other) => panic!("{other}"),
        };
        assert!(fits, "{name}.{field} is {value}");
    }
    if schema["additionalProperties"] == false {
        for field in fields.keys() {
            assert!(properties.contains_key(field), "the schema of {name} has no {field}");
        }
    }
}
