//! The command line of ssh(1), as `tsh ssh` and `ssh` take it. Every flag of the manual is parsed; those that have no place here are
//! refused by name, never passed over. Owns no connection.

mod config;
mod options;

use std::{collections::BTreeSet, ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf, time::Duration};

use remoteler_client::ProxyAddr;
use remoteler_core::{ClusterName, Login, UserName};
use remoteler_ssh::ForwardSpec;

pub(crate) use self::config::{ConfigFiles, Here, complete};

/// Why a command line is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("unknown option {0}")]
    Unknown(String),
    #[error("option {0} needs a value")]
    MissingValue(String),
    #[error("option {0} is not supported: {1}")]
    Unsupported(String, &'static str),
    #[error("option {option} cannot have the value {value:?}: {reason}")]
    Value { option: String, value: String, reason: String },
    #[error("no host is given; usage: tsh ssh [options] [user@]host [command]")]
    NoHost,
    #[error("{0:?} is no host: {1}")]
    Host(String, String),
    #[error("{place}: {reason}")]
    Config { place: String, reason: String },
    #[error("an argument is not UTF-8")]
    NotUtf8,
}

/// With a terminal at the server or without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tty {
    /// For a shell, when standard input is a terminal.
    #[default]
    Auto,
    /// `-T`
    Never,
    /// `-t`: when standard input is a terminal.
    Request,
    /// `-tt`
    Force,
}

/// The address family to reach the proxy by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Family {
    #[default]
    Any,
    V4,
    V6,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SshArgs {
    pub(crate) login: Option<Login>,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// The command's words, joined by spaces, as octets; empty for a shell.
    pub(crate) command: Vec<u8>,
    pub(crate) tty: Tty,
    /// `-N`
    pub(crate) no_command: bool,
    /// `-s`: the command is the name of a subsystem.
    pub(crate) subsystem: bool,
    /// `-n`
    pub(crate) stdin_null: bool,
    /// `-W`
    pub(crate) stdio_forward: Option<(String, u16)>,
    pub(crate) forwards: Vec<ForwardSpec>,
    /// `-R`
    pub(crate) remote_forwards: Vec<ForwardSpec>,
    pub(crate) agent: AgentForwarding,
    /// `-g`
    pub(crate) gateway_ports: bool,
    pub(crate) exit_on_forward_failure: bool,
    pub(crate) quiet: bool,
    /// `LogLevel ERROR`: nothing but errors.
    pub(crate) terse: bool,
    pub(crate) verbose: u8,
    /// None: no escapes.
    pub(crate) escape: Option<u8>,
    pub(crate) batch: bool,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) keepalive_max: Option<usize>,
    pub(crate) set_env: Vec<(String, String)>,
    /// Names, or beginnings of names before `*`.
    pub(crate) send_env: Vec<String>,
    pub(crate) family: Family,
    pub(crate) scope: Scope,
    /// `-F`; [`complete`] reads them.
    pub(crate) config: ConfigFiles,
    /// `ClearAllForwardings`
    pub(crate) clear_forwards: bool,
    /// Options whose value is settled, in lower case: the first one counts.
    decided: BTreeSet<String>,
}

/// Which ssh-agent is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum AgentForwarding {
    /// `-a`
    #[default]
    No,
    /// `-A`: the one of `SSH_AUTH_SOCK`.
    Own,
    /// `ForwardAgent $NAME`: the one that this variable names.
    Named(String),
    /// `ForwardAgent PATH`
    At(PathBuf),
}

/// Flags of our own among those of ssh(1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) proxy: Option<ProxyAddr>,
    pub(crate) user: Option<UserName>,
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) insecure: bool,
}

/// What a command line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Run(Box<SshArgs>),
    Help,
    Version,
}

/// Reads everything after `ssh`.
pub(crate) fn parse(args: &[OsString]) -> Result<Parsed, UsageError> {
    let mut parsed = SshArgs {
        escape: Some(b'~'),
        send_env: vec!["LANG".into(), "LC_*".into(), "COLORTERM".into()],
        ..SshArgs::default()
    };
    let mut rest = args.iter();
    let mut host: Option<String> = None;
    let mut options_ended = false;
    while let Some(arg) = rest.as_slice().first() {
        let octets = arg.as_bytes();
        let is_option = !options_ended && octets.len() > 1 && octets.starts_with(b"-");
        if !is_option && host.is_some() {
            break;
        }
        rest.next();
        let text = arg.to_str().ok_or(UsageError::NotUtf8)?;
        if !is_option {
            host = Some(text.to_owned());
        } else if text == "--" {
            options_ended = true;
        } else if let Some(long) = text.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            match name {
                "help" => return Ok(Parsed::Help),
                "version" => return Ok(Parsed::Version),
                "insecure" => parsed.scope.insecure = true,
                _ => long_option(&mut parsed.scope, name, value, &mut rest)?,
            }
        } else {
            for (at, flag) in text.char_indices().skip(1) {
                if flag == 'V' {
                    return Ok(Parsed::Version);
                }
                if !WITH_VALUE.contains(flag) {
                    short_flag(&mut parsed, flag)?;
                    continue;
                }
                let attached = text.get(at + flag.len_utf8()..).filter(|value| !value.is_empty());
                let value = match attached {
                    Some(value) => value,
                    None => value_of(&mut rest, || format!("-{flag}"))?,
                };
                flag_with_value(&mut parsed, flag, value)?;
                break;
            }
        }
    }
    let host = host.ok_or(UsageError::NoHost)?;
    destination(&mut parsed, &host)?;
    if parsed.clear_forwards {
        parsed.forwards.clear();
        parsed.remote_forwards.clear();
    }
    let words: Vec<&[u8]> = rest.map(|word| word.as_bytes()).collect();
    if !words.is_empty() {
        parsed.command = words.join(&b' ');
    }
    Ok(Parsed::Run(Box::new(parsed)))
}

/// Flags of ssh(1) that take a value.
const WITH_VALUE: &str = "BbcDEeFIiJLlmOoPpQRSWw";

fn value_of<'a>(rest: &mut std::slice::Iter<'a, OsString>, option: impl Fn() -> String) -> Result<&'a str, UsageError> {
    rest.next().ok_or_else(|| UsageError::MissingValue(option()))?.to_str().ok_or(UsageError::NotUtf8)
}

fn bad(option: &str, value: &str, reason: impl ToString) -> UsageError {
    UsageError::Value { option: option.into(), value: value.chars().take(200).collect(), reason: reason.to_string() }
}

fn checked<T: std::str::FromStr>(option: &str, value: &str) -> Result<T, UsageError>
where
    T::Err: ToString,
{
    value.parse().map_err(|reason: T::Err| bad(option, value, reason.to_string()))
}

fn long_option(
    scope: &mut Scope,
    name: &str,
    value: Option<&str>,
    rest: &mut std::slice::Iter<'_, OsString>,
) -> Result<(), UsageError> {
    let option = format!("--{name}");
    if !matches!(name, "proxy" | "user" | "cluster" | "home") {
        return Err(UsageError::Unknown(option));
    }
    let value = match value {
        Some(value) => value,
        None => value_of(rest, || option.clone())?,
    };
    match name {
        "proxy" => scope.proxy = Some(checked(&option, value)?),
        "user" => scope.user = Some(checked(&option, value)?),
        "cluster" => scope.cluster = Some(checked(&option, value)?),
        _ => scope.home = Some(value.into()),
    }
    Ok(())
}

fn short_flag(parsed: &mut SshArgs, flag: char) -> Result<(), UsageError> {
    let unsupported = |reason| Err(UsageError::Unsupported(format!("-{flag}"), reason));
    let option = match flag {
        '4' | '6' => "addressfamily",
        'g' => "gatewayports",
        'N' | 's' => "sessiontype",
        'n' => "stdinnull",
        'q' | 'v' => "loglevel",
        'T' | 't' => "requesttty",
        'A' | 'a' => "forwardagent",
        _ => "",
    };
    parsed.decided.insert(option.to_owned());
    match flag {
        '4' => parsed.family = Family::V4,
        '6' => parsed.family = Family::V6,
        'g' => parsed.gateway_ports = true,
        'N' => parsed.no_command = true,
        'n' => parsed.stdin_null = true,
        'q' => parsed.quiet = true,
        's' => parsed.subsystem = true,
        'T' => parsed.tty = Tty::Never,
        't' => parsed.tty = if parsed.tty == Tty::Request { Tty::Force } else { Tty::Request },
        'v' => parsed.verbose = parsed.verbose.saturating_add(1),
        // What they turn off is never on; compression brings nothing under TLS on today's links.
        'C' | 'k' | 'x' => {}
        'A' => parsed.agent = AgentForwarding::Own,
        'a' => parsed.agent = AgentForwarding::No,
        'f' => return unsupported("start it in the background with the shell's &"),
        'G' => return unsupported("there is no configuration to print; `tsh status` shows the login"),
        'K' => return unsupported("certificates of the cluster are the only way to log in"),
        'M' => return unsupported(options::NO_MULTIPLEXING),
        'X' | 'Y' => return unsupported(options::NO_X11),
        'y' => return unsupported("messages go to standard error"),
        _ => return Err(UsageError::Unknown(format!("-{flag}"))),
    }
    Ok(())
}

fn flag_with_value(parsed: &mut SshArgs, flag: char, value: &str) -> Result<(), UsageError> {
    let option = format!("-{flag}");
    let unsupported = |reason| Err(UsageError::Unsupported(option.clone(), reason));
    match flag {
        'e' => {
            parsed.escape = escape(&option, value)?;
            parsed.decided.insert("escapechar".into());
        }
        'L' => parsed.forwards.push(checked(&option, value)?),
        'R' => parsed.remote_forwards.push(checked(&option, value)?),
        'l' => parsed.login = Some(checked(&option, value)?),
        'o' => options::apply(parsed, value)?,
        'p' => parsed.port = Some(port(&option, value)?),
        'P' => {}
        'W' => parsed.stdio_forward = Some(host_port(&option, value)?),
        'B' | 'b' => return unsupported("the connection goes out as the system routes it"),
        'c' | 'm' => return unsupported("algorithms are not chosen by hand"),
        'D' => return unsupported("use -L with the port that is needed"),
        'E' => return unsupported("redirect standard error instead"),
        'F' if value.eq_ignore_ascii_case("none") => parsed.config = ConfigFiles::None,
        'F' => parsed.config = ConfigFiles::Only(value.into()),
        'I' | 'i' => {
            return unsupported(
                "the certificate of `tsh login` is the identity, or a file made by `tsh login -o` or `tctl auth sign`: tsh -i FILE ssh …",
            );
        }
        'J' => return unsupported("the cluster's proxy finds the way to every node"),
        'O' | 'S' => return unsupported(options::NO_MULTIPLEXING),
        'Q' => return unsupported("algorithms are not chosen by hand"),
        'w' => return unsupported("there are no tunnel devices"),
        _ => return Err(UsageError::Unknown(option)),
    }
    Ok(())
}

fn escape(option: &str, value: &str) -> Result<Option<u8>, UsageError> {
    match value.as_bytes() {
        b"none" => Ok(None),
        [character] if character.is_ascii() => Ok(Some(*character)),
        [b'^', letter @ (b'@'..=b'_' | b'a'..=b'z')] => Ok(Some(letter & 0x1f)),
        _ => Err(bad(option, value, "one character, ^ and a letter, or none is expected")),
    }
}

fn port(option: &str, value: &str) -> Result<u16, UsageError> {
    value.parse().ok().filter(|port| *port != 0).ok_or_else(|| bad(option, value, "a port is a number from 1 to 65535"))
}

fn host_port(option: &str, value: &str) -> Result<(String, u16), UsageError> {
    let wrong = || bad(option, value, "host:port is expected");
    let (host, number) = value.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.starts_with('-') {
        return Err(wrong());
    }
    Ok((host.to_owned(), port(option, number)?))
}

/// `[user@]host` or `ssh://[user@]host[:port]`. A login or port given by a flag wins.
fn destination(parsed: &mut SshArgs, text: &str) -> Result<(), UsageError> {
    let refuse = |reason: &str| UsageError::Host(text.chars().take(200).collect(), reason.to_owned());
    let mut host = text;
    let url = text.strip_prefix("ssh://");
    if let Some(rest) = url {
        host = rest.trim_end_matches('/');
    }
    if let Some((login, rest)) = host.rsplit_once('@') {
        let login = Login::new(login).map_err(|cause| refuse(&cause.to_string()))?;
        parsed.login.get_or_insert(login);
        host = rest;
    }
    if url.is_some()
        && let Some((rest, digits)) = host.rsplit_once(':')
    {
        let found = port("port", digits)?;
        parsed.port.get_or_insert(found);
        host = rest;
    }
    if host.is_empty() || host.starts_with('-') {
        return Err(refuse("a name is expected"));
    }
    parsed.host = host.to_ascii_lowercase();
    Ok(())
}

/// Text for `tsh ssh --help`.
pub(crate) const HELP: &str = "\
Opens a shell on a server of the cluster, or runs a command there.

Usage: tsh ssh [options] [user@]host [command …]

The host is NODE or NODE.CLUSTER. Options are those of ssh(1):
  -l LOGIN           account at the server; default: your name on this machine
  -t, -tt, -T        with a terminal, with one in any case, without
  -L [ADDR:]PORT:HOST:HOSTPORT
                     forwards a local port to HOST:HOSTPORT as the server sees it
  -R [ADDR:]PORT:HOST:HOSTPORT
                     forwards a port of the server to HOST:HOSTPORT as this machine sees it
  -A, -a             with your ssh-agent (SSH_AUTH_SOCK) at the server, without; root there can use it, too
  -W HOST:PORT       standard input and output are forwarded to HOST:PORT
  -N, -n, -s         no command; no standard input; the command is a subsystem
  -e CHAR            escape character; default ~ (~. ends the connection)
  -g                 forwarded ports accept connections from other machines
  -4, -6             the proxy is reached by IPv4 or IPv6 only
  -o OPTION=VALUE    options of ssh_config(5) that make sense; others are refused by name
  -F FILE            an ssh_config(5) to read; called as ssh: instead of ~/.ssh/config and the system's
  -q, -v, -V         quiet; verbose (more often: more); version
  -p PORT            taken and of no effect: a node is found by its name
and of tsh:
  --cluster NAME, --proxy HOST[:PORT], --user NAME, --home DIR, --insecure

Exit status: that of the command; 255 when the connection failed.

Example:
  tsh ssh -L 8080:localhost:80 root@node-a uptime
";

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<SshArgs, UsageError> {
        let words: Vec<OsString> = line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect();
        match parse(&words)? {
            Parsed::Run(args) => Ok(*args),
            other @ (Parsed::Help | Parsed::Version) => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_may_be_joined_may_carry_their_value_and_may_follow_the_host() {
        let parsed = args("-qtt -p22 -oUser=bob -L8080:db:5432 Node-A.Root -l ann -e none uname -a -L x").unwrap();
        assert_eq!(parsed.host, "node-a.root");
        assert_eq!(parsed.login.as_ref().map(Login::as_str), Some("ann"), "-l wins over User");
        assert_eq!((parsed.quiet, parsed.tty, parsed.port, parsed.escape), (true, Tty::Force, Some(22), None));
        assert_eq!(parsed.forwards.len(), 1);
        assert_eq!(parsed.command, b"uname -a -L x");
    }

    #[test]
    fn a_login_before_the_host_gives_way_to_the_flag() {
        assert_eq!(args("root@h").unwrap().login.unwrap().as_str(), "root");
        assert_eq!(args("-l ann root@h").unwrap().login.unwrap().as_str(), "ann");
        assert_eq!(args("root@h -l ann").unwrap().login.unwrap().as_str(), "ann");
        let url = args("ssh://root@h:2222").unwrap();
        assert_eq!((url.login.unwrap().as_str(), url.host.as_str(), url.port), ("root", "h", Some(2222)));
    }

    #[test]
    fn the_command_is_passed_on_octet_for_octet() {
        use std::os::unix::ffi::OsStringExt;
        let words = [OsString::from("h"), "--".into(), "cat".into(), OsString::from_vec(vec![0xff, b'$'])];
        let Parsed::Run(parsed) = parse(&words).unwrap() else { panic!() };
        assert_eq!(parsed.command, b"cat \xff$");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (line, named) in [
            ("-i key h", "-i"),
            ("-J jump h", "-J"),
            ("-R 1080 h", "-R"),
            ("-R /tmp/x:a:2 h", "-R"),
            ("-D 1080 h", "-D"),
            ("-X h", "-X"),
            ("-Z h", "-Z"),
            ("--fast h", "--fast"),
            ("-o ProxyJump=x h", "ProxyJump"),
            ("-o ForwardAgent=maybe h", "ForwardAgent"),
            ("-o ForwardX11=yes h", "ForwardX11"),
            ("-o NoSuchThing=1 h", "NoSuchThing"),
        ] {
            let error = args(line).unwrap_err().to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn an_agent_and_ports_come_back_from_the_server_when_that_is_asked_for() {
        let parsed = args("-A -R 8080:localhost:80 -R 0:[::1]:22 h").unwrap();
        assert_eq!(parsed.agent, AgentForwarding::Own);
        assert_eq!(parsed.remote_forwards.iter().map(|spec| spec.port).collect::<Vec<_>>(), [8080, 0]);
        assert_eq!(args("-A -a h").unwrap().agent, AgentForwarding::No, "the last flag counts");
        assert_eq!(args("-a -o ForwardAgent=yes h").unwrap().agent, AgentForwarding::No, "flags go before options");
        assert_eq!(args("-o ForwardAgent=yes h").unwrap().agent, AgentForwarding::Own);
        assert_eq!(args("-o ForwardAgent=$OTHER h").unwrap().agent, AgentForwarding::Named("OTHER".into()));
        assert_eq!(args("-o ForwardAgent=/run/agent h").unwrap().agent, AgentForwarding::At("/run/agent".into()));
        let parsed = args("-o RemoteForward=8080:localhost:80 -o ClearAllForwardings=yes h").unwrap();
        assert!(parsed.remote_forwards.is_empty());
    }

    #[test]
    fn names_that_could_be_read_as_options_are_refused() {
        // I70
        for line in ["-- -oProxyCommand=x", "-o@h", "root@-h", "-l -x h", "@h", "-W -x:1 h"] {
            assert!(args(line).is_err(), "{line}");
        }
        assert_eq!(args(""), Err(UsageError::NoHost));
    }

    #[test]
    fn our_own_flags_stand_among_those_of_ssh() {
        let scope = args("--cluster leaf.example.com -v --proxy=p:443 h id").unwrap().scope;
        assert_eq!(scope.cluster.unwrap().as_str(), "leaf.example.com");
        assert_eq!(scope.proxy.unwrap().port(), 443);
        assert_eq!(parse(&["--help".into()]), Ok(Parsed::Help));
        assert_eq!(parse(&["-vV".into()]), Ok(Parsed::Version));
    }

    #[test]
    fn what_ansible_passes_is_taken() {
        let parsed = args(
            "-C -o ControlMaster=auto -o ControlPersist=60s -o KbdInteractiveAuthentication=no \
             -o PreferredAuthentications=gssapi-with-mic,hostbased,publickey -o PasswordAuthentication=no \
             -o User=\"deploy\" -o ConnectTimeout=10 -o ControlPath=/tmp/cp -tt h true",
        )
        .unwrap();
        assert_eq!(parsed.login.unwrap().as_str(), "deploy");
        assert_eq!(parsed.connect_timeout, Some(Duration::from_secs(10)));
    }
}
