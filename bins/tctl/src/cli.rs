//! Flags and subcommands. Every flag has an environment variable; every level has an example.

mod audit;
mod lock;
mod policy;
mod revocation;
mod sign;
mod sso;

use std::path::PathBuf;

use clap::{
    Args, CommandFactory, Parser, Subcommand, ValueEnum,
    builder::{BoolishValueParser, PossibleValuesParser},
    error::ErrorKind,
};
use remoteler_core::{AuditKind, RoleName, SystemRole, UserName};
use uuid::Uuid;

pub(crate) use self::audit::{ExportArgs, Outcome, VerifyArgs};
pub(crate) use self::lock::LockArgs;
pub(crate) use self::policy::{ExplainArgs, TestArgs};
pub(crate) use self::revocation::{ListArgs, RevokeArgs, RevokedWhat, UnrevokeArgs};
pub(crate) use self::sign::{AnyFormat, SignArgs, SignFormat};
pub(crate) use self::sso::SsoCommand;
use crate::{
    commands::{HostPattern, Moment, ResourceRef, Trait, Ttl},
    output::Format,
};

/// The Remoteler administrator's tool
#[derive(Debug, Parser)]
#[command(name = "tctl", version = env!("TCTL_VERSION"), about, after_help = "Example: tctl status")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// How results are printed; text, but for `get`, which prints YAML. For `auth sign` what is made
    #[arg(long, global = true, env = "REMOTELER_FORMAT", value_name = "text|json|yaml", help_heading = "Output")]
    pub(crate) format: Option<AnyFormat>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// This, if its flags go together in ways that their definitions do not say.
    pub(crate) fn checked(self) -> Result<Self, clap::Error> {
        let wrong = |reason: String| Self::command().error(ErrorKind::ValueValidation, reason);
        match (&self.command, self.format) {
            (Command::Auth(AuthCommand::Sign(args)), format) => {
                let format = match format {
                    Some(AnyFormat::Sign(format)) => Some(format),
                    Some(AnyFormat::Print(_)) | None => None,
                };
                args.check(format).map_err(wrong)?;
            }
            (Command::Auth(AuthCommand::Export { kind, hosts }), _)
                if *kind != ExportKind::Host && !hosts.is_empty() =>
            {
                return Err(wrong("--hosts goes with --type host only".into()));
            }
            (_, Some(AnyFormat::Sign(format))) => {
                let format = format.as_str();
                return Err(wrong(format!("--format {format} goes with auth sign only; text, json and yaml print")));
            }
            (_, Some(AnyFormat::Print(_)) | None) => {}
        }
        Ok(self)
    }

    /// How the result is printed.
    pub(crate) fn printed(&self) -> Format {
        match self.format {
            Some(AnyFormat::Print(format)) => format,
            Some(AnyFormat::Sign(_)) | None => self.command.usual_format(),
        }
    }

    /// What `auth sign` makes; `None` for other commands.
    pub(crate) fn sign_format(&self) -> Option<SignFormat> {
        let Command::Auth(AuthCommand::Sign(args)) = &self.command else { return None };
        let format = match self.format {
            Some(AnyFormat::Sign(format)) => Some(format),
            Some(AnyFormat::Print(_)) | None => None,
        };
        args.check(format).ok()
    }
}

/// Which auth service is meant: one on this machine, or one far away with what `tsh login` got.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Config file of the auth service on this machine; /etc/remoteler.yaml is read when it exists and nothing else is named
    #[arg(short = 'c', long = "config", global = true, env = "REMOTELER_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory of the auth service on this machine; with nothing named /var/lib/remoteler, and if no auth service runs there the
    /// cluster that tsh is logged in to
    #[arg(long, global = true, env = "REMOTELER_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// HOST:PORT of an auth service or a proxy, to be asked as the user who is logged in with tsh
    #[arg(long, global = true, env = "REMOTELER_AUTH_SERVER", value_name = "ADDR")]
    pub(crate) auth_server: Option<String>,
    /// Identity file made by `tctl auth sign`: ask as its user, at --auth-server or the proxy that the file names
    #[arg(short = 'i', long, global = true, env = "REMOTELER_IDENTITY", value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the cluster
    #[command(after_help = "Example: tctl status --format json")]
    Status,
    /// Add, list and remove users
    #[command(subcommand, after_help = "Example: tctl users add ann --roles access --logins ann,ubuntu")]
    Users(UsersCommand),
    /// Add, list and remove join tokens
    #[command(subcommand, after_help = "Example: tctl tokens add --type node --ttl 1h")]
    Tokens(TokensCommand),
    /// Print resources as documents; `create` reads all but nodes, Kubernetes clusters and applications
    #[command(after_help = "Example: tctl get role/access")]
    Get {
        /// KIND or KIND/NAME; kinds: role, user, token, node, kube_cluster, app, policy_test, lock, oidc, saml, github,
        /// cluster_auth_preference (cap), cluster_networking_config (netconfig), session_recording_config (recconfig)
        resource: ResourceRef,
        /// With the secrets of connectors (oidc, github), so that `create` takes them elsewhere; needs to read and update them, and is audited
        #[arg(long, env = "REMOTELER_WITH_SECRETS", value_parser = BoolishValueParser::new())]
        with_secrets: bool,
    },
    /// Write resources from YAML documents of all kinds but node, kube_cluster and app (tokens without a secret). Roles, users and policy tests
    /// that follow each other in the file are one change: all of them or none
    #[command(after_help = "Example: tctl create -f developer.yaml")]
    Create {
        /// Replace what is there already
        #[arg(short = 'f', long, env = "REMOTELER_FORCE", value_parser = BoolishValueParser::new())]
        force: bool,
        /// File of documents; `-` or none: standard input
        file: Option<PathBuf>,
    },
    /// Remove a resource
    #[command(after_help = "Example: tctl rm role/developer")]
    Rm {
        /// KIND/NAME; kinds as of `get`, without those that set the cluster
        resource: ResourceRef,
    },
    /// List the SSH nodes, and let one join again
    #[command(subcommand, after_help = "Example: tctl nodes ls")]
    Nodes(NodesCommand),
    /// List the Kubernetes clusters
    #[command(subcommand, after_help = "Example: tctl kube ls")]
    Kube(ListCommand),
    /// List the web applications
    #[command(subcommand, after_help = "Example: tctl apps ls")]
    Apps(ListCommand),
    /// Show and export the certificate authorities
    #[command(subcommand, after_help = "Example: tctl auth export --type user > /etc/ssh/remoteler_user_ca.pub")]
    Auth(AuthCommand),
    /// Say whether a user may do something, and which roles decide it
    #[command(after_help = "Example: tctl explain --user ann --login root --node gw-17")]
    Explain(ExplainArgs),
    /// Run the policy tests of files over the roles and users of these files, without a cluster; exit code 1 when one does not pass
    #[command(after_help = "Example: tctl test roles.yaml tests.yaml")]
    Test(TestArgs),
    /// Read the audit log
    #[command(subcommand, after_help = "Example: tctl audit ls --type session.start --from 24h")]
    Audit(AuditCommand),
    /// Copy the auth service of this machine, while it runs, into one file: everything but recordings
    #[command(after_help = "Example: tctl backup /var/backups/remoteler-$(date +%F).sqlite")]
    Backup(crate::commands::BackupArgs),
    /// Shut somebody or something out at once: what runs is ended, and nothing new begins
    #[command(
        after_help = "Example: tctl lock --user ann --message 'call the help desk' --ttl 2h\n         tctl lock --node edge-7 --reason 'stolen'\n         tctl lock --role contractor --login root"
    )]
    Lock(Box<LockArgs>),
    /// List what is locked
    #[command(subcommand, after_help = "Example: tctl locks ls")]
    Locks(ListCommand),
    /// Try out connectors to identity providers
    #[command(subcommand, after_help = "Example: tctl sso test okta.yaml")]
    Sso(SsoCommand),
}

impl Command {
    /// What is printed when `--format` does not say.
    pub(crate) const fn usual_format(&self) -> Format {
        match self {
            Self::Get { .. } => Format::Yaml,
            Self::Status
            | Self::Users(_)
            | Self::Tokens(_)
            | Self::Create { .. }
            | Self::Rm { .. }
            | Self::Nodes(_)
            | Self::Kube(_)
            | Self::Apps(_)
            | Self::Auth(_)
            | Self::Audit(_)
            | Self::Explain(_)
            | Self::Test(_)
            | Self::Lock(_)
            | Self::Locks(_)
            | Self::Sso(_)
            | Self::Backup(_) => Format::Text,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Make a user; prints a one-time link to set the password
    #[command(after_help = "Example: tctl users add ann --roles access --logins ann,ubuntu --traits team=blue")]
    Add {
        /// Name
        name: UserName,
        /// Roles; at least one
        #[arg(long, env = "REMOTELER_USER_ROLES", required = true, value_delimiter = ',', value_name = "ROLE,…")]
        roles: Vec<RoleName>,
        /// Operating-system accounts the user may log in to
        #[arg(long, env = "REMOTELER_USER_LOGINS", value_delimiter = ',', value_name = "LOGIN,…")]
        logins: Vec<String>,
        /// Attributes for role templates; a key named twice has two values
        #[arg(long, env = "REMOTELER_USER_TRAITS", value_delimiter = ',', value_name = "KEY=VALUE,…")]
        traits: Vec<Trait>,
    },
    /// List the users
    #[command(after_help = "Example: tctl users ls --format json")]
    Ls,
    /// Remove a user
    #[command(after_help = "Example: tctl users rm ann")]
    Rm {
        /// Name
        name: UserName,
    },
    /// Take a user's password and second factors away; prints a new one-time link to set them anew
    #[command(after_help = "Example: tctl users reset ann")]
    Reset {
        /// Name
        name: UserName,
    },
    /// Set a user's password: from the terminal, else one line of standard input
    #[command(after_help = "Example: tctl users passwd ann")]
    Passwd {
        /// Name
        name: UserName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Make a join token
    #[command(after_help = "Example: tctl tokens add --type node,kube --ttl 30m --format json")]
    Add {
        /// What may join with it: node, kube, app, proxy
        #[arg(
            long = "type",
            env = "REMOTELER_TOKEN_TYPE",
            required = true,
            value_delimiter = ',',
            value_name = "TYPE,…"
        )]
        roles: Vec<SystemRole>,
        /// How long it can be used
        #[arg(long, env = "REMOTELER_TOKEN_TTL", default_value = "1h", value_name = "DURATION")]
        ttl: Ttl,
        /// The token, if it must be a given one; better leave it out, arguments can be seen by other processes
        #[arg(long, env = "REMOTELER_TOKEN_VALUE", hide_env_values = true, value_name = "TOKEN")]
        value: Option<String>,
        /// How many hosts may join with it; without this any number, until its end
        #[arg(long, env = "REMOTELER_TOKEN_USES", value_name = "NUMBER")]
        uses: Option<u32>,
        /// The same as --uses 1
        #[arg(long, env = "REMOTELER_TOKEN_SINGLE_USE", conflicts_with = "uses", value_parser = BoolishValueParser::new())]
        single_use: bool,
        /// What the names of hosts, and of their Kubernetes clusters and applications, must fit: a name, a pattern with * and ?, or ^regex$
        #[arg(long = "name", env = "REMOTELER_TOKEN_NAME", value_name = "PATTERN")]
        names: Option<String>,
        /// Labels that hosts get with it, and cannot change
        #[arg(long, env = "REMOTELER_TOKEN_LABELS", value_delimiter = ',', value_name = "KEY=VALUE,…")]
        labels: Vec<Trait>,
    },
    /// List the tokens that can be used
    #[command(after_help = "Example: tctl tokens ls")]
    Ls,
    /// Remove a token
    #[command(after_help = "Example: tctl tokens rm 5f1d2c3b4a59")]
    Rm {
        /// Id as `tctl tokens ls` shows it, or the token itself
        token: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// List them
    #[command(after_help = "Example: add --format json for all fields")]
    Ls,
    /// Let one host join again, once, and nobody else who has its certificates: after its disk was copied, or put back to a former state
    #[command(after_help = "Example: tctl nodes rejoin gw-17")]
    Rejoin {
        /// Node name or host id
        node: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ListCommand {
    /// List them
    #[command(after_help = "Example: add --format json for all fields")]
    Ls,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Print the public part of an authority, for programs that shall believe it
    #[command(after_help = "Example: tctl auth export --type host >> ~/.ssh/known_hosts")]
    Export {
        /// user: lines for sshd's TrustedUserCAKeys; host: lines for known_hosts; tls-user, tls-host: PEM certificates, as openssl, kubectl
        /// and PostgreSQL read them; audit: the key that `audit verify` believes
        #[arg(
            long = "type",
            env = "REMOTELER_EXPORT_TYPE",
            value_enum,
            hide_possible_values = true,
            value_name = "TYPE"
        )]
        kind: ExportKind,
        /// Hosts that the known_hosts lines are for besides those below the cluster's name, such as db.example.com or *.example.com
        #[arg(long, env = "REMOTELER_EXPORT_HOSTS", value_name = "HOST,…", value_delimiter = ',')]
        hosts: Vec<HostPattern>,
    },
    /// Make keys and certificates for a user, a program or a server, and write them into files
    #[command(after_help = "Example: tctl auth sign --user jenkins -o jenkins.id --ttl 10h
         tctl auth sign --user ann --format openssh -o ann
         tctl auth sign --user ann --format tls -o ann
         tctl auth sign --user ann --format kubernetes --kube-cluster-name staging -o ann.kubeconfig
         tctl auth sign --user ann --format db --db-user reader -o ann
         tctl auth sign --user ann --format rdp --windows-domain corp.example.com --crl-url http://crl.example.com/user.crl -o ann
         tctl auth sign --host db.example.com,192.0.2.7 --format db -o server
         tctl auth sign --host web-1.example.com --format openssh -o ssh_host_ed25519_key")]
    Sign(Box<SignArgs>),
    /// Show the authorities, the pins of joining hosts, and where rotations stand
    #[command(after_help = "Example: tctl auth status")]
    Status,
    /// Replace an authority by a new one, step by step, while everything works on
    #[command(
        after_help = "Example: tctl auth rotate --type host --grace-period 48h\n         tctl auth rotate --type user --manual --phase init"
    )]
    Rotate {
        /// user, host, token, or all
        #[arg(
            long = "type",
            env = "REMOTELER_ROTATE_TYPE",
            value_enum,
            hide_possible_values = true,
            value_name = "TYPE"
        )]
        kind: RotateKind,
        /// How long an automatic rotation takes at least; each of its three phases gets a third
        #[arg(
            long,
            env = "REMOTELER_GRACE_PERIOD",
            value_name = "DURATION",
            default_value = "48h",
            conflicts_with = "manual"
        )]
        grace_period: Ttl,
        /// Take one step by hand
        #[arg(long, env = "REMOTELER_MANUAL", requires = "phase", value_parser = BoolishValueParser::new())]
        manual: bool,
        /// The step: init, update_clients, update_servers, standby or rollback
        #[arg(
            long,
            env = "REMOTELER_PHASE",
            value_enum,
            hide_possible_values = true,
            value_name = "PHASE",
            requires = "manual"
        )]
        phase: Option<PhaseName>,
        /// Go on although services have not acknowledged the phase before; they may be locked out by it
        #[arg(long, env = "REMOTELER_ROTATE_FORCE", requires = "manual", value_parser = BoolishValueParser::new())]
        force: bool,
    },
    /// Refuse a certificate or key from now on, everywhere in the cluster
    #[command(
        after_help = "Example: tctl auth revoke --ssh-serial 4711 --reason key-compromise --comment 'laptop was stolen'\n         tctl auth revoke --tls-serial 4F01A2 --type host\n         tctl auth revoke --key id_ed25519.pub"
    )]
    Revoke(RevokeArgs),
    /// List what is revoked
    #[command(after_help = "Example: tctl auth revoked --format json")]
    Revoked,
    /// Believe a certificate or key again
    #[command(after_help = "Example: tctl auth unrevoke ssh-user-4711")]
    Unrevoke(UnrevokeArgs),
    /// Write what is revoked as OpenSSH reads it, for sshd's RevokedKeys and ssh's RevokedHostKeys
    #[command(after_help = "Example: tctl auth krl -o /etc/ssh/remoteler_revoked_keys")]
    Krl(ListArgs),
    /// Write what is revoked as TLS programs read it: PEM
    #[command(after_help = "Example: tctl auth crl --type user -o /etc/postgresql/remoteler_user.crl")]
    Crl(ListArgs),
}

/// Which authorities are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RotateKind {
    /// That of users.
    User,
    /// That of hosts.
    Host,
    /// The key of identity tokens.
    Token,
    /// One after the other.
    All,
}

/// A phase of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum PhaseName {
    /// A new authority is made known.
    Init,
    /// It signs.
    UpdateClients,
    /// Servers show it.
    UpdateServers,
    /// The old one is forgotten, or after a rollback the new one.
    Standby,
    /// The old one signs again.
    Rollback,
}

/// Which authority, in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportKind {
    /// SSH keys that sign users.
    User,
    /// SSH keys that sign hosts.
    Host,
    /// X.509 certificates that sign users.
    TlsUser,
    /// X.509 certificates that sign hosts.
    TlsHost,
    /// Keys that sign identity tokens, as a JWKS (RFC 7517).
    Token,
    /// The key that signs the audit log's checkpoints.
    Audit,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List events, oldest first
    #[command(after_help = "Example: tctl audit ls --from 24h --type user.login --user ann")]
    Ls {
        /// Not before: RFC 3339 time, date, or so long ago
        #[arg(long, env = "REMOTELER_AUDIT_FROM", value_name = "TIME|DURATION")]
        from: Option<Moment>,
        /// Before: RFC 3339 time, date, or so long ago
        #[arg(long, env = "REMOTELER_AUDIT_TO", value_name = "TIME|DURATION")]
        to: Option<Moment>,
        /// Of this kind, such as session.start
        #[arg(long = "type", env = "REMOTELER_AUDIT_TYPE", value_name = "EVENT", value_parser = PossibleValuesParser::new(AuditKind::NAMES), hide_possible_values = true)]
        event: Option<String>,
        /// Of this user
        #[arg(long, env = "REMOTELER_AUDIT_USER", value_name = "NAME")]
        user: Option<String>,
        /// At most so many, the newest
        #[arg(long, env = "REMOTELER_AUDIT_LIMIT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "NUMBER")]
        limit: u16,
        /// At this node, in this Kubernetes cluster or application
        #[arg(long, env = "REMOTELER_AUDIT_TARGET", value_name = "NAME")]
        target: Option<String>,
        /// Of what succeeded or failed
        #[arg(long, env = "REMOTELER_AUDIT_OUTCOME", value_enum, value_name = "OUTCOME")]
        outcome: Option<Outcome>,
        /// The page before: events older than the one with this uid
        #[arg(long, env = "REMOTELER_AUDIT_BEFORE", value_name = "UID")]
        before: Option<Uuid>,
    },
    /// Write events with what proves them, one JSON object a line
    #[command(after_help = "Example: tctl audit export --from 2026-01-01 --to 2026-02-01 -o january.jsonl")]
    Export(ExportArgs),
    /// Check an export without any server: names every event that was removed, changed, inserted, moved or cut off
    #[command(
        after_help = "Example: tctl audit verify january.jsonl --key audit.key --witness checkpoints.jsonl\n         tctl auth export --type audit > audit.key"
    )]
    Verify(VerifyArgs),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each_level(command: &clap::Command, check: &mut impl FnMut(&clap::Command)) {
        check(command);
        for subcommand in command.get_subcommands() {
            each_level(subcommand, check);
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_level_has_an_example() {
        each_level(&Cli::command(), &mut |command| {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.starts_with("Example: "), "{} has no example", command.get_name());
        });
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        each_level(&Cli::command(), &mut |command| {
            for flag in command.get_arguments().filter(|argument| !argument.is_positional()) {
                let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                assert!(variable.starts_with("REMOTELER_"), "{} {} has none", command.get_name(), flag.get_id());
            }
        });
    }

    #[test]
    fn flags_for_the_connection_may_stand_anywhere() {
        let cli =
            Cli::parse_from(["tctl", "--data-dir", "/d", "tokens", "add", "--type", "node,kube", "--format", "json"]);
        assert_eq!(cli.connection.data_dir, Some("/d".into()));
        assert_eq!(cli.format, Some(AnyFormat::Print(Format::Json)));
        let Command::Tokens(TokensCommand::Add { roles, .. }) = cli.command else { panic!("not tokens add") };
        assert_eq!(roles, [SystemRole::Node, SystemRole::Kube]);
    }

    #[test]
    fn wrong_input_is_wrong_usage() {
        for wrong in [
            &["tctl", "users", "add", "ann"][..],
            &["tctl", "users", "add", "-ann", "--roles", "access"],
            &["tctl", "users", "rm", "a/b"],
            &["tctl", "tokens", "add", "--type", "toaster"],
            &["tctl", "tokens", "add", "--type", "node", "--ttl", "soon"],
            &["tctl", "audit", "ls", "--limit", "0"],
            &["tctl", "auth", "rotate"],
            &["tctl", "get", "database/x"],
        ] {
            let cause = Cli::try_parse_from(wrong).unwrap_err();
            assert_eq!(cause.exit_code(), 2, "{wrong:?}");
        }
    }
}
