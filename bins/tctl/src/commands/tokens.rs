//! `tctl tokens` and `tctl nodes rejoin`: how hosts join, and join again.

use anyhow::ensure;
use remoteler_core::{AuthApi, Labels, NewToken, Secret, SystemRole, TokenCreated, TokenScope};
use serde_json::json;

use super::{Trait, Ttl};
use crate::output::{Report, Table, fields, joined};

/// What a token shall let in.
pub(crate) fn scope(roles: &[SystemRole], names: Option<&str>, labels: &[Trait]) -> anyhow::Result<TokenScope> {
    let mut given = Labels::new();
    for Trait { key, value } in labels {
        let before = given.insert(key.clone(), value.clone());
        ensure!(before.is_none(), "label {key} is given twice");
    }
    Ok(TokenScope { roles: roles.iter().copied().collect(), names: names.map(Into::into), labels: given })
}

/// Makes a token.
pub(crate) async fn add(
    api: &dyn AuthApi,
    scope: TokenScope,
    ttl: Ttl,
    value: Option<&str>,
    uses: Option<u32>,
) -> anyhow::Result<Report> {
    let TokenScope { roles, names, labels } = scope;
    let ttl_seconds = Some(ttl.0.as_secs());
    let request = NewToken { roles, ttl_seconds, value: value.map(Secret::new), uses, names, labels };
    created(&api.create_token(request).await?)
}

/// Makes a token with which one host joins again.
pub(crate) async fn rejoin(api: &dyn AuthApi, node: &str) -> anyhow::Result<Report> {
    created(&api.create_rejoin_token(node.to_owned()).await?)
}

fn created(token: &TokenCreated) -> anyhow::Result<Report> {
    let mut about = vec![
        ("Token", token.token.reveal().to_owned()),
        ("Type", joined(&token.scope.roles)),
        ("Expires", token.expires.to_string()),
    ];
    about.extend(token.uses.map(|uses| ("Uses", uses.to_string())));
    about.extend(token.host_id.map(|host| ("For host", host.to_string())));
    about.extend(token.scope.names.clone().map(|names| ("Names", names)));
    if !token.scope.labels.is_empty() {
        about.push(("Labels", labels(&token.scope.labels)));
    }
    about.push(("CA pin", pins(token)));
    let mut text = fields(&about);
    let proxy = token.proxy_addr.as_deref().unwrap_or("PROXY:3080");
    if token.host_id.is_some() {
        text.push_str(&format!(
            "\nOn that host, put the token into a file that only root can read, and let the host join again:\n\n  \
             remoteler rejoin --new-keys --token /etc/remoteler.token --ca-pin {}\n\n\
             From then on every other machine that has its certificates is refused.\n",
            pins(token)
        ));
    } else {
        let roles = token.scope.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        text.push_str(&format!(
            "\nOn the host that shall join, put the token into a file that only root can read, and start the daemon:\n\n  \
             remoteler start --roles {roles} --auth-server {proxy} --token /etc/remoteler.token --ca-pin {}\n",
            pins(token)
        ));
    }
    Report::new(text, &json!(token))
}

fn labels(labels: &Labels) -> String {
    joined(labels.iter().map(|(key, value)| format!("{key}={value}")))
}

/// As `--ca-pin` takes them.
fn pins(token: &TokenCreated) -> String {
    if token.ca_pins.is_empty() { token.ca_pin.clone() } else { token.ca_pins.join(",") }
}

/// Lists the tokens.
pub(crate) async fn list(api: &dyn AuthApi) -> anyhow::Result<Report> {
    let tokens = api.tokens().await?;
    let mut table = Table::new(["ID", "METHOD", "TYPE", "USES LEFT", "NAMES", "LABELS", "EXPIRES", "FOR"]);
    for token in &tokens {
        let accounts = joined(token.service_accounts.iter().map(|account| format!("service account {account}")));
        let uses = token.uses_left.map_or_else(|| "any".to_owned(), |uses| uses.to_string());
        table.row([
            token.id.clone(),
            token.join_method.to_string(),
            joined(&token.scope.roles),
            uses,
            token.scope.names.clone().unwrap_or_else(|| "*".to_owned()),
            labels(&token.scope.labels),
            token.expires.map_or_else(|| "never".to_owned(), |expires| expires.to_string()),
            token.host_id.map_or(accounts, |host| format!("host {host}")),
        ]);
    }
    Report::new(table.render(), &tokens)
}

/// Removes a token. It is not repeated in the answer: it may have been named by its secret.
pub(crate) async fn remove(api: &dyn AuthApi, id_or_token: &str) -> anyhow::Result<Report> {
    api.delete_token(Secret::new(id_or_token)).await?;
    Report::new("The token was removed.\n", &json!({ "kind": "token", "removed": true }))
}

#[cfg(test)]
mod tests {
    use remoteler_core::Timestamp;

    use super::*;
    use crate::output::Format;

    #[test]
    fn a_label_that_is_given_twice_is_refused() {
        let label = |text: &str| text.parse::<Trait>().unwrap();
        assert!(scope(&[SystemRole::Node], None, &[label("site=7"), label("site=8")]).is_err());
    }

    #[test]
    fn a_new_token_comes_with_its_end_and_the_pin_and_the_command_to_use_it() {
        let token = TokenCreated {
            token: Secret::new("c0ffee"),
            expires: Timestamp::from_unix_seconds(3600),
            scope: scope(&[SystemRole::Node, SystemRole::Kube], Some("gw-*"), &["site=7".parse().unwrap()]).unwrap(),
            uses: Some(1),
            host_id: None,
            ca_pin: "sha256:ab".into(),
            ca_pins: vec!["sha256:ab".into()],
            proxy_addr: Some("p.example.com:3080".into()),
        };
        let report = created(&token).unwrap();
        let json: serde_json::Value = serde_json::from_str(&report.render(Format::Json).unwrap()).unwrap();
        assert_eq!(json["token"], "c0ffee");
        assert_eq!(json["expires"], "1970-01-01T01:00:00.000Z");
        assert_eq!(json["ca_pin"], "sha256:ab");
        assert_eq!(json["roles"], serde_json::json!(["node", "kube"]));
        assert_eq!((&json["uses"], &json["names"], &json["labels"]["site"]), (&1.into(), &"gw-*".into(), &"7".into()));
        let text = report.render(Format::Text).unwrap();
        assert!(text.contains("remoteler start --roles node,kube --auth-server p.example.com:3080 --token /etc/remoteler.token --ca-pin sha256:ab\n"), "{text}");
    }
}
