//! The command line of `tctl auth sign`, and which of its flags go together. What is made of it is in `commands/sign.rs`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, builder::BoolishValueParser};
use remoteler_client::ProxyAddr;
use remoteler_core::{KubeClusterName, UserName};

use crate::{commands::Ttl, output::Format};

/// What `--format` says: how a result is printed, or, for `auth sign`, what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnyFormat {
    /// How a result is printed.
    Print(Format),
    /// What `auth sign` makes.
    Sign(SignFormat),
}

/// What `auth sign` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignFormat {
    /// One identity file.
    File,
    /// Key and certificate for OpenSSH.
    Openssh,
    /// Key, certificate and authorities for TLS.
    Tls,
    /// A kubeconfig.
    Kubernetes,
    /// Key, certificate and authorities for a database.
    Db,
    /// Key, certificate and authorities for a smart-card logon.
    Rdp,
}

impl FromStr for AnyFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "text" => Self::Print(Format::Text),
            "json" => Self::Print(Format::Json),
            "yaml" => Self::Print(Format::Yaml),
            "file" => Self::Sign(SignFormat::File),
            "openssh" => Self::Sign(SignFormat::Openssh),
            "tls" => Self::Sign(SignFormat::Tls),
            "kubernetes" => Self::Sign(SignFormat::Kubernetes),
            "db" => Self::Sign(SignFormat::Db),
            "rdp" => Self::Sign(SignFormat::Rdp),
            _ => {
                return Err(
                    "text, json and yaml are known; and for auth sign file, openssh, tls, kubernetes, db and rdp"
                        .into(),
                );
            }
        })
    }
}

impl SignFormat {
    /// As it is typed.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Openssh => "openssh",
            Self::Tls => "tls",
            Self::Kubernetes => "kubernetes",
            Self::Db => "db",
            Self::Rdp => "rdp",
        }
    }
}

/// Flags of `tctl auth sign`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SignArgs {
    /// For this user; without --user and --host for the user named like the file, such as jenkins for jenkins.cert
    #[arg(long, env = "REMOTELER_SIGN_USER", value_name = "NAME", conflicts_with = "host")]
    pub(crate) user: Option<UserName>,
    /// For a server by these names and addresses; with --format openssh, tls or db
    #[arg(long, env = "REMOTELER_SIGN_HOST", value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) host: Vec<String>,
    /// File to be written, or what the names of several files begin with
    #[arg(short = 'o', long, env = "REMOTELER_SIGN_OUT", value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Life; users get at most what their roles allow, and hosts without it certificates that end with the rotation of the authority
    #[arg(long, env = "REMOTELER_SIGN_TTL", value_name = "DURATION")]
    pub(crate) ttl: Option<Ttl>,
    /// Replace files that are there
    #[arg(long, env = "REMOTELER_OVERWRITE", value_parser = BoolishValueParser::new())]
    pub(crate) overwrite: bool,
    /// The proxy to be written into the file; without it the one that told its address
    #[arg(long, env = "REMOTELER_SIGN_PROXY", value_name = "HOST[:PORT]")]
    pub(crate) proxy: Option<ProxyAddr>,
    /// The Kubernetes cluster; for --format kubernetes
    #[arg(long, visible_alias = "kube-cluster", env = "REMOTELER_KUBE_CLUSTER", value_name = "NAME")]
    pub(crate) kube_cluster_name: Option<KubeClusterName>,
    /// Account in the database, one of the user's trait db_users; without that trait the user's name; for --format db
    #[arg(long, env = "REMOTELER_DB_USER", value_name = "NAME")]
    pub(crate) db_user: Option<String>,
    /// Account in the domain, one of the user's trait windows_logins; without that trait the user's name; for --format rdp
    #[arg(long, env = "REMOTELER_WINDOWS_USER", value_name = "NAME")]
    pub(crate) windows_user: Option<String>,
    /// DNS name of the Active Directory domain; for --format rdp
    #[arg(long, env = "REMOTELER_WINDOWS_DOMAIN", value_name = "NAME")]
    pub(crate) windows_domain: Option<String>,
    /// Security identifier of the account, which domain controllers with strong mapping want; for --format rdp
    #[arg(long, env = "REMOTELER_WINDOWS_SID", value_name = "S-1-…")]
    pub(crate) windows_sid: Option<String>,
    /// Where domain controllers fetch the revocation list of the authority of users; for --format rdp
    #[arg(long, env = "REMOTELER_CRL_URL", value_name = "http://…")]
    pub(crate) crl_url: Option<String>,
}

impl SignArgs {
    /// Whether the flags go with the format.
    ///
    /// # Errors
    /// One line for people, with what to do.
    pub(crate) fn check(&self, format: Option<SignFormat>) -> Result<SignFormat, String> {
        let for_host = !self.host.is_empty();
        let format = match format {
            Some(format) => format,
            None if for_host => return Err("with --host one of --format openssh, tls and db is needed".into()),
            None => SignFormat::File,
        };
        let name = format.as_str();
        if for_host && !matches!(format, SignFormat::Openssh | SignFormat::Tls | SignFormat::Db) {
            return Err(format!("--format {name} is for users; with --host it is openssh, tls or db"));
        }
        let windows = format == SignFormat::Rdp;
        let of_windows = self.windows_user.is_some() || self.windows_sid.is_some();
        let of_windows = of_windows || self.windows_domain.is_some() || self.crl_url.is_some();
        for (given, fits, flag, goes) in [
            (self.kube_cluster_name.is_some(), format == SignFormat::Kubernetes, "--kube-cluster-name", "kubernetes"),
            (self.db_user.is_some(), format == SignFormat::Db && !for_host, "--db-user", "db and a user"),
            (of_windows, windows, "--windows-user, --windows-domain, --windows-sid and --crl-url", "rdp"),
            (
                self.proxy.is_some(),
                matches!(format, SignFormat::File | SignFormat::Kubernetes),
                "--proxy",
                "file and kubernetes",
            ),
        ] {
            if given && !fits {
                return Err(format!("{flag} goes with --format {goes}, not with {name}"));
            }
        }
        if format == SignFormat::Kubernetes && self.kube_cluster_name.is_none() {
            return Err("--format kubernetes needs --kube-cluster-name; tctl kube ls lists the names".into());
        }
        if windows && (self.windows_domain.is_none() || self.crl_url.is_none()) {
            return Err("--format rdp needs --windows-domain and --crl-url".into());
        }
        Ok(format)
    }
}
