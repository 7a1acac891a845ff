//! Properties of the access decisions over generated roles, labels and logins.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::*;
use crate::{
    CaSet, ClusterName, ConditionsSpec, HostId, Labels, OneOrMany, OptionsSpec, PortForwardingSpec, Role, RoleSpec,
    RuleSpec, TrustBundle, UserIdentity, UserName, Verb, authorize_rule, verify::Behind,
};

const LOGINS: &[&str] = &["root", "ubuntu", "deploy"];
const ENVS: &[&str] = &["dev", "staging", "prod"];
const GROUPS: &[&str] = &["developers", "viewers", "system:masters"];

proptest! {
    #[test]
    fn an_allowed_login_is_denied_by_no_role_and_allowed_by_one(case in cases()) {
        let decision = case.ssh();
        let env = case.env.as_str();
        let names = |conditions: &ConditionsSpec| conditions.logins.iter().any(|login| *login == case.login || login == "*");
        let denied = case.roles.iter().any(|role| covers(&role.deny.node_labels, env) || names(&role.deny));
        let allowed = case.roles.iter().any(|role| covers(&role.allow.node_labels, env) && names(&role.allow));
        prop_assert_eq!(decision.is_ok(), allowed && !denied); // I80
    }

    #[test]
    fn a_certificate_for_one_kubernetes_cluster_opens_that_one_as_a_login_does_and_nothing_else(case in cases()) {
        let at = |name: &str| case.user().restricted(OnlyAt::KubeCluster(KubeClusterName::new(name).unwrap()));
        prop_assert!(case.ssh_by(&at("staging")).is_err()); // I1
        prop_assert!(case.kube_by(&at("production")).is_err()); // I1
        prop_assert_eq!(case.kube_by(&at("staging")).is_ok(), case.kube().is_ok());
    }

    #[test]
    fn adding_a_denial_to_any_role_never_opens_anything(case in cases(), at in any::<prop::sample::Index>(), deny in conditions()) {
        let mut stricter = case.clone();
        if !stricter.roles.is_empty() {
            let at = at.index(stricter.roles.len());
            let role = &mut stricter.roles[at];
            role.deny.logins.extend(deny.logins);
            // Labels are replaced only where there were none: more conditions in one matcher make it narrower.
            if role.deny.node_labels.is_empty() {
                role.deny.node_labels = deny.node_labels;
            }
            role.deny.kubernetes_groups.extend(deny.kubernetes_groups);
            role.deny.rules.extend(deny.rules);
        }
        prop_assert!(case.ssh().is_ok() || stricter.ssh().is_err()); // I80
        prop_assert!(case.kube().is_ok() || stricter.kube().is_err());
        prop_assert!(case.rule().is_some() || stricter.rule().is_none());
        if let (Ok(before), Ok(after)) = (case.kube(), stricter.kube()) {
            prop_assert!(after.impersonate_groups().iter().all(|group| before.impersonate_groups().contains(group)));
        }
    }

    #[test]
    fn one_more_role_never_lifts_a_limit_nor_takes_an_ability(case in cases(), extra in role()) {
        let mut more = case.clone();
        more.roles.push(extra);
        if let (Ok(before), Ok(after)) = (case.ssh(), more.ssh()) {
            let (before, after) = (before.options(), after.options());
            prop_assert!(after.max_session_ttl <= before.max_session_ttl); // I6
            prop_assert!(after.disconnect_expired_cert >= before.disconnect_expired_cert);
            prop_assert!(after.ssh_file_copy <= before.ssh_file_copy);
            prop_assert!(before.max_connections.is_none_or(|most| after.max_connections.is_some_and(|now| now <= most)));
            prop_assert!(after.forward_agent >= before.forward_agent);
            prop_assert!(after.port_forwarding.local.allowed() >= before.port_forwarding.local.allowed());
            prop_assert!(after.port_forwarding.remote.allowed() >= before.port_forwarding.remote.allowed());
        }
    }

    #[test]
    fn a_role_that_does_not_allow_the_login_limits_it_and_gives_it_nothing(case in cases(), extra in role()) {
        let mut more = case.clone();
        more.roles.push(RoleSpec { options: extra.options, ..RoleSpec::default() });
        if let Ok(before) = case.ssh() {
            let after = more.ssh().unwrap();
            let (before, after) = (before.options(), after.options());
            let limit = Role::new(role_name(99), more.roles.last().unwrap()).unwrap();
            prop_assert_eq!(*after, before.limited_by(*limit.options())); // I80
            prop_assert!(after.forward_agent <= before.forward_agent);
        }
    }

    #[test]
    fn a_role_that_is_gone_refuses_everything(mut case in cases()) {
        case.missing_role = true;
        let reason = case.ssh().map_err(|denied| denied.reason).err();
        prop_assert_eq!(reason, Some(DenyReason::UnknownRole(RoleName::new("gone").unwrap()))); // I80
        prop_assert!(case.kube().is_err());
        prop_assert!(case.rule().is_none());
    }

    // I49
    #[test]
    fn a_session_needs_a_second_factor_when_one_role_that_allows_it_says_so_and_opens_with_that_and_no_other(
        case in cases(), strict in vec(any::<bool>(), 4), by_cluster in any::<bool>(),
    ) {
        let mut wanting = case.clone();
        for (role, strict) in wanting.roles.iter_mut().zip(&strict) {
            role.options.require_session_mfa = strict.then(|| "yes".to_owned());
        }
        let mut policy = wanting.policy();
        policy.settings.require_session_mfa = by_cluster;
        let allows = |role: &RoleSpec| {
            let named = role.allow.logins.iter().any(|login| *login == case.login || login == "*");
            covers(&role.allow.node_labels, &case.env) && named
        };
        let by_role = wanting.roles.iter().any(|role| role.options.require_session_mfa.is_some() && allows(role));
        let (user, node, login) = (wanting.user(), wanting.node(), Login::new(&wanting.login).unwrap());
        let plain = authorize_ssh(&user, &policy, &node, &login);
        let before = case.ssh();
        match (&before, by_role || by_cluster) {
            (Ok(_), true) => prop_assert_eq!(plain.unwrap_err().reason, DenyReason::SessionMfaNeeded),
            (Ok(_), false) => prop_assert_eq!(plain.unwrap().with_mfa(), None),
            (Err(denied), _) => prop_assert_eq!(&plain.unwrap_err().reason, &denied.reason),
        }
        let (session, until) = (SessionId::from_uuid(uuid::Uuid::from_u128(1)), Timestamp::from_unix_seconds(60));
        let target = SessionTarget::Node { host_id: node.host_id, login: login.clone() };
        let proof = SessionProof::new(session, user.identity().user.clone(), target, until);
        let proven = |session, now| authorize_ssh_proven(&user, &policy, &node, &login, (&proof, session, now));
        let opened = proven(session, Timestamp::default());
        prop_assert_eq!(opened.is_ok(), before.is_ok());
        prop_assert!(opened.is_err() || opened.unwrap().with_mfa() == Some(session));
        prop_assert!(proven(SessionId::from_uuid(uuid::Uuid::from_u128(2)), Timestamp::default()).is_err());
        prop_assert!(proven(session, until).is_err());
        let elsewhere = NodeRecord { host_id: "67e55044-10b1-426f-9247-bb680e5fe0c9".parse().unwrap(), ..node.clone() };
        prop_assert!(authorize_ssh_proven(&user, &policy, &elsewhere, &login, (&proof, session, Timestamp::default())).is_err());
    }

    // I49
    #[test]
    fn a_certificate_with_a_second_factor_opens_its_kubernetes_cluster_and_a_login_does_not(case in cases()) {
        let mut wanting = case.clone();
        wanting.roles.iter_mut().for_each(|role| role.options.require_session_mfa = Some("yes".into()));
        let proven = |name: &str| {
            let name = KubeClusterName::new(name).unwrap();
            let target = SessionTarget::KubeCluster { name: name.clone() };
            let (session, end) = (SessionId::from_uuid(uuid::Uuid::from_u128(1)), Timestamp::from_unix_seconds(60));
            let proof = SessionProof::new(session, UserName::new("ann").unwrap(), target, end);
            let behind = Behind { proof: Some(proof), app_session: None, app_proxy: None, login_expires: end };
            wanting.user().restricted(OnlyAt::KubeCluster(name)).with(behind)
        };
        prop_assert!(wanting.kube().is_err());
        prop_assert!(wanting.kube_by(&proven("production")).is_err());
        prop_assert_eq!(wanting.kube_by(&proven("staging")).is_ok(), case.kube().is_ok());
        prop_assert!(wanting.ssh_by(&proven("staging")).is_err());
        if case.kube().is_ok() {
            prop_assert_eq!(wanting.kube().unwrap_err().reason, DenyReason::SessionMfaNeeded);
        }
    }

    #[test]
    fn an_allowed_application_is_denied_by_no_role_and_allowed_by_one(mut case in cases()) {
        // The labels that roles have for nodes, for applications.
        for role in &mut case.roles {
            (role.allow.app_labels, role.deny.app_labels) = (role.allow.node_labels.clone(), role.deny.node_labels.clone());
        }
        let env = case.env.as_str();
        let denied = case.roles.iter().any(|role| covers(&role.deny.node_labels, env));
        let allowed = case.roles.iter().any(|role| covers(&role.allow.node_labels, env));
        let decision = case.app_by(&case.user());
        prop_assert_eq!(decision.is_ok(), allowed && !denied && !case.missing_role);
        let granted = grant_app(case.user().identity(), &case.policy(), &AppRecord { labels: case.node_labels.clone(), ..app("billing") });
        prop_assert_eq!(granted.is_ok(), decision.is_ok());
        if let (Ok(granted), Ok(access)) = (granted, decision) {
            prop_assert_eq!((granted.role(), granted.options()), (access.role(), access.options()));
        }
    }

    #[test]
    fn a_certificate_for_one_application_opens_that_one_as_a_login_does_and_nothing_else(mut case in cases()) {
        case.roles.iter_mut().for_each(|role| role.allow.app_labels = role.allow.node_labels.clone());
        let at = |name: &str| case.user().restricted(OnlyAt::App(AppName::new(name).unwrap()));
        prop_assert!(case.ssh_by(&at("billing")).is_err()); // I1
        prop_assert!(case.kube_by(&at("billing")).is_err()); // I1
        prop_assert!(case.app_by(&at("wiki")).is_err()); // I51
        prop_assert_eq!(case.app_by(&at("billing")).is_ok(), case.app_by(&case.user()).is_ok());
        let kube = case.user().restricted(OnlyAt::KubeCluster(KubeClusterName::new("billing").unwrap()));
        prop_assert!(case.app_by(&kube).is_err()); // I1
    }

    // I49
    #[test]
    fn a_second_factor_for_one_application_opens_that_one_and_a_login_does_not(mut case in cases()) {
        case.roles.iter_mut().for_each(|role| role.allow.app_labels = role.allow.node_labels.clone());
        let mut wanting = case.clone();
        wanting.roles.iter_mut().for_each(|role| role.options.require_session_mfa = Some("yes".into()));
        let proven = |name: &str| {
            let name = AppName::new(name).unwrap();
            let target = SessionTarget::App { name: name.clone() };
            let (session, end) = (SessionId::from_uuid(uuid::Uuid::from_u128(1)), Timestamp::from_unix_seconds(60));
            let proof = SessionProof::new(session, UserName::new("ann").unwrap(), target, end);
            let behind = Behind { proof: Some(proof), app_session: Some(session), app_proxy: None, login_expires: end };
            wanting.user().restricted(OnlyAt::App(name)).with(behind)
        };
        let open = case.app_by(&case.user()).is_ok();
        prop_assert!(wanting.app_by(&proven("wiki")).is_err());
        prop_assert_eq!(wanting.app_by(&proven("billing")).is_ok(), open);
        if open {
            prop_assert_eq!(wanting.app_by(&wanting.user()).unwrap_err().reason, DenyReason::SessionMfaNeeded);
            let record = AppRecord { labels: case.node_labels.clone(), ..app("billing") };
            let granted = grant_app(wanting.user().identity(), &wanting.policy(), &record).unwrap();
            prop_assert!(granted.needs_session_mfa());
        }
    }

    #[test]
    fn a_login_outside_the_certificate_is_refused_whatever_roles_say(mut case in cases()) {
        case.logins.retain(|login| *login != case.login);
        prop_assert_eq!(case.ssh().map_err(|denied| denied.reason).err(), Some(DenyReason::LoginNotInCertificate));
    }

    #[test]
    fn what_is_impersonated_is_never_empty_and_never_denied(case in cases()) {
        if let Ok(access) = case.kube() {
            prop_assert!(!access.impersonate_user().is_empty()); // I56
            prop_assert!(!access.impersonate_groups().is_empty()); // I56
            for role in &case.roles {
                prop_assert!(!access.impersonate_groups().iter().any(|group| role.deny.kubernetes_groups.contains(group)));
            }
        }
    }

    #[test]
    fn a_trait_that_is_no_header_value_is_never_impersonated(value in "\\PC{0,8}[\\x00-\\x20\\x7f,\"\u{e9}\u{2028}]\\PC{0,8}") {
        let mut case = Case::plain();
        case.roles[0].allow.kubernetes_groups = vec!["{{external.team}}".into()];
        case.traits.insert("team".into(), vec![value.clone()]);
        if let Ok(access) = case.kube() {
            for group in access.impersonate_groups() {
                prop_assert!(group.bytes().all(|octet| (0x20..0x7f).contains(&octet)), "{:?}", group); // I57
                prop_assert!(!group.starts_with(' ') && !group.ends_with(' '), "{:?}", group);
            }
        }
    }
}

#[test]
fn what_the_user_is_told_names_no_role() {
    let mut case = Case::plain();
    case.roles[0].deny.logins = vec!["root".into()];
    let denied = case.ssh().unwrap_err();
    assert_eq!(denied.reason, DenyReason::DeniedBy(RoleName::new("role-0").unwrap()));
    assert!(!denied.public().contains("role-0"), "{}", denied.public());
}

#[test]
fn an_unlabelled_node_is_reached_only_by_everything() {
    let mut case = Case::plain();
    case.node_labels = Labels::new();
    assert!(case.ssh().is_ok());
    case.roles[0].allow.node_labels = [("env".into(), OneOrMany::One("*".into()))].into();
    assert!(case.ssh().is_err()); // I80
}

#[derive(Clone, Debug)]
struct Case {
    roles: Vec<RoleSpec>,
    missing_role: bool,
    logins: Vec<String>,
    login: String,
    env: String,
    node_labels: Labels,
    traits: crate::Traits,
}

fn app(name: &str) -> AppRecord {
    AppRecord {
        host_id: host_id(),
        name: AppName::new(name).unwrap(),
        public_addr: None,
        labels: labels("dev"),
        version: "1".into(),
        addr: None,
        last_seen: Timestamp::default(),
        heartbeat: Default::default(),
    }
}

impl Case {
    /// One role that allows everything to `root`.
    fn plain() -> Self {
        let everything: BTreeMap<_, _> = [("*".to_owned(), OneOrMany::One("*".into()))].into();
        let allow = ConditionsSpec {
            logins: vec!["root".into()],
            node_labels: everything.clone(),
            kubernetes_labels: everything,
            kubernetes_groups: vec!["developers".into()],
            ..ConditionsSpec::default()
        };
        Self {
            roles: vec![RoleSpec { allow, ..RoleSpec::default() }],
            missing_role: false,
            logins: vec!["root".into()],
            login: "root".into(),
            env: "dev".into(),
            node_labels: labels("dev"),
            traits: crate::Traits::new(),
        }
    }

    fn ssh(&self) -> Result<SshAccess, AccessDenied> {
        self.ssh_by(&self.user())
    }

    fn node(&self) -> NodeRecord {
        NodeRecord {
            host_id: host_id(),
            name: NodeName::new("web-1").unwrap(),
            labels: self.node_labels.clone(),
            addr: None,
            version: "1".into(),
            last_seen: Timestamp::default(),
            heartbeat: Default::default(),
        }
    }

    fn ssh_by(&self, user: &VerifiedUser) -> Result<SshAccess, AccessDenied> {
        authorize_ssh(user, &self.policy(), &self.node(), &Login::new(&self.login).unwrap())
    }

    /// With the labels of its node.
    fn app_by(&self, user: &VerifiedUser) -> Result<AppAccess, AccessDenied> {
        let record = AppRecord { labels: self.node_labels.clone(), ..app("billing") };
        authorize_app(user, &self.policy(), &record)
    }

    fn kube(&self) -> Result<KubeAccess, AccessDenied> {
        self.kube_by(&self.user())
    }

    fn kube_by(&self, user: &VerifiedUser) -> Result<KubeAccess, AccessDenied> {
        let kube = KubeRecord {
            host_id: host_id(),
            name: KubeClusterName::new("staging").unwrap(),
            labels: self.node_labels.clone(),
            addr: None,
            version: "1".into(),
            last_seen: Timestamp::default(),
            heartbeat: Default::default(),
        };
        authorize_kube(user, &self.policy(), &kube)
    }

    fn rule(&self) -> Option<crate::RuleAccess> {
        authorize_rule(self.user().identity(), &self.policy(), "session", Verb::Read)
    }

    fn user(&self) -> VerifiedUser {
        let mut roles: std::collections::BTreeSet<_> = (0..self.roles.len()).map(role_name).collect();
        if self.missing_role {
            roles.insert(RoleName::new("gone").unwrap());
        }
        let identity = UserIdentity {
            user: UserName::new("ann").unwrap(),
            cluster: ClusterName::new("root").unwrap(),
            roles,
            traits: self.traits.clone(),
            logins: self.logins.iter().map(|login| Login::new(login).unwrap()).collect(),
        };
        let key = crate::RevocationTarget::SshKey([0; 32]);
        let shown = crate::ShownCertificate { authority: crate::CaKind::User, authority_key: key, serial: None, key };
        VerifiedUser::new(identity, Timestamp::from_unix_seconds(1), "1".into(), shown)
    }

    fn policy(&self) -> Policy {
        let none = CaSet { ssh: Vec::new(), x509: Vec::new() };
        let trust = TrustBundle::new(ClusterName::new("root").unwrap(), none.clone(), none);
        let roles = self.roles.iter().enumerate().map(|(at, spec)| {
            let name = role_name(at);
            (name.clone(), Arc::new(Role::new(name, spec).unwrap()))
        });
        Policy::new(trust, roles.collect())
    }
}

prop_compose! {
    fn cases()(
        roles in vec(role(), 0..4),
        login in prop::sample::select(LOGINS),
        env in prop::sample::select(ENVS),
    ) -> Case {
        Case {
            roles,
            missing_role: false,
            logins: LOGINS.iter().map(|login| (*login).to_owned()).collect(),
            login: login.to_owned(),
            env: env.to_owned(),
            node_labels: labels(env),
            traits: crate::Traits::new(),
        }
    }
}

prop_compose! {
    fn role()(
        allow in conditions(),
        // Denials are rarer than grants, else nothing is ever allowed.
        deny in prop_oneof![3 => Just(ConditionsSpec::default()), 1 => conditions()],
        hours in prop::option::of(1_u32..48),
        forward_agent in any::<Option<bool>>(),
        forwarding in any::<Option<bool>>(),
        limits in (any::<Option<bool>>(), any::<Option<bool>>(), prop::option::of(0_u32..4)),
    ) -> RoleSpec {
        let options = OptionsSpec {
            max_session_ttl: hours.map(|hours| format!("{hours}h")),
            forward_agent,
            port_forwarding: forwarding.map(PortForwardingSpec::All),
            ssh_file_copy: limits.0,
            disconnect_expired_cert: limits.1,
            max_connections: limits.2,
            ..OptionsSpec::default()
        };
        RoleSpec { options, allow, deny }
    }
}

prop_compose! {
    fn conditions()(
        logins in some(LOGINS),
        nodes in label_conditions(),
        kubes in label_conditions(),
        groups in some(GROUPS),
        rules in any::<bool>(),
    ) -> ConditionsSpec {
        let rule = RuleSpec { resources: vec!["session".into()], verbs: vec!["read".into()] };
        ConditionsSpec {
            logins,
            node_labels: nodes,
            kubernetes_groups: groups,
            kubernetes_labels: kubes,
            rules: if rules { vec![rule] } else { Vec::new() },
            ..ConditionsSpec::default()
        }
    }
}

fn label_conditions() -> impl Strategy<Value = BTreeMap<String, OneOrMany>> {
    prop_oneof![
        Just(BTreeMap::new()),
        Just([("*".to_owned(), OneOrMany::One("*".into()))].into()),
        some(ENVS).prop_map(|envs| if envs.is_empty() {
            BTreeMap::new()
        } else {
            [("env".to_owned(), OneOrMany::Many(envs))].into()
        }),
    ]
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    subsequence(of, 0..=of.len()).prop_map(|chosen| chosen.into_iter().map(str::to_owned).collect())
}

/// The oracle: `env` conditions and the star, as the generator makes them.
fn covers(conditions: &BTreeMap<String, OneOrMany>, env: &str) -> bool {
    conditions.iter().any(|(name, values)| name == "*" || values.iter().any(|value| value == env))
}

fn labels(env: &str) -> Labels {
    [("env".to_owned(), env.to_owned())].into()
}

fn role_name(at: usize) -> RoleName {
    RoleName::new(format!("role-{at}")).unwrap()
}

fn host_id() -> HostId {
    "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap()
}
