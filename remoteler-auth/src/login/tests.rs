//! How much work a login with a password is, whoever it is for.

use std::{net::SocketAddr, sync::Arc};

use remoteler_core::{
    ApiErrorKind, ClusterName, LoginRequest, ManualClock, NewUser, OsEntropy, RoleName, Secret, Timestamp, Traits,
    UserName,
};

use super::*;
use crate::{AuthConfig, AuthService, sso::SsoMark};

const PASSWORD: &str = "correct horse battery";

async fn opened(dir: &std::path::Path) -> AuthService {
    let clock = ManualClock::new(Timestamp::parse("2026-03-01T12:00:00Z").unwrap());
    let config = AuthConfig { clock: Arc::new(clock), ..AuthConfig::new(dir, ClusterName::new("root").unwrap()) };
    AuthService::open(config).await.unwrap()
}

fn request(user: &str, password: &str) -> LoginRequest {
    let ssh: [u8; 32] = remoteler_core::fill_random(&OsEntropy);
    let ssh = ssh_key::public::KeyData::Ed25519(ssh_key::public::Ed25519PublicKey(ssh));
    LoginRequest {
        user: user.into(),
        password: Secret::new(password),
        code: None,
        ssh_public_key: ssh_key::PublicKey::from(ssh).to_openssh().unwrap(),
        tls_public_key: rcgen::KeyPair::generate().unwrap().public_key_pem(),
        ttl_seconds: None,
        client_addr: None,
    }
}

#[tokio::test]
async fn a_login_hashes_once_and_by_the_same_parameters_whether_or_not_there_is_such_a_user_or_password() {
    let dir = tempfile::tempdir().unwrap();
    let service = opened(dir.path()).await;
    let (admin, inner) = (service.as_caller(Caller::LocalAdmin), service.inner());
    for name in ["ann", "new", "corp"] {
        let roles = [RoleName::new("access").unwrap()].into();
        let user = NewUser { name: UserName::new(name).unwrap(), roles, traits: Traits::default() };
        admin.create_user(user).await.unwrap();
    }
    admin.set_password(UserName::new("ann").unwrap(), Secret::new(PASSWORD)).await.unwrap();
    // Who comes from an identity provider has no password.
    let of_corp = key::of(key::USERS, UserName::new("corp").unwrap());
    let mut record: UserRecord = inner.records.read(&of_corp).await.unwrap().unwrap();
    record.sso = Some(SsoMark { connector: "idp".into(), issuer: "https://idp".into(), subject: "1".into() });
    inner.records.write(&of_corp, &record, None).await.unwrap();

    let usual = vec!["m=19456,t=2,p=1".to_owned()];
    let too_long = "x".repeat(2000);
    assert!(inner.passwords.take_work().is_empty());
    for (n, (user, password)) in [
        ("ann", "wrong horse battery"),
        ("ann", ""),
        ("ann", too_long.as_str()),
        ("bob", PASSWORD),
        ("bob", too_long.as_str()),
        ("new", PASSWORD),
        ("new", ""),
        ("corp", PASSWORD),
        ("../ann", PASSWORD),
        ("Ann", PASSWORD),
        ("ann\0", PASSWORD),
        ("-", PASSWORD),
        (&"a".repeat(MAX_USER), PASSWORD),
    ]
    .into_iter()
    .enumerate()
    {
        // Each from elsewhere: what is counted here is no limit's work.
        let addr = SocketAddr::from(([192, 0, 2, u8::try_from(n).unwrap()], 40_000));
        let refused = service.as_caller(Caller::Anonymous { addr }).login(request(user, password)).await.unwrap_err();
        assert_eq!((refused.kind, refused.message.as_str()), (ApiErrorKind::Unauthenticated, WRONG), "{user}");
        assert_eq!(inner.passwords.take_work(), usual, "{user}");
    }
    let addr = SocketAddr::from(([192, 0, 2, 100], 40_000));
    service.as_caller(Caller::Anonymous { addr }).login(request("ann", PASSWORD)).await.unwrap();
    assert_eq!(inner.passwords.take_work(), usual);
}
