//! The command line: what can be said. Owns names, defaults and help texts; decides nothing.

mod login;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, builder::BoolishValueParser};
use remoteler_client::ProxyAddr;
use remoteler_core::{AppName, ClusterName, KubeClusterName, Secret, UserName, parse_duration};
use remoteler_ssh::Speed;

pub(crate) use self::login::{FileFormat, Login};
use crate::output::Format;

/// Identity-based access to servers, Kubernetes clusters and web apps, without long-lived keys.
#[derive(Debug, Parser)]
#[command(
    name = "tsh",
    disable_version_flag = true,
    after_help = "Example:\n  tsh login --proxy proxy.example.com && tsh ssh root@node-a"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Prints version, commit and target.
    #[arg(short = 'V', long)]
    pub(crate) version: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Cli {
    /// The command line, if its flags go together; clap sees all but this.
    pub(crate) fn checked(self) -> Result<Self, clap::Error> {
        match &self.command {
            Some(Command::Login(login)) if login.kube_cluster.is_some() && login.format != FileFormat::Kubernetes => {
                let said = "--kube-cluster goes with --format kubernetes";
                Err(Self::command().error(clap::error::ErrorKind::ArgumentConflict, said))
            }
            _ => Ok(self),
        }
    }
}

/// What every command takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Common {
    /// The proxy; default: that of the last login, port 3080.
    #[arg(long, env = "TSH_PROXY", value_name = "HOST[:PORT]", global = true)]
    pub(crate) proxy: Option<ProxyAddr>,
    /// Who you are at the cluster; default: as at the last login, or your name on this machine.
    #[arg(long, env = "TSH_USER", value_name = "NAME", global = true)]
    pub(crate) user: Option<UserName>,
    /// The cluster to go to; default: the one selected at login.
    #[arg(long, env = "TSH_CLUSTER", value_name = "NAME", global = true)]
    pub(crate) cluster: Option<ClusterName>,
    /// Where keys and the profile are; default: ~/.tsh.
    #[arg(long, env = "TSH_HOME", value_name = "DIR", global = true)]
    pub(crate) home: Option<PathBuf>,
    /// Acts as the user in this identity file, made by `tsh login -o` or `tctl auth sign`; no login is used, asked for or kept.
    #[arg(short, long, env = "TSH_IDENTITY", value_name = "FILE", global = true)]
    pub(crate) identity: Option<PathBuf>,
    /// Believes the proxy's web certificate whatever it is. Who is in the path then sees the password.
    #[arg(long, env = "TSH_INSECURE", global = true, value_parser = BoolishValueParser::new())]
    pub(crate) insecure: bool,
    /// Says on standard error what is going on.
    #[arg(short, long, env = "TSH_DEBUG", global = true, value_parser = BoolishValueParser::new())]
    pub(crate) debug: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Logs in and fetches certificates; with valid ones only selects the cluster.
    #[command(
        after_help = "Example:\n  tsh login --proxy proxy.example.com:443 --user ann --ttl 8h\n  tsh login --proxy proxy.example.com -o ci.identity && tsh -i ci.identity ls"
    )]
    Login(Login),
    /// Sets password and second factor of a new user, once, by the link that an administrator has made; in a browser the link does the same.
    #[command(after_help = "Example:\n  tsh signup\n  tsh signup https://proxy.example.com:3080/web/invite/LINK")]
    Signup {
        /// The link; asked for when it is left out. Other users of this machine see what a program is called with.
        #[arg(value_name = "LINK", value_parser = secret)]
        link: Option<Secret>,
    },
    /// Removes keys and certificates of the proxy, from the ssh-agent and kubeconfig too.
    #[command(after_help = "Example:\n  tsh logout --proxy proxy.example.com")]
    Logout,
    /// Shows who is logged in where, and until when.
    #[command(after_help = "Example:\n  tsh status --format json")]
    Status(Formatted),
    /// Lists clusters.
    #[command(after_help = "Example:\n  tsh clusters")]
    Clusters(Formatted),
    /// Lists servers, all or those with these labels.
    #[command(after_help = "Example:\n  tsh ls env=prod")]
    Ls(Ls),
    /// Opens a shell on a server or runs a command there. Takes the flags of ssh(1).
    #[command(disable_help_flag = true)]
    Ssh(PassedOn),
    /// Copies files from and to a server.
    #[command(after_help = "Example:\n  tsh scp -r ./site root@node-a:/var/www")]
    Scp(Scp),
    /// Prints an ssh_config block, with which plain ssh, scp, rsync, git and ansible work.
    #[command(after_help = "Example:\n  tsh config >> ~/.ssh/config && ssh root@node-a.root.example.com")]
    Config(Config),
    /// Connects standard input and output with a target.
    #[command(after_help = "Example:\n  ssh -o ProxyCommand='tsh proxy ssh %r@%h:%p' root@node-a.root.example.com")]
    Proxy {
        #[command(subcommand)]
        target: ProxyTarget,
    },
    /// Access to Kubernetes clusters.
    #[command(after_help = "Example:\n  tsh kube login staging && kubectl get pods")]
    Kube {
        #[command(subcommand)]
        command: Kube,
    },
    /// Access to web apps.
    #[command(after_help = "Example:\n  tsh apps ls && tsh apps login grafana")]
    Apps {
        #[command(subcommand)]
        command: Apps,
    },
    /// Shows what you may do: everywhere, or on one server.
    #[command(after_help = "Example:\n  tsh explain --login root gw-17")]
    Explain(Explain),
    /// Second factors of yours: one-time codes of an authenticator app, security keys.
    #[command(after_help = "Example:\n  tsh mfa add --name phone")]
    Mfa {
        #[command(subcommand)]
        command: Mfa,
    },
    /// Recorded sessions.
    #[command(after_help = "Example:\n  tsh recordings ls")]
    Recordings {
        #[command(subcommand)]
        command: Recordings,
    },
    /// Plays a recorded session.
    #[command(after_help = "Example:\n  tsh play 67e55044-10b1-426f-9247-bb680e5fe0c8 --speed 2x")]
    Play(Play),
    /// Prints version, commit and target.
    #[command(after_help = "Example:\n  tsh version")]
    Version(Formatted),
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// One account; default: those that your certificate holds.
    #[arg(long, env = "TSH_LOGIN", value_name = "LOGIN", conflicts_with_all = ["kube", "app"])]
    pub(crate) login: Option<remoteler_core::Login>,
    /// One Kubernetes cluster.
    #[arg(long, env = "TSH_KUBE_CLUSTER", value_name = "NAME", conflicts_with_all = ["node", "app"])]
    pub(crate) kube: Option<KubeClusterName>,
    /// One web application.
    #[arg(long, env = "TSH_APP", value_name = "NAME", conflicts_with = "node")]
    pub(crate) app: Option<remoteler_core::AppName>,
    /// One server; default: all that you may see.
    pub(crate) node: Option<remoteler_core::NodeName>,
    #[command(flatten)]
    pub(crate) formatted: Formatted,
}

/// What kind of second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FactorType {
    /// One-time codes of an authenticator app.
    Totp,
    /// A security key.
    Webauthn,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mfa {
    /// Lists them.
    #[command(after_help = "Example:\n  tsh mfa ls")]
    Ls(Formatted),
    /// Sets up an authenticator app, after the password and a code of a factor you have; or opens the page where a security key is set up.
    #[command(after_help = "Example:\n  tsh mfa add --name phone\n  tsh mfa add --type webauthn")]
    Add {
        /// Name for it.
        #[arg(long, env = "TSH_MFA_NAME", value_name = "NAME", default_value = "authenticator app")]
        name: String,
        /// `totp`, an authenticator app; or `webauthn`, a security key, which is set up in a browser.
        #[arg(long = "type", env = "TSH_MFA_TYPE", value_name = "TYPE", default_value = "totp")]
        kind: FactorType,
    },
    /// Removes one; asks for the password, and for a code of a factor you have.
    #[command(after_help = "Example:\n  tsh mfa rm phone")]
    Rm {
        /// As `tsh mfa ls` shows it.
        name: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Formatted {
    /// How to print.
    #[arg(long, env = "TSH_FORMAT", default_value = "text", value_enum)]
    pub(crate) format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) formatted: Formatted,
    /// Labels that a server must have, all of them.
    #[arg(value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
}

#[derive(Args, Debug)]
pub(crate) struct PassedOn {
    #[arg(
        help = "Flags of ssh(1), [user@]host, command",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    pub(crate) args: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Scp {
    /// Directories with all that is in them.
    #[arg(short)]
    pub(crate) recursive: bool,
    /// Keeps modification times and permissions.
    #[arg(short)]
    pub(crate) preserve: bool,
    /// No progress bar and no warnings.
    #[arg(short)]
    pub(crate) quiet: bool,
    /// Ignored: a server of the cluster is found by its name.
    #[arg(short = 'P', value_name = "PORT", hide = true)]
    pub(crate) port: Option<u16>,
    #[arg(help = "SRC… DST, each a local path or [user@]host:path", required = true, num_args = 2.., value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Config {
    /// Also for the bare names of the cluster's servers, not only NODE.CLUSTER.
    #[arg(long, env = "TSH_BARE", value_parser = BoolishValueParser::new())]
    pub(crate) bare: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyTarget {
    /// An SSH server; for use as ProxyCommand.
    #[command(after_help = "Example:\n  ssh -o ProxyCommand='tsh proxy ssh %r@%h:%p' root@node-a.root.example.com")]
    Ssh {
        #[arg(help = "User and port are of no meaning here and may be left out", value_name = "USER@HOST:PORT")]
        target: String,
    },
    /// A web app, for programs of this machine: listens on 127.0.0.1 until it is stopped.
    #[command(after_help = "Example:\n  tsh proxy app grafana --port 8080")]
    App {
        /// As `tsh apps ls` shows it.
        name: AppName,
        /// Where to listen; default: a port that is free.
        #[arg(long, env = "TSH_PORT", value_name = "PORT", default_value_t = 0)]
        port: u16,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Apps {
    /// Lists web apps.
    #[command(after_help = "Example:\n  tsh apps ls")]
    Ls(Formatted),
    /// Says how an app is reached, by browsers and by programs.
    #[command(after_help = "Example:\n  tsh apps login grafana")]
    Login {
        /// As `tsh apps ls` shows it.
        name: AppName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Kube {
    /// Lists Kubernetes clusters.
    #[command(after_help = "Example:\n  tsh kube ls")]
    Ls(Formatted),
    /// Writes a context for the cluster into the kubeconfig and selects it.
    #[command(after_help = "Example:\n  tsh kube login staging")]
    Login {
        /// As `tsh kube ls` shows it.
        name: KubeClusterName,
    },
    /// Prints the certificate for kubectl; called by kubectl itself.
    #[command(after_help = "Example:\n  tsh kube credentials --kube-cluster staging")]
    Credentials {
        /// As `tsh kube ls` shows it.
        #[arg(long, env = "TSH_KUBE_CLUSTER", value_name = "NAME")]
        kube_cluster: KubeClusterName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Recordings {
    /// Lists recorded sessions.
    #[command(after_help = "Example:\n  tsh recordings ls --format json")]
    Ls(Formatted),
}

#[derive(Args, Debug)]
pub(crate) struct Play {
    /// How fast, from 0.1x to 100x.
    #[arg(long, env = "TSH_SPEED", default_value = "1x")]
    pub(crate) speed: Speed,
    /// What to make of it: a replay, one JSON object, the recording itself, or its text.
    #[arg(long, env = "TSH_PLAY_FORMAT", default_value = "pty", value_enum)]
    pub(crate) format: PlayFormat,
    /// Pauses are cut to this, such as 2s.
    #[arg(long, env = "TSH_IDLE_LIMIT", value_name = "DURATION", value_parser = ttl)]
    pub(crate) idle_limit: Option<std::time::Duration>,
    /// Id of the session, or a file.
    #[arg(value_name = "SESSION_ID|FILE")]
    pub(crate) source: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PlayFormat {
    Pty,
    Json,
    Cast,
    Text,
}

fn ttl(text: &str) -> Result<std::time::Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is no duration; write it like 30s, 30m, 8h or 7d"))
}

#[expect(clippy::unnecessary_wraps, reason = "clap asks for a result")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no label; write it like env=prod")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_level_of_help_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if !path.ends_with(" ssh") || path.ends_with("proxy ssh") {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example:"), "{path}");
            }
            for below in command.get_subcommands() {
                check(below, &path);
            }
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn every_flag_has_an_environment_variable_of_ours() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
                let long = argument.get_long().unwrap_or_default();
                if !matches!(long, "help" | "version") {
                    let env = argument.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                    assert!(env.starts_with("TSH_"), "{} --{long}", command.get_name());
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn the_flags_of_ssh_are_passed_on_as_they_are() {
        let cli = Cli::try_parse_from([
            "tsh",
            "--cluster",
            "leaf",
            "ssh",
            "-p",
            "22",
            "-L1:a:2",
            "u@h",
            "ls",
            "-d",
            "--help",
        ]);
        let cli = cli.unwrap();
        assert_eq!(cli.common.cluster.unwrap().as_str(), "leaf");
        let Some(Command::Ssh(PassedOn { args })) = cli.command else { panic!("another command") };
        assert_eq!(args, ["-p", "22", "-L1:a:2", "u@h", "ls", "-d", "--help"]);
    }

    #[test]
    fn what_a_login_writes_into_files_is_said_with_them_only() {
        let parsed = |line: &str| Cli::try_parse_from(line.split(' ')).and_then(Cli::checked);
        for right in
            ["tsh login -o x", "tsh login -o x --format tls", "tsh login -o x --format kubernetes --kube-cluster k"]
        {
            assert!(parsed(right).is_ok(), "{right}");
        }
        for wrong in [
            "tsh login --format tls",
            "tsh login --overwrite",
            "tsh login --kube-cluster k",
            "tsh login -o x --kube-cluster k",
            "tsh login -o x --format json",
        ] {
            assert_eq!(parsed(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn flags_of_all_commands_may_follow_the_command() {
        let cli =
            Cli::try_parse_from(["tsh", "proxy", "ssh", "--home", "/h", "--proxy", "p", "--cluster", "c", "u@n.c:22"]);
        assert_eq!(cli.unwrap().common.proxy.unwrap().port(), 3080);
    }
}
