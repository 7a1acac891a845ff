//! `tctl lock` and `tctl locks ls`: who and what is shut out.

use remoteler_core::{
    ApiErrorKind, AuthApi, Labels, LockSpec, LockTarget, Metadata, NodeRecord, OsEntropy, Resource, ResourceKind,
    random_uuid,
};

use crate::{
    cli::LockArgs,
    output::{Report, Table},
};

/// The document of the lock that the flags describe.
fn wanted(args: &LockArgs) -> anyhow::Result<Resource> {
    let LockArgs { user, role, login, node, serial, cluster, kube_cluster, ttl, message, reason } = args;
    let target = LockTarget {
        user: user.clone(),
        role: role.clone(),
        login: login.clone(),
        node: node.clone(),
        serial: *serial,
        cluster: cluster.clone(),
        kube_cluster: kube_cluster.clone(),
    };
    let spec = LockSpec {
        target,
        message: message.clone(),
        reason: reason.clone(),
        ttl: ttl.map(|ttl| format!("{}s", ttl.0.as_secs())),
        ..LockSpec::default()
    };
    let name = random_uuid(&OsEntropy).to_string();
    Ok(Resource {
        kind: ResourceKind::Lock.as_str().into(),
        version: "v2".into(),
        metadata: Metadata { name, description: None, labels: Labels::new(), expires: None },
        spec: serde_json::to_value(spec)?,
    })
}

/// Locks.
pub(crate) async fn lock(api: &dyn AuthApi, args: &LockArgs) -> anyhow::Result<Report> {
    let document = wanted(args)?;
    let name = document.metadata.name.clone();
    api.put_resource(document, false).await?;
    let made = api.resources(ResourceKind::Lock, Some(name.clone())).await;
    // Who may create locks and not read them has made it all the same.
    let made = made.ok().and_then(|mut made| made.pop());
    let spec = made.as_ref().and_then(|made| serde_json::from_value::<LockSpec>(made.spec.clone()).ok());
    let what = spec.as_ref().map(|spec| spec.target.to_string()).unwrap_or_default();
    let until =
        spec.and_then(|spec| spec.expires).map_or("until it is removed".to_owned(), |end| format!("until {end}"));
    let missing = missing(api, args).await;
    let text = format!(
        "Locked {until}: {what}.\n{missing}What runs is ended within seconds, and nothing new begins. To unlock: tctl rm lock/{name}\n"
    );
    let value = made.map_or_else(|| Ok(serde_json::json!({ "metadata": { "name": name } })), serde_json::to_value)?;
    Report::new(text, &value)
}

/// A line for each name in the lock that nobody has now: it holds all the same, for one who is made later, and may be a slip of the pen.
async fn missing(api: &dyn AuthApi, args: &LockArgs) -> String {
    let names = [
        (ResourceKind::User, args.user.as_ref().map(ToString::to_string)),
        (ResourceKind::Role, args.role.as_ref().map(ToString::to_string)),
        (ResourceKind::KubeCluster, args.kube_cluster.as_ref().map(ToString::to_string)),
    ];
    let mut text = String::new();
    for (kind, name) in names {
        let Some(name) = name else { continue };
        let found = api.resources(kind, Some(name.clone())).await;
        if found.is_err_and(|cause| cause.kind == ApiErrorKind::NotFound) {
            text.push_str(&format!("There is no {} {name} now; the lock waits for one.\n", kind.as_str()));
        }
    }
    if let (Some(name), Ok(nodes)) = (&args.node, api.nodes().await) {
        let is_it = |node: &NodeRecord| node.name == *name || node.host_id.to_string() == name.as_str();
        if !nodes.iter().any(|node| is_it(node)) {
            text.push_str(&format!("No node of the name or host id {name} is there now; the lock waits for one.\n"));
        }
    }
    text
}

/// Lists what is locked.
pub(crate) async fn list(api: &dyn AuthApi) -> anyhow::Result<Report> {
    let locks = api.resources(ResourceKind::Lock, None).await?;
    let mut table = Table::new(["NAME", "TARGET", "MESSAGE", "REASON", "BY", "SINCE", "UNTIL"]);
    for lock in &locks {
        let spec: LockSpec = serde_json::from_value(lock.spec.clone())?;
        let moment = |moment: Option<remoteler_core::Timestamp>| moment.map(|m| m.to_string()).unwrap_or_default();
        table.row([
            lock.metadata.name.clone(),
            spec.target.to_string(),
            spec.message,
            spec.reason,
            spec.created_by.unwrap_or_default(),
            moment(spec.created_at),
            moment(spec.expires),
        ]);
    }
    Report::new(table.render(), &locks)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(args: &[&str]) -> LockSpec {
        let cli = Cli::parse_from(["tctl", "lock"].iter().chain(args));
        let Command::Lock(args) = cli.command else { panic!("not lock") };
        serde_json::from_value(wanted(&args).unwrap().spec).unwrap()
    }

    #[test]
    fn flags_together_are_one_target() {
        let spec = parsed(&["--user", "ann", "--node", "edge", "--ttl", "2h", "--message", "go home"]);
        assert_eq!(spec.target.to_string(), "user ann, node edge");
        assert_eq!((spec.message.as_str(), spec.ttl.as_deref()), ("go home", Some("7200s")));
        assert_eq!(parsed(&["--serial", "4711"]).target.to_string(), "certificate ssh-user-4711");
        assert_eq!(parsed(&["--serial", "tls-host-4f01"]).target.to_string(), "certificate tls-host-4f01");
        assert_eq!(parsed(&["--cluster", "leaf.example.com"]).target.to_string(), "cluster leaf.example.com");
    }

    #[test]
    fn a_lock_on_nothing_or_on_what_is_no_name_is_wrong_usage() {
        for wrong in
            [&[][..], &["--message", "x"], &["--user", "-x"], &["--serial", "0"], &["--user", "a", "--ttl", "soon"]]
        {
            let args = ["tctl", "lock"].iter().chain(wrong);
            assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
