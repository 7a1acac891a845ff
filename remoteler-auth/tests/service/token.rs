//! Authority keys that move into a token and out of it again, by rotations. The token here is a drawer in memory, so that it can be asked what is
//! in it and be made to fail; that a real one works is shown in `remoteler-ca/tests/token` and `tests/tests/token.rs`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use remoteler_auth::{AuthConfig, AuthService, Caller, KeyParams, NewKeys, StartError};
use remoteler_ca::{
    CaError, FileSigner, Signer, SignerAlgorithm, SignerError, Suite, TokenError, TokenKey, TokenKeyId, TokenKeys,
};
use remoteler_core::{
    ApiErrorKind, AuthApi, CaKind, Clock, ClusterName, KeyPlace, KeyPlaces, RotateRequest, RotationPhase, RotationPlan,
    RotationStatus, Secret, Timestamp, with_causes,
};

use crate::support::{Cluster, kind};

use RotationPhase::{Init, Rollback, Standby, UpdateClients, UpdateServers};

/// Keys by their ids, with their labels.
type Keys = Mutex<BTreeMap<String, (String, SignerAlgorithm, Secret)>>;

#[derive(Clone, Default)]
struct Drawer {
    keys: Arc<Keys>,
    /// Answers nothing while it is so.
    locked: Arc<AtomicBool>,
    /// Keeps whoever asks waiting while it is so.
    busy: Arc<AtomicBool>,
    /// What it was asked for and has begun, or waits to begin.
    asked: Arc<AtomicU32>,
}

struct DrawerSigner {
    drawer: Drawer,
    key: FileSigner,
    id: String,
}

impl Drawer {
    fn labels(&self) -> Vec<String> {
        let mut labels: Vec<_> = self.keys.lock().unwrap().values().map(|(label, ..)| label.clone()).collect();
        labels.sort();
        labels
    }

    fn answers(&self) -> Result<(), TokenError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let asked = std::time::Instant::now();
        while self.busy.load(Ordering::SeqCst) && asked.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        if self.locked.load(Ordering::SeqCst) {
            return Err(TokenError::Busy { token: "drawer".into() });
        }
        Ok(())
    }

    fn signer(&self, id: &str) -> Option<DrawerSigner> {
        let keys = self.keys.lock().unwrap();
        let (_, algorithm, text) = keys.get(id)?;
        let key = FileSigner::from_pem(*algorithm, text).unwrap();
        Some(DrawerSigner { drawer: self.clone(), key, id: id.to_owned() })
    }
}

impl TokenKeys for Drawer {
    fn token(&self) -> &str {
        "drawer"
    }

    fn generate(
        &self,
        algorithm: SignerAlgorithm,
        id: TokenKeyId,
        label: &str,
    ) -> Result<(Box<dyn Signer>, TokenKey), TokenError> {
        self.answers()?;
        let (_, text) = FileSigner::generate(algorithm).unwrap();
        self.keys.lock().unwrap().insert(id.to_string(), (label.to_owned(), algorithm, text));
        let signer = self.signer(&id.to_string()).unwrap();
        let key = TokenKey::new(id, label, "drawer", signer.public_key());
        Ok((Box::new(signer), key))
    }

    fn open(&self, _: SignerAlgorithm, key: &TokenKey) -> Result<Box<dyn Signer>, TokenError> {
        self.answers()?;
        let id = key.id()?.to_string();
        let gone = TokenError::KeyGone { token: "drawer".into(), label: key.label().into(), id: id.clone() };
        self.signer(&id).map(|signer| Box::new(signer) as Box<dyn Signer>).ok_or(gone)
    }

    fn destroy(&self, key: &TokenKey) -> Result<(), TokenError> {
        self.answers()?;
        self.keys.lock().unwrap().remove(&key.id()?.to_string());
        Ok(())
    }
}

impl Signer for DrawerSigner {
    fn algorithm(&self) -> SignerAlgorithm {
        self.key.algorithm()
    }

    fn public_key(&self) -> &[u8] {
        self.key.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.drawer.answers()?;
        assert!(self.drawer.keys.lock().unwrap().contains_key(&self.id), "a destroyed key was asked to sign");
        self.key.sign(message)
    }
}

fn params(token: Option<&Drawer>, new_keys: NewKeys) -> KeyParams {
    KeyParams { suite: None, token: token.map(|token| Arc::new(token.clone()) as Arc<dyn TokenKeys>), new_keys }
}

/// The cluster as it is after a restart with `keys`.
async fn restarted(cluster: Cluster, keys: KeyParams) -> Cluster {
    let Cluster { service, clock, dir } = cluster;
    drop(service);
    let service = AuthService::open(config(&dir, Arc::clone(&clock) as Arc<dyn Clock>, keys)).await.unwrap();
    Cluster { service, clock, dir }
}

fn config(dir: &tempfile::TempDir, clock: Arc<dyn Clock>, keys: KeyParams) -> AuthConfig {
    AuthConfig { clock, keys, ..AuthConfig::new(dir.path(), ClusterName::new("root").unwrap()) }
}

async fn step(cluster: &Cluster, kind: CaKind, phase: RotationPhase) -> RotationStatus {
    let request = RotateRequest { kind: kind.into(), phase, plan: RotationPlan::Manual, force: false };
    cluster.admin().rotate(request).await.unwrap()
}

async fn rotate_fully(cluster: &Cluster, kind: CaKind) -> RotationStatus {
    for phase in [Init, UpdateClients, UpdateServers] {
        step(cluster, kind, phase).await;
    }
    step(cluster, kind, Standby).await
}

fn in_drawer() -> KeyPlaces {
    let place = KeyPlace::Token { token: "drawer".into() };
    KeyPlaces { ssh: place.clone(), x509: place }
}

fn in_file() -> KeyPlaces {
    KeyPlaces { ssh: KeyPlace::File, x509: KeyPlace::File }
}

#[tokio::test]
async fn a_rotation_moves_keys_into_a_token_and_another_one_out_of_it_while_logins_go_on() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["ann"]).await;
    let drawer = Drawer::default();

    let cluster = restarted(cluster, params(Some(&drawer), NewKeys::InToken)).await;
    let statuses = of_authorities(&*cluster.admin()).await;
    assert!(statuses.iter().all(|status| status.keys == [in_file()]), "{statuses:?}"); // configuring moves nothing
    assert!(drawer.labels().is_empty());
    for (phase, expected) in [
        (Init, vec![in_file(), in_drawer()]),
        (UpdateClients, vec![in_drawer(), in_file()]),
        (UpdateServers, vec![in_drawer(), in_file()]),
        (Standby, vec![in_drawer()]),
    ] {
        assert_eq!(step(&cluster, CaKind::User, phase).await.keys, expected, "{phase}");
        let certs = cluster.log_in("ann").await;
        cluster.verify(&certs.tls_certificate);
    }
    assert_eq!(drawer.labels(), ["root user ssh", "root user x509"]);

    let cluster = restarted(cluster, params(Some(&drawer), NewKeys::InDatabase)).await;
    for (phase, expected) in [
        (Init, vec![in_drawer(), in_file()]),
        (UpdateClients, vec![in_file(), in_drawer()]),
        (UpdateServers, vec![in_file(), in_drawer()]),
    ] {
        assert_eq!(step(&cluster, CaKind::User, phase).await.keys, expected, "{phase}");
        cluster.verify(&cluster.log_in("ann").await.tls_certificate);
        assert_eq!(drawer.labels().len(), 2);
    }
    assert_eq!(step(&cluster, CaKind::User, Standby).await.keys, [in_file()]);
    assert!(drawer.labels().is_empty(), "what was rotated out is destroyed"); // I8
    let cluster = restarted(cluster, KeyParams::default()).await;
    cluster.log_in("ann").await;
}

#[tokio::test]
async fn a_rollback_destroys_the_keys_it_does_not_need() {
    let drawer = Drawer::default();
    let cluster = restarted(Cluster::start().await, params(Some(&drawer), NewKeys::InToken)).await;
    step(&cluster, CaKind::Host, Init).await;
    step(&cluster, CaKind::Host, UpdateClients).await;
    assert_eq!(drawer.labels(), ["root host ssh", "root host x509"]);
    step(&cluster, CaKind::Host, Rollback).await;
    assert_eq!(drawer.labels().len(), 2); // still believed
    assert_eq!(step(&cluster, CaKind::Host, Standby).await.keys, [in_file()]);
    assert!(drawer.labels().is_empty());
}

#[tokio::test]
async fn keys_that_could_not_be_destroyed_are_destroyed_at_the_next_start() {
    let drawer = Drawer::default();
    let cluster = restarted(Cluster::start().await, params(Some(&drawer), NewKeys::InToken)).await;
    rotate_fully(&cluster, CaKind::User).await;
    let cluster = restarted(cluster, params(Some(&drawer), NewKeys::InDatabase)).await;
    for phase in [Init, UpdateClients, UpdateServers] {
        step(&cluster, CaKind::User, phase).await;
    }
    drawer.locked.store(true, Ordering::SeqCst);
    assert_eq!(step(&cluster, CaKind::User, Standby).await.keys, [in_file()]); // the rotation ends all the same
    assert_eq!(drawer.labels().len(), 2);
    // Not even a start without the token is stopped by them, and they are not forgotten by it.
    let cluster = restarted(cluster, KeyParams::default()).await;
    drawer.locked.store(false, Ordering::SeqCst);
    let cluster = restarted(cluster, params(Some(&drawer), NewKeys::InDatabase)).await;
    assert!(drawer.labels().is_empty());
    drop(cluster);
}

#[tokio::test]
async fn while_the_token_does_not_answer_nothing_is_issued_and_it_may_be_asked_again() {
    let drawer = Drawer::default();
    let cluster = restarted(Cluster::start().await, params(Some(&drawer), NewKeys::InToken)).await;
    cluster.user("ann", &["access"], &["ann"]).await;
    rotate_fully(&cluster, CaKind::User).await;
    drawer.locked.store(true, Ordering::SeqCst);
    let request = crate::support::login_request("ann", crate::support::PASSWORD);
    let refused = cluster.anonymous().login(request).await;
    assert_eq!(kind(refused), ApiErrorKind::Unavailable);
    let request = RotateRequest { kind: CaKind::User.into(), phase: Init, plan: RotationPlan::Manual, force: false };
    assert_eq!(kind(cluster.admin().rotate(request).await), ApiErrorKind::Unavailable);
    drawer.locked.store(false, Ordering::SeqCst);
    cluster.log_in("ann").await;
    let phases: Vec<_> = of_authorities(&*cluster.admin()).await.iter().map(|status| status.phase).collect();
    assert_eq!(phases, [Standby, Standby]);
    assert_eq!(drawer.labels().len(), 2);
}

#[tokio::test]
async fn without_the_token_or_the_key_in_it_the_service_does_not_start_and_says_which() {
    let drawer = Drawer::default();
    let cluster = restarted(Cluster::start().await, params(Some(&drawer), NewKeys::InToken)).await;
    rotate_fully(&cluster, CaKind::User).await;
    let Cluster { service, clock, dir } = cluster;
    drop(service);
    let open = async |keys| {
        let clock = Arc::clone(&clock) as Arc<dyn Clock>;
        AuthService::open(config(&dir, clock, keys)).await.map(|_| ()).unwrap_err()
    };
    let without = open(KeyParams::default()).await;
    assert!(matches!(without, StartError::Authority(CaError::NoToken { .. })));
    assert!(with_causes(&without).contains("are in token drawer, and no token is configured"));
    drawer.keys.lock().unwrap().retain(|_, (label, ..)| label != "root user x509");
    let gone = with_causes(&open(params(Some(&drawer), NewKeys::InToken)).await);
    assert!(gone.contains("no private key \"root user x509\""), "{gone}");
}

#[tokio::test]
async fn another_suite_comes_with_the_next_rotation() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["ann"]).await;
    let with = |suite| KeyParams { suite: Some(suite), ..KeyParams::default() };
    let cluster = restarted(cluster, with(Suite::Token)).await;
    let algorithm = |cluster: &Cluster| cluster.service.trust_bundle().user.ssh.last().unwrap().algorithm().to_string();
    assert_eq!(algorithm(&cluster), "ssh-ed25519");
    rotate_fully(&cluster, CaKind::User).await;
    assert_eq!(algorithm(&cluster), "ecdsa-sha2-nistp256");
    cluster.verify(&cluster.log_in("ann").await.tls_certificate);
    // Said no more, it stays as it is.
    let cluster = restarted(cluster, KeyParams::default()).await;
    rotate_fully(&cluster, CaKind::User).await;
    assert_eq!(algorithm(&cluster), "ecdsa-sha2-nistp256");
    assert_eq!(cluster.admin().rotations().await.unwrap()[0].keys, [in_file()]);
}

#[tokio::test]
async fn a_first_start_makes_its_keys_in_the_token() {
    let drawer = Drawer::default();
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(remoteler_core::SystemClock));
    let keys = params(Some(&drawer), NewKeys::InToken);
    let service = AuthService::open(config(&dir, clock, keys)).await.unwrap();
    assert_eq!(drawer.labels(), ["root host ssh", "root host x509", "root user ssh", "root user x509"]);
    let statuses = of_authorities(&*service.as_caller(Caller::LocalAdmin)).await;
    assert!(statuses.iter().all(|status| status.keys == [in_drawer()]), "{statuses:?}");
}

/// A cluster whose authority of users is in the drawer.
async fn users_in_drawer(drawer: &Drawer) -> Cluster {
    let cluster = restarted(Cluster::start().await, params(Some(drawer), NewKeys::InToken)).await;
    rotate_fully(&cluster, CaKind::User).await;
    cluster
}

/// Waits until the drawer was asked more than `before` times.
async fn asked_more_than(drawer: &Drawer, before: u32) {
    let more = async {
        while drawer.asked.load(Ordering::SeqCst) <= before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), more).await.unwrap();
}

#[tokio::test]
async fn a_list_that_a_slow_token_signs_keeps_no_other_list_waiting_and_is_asked_for_once() {
    let drawer = Drawer::default();
    let cluster = users_in_drawer(&drawer).await;
    let before = drawer.asked.load(Ordering::SeqCst);
    drawer.busy.store(true, Ordering::SeqCst);
    // Each of them gives up; the first has asked the token.
    for _ in 0..20 {
        let api = cluster.anonymous();
        let asking = tokio::spawn(async move { api.revocation_list("user.crl".parse().unwrap()).await });
        asked_more_than(&drawer, before).await;
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
    }
    assert_eq!(drawer.asked.load(Ordering::SeqCst), before + 1);
    for other in ["user.krl", "host.krl", "host.crl"] {
        let list = tokio::time::timeout(Duration::from_secs(60), async {
            cluster.anonymous().revocation_list(other.parse().unwrap()).await.unwrap()
        });
        assert_eq!(list.await.unwrap().name.to_string(), other);
    }
    drawer.busy.store(false, Ordering::SeqCst);
    let list = cluster.anonymous().revocation_list("user.crl".parse().unwrap()).await.unwrap();
    assert_eq!((list.files.len(), drawer.asked.load(Ordering::SeqCst)), (1, before + 1));
}

#[tokio::test]
async fn a_list_that_could_not_be_signed_is_not_tried_for_each_who_asks_and_takes_no_number() {
    let drawer = Drawer::default();
    let cluster = users_in_drawer(&drawer).await;
    let ask = async || cluster.anonymous().revocation_list("user.crl".parse().unwrap()).await;
    let first = ask().await.unwrap();
    let revoked = remoteler_core::NewRevocation {
        target: "tls-user-4f".parse().unwrap(),
        reason: remoteler_core::RevocationReason::Superseded,
        comment: String::new(),
        ttl_seconds: None,
    };
    cluster.admin().revoke(revoked).await.unwrap();
    drawer.locked.store(true, Ordering::SeqCst);
    let before = drawer.asked.load(Ordering::SeqCst);
    for _ in 0..3 {
        ask().await.unwrap_err();
    }
    assert_eq!(drawer.asked.load(Ordering::SeqCst), before + 1);
    drawer.locked.store(false, Ordering::SeqCst);
    ask().await.unwrap_err();
    // With the clock set back the numbers go on from the last one that was used.
    cluster.clock.set(Timestamp::from_unix_seconds(first.made.unix_seconds() - 60));
    assert_eq!(ask().await.unwrap().number, first.number + 1);
}

/// Whether a step and what follows from it wait for the token while other changes are made.
async fn other_changes_go_on_during(cluster: &Cluster, drawer: &Drawer, phase: RotationPhase, user: &str) {
    let before = drawer.asked.load(Ordering::SeqCst);
    drawer.busy.store(true, Ordering::SeqCst);
    let request = RotateRequest { kind: CaKind::User.into(), phase, plan: RotationPlan::Manual, force: false };
    let (first, second) = (cluster.admin(), cluster.admin());
    let again = request.clone();
    let stepping = tokio::spawn(async move { first.rotate(request).await });
    asked_more_than(drawer, before).await;
    let late = tokio::spawn(async move { second.rotate(again).await });
    tokio::time::timeout(Duration::from_secs(60), async {
        cluster.admin().create_user(crate::support::new_user(user, &["access"], &[])).await.unwrap();
        // Automatic rotations do not queue behind it.
        cluster.service.rotate_when_due().await.unwrap();
    })
    .await
    .unwrap();
    assert!(!stepping.is_finished() && !late.is_finished());
    drawer.busy.store(false, Ordering::SeqCst);
    assert_eq!(stepping.await.unwrap().unwrap().phase, phase);
    assert_eq!(kind(late.await.unwrap()), ApiErrorKind::Conflict, "the second is told what the first has done");
}

#[tokio::test]
async fn users_are_made_while_a_token_makes_or_destroys_the_keys_of_a_rotation() {
    let drawer = Drawer::default();
    let cluster = users_in_drawer(&drawer).await;
    other_changes_go_on_during(&cluster, &drawer, Init, "ann").await;
    assert_eq!(drawer.labels().len(), 4, "what the second would have made was not made");
    step(&cluster, CaKind::User, UpdateClients).await;
    step(&cluster, CaKind::User, UpdateServers).await;
    other_changes_go_on_during(&cluster, &drawer, Standby, "eve").await;
    assert_eq!(drawer.labels().len(), 2);
    // It is written that they are destroyed: a token that has them no more is not asked again.
    let before = drawer.asked.load(Ordering::SeqCst);
    let cluster = restarted(cluster, params(Some(&drawer), NewKeys::InToken)).await;
    assert_eq!(drawer.asked.load(Ordering::SeqCst) - before, 2, "both keys are opened, none is destroyed");
    drop(cluster);
}

/// How the rotations of the two authorities stand; keys of identity tokens are in the database whatever is configured.
async fn of_authorities(api: &dyn AuthApi) -> Vec<RotationStatus> {
    let mut statuses = api.rotations().await.unwrap();
    statuses.retain(|status| status.kind.authority().is_some());
    assert_eq!(statuses.len(), 2);
    statuses
}
