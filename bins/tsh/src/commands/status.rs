//! `tsh status`: who is logged in where, and until when. Reads only files of this machine. Fails when the login that commands would
//! use is none, so that scripts can ask.

use std::time::Duration;

use remoteler_client::{Profile, StoreError, StoredLogin};
use remoteler_core::{Clock, SystemClock, Timestamp};
use remoteler_ssh::printable;
use serde::Serialize;

use crate::{
    context::Context,
    output::{self, Format},
};

/// One login, as it is shown.
#[derive(Serialize)]
pub(crate) struct Shown {
    profile_url: String,
    proxy: String,
    username: String,
    cluster: String,
    roles: Vec<String>,
    logins: Vec<String>,
    valid_until: Option<Timestamp>,
    valid: bool,
    active: bool,
}

pub(crate) fn run(context: &Context, format: Format) -> anyhow::Result<()> {
    if context.identity.is_some() {
        // Shown also when it is of no use any more.
        let login = context.identity_login()?;
        let now = SystemClock.now();
        output::print(format, &[of_login(&login, true, now)][..], |shown| {
            shown.iter().map(|login| text(login, now)).collect()
        })?;
        return context.login().map(|_| ());
    }
    let current = context.profile()?;
    let mut shown = Vec::new();
    if let Some(current) = &current {
        shown.push(show(context, current, true)?);
    }
    for other in context.store.profiles()? {
        if current.as_ref().is_none_or(|current| current.proxy.host() != other.proxy.host()) {
            shown.push(show(context, &other, false)?);
        }
    }
    let now = SystemClock.now();
    output::print(format, &shown[..], |shown| {
        shown.iter().map(|login| text(login, now)).collect::<Vec<_>>().join("\n")
    })?;
    // What was shown is the result; that it is of no use now is the failure.
    context.login().map(|_| ())
}

/// The block that a login ends with.
pub(crate) fn print_login(login: &StoredLogin) -> anyhow::Result<()> {
    let now = SystemClock.now();
    output::print(Format::Text, &of_login(login, true, now), |shown| text(shown, now))
}

fn show(context: &Context, profile: &Profile, active: bool) -> anyhow::Result<Shown> {
    match context.store.login(profile) {
        Ok(login) => Ok(of_login(&login, active, SystemClock.now())),
        Err(StoreError::NoLogin { .. }) => Ok(Shown {
            profile_url: format!("https://{}", profile.proxy),
            proxy: profile.proxy.to_string(),
            username: profile.user.to_string(),
            cluster: profile.cluster.to_string(),
            roles: Vec::new(),
            logins: Vec::new(),
            valid_until: None,
            valid: false,
            active,
        }),
        Err(other) => Err(other.into()),
    }
}

fn of_login(login: &StoredLogin, active: bool, now: Timestamp) -> Shown {
    Shown {
        profile_url: format!("https://{}", login.profile.proxy),
        proxy: login.profile.proxy.to_string(),
        username: login.profile.user.to_string(),
        cluster: login.profile.cluster.to_string(),
        roles: login.identity.roles.iter().map(ToString::to_string).collect(),
        logins: login.identity.logins.iter().map(ToString::to_string).collect(),
        valid_until: Some(login.expires),
        valid: login.is_valid(now),
        active,
    }
}

fn text(shown: &Shown, now: Timestamp) -> String {
    let until = match shown.valid_until {
        Some(until) if until > now => format!("{until} [valid for {}]", for_people(until.since(now))),
        Some(until) => format!("{until} [EXPIRED]"),
        None => "[no certificates]".into(),
    };
    let lines = [
        ("Profile URL:", shown.profile_url.clone()),
        ("Logged in as:", shown.username.clone()),
        ("Cluster:", shown.cluster.clone()),
        ("Roles:", shown.roles.join(", ")),
        ("Logins:", if shown.logins.is_empty() { "none".into() } else { shown.logins.join(", ") }),
        ("Valid until:", until),
    ];
    let mut text = String::new();
    for (number, (title, value)) in lines.iter().enumerate() {
        let mark = if number == 0 && shown.active { "> " } else { "  " };
        text.push_str(&format!("{mark}{title:<19} {}\n", printable(value)));
    }
    text
}

/// `7h59m`, `12m`, `40s`.
fn for_people(left: Duration) -> String {
    let seconds = left.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, _) => format!("{minutes}m"),
        (hours, minutes, _) => format!("{hours}h{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_laid_out_as_people_know_it() {
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        let shown = Shown {
            profile_url: "https://proxy.example.com:3080".into(),
            proxy: "proxy.example.com:3080".into(),
            username: "ann".into(),
            cluster: "root.example.com".into(),
            roles: vec!["access".into(), "editor".into()],
            logins: vec!["root".into(), "ubuntu".into()],
            valid_until: Some(now.plus(Duration::from_secs(8 * 3600 - 1))),
            valid: true,
            active: true,
        };
        assert_eq!(
            text(&shown, now),
            "> Profile URL:        https://proxy.example.com:3080\n\
             \x20 Logged in as:       ann\n\
             \x20 Cluster:            root.example.com\n\
             \x20 Roles:              access, editor\n\
             \x20 Logins:             root, ubuntu\n\
             \x20 Valid until:        2026-03-01T19:59:59.000Z [valid for 7h59m]\n"
        );
        let later = now.plus(Duration::from_secs(9 * 3600));
        assert!(text(&shown, later).ends_with("[EXPIRED]\n"));
    }
}
