//! `tctl users`: who may log in.

use anyhow::Context;
use remoteler_core::{AuthApi, Invite, NewUser, RoleName, Secret, Traits, UserName};
use serde_json::json;

use super::Trait;
use crate::output::{Report, Table, joined};

/// The user that the flags of `users add` describe.
pub(crate) fn new_user(name: &UserName, roles: &[RoleName], logins: &[String], traits: &[Trait]) -> NewUser {
    let mut all = Traits::new();
    let logins = logins.iter().map(|login| ("logins", login));
    for (key, value) in logins.chain(traits.iter().map(|each| (each.key.as_str(), &each.value))) {
        let values = all.entry(key.to_owned()).or_default();
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    NewUser { name: name.clone(), roles: roles.iter().cloned().collect(), traits: all }
}

/// Makes the user.
pub(crate) async fn add(api: &dyn AuthApi, user: NewUser) -> anyhow::Result<Report> {
    invited(&api.create_user(user).await?, "was made")
}

/// Takes the password away.
pub(crate) async fn reset(api: &dyn AuthApi, name: &UserName) -> anyhow::Result<Report> {
    invited(&api.reset_user(name.clone()).await?, "has no password now")
}

fn invited(invite: &Invite, what: &str) -> anyhow::Result<Report> {
    let path = format!("/web/invite/{}", invite.token.reveal());
    let link = invite.proxy_addr.as_ref().map(|proxy| format!("https://{proxy}{path}"));
    let shown = link.clone().unwrap_or_else(|| format!("https://PROXY{path}"));
    let mut text = format!(
        "User {:?} {what}. A password can be set once with this link, until {}:\n\n  {shown}\n\n\
         The link is opened in a browser, or typed where this asks for it:\n\n  tsh signup\n",
        invite.user.as_str(),
        invite.expires
    );
    if link.is_none() {
        text.push_str("\nNo proxy has told its address yet: put that of your proxy for PROXY.\n");
    }
    let value = json!({ "user": invite.user, "link": link, "token": invite.token, "proxy_addr": invite.proxy_addr, "expires": invite.expires });
    Report::new(text, &value)
}

/// Lists the users.
pub(crate) async fn list(api: &dyn AuthApi) -> anyhow::Result<Report> {
    let users = api.users().await?;
    let mut table = Table::new(["USER", "ROLES", "LOGINS", "PASSWORD", "CREATED"]);
    for user in &users {
        let logins = user.traits.get("logins").map(joined).unwrap_or_default();
        let password = if user.has_password { "set" } else { "not set" };
        table.row([user.name.to_string(), joined(&user.roles), logins, password.into(), user.created.to_string()]);
    }
    Report::new(table.render(), &users)
}

/// Removes a user.
pub(crate) async fn remove(api: &dyn AuthApi, name: &UserName) -> anyhow::Result<Report> {
    api.delete_user(name.clone()).await?;
    Report::new(
        format!("User {:?} was removed.\n", name.as_str()),
        &json!({ "kind": "user", "name": name, "removed": true }),
    )
}

/// Sets a password.
pub(crate) async fn set_password(
    api: &dyn AuthApi,
    name: &UserName,
    password: Option<Secret>,
) -> anyhow::Result<Report> {
    api.set_password(name.clone(), password.context("no password was read")?).await?;
    Report::new(
        format!("The password of {:?} was set.\n", name.as_str()),
        &json!({ "user": name, "password_set": true }),
    )
}

#[cfg(test)]
mod tests {
    use remoteler_core::Timestamp;

    use super::*;
    use crate::output::Format;

    fn invite(proxy_addr: Option<&str>) -> Invite {
        Invite {
            user: UserName::new("ann").unwrap(),
            token: Secret::new("f00d"),
            proxy_addr: proxy_addr.map(str::to_owned),
            expires: Timestamp::from_unix_seconds(0),
        }
    }

    #[test]
    fn logins_are_a_trait_and_a_key_named_twice_has_two_values() {
        let traits = [
            "logins=root".parse().unwrap(),
            "team=a".parse().unwrap(),
            "team=b".parse().unwrap(),
            "team=a".parse().unwrap(),
        ];
        let user =
            new_user(&UserName::new("ann").unwrap(), &[RoleName::new("access").unwrap()], &["ann".into()], &traits);
        assert_eq!(user.traits["logins"], ["ann", "root"]);
        assert_eq!(user.traits["team"], ["a", "b"]);
    }

    #[test]
    fn the_link_of_an_invited_user_is_whole_when_a_proxy_is_known() {
        let report = invited(&invite(Some("proxy.example.com:3080")), "was made").unwrap();
        assert!(report.render(Format::Text).unwrap().contains("\n  https://proxy.example.com:3080/web/invite/f00d\n"));
        assert!(report.render(Format::Text).unwrap().contains("\n  tsh signup\n"));
        let json: serde_json::Value = serde_json::from_str(&report.render(Format::Json).unwrap()).unwrap();
        assert_eq!(json["link"], "https://proxy.example.com:3080/web/invite/f00d");
        assert_eq!(json["token"], "f00d");
        assert_eq!(json["expires"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn without_a_known_proxy_the_text_says_what_to_fill_in() {
        let text = invited(&invite(None), "was made").unwrap().render(Format::Text).unwrap();
        assert!(text.contains("https://PROXY/web/invite/f00d") && text.contains("put that of your proxy"), "{text}");
    }
}
