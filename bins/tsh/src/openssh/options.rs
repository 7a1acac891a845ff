//! Options of ssh_config(5), as they come after `-o` and in files. Three kinds: those with an effect here; those that only ask for what is so anyway;
//! all others, which are refused by name.

use std::time::Duration;

use super::{AgentForwarding, Family, SshArgs, Tty, UsageError, bad, checked, escape, port};

pub(super) const NO_MULTIPLEXING: &str = "connections are not shared";
pub(super) const NO_X11: &str = "X11 is not forwarded";

/// Applies `Name=value` or `Name value`.
pub(super) fn apply(parsed: &mut SshArgs, text: &str) -> Result<(), UsageError> {
    let text = text.trim();
    let (name, value) = text
        .split_once(|c: char| c == '=' || c.is_whitespace())
        .ok_or_else(|| UsageError::MissingValue(format!("-o {text}")))?;
    let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace()).trim();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let option = name.to_ascii_lowercase();
    let unsupported = |reason| Err(UsageError::Unsupported(name.to_owned(), reason));
    // The first value counts, as in ssh_config; these add up.
    if !matches!(option.as_str(), "localforward" | "remoteforward" | "sendenv")
        && !parsed.decided.insert(option.clone())
    {
        return Ok(());
    }
    match option.as_str() {
        "user" => {
            let login = checked(name, value)?;
            parsed.login.get_or_insert(login);
        }
        "port" => {
            let found = port(name, value)?;
            parsed.port.get_or_insert(found);
        }
        "requesttty" => {
            parsed.tty = match value {
                "no" => Tty::Never,
                "yes" => Tty::Request,
                "force" => Tty::Force,
                "auto" => Tty::Auto,
                _ => return Err(bad(name, value, "no, yes, force or auto is expected")),
            };
        }
        "localforward" => {
            let joined = value.split_whitespace().collect::<Vec<_>>().join(":");
            parsed.forwards.push(checked(name, &joined)?);
        }
        "remoteforward" => {
            let joined = value.split_whitespace().collect::<Vec<_>>().join(":");
            parsed.remote_forwards.push(checked(name, &joined)?);
        }
        "forwardagent" => {
            parsed.agent = match (value, value.strip_prefix('$')) {
                ("yes" | "true", _) => AgentForwarding::Own,
                ("no" | "false", _) => AgentForwarding::No,
                (_, Some(variable)) if !variable.is_empty() => AgentForwarding::Named(variable.to_owned()),
                (path, _) if path.starts_with('/') => AgentForwarding::At(path.into()),
                _ => return Err(bad(name, value, "yes, no, a path or $NAME of a variable is expected")),
            };
        }
        "clearallforwardings" => {
            parsed.clear_forwards = yes(name, value)?;
        }
        "gatewayports" => parsed.gateway_ports = yes(name, value)?,
        "exitonforwardfailure" => parsed.exit_on_forward_failure = yes(name, value)?,
        "batchmode" => parsed.batch = yes(name, value)?,
        "stdinnull" => parsed.stdin_null = yes(name, value)?,
        "escapechar" => parsed.escape = escape(name, value)?,
        "connecttimeout" => parsed.connect_timeout = seconds(name, value)?,
        "serveraliveinterval" => parsed.keepalive = seconds(name, value)?,
        "serveralivecountmax" => {
            parsed.keepalive_max = Some(value.parse().map_err(|_| bad(name, value, "a number is expected"))?);
        }
        "sessiontype" => match value {
            "none" => parsed.no_command = true,
            "subsystem" => parsed.subsystem = true,
            "default" => {}
            _ => return Err(bad(name, value, "none, subsystem or default is expected")),
        },
        "setenv" => {
            for word in value.split_whitespace() {
                let (variable, content) =
                    word.split_once('=').ok_or_else(|| bad(name, value, "NAME=VALUE is expected"))?;
                parsed.set_env.push((variable.to_owned(), content.to_owned()));
            }
        }
        "sendenv" => {
            for pattern in value.split_whitespace() {
                match pattern.strip_prefix('-') {
                    Some(removed) => parsed.send_env.retain(|known| known != removed),
                    None => parsed.send_env.push(pattern.to_owned()),
                }
            }
        }
        "loglevel" => match value.to_ascii_uppercase().as_str() {
            "QUIET" | "FATAL" => parsed.quiet = true,
            "ERROR" => parsed.terse = true,
            "INFO" => {}
            "VERBOSE" | "DEBUG" | "DEBUG1" => parsed.verbose = parsed.verbose.max(1),
            "DEBUG2" | "DEBUG3" => parsed.verbose = parsed.verbose.max(2),
            _ => return Err(bad(name, value, "QUIET, ERROR, INFO, VERBOSE or DEBUG is expected")),
        },
        "addressfamily" => {
            parsed.family = match value {
                "any" => Family::Any,
                "inet" => Family::V4,
                "inet6" => Family::V6,
                _ => return Err(bad(name, value, "any, inet or inet6 is expected")),
            };
        }
        // What scp passes.
        "remotecommand" if value == "none" => {}
        "controlmaster" if value == "yes" => return unsupported(NO_MULTIPLEXING),
        "forwardx11" | "forwardx11trusted" => return only_no(name, value, NO_X11),
        "permitlocalcommand" => return only_no(name, value, "local commands are not run"),
        "canonicalizehostname" => return only_no(name, value, "a node has one name"),
        "tunnel" => return only_no(name, value, "there are no tunnel devices"),
        "forkafterauthentication" => return only_no(name, value, "start it in the background with the shell's &"),
        "pubkeyauthentication" if value == "no" => {
            return unsupported("certificates of the cluster are the only way to log in");
        }
        known if WITHOUT_EFFECT.contains(&known) => {}
        _ => return unsupported("it has no place here; plain ssh with `tsh config` takes all options"),
    }
    Ok(())
}

/// What they ask for is so anyway (the host's certificate is always checked, and only by the cluster's authority), or is a matter of
/// comfort that changes no result.
const WITHOUT_EFFECT: &[&str] = &[
    "addkeystoagent",
    "challengeresponseauthentication",
    "checkhostip",
    "compression",
    "connectionattempts",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "enableescapecommandline",
    "globalknownhostsfile",
    "gssapiauthentication",
    "gssapidelegatecredentials",
    "hashknownhosts",
    "hostbasedauthentication",
    "identitiesonly",
    "ipqos",
    "kbdinteractiveauthentication",
    "numberofpasswordprompts",
    "passwordauthentication",
    "preferredauthentications",
    "pubkeyauthentication",
    "stricthostkeychecking",
    "tcpkeepalive",
    "updatehostkeys",
    "userknownhostsfile",
    "verifyhostkeydns",
    "visualhostkey",
];

fn yes(name: &str, value: &str) -> Result<bool, UsageError> {
    match value {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(bad(name, value, "yes or no is expected")),
    }
}

fn only_no(name: &str, value: &str, reason: &'static str) -> Result<(), UsageError> {
    if matches!(value, "no" | "false") { Ok(()) } else { Err(UsageError::Unsupported(name.to_owned(), reason)) }
}

/// Seconds, or a time such as `1m30s`; 0 and `none` stand for none.
fn seconds(name: &str, value: &str) -> Result<Option<Duration>, UsageError> {
    if value == "none" {
        return Ok(None);
    }
    let found = value.parse().ok().map(Duration::from_secs).or_else(|| remoteler_core::parse_duration(value));
    match found {
        Some(found) => Ok(Some(found).filter(|found| !found.is_zero())),
        None => Err(bad(name, value, "a number of seconds is expected")),
    }
}
