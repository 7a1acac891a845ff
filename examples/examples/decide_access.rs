//! Reads a role document, and shows how a decision about a rule comes out with and without a deny.

use std::{collections::BTreeMap, sync::Arc};

use remoteler_ca::Authority;
use remoteler_core::{
    CaKind, Clock, ClusterName, OsEntropy, Policy, Role, RoleName, RoleSpec, SystemClock, TrustBundle, UserIdentity,
    UserName, Verb, authorize_rule,
};

fn main() -> anyhow::Result<()> {
    let cluster = ClusterName::new("root.example.com")?;
    let authority = |kind| Authority::generate(&cluster, kind, SystemClock.now(), &OsEntropy);
    let trust = TrustBundle::new(cluster.clone(), authority(CaKind::User)?.public(), authority(CaKind::Host)?.public());
    let mut roles = BTreeMap::new();
    for (name, document) in [
        ("auditor", r#"{"allow": {"rules": [{"resources": ["session", "event"], "verbs": ["list", "read"]}]}}"#),
        ("no-sessions", r#"{"deny": {"rules": [{"resources": ["session"], "verbs": ["*"]}]}}"#),
    ] {
        let name = RoleName::new(name)?;
        let spec: RoleSpec = serde_json::from_str(document)?;
        roles.insert(name.clone(), Arc::new(Role::new(name, &spec)?));
    }
    let policy = Policy::new(trust, roles);
    for held in [vec!["auditor"], vec!["auditor", "no-sessions"]] {
        let user = UserIdentity {
            user: UserName::new("ann")?,
            cluster: cluster.clone(),
            roles: held.iter().map(RoleName::new).collect::<Result<_, _>>()?,
            traits: Default::default(),
            logins: Vec::new(),
        };
        match authorize_rule(&user, &policy, "session", Verb::Read) {
            Some(access) => {
                println!("with {held:?}: may {} {}, by role {}", access.verb().as_str(), access.kind(), access.role())
            }
            None => println!("with {held:?}: may not read sessions"),
        }
    }
    Ok(())
}
