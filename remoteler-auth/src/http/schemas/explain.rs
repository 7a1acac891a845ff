//! Schemas of explanations.

use serde_json::{Map, Value};

use super::{boolean, integer, list, object, text, to};

pub(super) fn add(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    let optional = ["user", "node", "kube_cluster", "app", "login"].map(|field| (field, text()));
    add("ExplainRequest", object(&[], &optional));
    add(
        "Explanation",
        object(
            &[("user", text()), ("target", text()), ("allowed", boolean()), ("reason", text())],
            &[("kind", text()), ("login", text()), ("findings", list(to("Finding"))), ("options", to("ShownOptions"))],
        ),
    );
    add("Finding", object(&[("role", text()), ("outcome", text()), ("fields", list(text()))], &[]));
    let flags = [
        "forward_agent",
        "local_port_forwarding",
        "remote_port_forwarding",
        "ssh_file_copy",
        "disconnect_expired_cert",
    ];
    let mut required = vec![("max_session_ttl_seconds", integer())];
    required.extend(flags.map(|flag| (flag, boolean())));
    let limits = ["client_idle_timeout_seconds", "max_sessions", "max_connections", "max_kubernetes_connections"];
    let mut optional = limits.map(|limit| (limit, integer())).to_vec();
    optional.push(("require_session_mfa", boolean()));
    add("ShownOptions", object(&required, &optional));
}

#[cfg(test)]
pub(super) mod tests {
    use remoteler_core::{
        AppName, ExplainRequest, ExplainedKind, Explanation, Finding, KubeClusterName, Login, NodeName, RoleName,
        RoleOptions, RoleOutcome, ShownOptions, UserName,
    };
    use serde_json::Value;

    /// Values with every optional field set, by schema.
    pub(in crate::http::schemas) fn samples() -> Vec<(&'static str, Value)> {
        let value = |value: Result<Value, serde_json::Error>| value.unwrap();
        let finding = Finding {
            role: RoleName::new("r").unwrap(),
            outcome: RoleOutcome::Lacks,
            fields: vec!["allow.logins".into()],
        };
        let options = RoleOptions {
            client_idle_timeout: Some(std::time::Duration::from_secs(1)),
            max_sessions: Some(1),
            max_connections: Some(1),
            max_kubernetes_connections: Some(1),
            ..RoleOptions::default()
        };
        let options = ShownOptions::from(&options);
        let (user, login) = (UserName::new("ann").unwrap(), Login::new("root").unwrap());
        let request = ExplainRequest {
            user: Some(user.clone()),
            node: Some(NodeName::new("n").unwrap()),
            kube_cluster: Some(KubeClusterName::new("k").unwrap()),
            app: Some(AppName::new("a").unwrap()),
            login: Some(login.clone()),
        };
        let explanation = Explanation {
            user,
            kind: ExplainedKind::App,
            target: "n".into(),
            login: Some(login),
            allowed: true,
            reason: "r".into(),
            findings: vec![finding.clone()],
            options: Some(options.clone()),
        };
        vec![
            ("ExplainRequest", value(serde_json::to_value(request))),
            ("Explanation", value(serde_json::to_value(explanation))),
            ("Finding", value(serde_json::to_value(finding))),
            ("ShownOptions", value(serde_json::to_value(options))),
        ]
    }
}
