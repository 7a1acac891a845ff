//! Identity tokens are believed by a JWT library of another maker as long as their key is published, and no longer.

use std::{process::Command, time::Duration};

use remoteler_auth::Caller;
use remoteler_core::{
    ApiErrorKind, AuditKind, Clock, JwkSet, NewRevocation, RevocationReason, RevocationTarget, RotateRequest,
    RotationKind, RotationPhase, RotationPlan, Timestamp, UserCerts, UserName, VerifiedUser,
};

use crate::support::{Cluster, kind};

use RotationPhase::{Init, Rollback, Standby, UpdateClients, UpdateServers};

const APP: &str = "https://grafana.example.com";

/// Believes a token as an application does: by the published keys, for itself, at the time that it is given. Exit code 0 and the claims,
/// or 3 when there is no such key.
const VERIFIER: &str = r#"
import json, sys, jwt
token, keys, audience = sys.argv[1:4]
kid = jwt.get_unverified_header(token)["kid"]
found = [key for key in json.loads(keys)["keys"] if key["kid"] == kid]
if not found:
    sys.exit(3)
key = jwt.PyJWK.from_dict(found[0]).key
print(json.dumps(jwt.decode(token, key, algorithms=["ES256"], audience=audience, issuer="root",
      options={"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "iss", "aud", "sub"]})))
"#;

/// Debian's interpreter: PyJWT is a package of the system (python3-jwt).
fn python(arguments: &[&str]) -> std::process::Output {
    Command::new("/usr/bin/python3").arg("-c").args(arguments).output().unwrap()
}

fn there_is_pyjwt() -> bool {
    let there = Command::new("/usr/bin/python3").args(["-c", "import jwt, cryptography"]).output();
    let there = there.is_ok_and(|output| output.status.success());
    if !there {
        assert!(std::env::var_os("REMOTELER_FULL_CHECK").is_none(), "python3-jwt is missing");
        eprintln!("SKIPPED: python3-jwt is missing");
    }
    there
}

/// The claims, if the token is believed.
fn believed(cluster: &Cluster, token: &str, audience: &str) -> Result<serde_json::Value, Option<i32>> {
    let keys = serde_json::to_string(&JwkSet { keys: cluster.service.trust_bundle().tokens }).unwrap();
    let output = python(&[VERIFIER, token, &keys, audience]);
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(output.status.code())
    }
}

fn user(cluster: &Cluster, certs: &UserCerts) -> VerifiedUser {
    cluster.verify(&certs.tls_certificate).user().unwrap()
}

async fn step(cluster: &Cluster, phase: RotationPhase) {
    let request = RotateRequest { kind: RotationKind::Token, phase, plan: RotationPlan::Manual, force: false };
    cluster.admin().rotate(request).await.unwrap();
}

async fn ann(cluster: &Cluster) -> VerifiedUser {
    cluster.user("ann", &["access"], &["ann"]).await;
    user(cluster, &cluster.log_in("ann").await)
}

#[tokio::test]
async fn a_library_of_another_maker_believes_a_token_by_the_published_keys() {
    if !there_is_pyjwt() {
        return;
    }
    let cluster = Cluster::start().await;
    let ann = ann(&cluster).await;
    let token = cluster.service.issue_identity_token(&ann, APP, Duration::from_secs(300)).await.unwrap();
    let claims = believed(&cluster, &token, APP).unwrap();
    let now = cluster.clock.now();
    assert_eq!((&claims["sub"], &claims["aud"], &claims["roles"][0]), (&"ann".into(), &APP.into(), &"access".into()));
    assert_eq!(claims["exp"], now.plus(Duration::from_secs(300)).unix_seconds());
    assert_eq!(believed(&cluster, &token, "https://other.example.com"), Err(Some(1)), "for another application");

    // Whatever is changed in it, nobody believes it. The signature's last character may hold bits that count for nothing.
    for position in [0, token.find('.').unwrap() + 1, token.rfind('.').unwrap() + 1, token.len() - 2] {
        let mut changed = token.clone().into_bytes();
        changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(believed(&cluster, &changed, APP).is_err(), "{changed}");
    }
    let Some(AuditKind::CertCreate { cert_type, user, tls_serial, .. }) =
        cluster.events("cert.create").await.pop().map(|event| event.kind)
    else {
        panic!("no event")
    };
    assert_eq!(
        (cert_type.as_str(), user.as_str(), tls_serial),
        ("identity-token", "ann", claims["jti"].as_str().unwrap().to_owned())
    );
}

// I1
#[tokio::test]
async fn a_token_is_believed_until_its_key_is_retired_and_never_after() {
    if !there_is_pyjwt() {
        return;
    }
    let cluster = Cluster::start().await;
    let ann = ann(&cluster).await;
    let issue = async || cluster.service.issue_identity_token(&ann, APP, Duration::from_secs(300)).await.unwrap();
    let before = issue().await;
    let published = cluster.service.trust_bundle().tokens;
    for phase in [Init, UpdateClients, UpdateServers] {
        step(&cluster, phase).await;
        let trust = cluster.service.trust_bundle();
        assert_eq!((trust.tokens.len(), trust.rotation.token), (2, phase));
        assert_eq!((trust.rotation.user, trust.user.ssh.len()), (Standby, 1), "the authorities stay as they are");
        let fresh = issue().await;
        for token in [&before, &fresh] {
            believed(&cluster, token, APP).unwrap();
        }
    }
    let after = issue().await;
    step(&cluster, Standby).await;
    believed(&cluster, &after, APP).unwrap();
    assert_eq!(believed(&cluster, &before, APP), Err(Some(3)), "its key is published no more");
    assert!(!cluster.service.trust_bundle().tokens.contains(&published[0]));

    for phase in [Init, UpdateClients, Rollback] {
        step(&cluster, phase).await;
    }
    let of_old_again = issue().await;
    step(&cluster, Standby).await;
    for token in [&after, &of_old_again] {
        believed(&cluster, token, APP).unwrap();
    }
}

#[tokio::test]
async fn a_token_lives_no_longer_than_the_certificate_and_is_for_somebody() {
    let cluster = Cluster::start().await;
    let ann = ann(&cluster).await;
    cluster.service.issue_identity_token(&ann, APP, Duration::from_secs(86_400 * 365)).await.unwrap();
    let event = cluster.events("cert.create").await.pop().unwrap().kind;
    let AuditKind::CertCreate { expires, .. } = event else { panic!("{event:?}") };
    assert_eq!(expires, Some(ann.expires())); // I51
    for audience in ["", "https://a\nb", &"a".repeat(513)] {
        let refused = cluster.service.issue_identity_token(&ann, audience, Duration::from_secs(60)).await;
        assert_eq!(kind(refused), ApiErrorKind::BadRequest, "{audience:?}");
    }
    let none = cluster.service.issue_identity_token(&ann, APP, Duration::ZERO).await;
    assert_eq!(kind(none), ApiErrorKind::Denied);
    let until: Timestamp = ann.expires();
    cluster.clock.advance(until.since(cluster.clock.now()));
    let late = cluster.service.issue_identity_token(&ann, APP, Duration::from_secs(60)).await;
    assert_eq!(kind(late), ApiErrorKind::Denied);
}

#[tokio::test]
async fn keys_outlive_a_restart_and_lie_in_the_database_only() {
    let cluster = Cluster::start().await;
    step(&cluster, Init).await;
    let before = cluster.service.trust_bundle();
    let Cluster { service, clock, dir } = cluster;
    drop(service);
    let config = remoteler_auth::AuthConfig {
        clock: clock.clone(),
        ..remoteler_auth::AuthConfig::new(dir.path(), before.cluster.clone())
    };
    let again = remoteler_auth::AuthService::open(config).await.unwrap();
    assert_eq!(again.trust_bundle(), before);
    let statuses = again.as_caller(Caller::LocalAdmin).rotations().await.unwrap();
    let token = statuses.iter().find(|status| status.kind == RotationKind::Token).unwrap();
    assert_eq!(token.phase, Init);
}

#[tokio::test]
async fn no_token_is_made_for_a_revoked_certificate_or_a_user_who_was_removed() {
    let cluster = Cluster::start().await;
    let ann = ann(&cluster).await;
    let ask = async || cluster.service.issue_identity_token(&ann, APP, Duration::from_secs(300)).await;
    ask().await.unwrap();
    let serial = ann.serial().replace(':', "").to_lowercase();
    let target: RevocationTarget = format!("tls-user-{serial}").parse().unwrap();
    let wanted =
        NewRevocation { target, reason: RevocationReason::KeyCompromise, comment: String::new(), ttl_seconds: None };
    cluster.admin().revoke(wanted).await.unwrap();
    let refused = ask().await.unwrap_err();
    assert!(refused.kind == ApiErrorKind::Unauthenticated && refused.message.contains("revoked"), "{refused}");
    cluster.admin().unrevoke(target).await.unwrap();
    ask().await.unwrap();
    cluster.admin().delete_user(UserName::new("ann").unwrap()).await.unwrap();
    let refused = ask().await.unwrap_err();
    assert!(refused.kind == ApiErrorKind::Unauthenticated && refused.message.contains("revoked"), "{refused}");
}
