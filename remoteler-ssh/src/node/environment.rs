//! The environment of a session, built from an allow-list (I68): nothing of the daemon's own, and of the client's only what is harmless.

use std::{ffi::OsString, net::SocketAddr, path::Path};

use remoteler_core::SessionId;

use crate::process::Account;

/// What one session may set at the most.
pub(super) const MAX_VARIABLES: usize = 32;
const MAX_VALUE: usize = 1024;
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a client may set `name` to `value`: locale, what the terminal can do, and git's protocol version.
pub(super) fn accepts(name: &str, value: &str) -> bool {
    let known = matches!(name, "LANG" | "LANGUAGE" | "COLORTERM" | "NO_COLOR" | "GIT_PROTOCOL")
        || name.strip_prefix("LC_").is_some_and(|rest| {
            !rest.is_empty() && rest.len() <= 32 && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
        });
    known && value.len() <= MAX_VALUE && !value.chars().any(char::is_control)
}

/// What is known of a session when its environment is built.
pub(super) struct Origin<'a> {
    pub(super) session: SessionId,
    pub(super) client: Option<&'a str>,
    /// Where the node was reached; none behind a reverse tunnel, where it listens on nothing.
    pub(super) node: Option<SocketAddr>,
    /// `TERM` and the terminal's path.
    pub(super) terminal: Option<(&'a str, OsString)>,
    /// Where the user's own agent answers.
    pub(super) agent: Option<&'a Path>,
}

/// All variables of a session of `account`; `asked` were accepted by [`accepts`].
pub(super) fn build(account: &Account, origin: Origin<'_>, asked: &[(String, String)]) -> Vec<(OsString, OsString)> {
    let path = if account.uid().is_root() { ROOT_PATH } else { PATH };
    let (client, connection) = addresses(origin.client, origin.node);
    let mut variables: Vec<(OsString, OsString)> =
        asked.iter().map(|(name, value)| (name.into(), value.into())).collect();
    variables.extend([
        ("HOME".into(), account.home().into()),
        ("USER".into(), account.name().into()),
        ("LOGNAME".into(), account.name().into()),
        ("SHELL".into(), account.shell().into()),
        ("PATH".into(), path.into()),
        ("SSH_CLIENT".into(), client.into()),
        ("SSH_CONNECTION".into(), connection.into()),
        ("REMOTELER_SESSION_ID".into(), origin.session.to_string().into()),
    ]);
    if let Some((term, tty)) = origin.terminal {
        variables.push(("TERM".into(), term_name(term).into()));
        variables.push(("SSH_TTY".into(), tty));
    }
    if let Some(agent) = origin.agent {
        variables.push(("SSH_AUTH_SOCK".into(), agent.into()));
    }
    variables
}

/// The name of a terminal type; anything that cannot be one becomes `dumb`.
pub(super) fn term_name(term: &str) -> &str {
    let fits = (1..=64).contains(&term.len())
        && term.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'+'));
    if fits { term } else { "dumb" }
}

/// `SSH_CLIENT` and `SSH_CONNECTION` as sshd(8) writes them; it says UNKNOWN and 65535 where there is no address, too.
fn addresses(client: Option<&str>, node: Option<SocketAddr>) -> (String, String) {
    let parts = |address: Option<SocketAddr>| {
        address.map_or(("UNKNOWN".to_owned(), 65535), |addr| (addr.ip().to_canonical().to_string(), addr.port()))
    };
    let (ip, port) = parts(client.and_then(|text| text.parse().ok()));
    let (node_ip, node_port) = parts(node);
    (format!("{ip} {port} {node_port}"), format!("{ip} {port} {node_ip} {node_port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_steer_loaders_and_shells_are_refused() {
        for name in ["LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "BASH_ENV", "ENV", "IFS", "PATH", "LC_", "LC_a", "", "lang"]
        {
            assert!(!accepts(name, "x"), "{name}"); // I68
        }
        assert!(!accepts("LANG", "C\nLD_PRELOAD=x"));
        assert!(!accepts("LANG", &"x".repeat(1025)));
    }

    #[test]
    fn locale_and_terminal_abilities_are_taken() {
        for name in ["LANG", "LC_ALL", "LC_MESSAGES", "COLORTERM", "GIT_PROTOCOL"] {
            assert!(accepts(name, "C.UTF-8"), "{name}");
        }
    }

    #[test]
    fn a_terminal_type_that_is_none_becomes_dumb() {
        assert_eq!(term_name("xterm-256color"), "xterm-256color");
        assert_eq!(term_name("../../etc/passwd"), "dumb");
        assert_eq!(term_name(""), "dumb");
    }

    #[test]
    fn both_ends_are_written_as_openssh_does_and_an_unknown_one_too() {
        let node = "[::ffff:198.51.100.7]:3022".parse().ok();
        let (client, connection) = addresses(Some("[::ffff:192.0.2.1]:50022"), node);
        assert_eq!(
            (client.as_str(), connection.as_str()),
            ("192.0.2.1 50022 3022", "192.0.2.1 50022 198.51.100.7 3022")
        );
        assert_eq!(addresses(Some("[2001:db8::1]:5"), None).1, "2001:db8::1 5 UNKNOWN 65535");
        assert_eq!(addresses(None, None).1, "UNKNOWN 65535 UNKNOWN 65535");
    }
}
