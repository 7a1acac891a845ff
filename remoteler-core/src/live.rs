//! What runs now on the strength of a decision: sessions, forwards, links, requests under way. Owns the table of it, and the rule by which
//! it ends: a lock, a revocation, a role that is gone, a certificate's end, silence. Opens nothing, closes nothing and waits for nothing: whoever
//! does the work holds a [`LiveGuard`] and stops when that says so, and somebody calls [`LiveWork::look`] when the rules or the time have changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    Clock, ClusterName, HostId, KubeClusterName, LockContext, Locked, Login, NodeRecord, Policy, PolicySource,
    RevocationTarget, RoleName, ShownCertificate, Timestamp, UserName, VerifiedHost, VerifiedUser,
};

/// Why work that was allowed has to end. The text is for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// It is locked.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// Its certificate is revoked.
    #[error("the certificate was revoked ({0}); ask an administrator why")]
    Revoked(RevocationTarget),
    /// A role of it is gone, and with it the knowledge of what that denied.
    #[error("role {0} does not exist any more; log in again")]
    RoleGone(RoleName),
    /// Its certificate has ended, and the rules say that this ends it.
    #[error("the certificate expired at {0}; log in again")]
    Expired(Timestamp),
    /// The user has as many connections as their roles allow. Said at the beginning only.
    #[error("{0} of your connections are open, and your roles allow no more; close one")]
    TooMany(u32),
    /// Nothing happened in it.
    #[error("nothing happened for {} s", .0.as_secs())]
    Idle(Duration),
}

/// Whose work it is, and where, as the rule sees it.
#[derive(Clone, Debug)]
pub struct Subject {
    who: Who,
    shown: ShownCertificate,
    login: Option<Login>,
    node: (Option<Box<str>>, Option<HostId>),
    kube_cluster: Option<KubeClusterName>,
}

#[derive(Clone, Debug)]
enum Who {
    User { name: UserName, roles: BTreeSet<RoleName>, cluster: ClusterName, expires: Timestamp },
    Host { cluster: ClusterName },
}

impl Subject {
    /// The work of a user.
    #[must_use]
    pub fn user(user: &VerifiedUser) -> Self {
        let identity = user.identity();
        let (name, roles, cluster) = (identity.user.clone(), identity.roles.clone(), identity.cluster.clone());
        let who = Who::User { name, roles, cluster, expires: user.expires() };
        Self { who, shown: *user.shown(), login: None, node: (None, None), kube_cluster: None }
    }

    /// The work of a host.
    #[must_use]
    pub fn host(host: &VerifiedHost) -> Self {
        let identity = host.identity();
        let node = (Some(identity.name.as_str().into()), Some(identity.id));
        let who = Who::Host { cluster: identity.cluster.clone() };
        Self { who, shown: *host.shown(), login: None, node, kube_cluster: None }
    }

    /// As this account.
    #[must_use]
    pub fn login(self, login: Login) -> Self {
        Self { login: Some(login), ..self }
    }

    /// On this node.
    #[must_use]
    pub fn node(self, node: &NodeRecord) -> Self {
        self.at(Some(node.name.as_str()), Some(node.host_id))
    }

    /// On the host of this name, this id, or both.
    #[must_use]
    pub fn at(self, name: Option<&str>, id: Option<HostId>) -> Self {
        Self { node: (name.map(Into::into), id), ..self }
    }

    /// In this Kubernetes cluster.
    #[must_use]
    pub fn kube(self, kube_cluster: KubeClusterName) -> Self {
        Self { kube_cluster: Some(kube_cluster), ..self }
    }

    /// The user's name; `None` for the work of a host.
    #[must_use]
    pub const fn user_name(&self) -> Option<&UserName> {
        match &self.who {
            Who::User { name, .. } => Some(name),
            Who::Host { .. } => None,
        }
    }

    /// As which account, where that is known.
    #[must_use]
    pub const fn login_name(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Where: a node's or Kubernetes cluster's name, or a host id; empty when that is not known.
    #[must_use]
    pub fn place(&self) -> String {
        let kube = self.kube_cluster.as_ref().map(ToString::to_string);
        let name = || self.node.0.as_ref().map(ToString::to_string);
        kube.or_else(name).or_else(|| self.node.1.map(|id| id.to_string())).unwrap_or_default()
    }

    fn context(&self) -> LockContext<'_> {
        let (name, id) = (self.node.0.as_deref(), self.node.1);
        let context = match &self.who {
            Who::User { name: user, roles, cluster, .. } => {
                LockContext::of_holder(user, roles, cluster, Some(&self.shown))
            }
            Who::Host { cluster } => LockContext::of_certificate(cluster, &self.shown),
        };
        let context = context.host(name, id);
        let context = match &self.login {
            Some(login) => context.login(login),
            None => context,
        };
        match &self.kube_cluster {
            Some(kube) => context.kube(kube),
            None => context,
        }
    }

    /// What ends it by `policy` alone. That its authority was replaced does not: a rotation ends nothing.
    fn ends_by(&self, policy: &Policy) -> Option<EndReason> {
        if let Some(lock) = policy.locks.concerning(&self.context()) {
            return Some(Locked::By(lock.clone()).into());
        }
        if let Some(revoked) = policy.trust.revoked.of(&self.shown) {
            return Some(EndReason::Revoked(revoked));
        }
        let Who::User { roles, .. } = &self.who else { return None };
        roles.iter().find(|role| !policy.roles.contains_key(*role)).cloned().map(EndReason::RoleGone)
    }

    fn is_of_user_of(&self, other: &Self) -> bool {
        match (&self.who, &other.who) {
            (Who::User { name, cluster, .. }, Who::User { name: other, cluster: of, .. }) => {
                name == other && cluster == of
            }
            (Who::User { .. } | Who::Host { .. }, _) => false,
        }
    }

    const fn expires(&self) -> Option<Timestamp> {
        match self.who {
            Who::User { expires, .. } => Some(expires),
            Who::Host { .. } => None,
        }
    }
}

/// What else ends a piece of work, beside the rules of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Ends with its certificate, whatever the cluster's settings say.
    pub ends_with_certificate: bool,
    /// Ends when nothing has happened for so long ([`LiveSignal::touch`]).
    pub idle: Option<Duration>,
    /// Is told so much later, so that those who can say why end it first.
    pub grace: Duration,
    /// Is one of a user's connections of this kind, of which there may be so many.
    pub connection: Option<(ConnectionKind, Option<u32>)>,
}

/// What roles count the connections of a user by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// `max_connections`.
    Ssh,
    /// `max_kubernetes_connections`.
    Kube,
}

/// All live work of one process. One for all its services.
pub struct LiveWork {
    policy: Arc<dyn PolicySource>,
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
    arrived: Notify,
}

#[derive(Default)]
struct Table {
    next: u64,
    slots: BTreeMap<u64, Slot>,
}

struct Slot {
    entry: Arc<Entry>,
    /// Something happened then, or was looked for first.
    active: Timestamp,
    /// Has to end since then, and why.
    condemned: Option<(Timestamp, EndReason)>,
}

struct Entry {
    subject: Subject,
    terms: Terms,
    touched: AtomicBool,
    ended: OnceLock<EndReason>,
    told: Notify,
}

/// What was ended by one look, and how long nothing else will be due by the clock alone.
#[derive(Debug, Default)]
pub struct Looked {
    /// What was told to end.
    pub ended: Vec<(Subject, EndReason)>,
    /// When to look again at the latest; `None`: when the rules change.
    pub next: Option<Duration>,
}

impl LiveWork {
    /// For services that decide by `policy` and live by `clock`.
    #[must_use]
    pub fn new(policy: Arc<dyn PolicySource>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { policy, clock, table: Mutex::default(), arrived: Notify::new() })
    }

    /// The rules that it is measured by.
    #[must_use]
    pub const fn policy(&self) -> &Arc<dyn PolicySource> {
        &self.policy
    }

    /// Puts work into the table that was allowed just now.
    ///
    /// # Errors
    /// [`EndReason`]: the rules have changed since it was allowed, or the user has as many connections as they may, and it must not begin.
    pub fn enter(self: &Arc<Self>, subject: Subject, terms: Terms) -> Result<LiveGuard, EndReason> {
        let (touched, ended, told) = (AtomicBool::new(false), OnceLock::new(), Notify::new());
        let entry = Arc::new(Entry { subject, terms, touched, ended, told });
        let active = self.clock.now();
        let id = {
            let mut table = self.lock();
            if let Some((kind, Some(limit))) = terms.connection
                && table.connections(&entry.subject, kind) >= usize::try_from(limit).unwrap_or(usize::MAX)
            {
                return Err(EndReason::TooMany(limit));
            }
            table.next += 1;
            let id = table.next;
            table.slots.insert(id, Slot { entry: entry.clone(), active, condemned: None });
            id
        };
        let guard = LiveGuard { work: self.clone(), id, entry };
        // Only now: a change from here on finds it in the table.
        match guard.entry.subject.ends_by(&self.policy.policy()) {
            Some(reason) => Err(reason),
            None => {
                self.arrived.notify_one();
                Ok(guard)
            }
        }
    }

    /// Waits until something was put in that may have to end by time alone, and sooner than what was there.
    ///
    /// # Cancel safety
    /// Nothing is lost with a dropped future.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Ends what has to end by the rules and the time as they are now.
    pub fn look(&self) -> Looked {
        let (policy, now) = (self.policy.policy(), self.clock.now());
        let mut looked = Looked::default();
        for slot in self.lock().slots.values_mut() {
            slot.look(&policy, now, &mut looked);
        }
        looked
    }

    /// How much there is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LiveWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveWork").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// How many connections of one kind the subject's user has (I32).
    fn connections(&self, subject: &Subject, kind: ConnectionKind) -> usize {
        let counts = |entry: &Entry| {
            let same = entry.terms.connection.is_some_and(|(of, _)| of == kind);
            same && entry.ended.get().is_none() && entry.subject.is_of_user_of(subject)
        };
        self.slots.values().filter(|slot| counts(&slot.entry)).count()
    }
}

impl Slot {
    fn look(&mut self, policy: &Policy, now: Timestamp, looked: &mut Looked) {
        if self.entry.ended.get().is_some() {
            return;
        }
        if self.entry.touched.swap(false, Ordering::Relaxed) {
            self.active = now;
        }
        let terms = &self.entry.terms;
        let mut due = None;
        let mut wait_until = |moment: Timestamp| due = Some(due.map_or(moment, |due: Timestamp| due.min(moment)));
        let expires = self
            .entry
            .subject
            .expires()
            .filter(|_| terms.ends_with_certificate || policy.settings.disconnect_expired_cert);
        let reason = match self.entry.subject.ends_by(policy) {
            Some(reason) => Some(reason),
            None if expires.is_some_and(|end| end <= now) => expires.map(EndReason::Expired),
            None => match terms.idle {
                Some(idle) if self.active.plus(idle) <= now => Some(EndReason::Idle(idle)),
                idle => {
                    expires.into_iter().chain(idle.map(|idle| self.active.plus(idle))).for_each(&mut wait_until);
                    None
                }
            },
        };
        match reason {
            // What was locked and is not any more, before it was told, goes on.
            None => self.condemned = None,
            Some(reason) => {
                let (since, reason) = self.condemned.take().unwrap_or((now, reason));
                let end = since.plus(terms.grace);
                if end <= now {
                    looked.ended.push((self.entry.subject.clone(), reason.clone()));
                    self.entry.end(reason);
                } else {
                    self.condemned = Some((since, reason));
                    wait_until(end);
                }
            }
        }
        if let Some(due) = due {
            let wait = due.since(now);
            looked.next = Some(looked.next.map_or(wait, |next| next.min(wait)));
        }
    }
}

impl Entry {
    fn end(&self, reason: EndReason) {
        // The first reason stays.
        let _ = self.ended.set(reason);
        self.told.notify_waiters();
    }
}

/// A piece of live work. Leaves the table when dropped.
pub struct LiveGuard {
    work: Arc<LiveWork>,
    id: u64,
    entry: Arc<Entry>,
}

impl LiveGuard {
    /// Why the work has to end, if it has to.
    #[must_use]
    pub fn reason(&self) -> Option<&EndReason> {
        self.entry.ended.get()
    }

    /// For those who do parts of the work.
    #[must_use]
    pub fn signal(&self) -> LiveSignal {
        LiveSignal(self.entry.clone())
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.work.lock().slots.remove(&self.id);
    }
}

impl fmt::Debug for LiveGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveGuard").field("id", &self.id).field("ended", &self.entry.ended.get()).finish()
    }
}

/// Says when a piece of work has to end, and is told that something happens in it. Clones are the same.
#[derive(Clone)]
pub struct LiveSignal(Arc<Entry>);

impl LiveSignal {
    /// Something happened: the work is not idle. Cheap enough for each piece of data.
    pub fn touch(&self) {
        if self.0.terms.idle.is_some() && !self.0.touched.load(Ordering::Relaxed) {
            self.0.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Why it has to end, if it has to.
    #[must_use]
    pub fn reason(&self) -> Option<&EndReason> {
        self.0.ended.get()
    }

    /// Waits until it has to end.
    ///
    /// # Cancel safety
    /// Nothing is lost with a dropped future.
    pub async fn ended(&self) -> EndReason {
        loop {
            let told = self.0.told.notified();
            tokio::pin!(told);
            // In the list before the look, so that no end falls between the two.
            told.as_mut().enable();
            if let Some(reason) = self.0.ended.get() {
                return reason.clone();
            }
            told.await;
        }
    }
}

impl fmt::Debug for LiveSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveSignal").field(&self.0.ended.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CaKind, CaSet, ClusterSettings, Lock, LockTarget, Locks, ManualClock, Revocations, Role, RoleSpec,
        SharedPolicy, TrustBundle, UserIdentity,
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
        Subject::user(&VerifiedUser::new(identity, Timestamp::from_unix_seconds(END), "7".into(), shown))
            .login(Login::new("root").unwrap())
            .at(Some("edge"), None)
    }

    fn locking(target: LockTarget) -> Locks {
        let lock = Lock { name: "x".into(), target, message: "go home".into(), expires: None };
        [lock].into_iter().collect()
    }

    fn ann() -> LockTarget {
        LockTarget { user: Some(UserName::new("ann").unwrap()), ..LockTarget::default() }
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
}
