//! `tctl tokens`: how hosts join.

use std::collections::BTreeSet;

use remoteler_core::{AuthApi, NewToken, Secret, SystemRole, TokenCreated};
use serde_json::json;

use super::Ttl;
use crate::output::{Report, Table, fields, joined};

/// Makes a token.
pub(crate) async fn add(
    api: &dyn AuthApi,
    roles: &[SystemRole],
    ttl: Ttl,
    value: Option<&str>,
) -> anyhow::Result<Report> {
    let roles: BTreeSet<_> = roles.iter().copied().collect();
    let request = NewToken { roles, ttl_seconds: Some(ttl.0.as_secs()), value: value.map(Secret::new) };
    created(&api.create_token(request).await?)
}

fn created(token: &TokenCreated) -> anyhow::Result<Report> {
    let mut text = fields(&[
        ("Token", token.token.reveal().to_owned()),
        ("Type", joined(&token.roles)),
        ("Expires", token.expires.to_string()),
        ("CA pin", pins(token)),
    ]);
    let roles = token.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let proxy = token.proxy_addr.as_deref().unwrap_or("PROXY:3080");
    text.push_str(&format!(
        "\nOn the host that shall join, put the token into a file that only root can read, and start the daemon:\n\n  \
         remoteler start --roles {roles} --auth-server {proxy} --token /etc/remoteler.token --ca-pin {}\n",
        pins(token)
    ));
    let value = json!({
        "token": token.token,
        "expires": token.expires,
        "roles": token.roles,
        "ca_pin": token.ca_pin,
        "ca_pins": token.ca_pins,
        "proxy_addr": token.proxy_addr,
    });
    Report::new(text, &value)
}

/// As `--ca-pin` takes them.
fn pins(token: &TokenCreated) -> String {
    if token.ca_pins.is_empty() { token.ca_pin.clone() } else { token.ca_pins.join(",") }
}

/// Lists the tokens.
pub(crate) async fn list(api: &dyn AuthApi) -> anyhow::Result<Report> {
    let tokens = api.tokens().await?;
    let mut table = Table::new(["ID", "TYPE", "EXPIRES"]);
    for token in &tokens {
        table.row([token.id.clone(), joined(&token.roles), token.expires.to_string()]);
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
    fn a_new_token_comes_with_its_end_and_the_pin_and_the_command_to_use_it() {
        let token = TokenCreated {
            token: Secret::new("c0ffee"),
            expires: Timestamp::from_unix_seconds(3600),
            roles: [SystemRole::Node, SystemRole::Kube].into(),
            ca_pin: "sha256:ab".into(),
            ca_pins: vec!["sha256:ab".into()],
            proxy_addr: Some("p.example.com:3080".into()),
        };
        let report = created(&token).unwrap();
        let json: serde_json::Value = serde_json::from_str(&report.render(Format::Json).unwrap()).unwrap();
        assert_eq!(json["token"], "c0ffee");
        assert_eq!(json["expires"], "1970-01-01T01:00:00.000Z");
        assert_eq!(json["ca_pin"], "sha256:ab");
        let text = report.render(Format::Text).unwrap();
        assert!(text.contains("remoteler start --roles node,kube --auth-server p.example.com:3080 --token /etc/remoteler.token --ca-pin sha256:ab\n"), "{text}");
    }
}
