//! Work that ends: by locks, by certificates, by silence, and not before.

use super::*;
use crate::{
    AppProxy, CaKind, CaSet, ClusterName, ClusterSettings, Lock, LockTarget, Locks, Login, ManualClock, NodeName,
    Revocations, Role, RoleSpec, SharedPolicy, ShownCertificate, TrustBundle, UserIdentity, UserName, VerifiedUser,
    verify::Behind,
};

struct World {
    policy: Arc<SharedPolicy>,
    clock: Arc<ManualClock>,
    live: Arc<LiveWork>,
}

const END: i64 = 1000;

fn rules() -> Policy {
    let empty = || CaSet { ssh: Vec::new(), x509: Vec::new() };
    let name = RoleName::new("dev").unwrap();
    let role = Arc::new(Role::new(name.clone(), &RoleSpec::default()).unwrap());
    Policy::new(TrustBundle::new(ClusterName::new("root").unwrap(), empty(), empty()), [(name, role)].into())
}

fn world() -> World {
    let policy = Arc::new(SharedPolicy::new(rules()));
    let clock = Arc::new(ManualClock::new(Timestamp::from_unix_seconds(0)));
    World { live: LiveWork::new(policy.clone(), clock.clone()), policy, clock }
}

fn work(user: &str) -> Subject {
    work_by(user, None)
}

fn work_by(user: &str, app_proxy: Option<AppProxy>) -> Subject {
    work_in(user, app_proxy, None)
}

fn work_in(user: &str, app_proxy: Option<AppProxy>, app_session: Option<SessionId>) -> Subject {
    let identity = UserIdentity {
        user: UserName::new(user).unwrap(),
        cluster: ClusterName::new("root").unwrap(),
        roles: [RoleName::new("dev").unwrap()].into(),
        traits: Default::default(),
        logins: Vec::new(),
    };
    let shown = ShownCertificate {
        authority: CaKind::User,
        authority_key: RevocationTarget::SshKey([1; 32]),
        serial: Some("ssh-user-7".parse().unwrap()),
        key: RevocationTarget::SshKey([2; 32]),
    };
    let end = Timestamp::from_unix_seconds(END);
    let user = VerifiedUser::new(identity, end, "7".into(), shown);
    let behind = Behind { proof: None, app_session, app_proxy, login_expires: end };
    Subject::user(&user.with(behind)).login(Login::new("root").unwrap()).at(Some("edge"), None)
}

fn locking(target: LockTarget) -> Locks {
    let lock = Lock { name: "x".into(), target, message: "go home".into(), expires: None };
    [lock].into_iter().collect()
}

fn ann() -> LockTarget {
    LockTarget { user: Some(UserName::new("ann").unwrap()), ..LockTarget::default() }
}

fn is_ready(waiting: impl Future<Output = ()>) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::pin!(waiting).poll(&mut context).is_ready()
}

fn reasons(looked: &Looked) -> Vec<String> {
    looked.ended.iter().map(|(subject, reason)| format!("{}: {reason}", subject.user_name().unwrap())).collect()
}

// I79
#[test]
fn a_lock_ends_what_it_concerns_and_nothing_else_and_nothing_of_it_begins() {
    let World { policy, live, .. } = world();
    let first = live.enter(work("ann"), Terms::default()).unwrap();
    let other = live.enter(work("bob"), Terms::default()).unwrap();
    assert!(live.look().ended.is_empty());
    policy.replace(Policy { locks: locking(ann()), ..rules() });
    assert_eq!(reasons(&live.look()), ["ann: locked by an administrator (user ann): go home"]);
    assert!(live.look().ended.is_empty(), "each is told once");
    assert!(first.signal().reason().is_some() && other.signal().reason().is_none());
    assert!(matches!(live.enter(work("ann"), Terms::default()), Err(EndReason::Locked(_))));
    drop((first, other));
    assert!(live.is_empty());
}

// I79
#[test]
fn a_lock_of_a_proxy_ends_what_it_does_for_browsers_and_not_what_users_do_themselves() {
    for target in [r#"{"node":"p1"}"#, r#"{"server_id":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#] {
        let World { policy, live, .. } = world();
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        let by_proxy = Some(AppProxy { id, name: NodeName::new("p1").unwrap() });
        let proxied = live.enter(work_by("ann", by_proxy), Terms::default()).unwrap();
        let own = live.enter(work("ann"), Terms::default()).unwrap();
        policy.replace(Policy { locks: locking(serde_json::from_str(target).unwrap()), ..rules() });
        live.look();
        assert!(proxied.signal().reason().is_some() && own.signal().reason().is_none(), "{target}");
    }
}

// I50
#[tokio::test]
async fn the_end_of_a_session_with_an_application_ends_all_work_in_it_and_nothing_else() {
    let World { live, .. } = world();
    let id = |number| SessionId::from_uuid(uuid::Uuid::from_u128(number));
    let host = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
    let proxy = AppProxy { id: host, name: NodeName::new("p1").unwrap() };
    let enter = |subject| live.enter(subject, Terms::default()).unwrap();
    let begin = |number| enter(work_in("ann", Some(proxy.clone()), Some(id(number))));
    let (first, second, other) = (begin(1), begin(1), begin(2));
    // The name of a program's own session is drawn by the program, and may be that of another.
    let own = enter(work_in("ann", None, Some(id(1))));
    assert_eq!(live.sessions(), [id(1), id(2)].into());
    live.arrived().await;
    live.end_session(id(1), &EndReason::SessionEnded);
    assert!(is_ready(live.arrived()), "a look is wanted at once");
    let said = "ann: the session with the application has ended; open the application again";
    assert_eq!(reasons(&live.look()), [said, said]);
    assert!(live.look().ended.is_empty(), "each is told once");
    assert!([&first, &second].iter().all(|guard| guard.reason() == Some(&EndReason::SessionEnded)));
    assert!([&other, &own].iter().all(|guard| guard.reason().is_none()));
    drop((first, second));
    assert_eq!(live.sessions(), [id(2)].into());
    live.end_session(id(1), &EndReason::SessionEnded);
    assert!(!is_ready(live.arrived()), "there is nothing to look at");
}

#[test]
fn a_revoked_certificate_and_a_role_that_is_gone_end_work_and_a_replaced_authority_does_not() {
    let World { policy, live, .. } = world();
    let _work = live.enter(work("ann"), Terms::default()).unwrap();
    let mut trust = rules().trust;
    // No authority of `rules` is the one that signed.
    trust.revoked = ["ssh-user-8".parse().unwrap()].into_iter().collect::<Revocations>();
    policy.replace(Policy { trust: trust.clone(), ..rules() });
    assert!(live.look().ended.is_empty());
    trust.revoked = ["ssh-user-7".parse().unwrap()].into_iter().collect::<Revocations>();
    policy.replace(Policy { trust, ..rules() });
    assert_eq!(reasons(&live.look()), ["ann: the certificate was revoked (ssh-user-7); ask an administrator why"]);
    policy.replace(rules());
    let _work = live.enter(work("bob"), Terms::default()).unwrap();
    policy.replace(Policy { roles: BTreeMap::new(), ..rules() });
    assert_eq!(reasons(&live.look()), ["bob: role dev does not exist any more; log in again"]);
}

// I78
#[test]
fn work_ends_with_its_certificate_where_that_is_set_and_not_before() {
    let World { policy, clock, live } = world();
    let ends = Terms { ends_with_certificate: true, ..Terms::default() };
    let (_first, _second) =
        (live.enter(work("ann"), ends).unwrap(), live.enter(work("bob"), Terms::default()).unwrap());
    let looked = live.look();
    assert_eq!(looked.next, Some(Duration::from_secs(1000)));
    clock.set(Timestamp::from_unix_millis(END * 1000 - 1));
    assert!(live.look().ended.is_empty());
    clock.set(Timestamp::from_unix_seconds(END));
    assert_eq!(reasons(&live.look()), [format!("ann: the certificate expired at {}; log in again", clock.now())]);
    let settings = ClusterSettings { disconnect_expired_cert: true, ..ClusterSettings::default() };
    policy.replace(Policy { settings, ..rules() });
    assert_eq!(live.look().ended.len(), 1);
}

#[test]
fn silence_ends_work_and_each_sign_of_life_begins_anew() {
    let World { clock, live, .. } = world();
    let terms = Terms { idle: Some(Duration::from_secs(30)), ..Terms::default() };
    let guard = live.enter(work("ann"), terms).unwrap();
    for _ in 0..5 {
        clock.advance(Duration::from_secs(29));
        assert!(live.look().ended.is_empty());
        guard.signal().touch();
        assert_eq!(live.look().next, Some(Duration::from_secs(30)));
    }
    clock.advance(Duration::from_millis(29_999));
    assert!(live.look().ended.is_empty());
    clock.advance(Duration::from_millis(1));
    assert_eq!(reasons(&live.look()), ["ann: nothing happened for 30 s"]);
}

#[test]
fn a_user_has_no_more_connections_of_a_kind_than_allowed_and_one_that_ends_makes_room() {
    let World { live, .. } = world();
    let of = |kind| Terms { connection: Some((kind, Some(2))), ..Terms::default() };
    let ssh = of(ConnectionKind::Ssh);
    let (first, _second) = (live.enter(work("ann"), ssh).unwrap(), live.enter(work("ann"), ssh).unwrap());
    assert!(matches!(live.enter(work("ann"), ssh), Err(EndReason::TooMany(2))));
    let _other = live.enter(work("bob"), ssh).unwrap();
    let _kube = live.enter(work("ann"), of(ConnectionKind::Kube)).unwrap();
    drop(first);
    let _third = live.enter(work("ann"), ssh).unwrap();
    assert!(live.enter(work("ann"), ssh).is_err());
}

#[test]
fn who_cannot_say_why_is_told_later_and_not_at_all_when_the_lock_is_gone_by_then() {
    let World { policy, clock, live } = world();
    let terms = Terms { grace: Duration::from_secs(1), ..Terms::default() };
    let guard = live.enter(work("ann"), terms).unwrap();
    policy.replace(Policy { locks: locking(ann()), ..rules() });
    let looked = live.look();
    assert!(looked.ended.is_empty() && looked.next == Some(Duration::from_secs(1)));
    policy.replace(rules());
    live.look();
    clock.advance(Duration::from_secs(2));
    assert!(live.look().ended.is_empty());
    policy.replace(Policy { locks: locking(ann()), ..rules() });
    assert!(live.look().ended.is_empty());
    clock.advance(Duration::from_secs(1));
    assert_eq!(live.look().ended.len(), 1);
    assert!(guard.signal().reason().is_some());
}

/// Counts who asks, and has room for one more than it was told.
#[derive(Default)]
struct Elsewhere {
    asked: Mutex<Vec<String>>,
    places: Arc<Mutex<usize>>,
}

struct Taken(Arc<Mutex<usize>>);

impl Drop for Taken {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

#[async_trait::async_trait]
impl ConnectionCount for Elsewhere {
    async fn take(&self, user: UserName, _: ConnectionKind, limit: u32, _: LockMode) -> Result<Place, EndReason> {
        self.asked.lock().unwrap().push(user.to_string());
        let mut places = self.places.lock().unwrap();
        *places = places.checked_sub(1).ok_or(EndReason::TooMany(limit))?;
        Ok(Box::new(Taken(self.places.clone())))
    }
}

#[tokio::test]
async fn a_connection_with_a_limit_is_counted_elsewhere_and_one_without_asks_nobody() {
    let World { policy, clock, .. } = world();
    let elsewhere = Arc::new(Elsewhere { places: Arc::new(Mutex::new(1)), ..Elsewhere::default() });
    let live = LiveWork::counted_by(policy.clone(), clock, elsewhere.clone());
    let terms = |limit| Terms { connection: Some((ConnectionKind::Ssh, limit)), ..Terms::default() };
    let mode = LockMode::BestEffort;
    let _free = live.enter_connection(work("bob"), terms(None), mode).await.unwrap();
    assert!(elsewhere.asked.lock().unwrap().is_empty());

    let first = live.enter_connection(work("ann"), terms(Some(5)), mode).await.unwrap();
    assert_eq!(live.enter_connection(work("ann"), terms(Some(5)), mode).await.err(), Some(EndReason::TooMany(5)));
    assert_eq!(live.len(), 2);
    drop(first);
    assert_eq!(*elsewhere.places.lock().unwrap(), 1, "the place is free when the connection has ended");

    // What this process can say itself is not asked.
    let _only = live.enter_connection(work("ann"), terms(Some(1)), mode).await.unwrap();
    assert_eq!(live.enter_connection(work("ann"), terms(Some(1)), mode).await.err(), Some(EndReason::TooMany(1)));
    assert_eq!(elsewhere.asked.lock().unwrap().len(), 3);

    // Rules that changed meanwhile: it does not begin, and keeps no place.
    *elsewhere.places.lock().unwrap() = 1;
    policy.replace(Policy { locks: locking(ann()), ..rules() });
    assert!(matches!(live.enter_connection(work("ann"), terms(Some(9)), mode).await, Err(EndReason::Locked(_))));
    assert_eq!(*elsewhere.places.lock().unwrap(), 1);
}
