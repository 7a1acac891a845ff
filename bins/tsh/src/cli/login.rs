//! The command line of `tsh login`. What is made of it is in `commands/login.rs` and `commands/login_files.rs`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::BoolishValueParser};
use remoteler_core::{ClusterName, KubeClusterName, LEAST_LOGIN_TTL};

/// What `tsh login -o` makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FileFormat {
    /// One identity file.
    #[default]
    File,
    /// Key and certificate for OpenSSH.
    Openssh,
    /// A kubeconfig.
    Kubernetes,
    /// Key, certificate and authorities for TLS.
    Tls,
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Login {
    /// How long the certificates shall be valid, such as 30m or 8h; default: what your roles allow.
    #[arg(long, env = "TSH_TTL", value_name = "DURATION", value_parser = useful_ttl)]
    pub(crate) ttl: Option<Duration>,
    /// Connector to log in by, such as that of your company; `local` for a password; default: what the cluster says.
    #[arg(long, env = "TSH_AUTH", value_name = "CONNECTOR")]
    pub(crate) auth: Option<String>,
    /// `none` prints the address of the login's page instead of opening a browser.
    #[arg(long, env = "TSH_BROWSER", value_name = "none", value_parser = ["none"])]
    pub(crate) browser: Option<String>,
    /// Where the browser brings the answer: an address of this machine; default: any free port.
    #[arg(long, env = "TSH_BIND_ADDR", value_name = "127.0.0.1:PORT", value_parser = loopback, conflicts_with = "device")]
    pub(crate) bind_addr: Option<SocketAddr>,
    /// Logs in in a browser on another machine, by a code that is typed there. The default in a shell over SSH without a display.
    #[arg(long, env = "TSH_DEVICE", value_parser = BoolishValueParser::new(), conflicts_with = "browser")]
    pub(crate) device: bool,
    /// Writes the certificates into files of this name instead of keeping them for `tsh`: for another machine or a program. Always logs in anew.
    #[arg(short, long, env = "TSH_OUT", value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// What `--out` makes: one identity file for `tsh -i` and `tctl -i`, key and certificate for OpenSSH, a kubeconfig, or key, certificate and authorities for TLS.
    #[arg(long, env = "TSH_LOGIN_FORMAT", value_enum, default_value = "file", requires = "out")]
    pub(crate) format: FileFormat,
    /// Replaces files that are there.
    #[arg(long, env = "TSH_OVERWRITE", value_parser = BoolishValueParser::new(), requires = "out")]
    pub(crate) overwrite: bool,
    /// The only Kubernetes cluster in the kubeconfig; default: all that you may use.
    #[arg(long, env = "TSH_LOGIN_KUBE_CLUSTER", value_name = "NAME", requires = "out")]
    pub(crate) kube_cluster: Option<KubeClusterName>,
    /// Cluster to select.
    #[arg(value_name = "CLUSTER")]
    pub(crate) select: Option<ClusterName>,
}

/// An address that only this machine reaches.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text.parse().map_err(|_| format!("{text} is no address such as 127.0.0.1:4711"))?;
    let here = addr.ip() == std::net::Ipv4Addr::LOCALHOST || addr.ip() == std::net::Ipv6Addr::LOCALHOST;
    if here { Ok(addr) } else { Err(format!("{text} is not on this machine alone; 127.0.0.1 and [::1] are")) }
}

/// A life that a login can ask for.
fn useful_ttl(text: &str) -> Result<Duration, String> {
    let wanted = super::ttl(text)?;
    if wanted < LEAST_LOGIN_TTL {
        return Err(format!(
            "{text} is too short to be used: within a minute of their end certificates count as ended; the least is {}m",
            LEAST_LOGIN_TTL.as_secs() / 60
        ));
    }
    Ok(wanted)
}
