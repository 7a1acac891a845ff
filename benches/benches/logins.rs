//! What an auth service on a disk issues a second, each certificate's audit event committed before it is signed: renewals, which cost
//! nothing else, and logins, which also check a password. Beside them, in the same run: how fast this disk makes one write durable.

use std::{
    fs::File,
    hint::black_box,
    io::{Seek, SeekFrom, Write},
    net::SocketAddr,
    sync::Arc,
};

use criterion::{Criterion, Throughput};
use futures::future::join_all;
use remoteler_auth::{AuthConfig, AuthService, Caller};
use remoteler_client::KeyPairs;
use remoteler_core::{
    AuthApi, Clock, ClusterName, JoinRequest, LoginRequest, NewToken, NewUser, NodeName, RoleName, Secret, SystemClock,
    SystemRole, Traits, UserName, Verified, X509Purpose, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::runtime::Runtime;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Runtime::new().expect("threads can be started");
    let dir = tempfile::Builder::new().prefix("logins").tempdir_in(".").expect("the directory can be written");
    let service = runtime.block_on(Service::start(dir.path().join("data")));
    let mut group = criterion.benchmark_group("login_storm");
    for at_once in [1, 64, 256] {
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(format!("renew_{at_once}_at_once"), |bencher| {
            bencher.iter(|| runtime.block_on(join_all((0..at_once).map(|_| service.renew()))));
        });
    }
    group.sample_size(10);
    for at_once in [1, 8] {
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(format!("login_{at_once}_at_once"), |bencher| {
            bencher.iter(|| runtime.block_on(join_all((0..at_once).map(|_| service.log_in()))));
        });
    }
    let mut file = tempfile::tempfile_in(dir.path()).expect("the directory can be written");
    group.throughput(Throughput::Elements(1));
    group.bench_function("durable_write", |bencher| bencher.iter(|| write_durably(&mut file)));
    group.finish();
}

/// An auth service with one user and one host.
struct Service {
    service: AuthService,
    host: Arc<dyn AuthApi>,
    keys: KeyPairs,
}

const USER: &str = "ann";
const PASSWORD: &str = "correct horse battery staple";

impl Service {
    async fn start(data_dir: std::path::PathBuf) -> Self {
        let cluster = ClusterName::new("bench.example.com").expect("the constant is a cluster name");
        let service = AuthService::open(AuthConfig::new(data_dir, cluster)).await.expect("the service starts");
        let admin = service.as_caller(Caller::LocalAdmin);
        let name = UserName::new(USER).expect("the constant is a user name");
        let user = NewUser {
            name: name.clone(),
            roles: [RoleName::new("access").expect("the constant is a role name")].into(),
            traits: Traits::from([("logins".to_owned(), vec!["root".to_owned()])]),
        };
        admin.create_user(user).await.expect("the user is new");
        admin.set_password(name, Secret::new(PASSWORD)).await.expect("the password is long");
        let token = NewToken { roles: [SystemRole::Node].into(), ..NewToken::default() };
        let token = admin.create_token(token).await.expect("a token can be made").token;
        let keys = KeyPairs::generate("bench").expect("keys can be made");
        let join = JoinRequest {
            token,
            node_name: NodeName::new("node-1").expect("the constant is a node name"),
            roles: [SystemRole::Node].into(),
            kube_clusters: [].into(),
            apps: Default::default(),
            ssh_public_key: keys.ssh_public.clone(),
            tls_public_key: keys.tls_public.clone(),
            without_pin: false,
            rejoin: None,
            service_account: None,
        };
        let certs = service.as_caller(anonymous()).join(join).await.expect("the token is good");
        let certificate =
            CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).expect("it was written by us");
        let host = verify_x509_chain(&[certificate], &service.trust_bundle(), X509Purpose::Client, SystemClock.now())
            .ok()
            .and_then(Verified::host)
            .expect("the certificate is good");
        let host = service.as_caller(Caller::Host { host, addr: None });
        Self { service, host, keys }
    }

    /// One SSH and one X.509 certificate of a host.
    async fn renew(&self) {
        black_box(self.host.renew_host(None).await.expect("the host is known"));
    }

    /// A password checked, and one SSH and one X.509 certificate of a user.
    async fn log_in(&self) {
        let request = LoginRequest {
            user: USER.into(),
            password: Secret::new(PASSWORD),
            code: None,
            ssh_public_key: self.keys.ssh_public.clone(),
            tls_public_key: self.keys.tls_public.clone(),
            ttl_seconds: None,
            client_addr: None,
        };
        black_box(self.service.as_caller(anonymous()).login(request).await.expect("the password is right"));
    }
}

fn anonymous() -> Caller {
    Caller::Anonymous { addr: SocketAddr::from(([192, 0, 2, 1], 40_000)) }
}

/// What one commit costs at the least: 4 KiB written and synced.
fn write_durably(file: &mut File) {
    file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&[7; 4096])).expect("the file can be written");
    file.sync_data().expect("the file can be synced");
}
