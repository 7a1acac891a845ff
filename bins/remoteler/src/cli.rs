//! The daemon's flags and subcommands.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, builder::BoolishValueParser};
use remoteler_core::{Labels, SystemRole, parse_duration};

use crate::config::{Flags, parse_labels};

const AFTER_HELP: &str = "Example: remoteler start --data-dir ./data

REMOTELER_LOG says what is logged in place of the config file's log.level: a level (error, warn, info, debug, trace, off), or several
TARGET=LEVEL with commas between, such as info,remoteler_tunnel=debug.";

/// The Remoteler daemon: auth, proxy, node, kube and app services, any set of them in one process.
#[derive(Debug, Parser)]
#[command(name = "remoteler", version = crate::VERSION, about, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the services; without a config file and flags, a whole cluster on this machine
    #[command(
        after_help = "Example: remoteler start --auth-server proxy.example.com:3080 --token /etc/remoteler.token --ca-pin sha256:…"
    )]
    Start(Box<StartArgs>),
    /// Be the same host of the cluster again, after the host authority was replaced while this machine was away
    #[command(
        after_help = "Example: remoteler rejoin --data-dir ./data --token /etc/remoteler.token --ca-pin sha256:…"
    )]
    Rejoin(RejoinArgs),
    #[cfg(feature = "server")]
    /// Run an all-in-one cluster and an edge node on this machine, and tell what happens
    #[command(after_help = "Example: remoteler demo --once")]
    Demo(DemoArgs),
    /// Print a commented config file
    #[command(after_help = "Example: remoteler configure --roles node -o /etc/remoteler.yaml")]
    Configure(ConfigureArgs),
    /// Tell what the daemon on this machine is and is connected to
    #[command(after_help = "Example: remoteler status --data-dir ./data")]
    Status(StatusArgs),
    /// Print version, commit and target
    Version,
    /// SFTP over standard input and output, run by the node as the session's user
    #[command(hide = true)]
    SftpServer,
}

/// Flags of `start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Config file; /etc/remoteler.yaml is read when it exists and no other is named
    #[arg(short = 'c', long = "config", env = "REMOTELER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Services to run: auth, proxy, node, kube, app
    #[arg(long, env = "REMOTELER_ROLES", value_delimiter = ',', value_name = "ROLES")]
    pub roles: Option<Vec<SystemRole>>,
    /// Where keys and state are kept
    #[arg(long, env = "REMOTELER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// HOST:PORT of an auth service or a proxy to join
    #[arg(long, visible_alias = "auth", env = "REMOTELER_AUTH_SERVER", value_name = "ADDR")]
    pub auth_server: Option<String>,
    /// Join token, or the path of a file that holds it
    #[arg(long, env = "REMOTELER_TOKEN", hide_env_values = true, value_name = "TOKEN|FILE")]
    pub token: Option<String>,
    /// Pin of the cluster's host authority, as `tctl auth status` prints it
    #[arg(long, env = "REMOTELER_CA_PIN", value_delimiter = ',', value_name = "sha256:…")]
    pub ca_pin: Vec<String>,
    /// Name of the cluster, at its first start
    #[arg(long, env = "REMOTELER_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Name of this host in the cluster
    #[arg(long, env = "REMOTELER_NODENAME", value_name = "NAME")]
    pub nodename: Option<String>,
    /// Labels of this node: k=v,k2=v2
    #[arg(long, env = "REMOTELER_LABELS", value_parser = parse_labels, value_name = "k=v,…")]
    pub labels: Option<Labels>,
    /// Address that all services listen on
    #[arg(long, env = "REMOTELER_LISTEN_IP", value_name = "IP")]
    pub listen_ip: Option<IpAddr>,
    /// Join without a CA pin, believing whoever answers
    #[arg(long, env = "REMOTELER_INSECURE", value_parser = BoolishValueParser::new())]
    pub insecure: bool,
    /// How long live sessions get after SIGTERM
    #[arg(long, env = "REMOTELER_DRAIN_TIMEOUT", default_value = "60s", value_parser = duration, value_name = "DURATION")]
    pub drain_timeout: Duration,
    /// Be the next process of a daemon that is making way; it starts this one itself
    #[arg(long, hide = true)]
    pub successor: bool,
    /// Log at DEBUG
    #[arg(short = 'd', long = "debug", env = "REMOTELER_DEBUG", value_parser = BoolishValueParser::new())]
    pub debug: bool,
}

impl StartArgs {
    /// The flags as the settings take them.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            roles: self.roles.clone(),
            data_dir: self.data_dir.clone(),
            auth_server: self.auth_server.clone(),
            token: self.token.clone(),
            ca_pins: self.ca_pin.clone(),
            cluster_name: self.cluster_name.clone(),
            nodename: self.nodename.clone(),
            labels: self.labels.clone(),
            listen_ip: self.listen_ip,
            insecure: self.insecure,
            drain_timeout: Some(self.drain_timeout),
            debug: self.debug,
            https_proxy: environment(["HTTPS_PROXY", "https_proxy"]),
            no_proxy: environment(["NO_PROXY", "no_proxy"]),
        }
    }
}

/// What every program that speaks HTTP goes by; not a flag, for a password may be in it.
fn environment(names: [&str; 2]) -> Option<String> {
    names.into_iter().find_map(|name| std::env::var(name).ok())
}

/// Flags of `rejoin`.
#[derive(Debug, Args)]
pub struct RejoinArgs {
    /// The daemon's config file
    #[arg(short = 'c', long = "config", env = "REMOTELER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The daemon's data directory
    #[arg(long, env = "REMOTELER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// HOST:PORT of an auth service or a proxy; without it the one that this host joined through
    #[arg(long, visible_alias = "auth", env = "REMOTELER_AUTH_SERVER", value_name = "ADDR")]
    pub auth_server: Option<String>,
    /// Fresh join token, or the path of a file that holds it
    #[arg(long, env = "REMOTELER_TOKEN", hide_env_values = true, value_name = "TOKEN|FILE")]
    pub token: String,
    /// Pin of the cluster's host authority as it is now, as `tctl tokens add` prints it
    #[arg(long, env = "REMOTELER_CA_PIN", value_delimiter = ',', value_name = "sha256:…")]
    pub ca_pin: Vec<String>,
    /// Go without a CA pin, believing whoever answers
    #[arg(long, env = "REMOTELER_INSECURE", value_parser = BoolishValueParser::new())]
    pub insecure: bool,
    /// Take new keys, so that nobody who has a copy of this disk is this host any more
    #[arg(long, env = "REMOTELER_NEW_KEYS", value_parser = BoolishValueParser::new())]
    pub new_keys: bool,
    /// How the result is printed
    #[arg(long, env = "REMOTELER_FORMAT", default_value = "text", value_enum)]
    pub format: Format,
}

/// Flags of `demo`.
#[cfg(feature = "server")]
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the demo keeps its clusters; default: a new directory, removed at the end
    #[arg(long, env = "REMOTELER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A kubeconfig whose cluster the demo may ask for its pods
    #[arg(long, env = "REMOTELER_DEMO_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Exit after the story: 0 if all of it worked
    #[arg(long)]
    pub once: bool,
}

/// Flags of `configure`.
#[derive(Debug, Args)]
pub struct ConfigureArgs {
    /// Services that the file turns on: auth, proxy, node, kube, app
    #[arg(long, value_delimiter = ',', default_value = "auth,proxy,node", value_name = "ROLES")]
    pub roles: Vec<SystemRole>,
    /// Write there instead of to standard output; an existing file is left alone
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The daemon's config file
    #[arg(short = 'c', long = "config", env = "REMOTELER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The daemon's data directory
    #[arg(long, env = "REMOTELER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How the status is printed
    #[arg(long, env = "REMOTELER_FORMAT", default_value = "text", value_enum)]
    pub format: Format,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One object
    Json,
    /// The same, as YAML
    Yaml,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is no duration such as 30s or 5m"))
}
