//! A service on a temporary directory with a clock of its own, and callers with certificates that it issued and core verified.

use std::{net::SocketAddr, sync::Arc};

use remoteler_auth::{AuthConfig, AuthService, Caller, HostQuotas};
use remoteler_core::{
    AnswerKey, ApiError, ApiErrorKind, AuditEvent, AuthApi, BeginLogin, Clock, ClusterName, EventQuery, HostCerts,
    JoinRequest, LoginRequest, ManualClock, NewToken, NewUser, NodeName, OsEntropy, RoleName, Secret, SystemRole,
    Timestamp, Traits, UserCerts, UserName, Verified, X509Purpose, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// Where callers with certificates call from.
const ELSEWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), 41_000);

pub(crate) struct Cluster {
    pub(crate) service: AuthService,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dir: tempfile::TempDir,
}

/// A pair of public keys as requests carry them.
pub(crate) struct Keys {
    pub(crate) ssh: String,
    pub(crate) tls: String,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let tls = rcgen::KeyPair::generate().unwrap().public_key_pem();
        // Any 32 octets are an Ed25519 public key's encoding as far as issuing goes.
        let octets: [u8; 32] = remoteler_core::fill_random(&OsEntropy);
        let key = ssh_key::public::Ed25519PublicKey(octets);
        let ssh = ssh_key::PublicKey::from(ssh_key::public::KeyData::Ed25519(key)).to_openssh().unwrap();
        Self { ssh, tls }
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with_quotas(HostQuotas::default()).await
    }

    pub(crate) async fn with_quotas(quotas: HostQuotas) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-03-01T12:00:00Z").unwrap()));
        Self::open(dir, clock, quotas).await
    }

    /// Another process on the same data directory.
    pub(crate) async fn reopen(dir: tempfile::TempDir, clock: Arc<ManualClock>) -> Self {
        Self::open(dir, clock, HostQuotas::default()).await
    }

    /// That logs people in through browsers.
    pub(crate) async fn with_sso(sso: remoteler_auth::SsoConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-03-01T12:00:00Z").unwrap()));
        let config = AuthConfig { sso, ..Self::config(&dir, &clock) };
        Self { service: AuthService::open(config).await.unwrap(), clock, dir }
    }

    async fn open(dir: tempfile::TempDir, clock: Arc<ManualClock>, quotas: HostQuotas) -> Self {
        let config = AuthConfig { quotas, ..Self::config(&dir, &clock) };
        Self { service: AuthService::open(config).await.unwrap(), clock, dir }
    }

    /// What the service on `dir` is made from.
    pub(crate) fn config(dir: &tempfile::TempDir, clock: &Arc<ManualClock>) -> AuthConfig {
        AuthConfig {
            clock: Arc::<ManualClock>::clone(clock),
            ..AuthConfig::new(dir.path(), ClusterName::new("root").unwrap())
        }
    }

    pub(crate) fn admin(&self) -> Arc<dyn AuthApi> {
        self.service.as_caller(Caller::LocalAdmin)
    }

    pub(crate) fn anonymous(&self) -> Arc<dyn AuthApi> {
        self.at_address([192, 0, 2, 1])
    }

    pub(crate) fn at_address(&self, ip: [u8; 4]) -> Arc<dyn AuthApi> {
        self.service.as_caller(Caller::Anonymous { addr: SocketAddr::from((ip, 40_000)) })
    }

    /// Makes a user with [`PASSWORD`].
    pub(crate) async fn user(&self, name: &str, roles: &[&str], logins: &[&str]) {
        self.admin().create_user(new_user(name, roles, logins)).await.unwrap();
        self.admin().set_password(UserName::new(name).unwrap(), Secret::new(PASSWORD)).await.unwrap();
    }

    pub(crate) async fn log_in(&self, name: &str) -> UserCerts {
        self.anonymous().login(login_request(name, PASSWORD)).await.unwrap()
    }

    pub(crate) async fn as_user(&self, name: &str) -> Arc<dyn AuthApi> {
        let certs = self.log_in(name).await;
        let user = self.verify(&certs.tls_certificate).user().unwrap();
        self.service.as_caller(Caller::User { user, addr: Some(ELSEWHERE) })
    }

    pub(crate) async fn token(&self, roles: &[SystemRole]) -> Secret {
        let token = NewToken { roles: roles.iter().copied().collect(), ..NewToken::default() };
        self.admin().create_token(token).await.unwrap().token
    }

    pub(crate) async fn join(&self, name: &str, roles: &[SystemRole], kube: &[&str]) -> HostCerts {
        let token = self.token(roles).await;
        self.anonymous().join(join_request(&token, name, roles, kube)).await.unwrap()
    }

    pub(crate) fn as_host(&self, certs: &HostCerts) -> Arc<dyn AuthApi> {
        self.service.as_caller(self.host_caller(certs))
    }

    pub(crate) fn host_caller(&self, certs: &HostCerts) -> Caller {
        Caller::Host { host: self.verify(&certs.tls_certificate).host().unwrap(), addr: Some(ELSEWHERE) }
    }

    pub(crate) fn verify(&self, pem: &str) -> Verified {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let trust = self.service.trust_bundle();
        verify_x509_chain(&[certificate], &trust, X509Purpose::Client, self.clock.now()).unwrap()
    }

    /// All events of one kind.
    pub(crate) async fn events(&self, kind: &str) -> Vec<AuditEvent> {
        let query = EventQuery { event: Some(kind.into()), limit: Some(10_000), ..EventQuery::default() };
        self.admin().events(query).await.unwrap()
    }
}

pub(crate) fn new_user(name: &str, roles: &[&str], logins: &[&str]) -> NewUser {
    let logins: Vec<String> = logins.iter().map(|login| (*login).to_owned()).collect();
    NewUser {
        name: UserName::new(name).unwrap(),
        roles: roles.iter().map(|role| RoleName::new(role).unwrap()).collect(),
        traits: Traits::from([("logins".to_owned(), logins)]),
    }
}

pub(crate) fn login_request(user: &str, password: &str) -> LoginRequest {
    let Keys { ssh, tls } = Keys::new();
    LoginRequest {
        user: user.into(),
        password: Secret::new(password),
        code: None,
        ssh_public_key: ssh,
        tls_public_key: tls,
        ttl_seconds: None,
        client_addr: None,
    }
}

/// `tsh login` through a browser, whichever way is chosen there; the client polls.
pub(crate) fn begin_request(key: &AnswerKey) -> BeginLogin {
    let Keys { ssh, tls } = Keys::new();
    BeginLogin {
        connector: None,
        redirect: None,
        ssh_public_key: ssh,
        tls_public_key: tls,
        answer_key: key.public(),
        ttl_seconds: None,
        host: "laptop".into(),
        client_addr: None,
    }
}

pub(crate) fn join_request(token: &Secret, name: &str, roles: &[SystemRole], kube: &[&str]) -> JoinRequest {
    let Keys { ssh, tls } = Keys::new();
    JoinRequest {
        token: token.clone(),
        node_name: NodeName::new(name).unwrap(),
        roles: roles.iter().copied().collect(),
        kube_clusters: kube.iter().map(|name| name.parse().unwrap()).collect(),
        apps: Default::default(),
        ssh_public_key: ssh,
        tls_public_key: tls,
        without_pin: false,
        rejoin: None,
        service_account: None,
    }
}

/// The kind of a call's failure.
pub(crate) fn kind<T: std::fmt::Debug>(outcome: Result<T, ApiError>) -> ApiErrorKind {
    outcome.unwrap_err().kind
}
