//! `tctl explain`: whether and why a user may do something.

use remoteler_core::{AuthApi, ExplainRequest, Explanation, RoleOutcome, ShownOptions, printable};

use crate::{cli::ExplainArgs, output::Report};

/// Asks the auth service, which decides as a node or Kubernetes service would.
pub(crate) async fn explain(api: &dyn AuthApi, args: &ExplainArgs) -> anyhow::Result<Report> {
    let ExplainArgs { user, login, node, kube, app } = args;
    let request = ExplainRequest {
        app: app.clone(),
        user: Some(user.clone()),
        node: node.clone(),
        kube_cluster: kube.clone(),
        login: login.clone(),
    };
    let explanations = api.explain(request).await?;
    Report::new(text(&explanations), &explanations)
}

fn text(explanations: &[Explanation]) -> String {
    if explanations.is_empty() {
        return "There is no node, no Kubernetes cluster and no application yet.\n".into();
    }
    explanations.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn one(explanation: &Explanation) -> String {
    let mut text = printable(&explanation.sentence()) + "\n";
    for finding in &explanation.findings {
        let outcome = match finding.outcome {
            RoleOutcome::Denies => "denies by",
            RoleOutcome::Allows => "allows by",
            RoleOutcome::Lacks => "does not fit in",
        };
        text.push_str(&format!("  {}: {outcome} {}\n", finding.role, printable(&finding.fields.join(", "))));
    }
    if let Some(options) = &explanation.options {
        text.push_str(&format!("  options: {}\n", options_text(options)));
    }
    text
}

fn options_text(options: &ShownOptions) -> String {
    let mut words = vec![format!("max_session_ttl {}s", options.max_session_ttl_seconds)];
    for (allowed, name) in [
        (options.forward_agent, "agent forwarding"),
        (options.local_port_forwarding, "local port forwarding"),
        (options.remote_port_forwarding, "remote port forwarding"),
        (options.ssh_file_copy, "file copies"),
    ] {
        words.push(format!("{}{name}", if allowed { "" } else { "no " }));
    }
    if options.require_session_mfa {
        words.push("a second factor for each session".into());
    }
    if options.disconnect_expired_cert {
        words.push("ends with the certificate".into());
    }
    if let Some(seconds) = options.client_idle_timeout_seconds {
        words.push(format!("client_idle_timeout {seconds}s"));
    }
    for (limit, name) in [
        (options.max_sessions, "max_sessions"),
        (options.max_connections, "max_connections"),
        (options.max_kubernetes_connections, "max_kubernetes_connections"),
    ] {
        words.extend(limit.map(|limit| format!("{name} {limit}")));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use remoteler_core::{Finding, Login, RoleName, RoleOptions, UserName};

    use super::*;

    #[test]
    fn an_explanation_names_each_role_and_what_in_it_decided() {
        let finding = |role: &str, outcome, fields: &[&str]| Finding {
            role: RoleName::new(role).unwrap(),
            outcome,
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        };
        let denied = Explanation {
            kind: Default::default(),
            user: UserName::new("ann").unwrap(),
            target: "gw-17".into(),
            login: Some(Login::new("root").unwrap()),
            allowed: false,
            reason: "role no-root denies it".into(),
            findings: vec![
                finding("no-root", RoleOutcome::Denies, &["deny.logins"]),
                finding("access", RoleOutcome::Allows, &["allow.node_labels", "allow.logins"]),
            ],
            options: None,
        };
        let allowed = Explanation {
            allowed: true,
            login: None,
            reason: "role access allows it".into(),
            findings: Vec::new(),
            options: Some((&RoleOptions { max_connections: Some(2), ..RoleOptions::default() }).into()),
            ..denied.clone()
        };
        assert_eq!(
            text(&[denied, allowed]),
            "ann may not log in as root to gw-17: role no-root denies it\n  \
               no-root: denies by deny.logins\n  \
               access: allows by allow.node_labels, allow.logins\n\n\
             ann may use Kubernetes cluster gw-17: role access allows it\n  \
               options: max_session_ttl 43200s, no agent forwarding, local port forwarding, remote port forwarding, file copies, max_connections 2\n"
        );
    }
}
