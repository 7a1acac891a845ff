//! The config file as written, in the shape of teleport.yaml. An unknown key is an error.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::{
    audit::{Audit, AuditSpool},
    keys::CaKeyParams,
};

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// `v1`
    pub version: Option<String>,
    /// What all services share.
    pub remoteler: Common,
    /// The auth service.
    pub auth_service: Option<AuthService>,
    /// The proxy.
    pub proxy_service: Option<ProxyService>,
    /// The SSH server.
    pub ssh_service: Option<SshService>,
    /// The Kubernetes service.
    pub kubernetes_service: Option<KubernetesService>,
    /// The app service.
    pub app_service: Option<AppServiceConfig>,
}

impl ConfigFile {
    /// Whether it says of any service that it shall run or not.
    #[must_use]
    pub const fn names_services(&self) -> bool {
        self.auth_service.is_some()
            || self.proxy_service.is_some()
            || self.ssh_service.is_some()
            || self.kubernetes_service.is_some()
            || self.app_service.is_some()
    }
}

/// `remoteler:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Common {
    /// Name of this host as a node.
    pub nodename: Option<String>,
    /// Where state is kept.
    pub data_dir: Option<PathBuf>,
    /// `host:port` of an auth service or a proxy.
    pub auth_server: Option<String>,
    /// How to join.
    pub join_params: Option<JoinParams>,
    /// Pins of the host authority, any of which is accepted.
    pub ca_pin: Option<OneOrMany>,
    /// Where the log goes.
    pub log: Option<Log>,
    /// Where the auth service keeps its state.
    pub storage: Option<StorageConfig>,
    /// How audit events wait for an auth service that is elsewhere.
    pub audit_spool: Option<AuditSpool>,
    /// To how many proxies this host keeps links; absent: to all.
    pub tunnel_connections: Option<usize>,
    /// How long a tunnel whose connection is lost waits for another one, such as `10m`; here, whatever the other side does.
    pub tunnel_resume_window: Option<String>,
    /// Whether octets are paid for where this host is, so that idle tunnels say little.
    pub tunnel_metered: Option<bool>,
    /// What all tunnels of this process keep to be sent again, in MiB.
    pub tunnel_replay_memory_mb: Option<usize>,
}

/// `join_params:`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinParams {
    /// `token` or `kubernetes`
    #[serde(default)]
    pub method: Option<String>,
    /// The token, or the absolute path of a file that holds it; with the method `kubernetes` the name of the token resource.
    pub token_name: String,
    /// With the method `kubernetes`: the projected service-account token of the pod.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

/// `log:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `stderr`
    pub output: Option<String>,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`
    pub severity: Option<String>,
    /// Form of a line.
    pub format: Option<LogFormatConfig>,
}

/// `format:`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFormatConfig {
    /// `text` or `json`
    pub output: String,
}

/// `storage:`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// `sqlite`
    #[serde(rename = "type")]
    pub kind: String,
}

/// `auth_service:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthService {
    /// Whether it runs.
    pub enabled: Option<bool>,
    /// `ip:port`
    pub listen_addr: Option<String>,
    /// Name of the cluster.
    pub cluster_name: Option<String>,
    /// How users log in.
    pub authentication: Option<Authentication>,
    /// `node` or `off`
    pub session_recording: Option<String>,
    /// File of 32 random octets that seals the authorities' keys.
    pub key_encryption_file: Option<PathBuf>,
    /// File with the SHA-1 of passwords that were stolen elsewhere, ordered, as Have I Been Pwned's downloader writes it.
    pub breached_passwords_file: Option<PathBuf>,
    /// The token that has the authorities' keys.
    pub ca_key_params: Option<CaKeyParams>,
    /// How long nothing may happen in an SSH connection, such as `30m`; `never`.
    pub client_idle_timeout: Option<String>,
    /// Whether live work ends with its certificate.
    pub disconnect_expired_cert: Option<bool>,
    /// How the audit log is kept.
    pub audit: Option<Audit>,
    /// Which API server vouches for pods that join.
    pub kubernetes_join: Option<KubernetesJoin>,
    /// How identity providers are asked.
    pub identity_providers: Option<IdentityProviders>,
}

/// `identity_providers:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityProviders {
    /// Whether they may have addresses of internal networks.
    pub allow_internal_addresses: bool,
}

/// `kubernetes_join:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesJoin {
    /// Credentials of the API server; absent: the pod's service account.
    pub kubeconfig_file: Option<PathBuf>,
}

/// `authentication:`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    /// `local`, `oidc`, `github` or `saml`
    #[serde(rename = "type")]
    pub kind: String,
    /// The connector used when none is named.
    #[serde(default)]
    pub connector_name: Option<String>,
    /// `balanced`, `legacy` or `token`
    #[serde(default)]
    pub signature_algorithm_suite: Option<String>,
    /// `best_effort` or `strict`
    #[serde(default)]
    pub locking_mode: Option<String>,
    /// `off`, `optional`, `on`, `otp` or `webauthn`
    #[serde(default)]
    pub second_factor: Option<String>,
}

/// `proxy_service:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyService {
    /// Whether it runs.
    pub enabled: Option<bool>,
    /// `ip:port`
    pub listen_addr: Option<String>,
    /// `host:port` as users reach it.
    pub public_addr: Option<String>,
    /// `ip:port` that shows the X.509 revocation lists over plain HTTP.
    pub crl_listen_addr: Option<String>,
    /// Certificate for browsers and logins; the first is used.
    pub https_keypairs: Vec<KeyPairFiles>,
}

/// One of `https_keypairs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPairFiles {
    /// PEM.
    pub key_file: PathBuf,
    /// PEM, leaf first.
    pub cert_file: PathBuf,
}

/// `ssh_service:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SshService {
    /// Whether it runs.
    pub enabled: Option<bool>,
    /// `ip:port`
    pub listen_addr: Option<String>,
    /// What roles match against.
    pub labels: BTreeMap<String, String>,
    /// Labels whose values commands print.
    pub commands: Vec<LabelCommand>,
}

/// One of `commands`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelCommand {
    /// Label.
    pub name: String,
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// How often, such as `1h`.
    pub period: String,
}

/// `kubernetes_service:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesService {
    /// Whether it runs.
    pub enabled: Option<bool>,
    /// Credentials of the API server; absent: the pod's service account.
    pub kubeconfig_file: Option<PathBuf>,
    /// Name of the cluster.
    pub kube_cluster_name: Option<String>,
    /// What roles match against.
    pub labels: BTreeMap<String, String>,
}

/// `app_service:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppServiceConfig {
    /// Whether it runs.
    pub enabled: Option<bool>,
    /// The apps.
    pub apps: Vec<AppEntry>,
}

/// One of `apps`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppEntry {
    /// What it is called.
    pub name: String,
    /// `http://host:port` or `https://host:port`, as this host reaches it.
    pub uri: String,
    /// `host[:port]` under which browsers reach it.
    #[serde(default)]
    pub public_addr: Option<String>,
    /// What roles match against.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// One string or a list of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    #[must_use]
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}
