//! The checked settings: made once of file and flags, then passed as arguments. A mistake stops the start with one line.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use remoteler_client::SpoolLimits;
use remoteler_core::{
    AppAddress, AppName, ClusterConfig, ClusterName, KubeClusterName, Labels, NameError, NodeName, SystemRole,
    parse_duration,
};

use super::{
    AuditSettings, ConfigFile, JoinSettings, KeySettings, SignOnSettings, audit,
    cluster::cluster_config,
    file::{
        AppEntry, AppServiceConfig, AuthService, Common, KubernetesService, LabelCommand, ProxyService, SshService,
    },
    join,
    labels::check_label,
    tunnel::TunnelSettings,
};

/// Why the daemon does not start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("config file {path} cannot be read")]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("config file {path}, {reason}")]
    Syntax {
        /// File.
        path: PathBuf,
        /// Line and mistake.
        reason: String,
    },
    /// A value cannot be used.
    #[error("{field}: {reason}")]
    Value {
        /// Key or flag.
        field: &'static str,
        /// Why not.
        reason: String,
    },
}

/// Flags of `remoteler start` that outdo the file.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--roles`
    pub roles: Option<Vec<SystemRole>>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--auth-server`
    pub auth_server: Option<String>,
    /// `--token`
    pub token: Option<String>,
    /// `--ca-pin`
    pub ca_pins: Vec<String>,
    /// `--cluster-name`
    pub cluster_name: Option<String>,
    /// `--nodename`
    pub nodename: Option<String>,
    /// `--labels`
    pub labels: Option<Labels>,
    /// `--listen-ip`
    pub listen_ip: Option<IpAddr>,
    /// `--insecure`
    pub insecure: bool,
    /// `--drain-timeout`
    pub drain_timeout: Option<Duration>,
    /// `-d`
    pub debug: bool,
    /// `HTTPS_PROXY` of the environment
    pub https_proxy: Option<String>,
    /// `NO_PROXY` of the environment
    pub no_proxy: Option<String>,
}

/// What runs in this process, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this host.
    pub nodename: NodeName,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// The auth service, if it runs here.
    pub auth: Option<AuthSettings>,
    /// The proxy, if it runs here.
    pub proxy: Option<ProxySettings>,
    /// The node, if it runs here.
    pub node: Option<NodeSettings>,
    /// The Kubernetes service, if it runs here.
    pub kube: Option<KubeSettings>,
    /// The app service.
    pub app: Option<AppSettings>,
    /// Where the auth service is, when it is not here.
    pub join: Option<JoinSettings>,
    /// How long live sessions get at the end.
    pub drain_timeout: Duration,
    /// The log.
    pub log: LogSettings,
    /// How audit events wait for an auth service that is elsewhere.
    pub spool: SpoolLimits,
    /// Through what a proxy of the cluster is reached, and to how many of them links are kept.
    pub tunnel: TunnelSettings,
}

/// The auth service.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Name of the cluster; absent: the one in the data directory, or `remoteler.local` at the first start.
    pub cluster: Option<ClusterName>,
    /// File with the key that seals the authorities' keys; absent: they lie in the clear.
    pub key_encryption_file: Option<PathBuf>,
    /// List of passwords that nobody may set; absent: there is none.
    pub breached_passwords_file: Option<PathBuf>,
    /// How the authorities' keys are made, and where.
    pub keys: KeySettings,
    /// Which API server vouches for pods that join: that of a kubeconfig, or of the pod that this runs in.
    pub kubernetes_join: Option<Option<PathBuf>>,
    /// How the audit log is kept.
    pub audit: AuditSettings,
    /// What the file says of the whole cluster.
    pub cluster_config: ClusterConfig,
    /// How people log in.
    pub sign_on: SignOnSettings,
}

/// The proxy.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How users reach it.
    pub public_addr: Option<String>,
    /// Where the X.509 revocation lists are shown over plain HTTP; absent: nowhere.
    pub crl_listen: Option<SocketAddr>,
    /// What browsers and logins are shown; absent: a self-signed one.
    pub certificate: Option<WebCertificate>,
}

/// Files of a certificate.
#[derive(Clone, Debug)]
pub struct WebCertificate {
    /// PEM.
    pub key_file: PathBuf,
    /// PEM, leaf first.
    pub cert_file: PathBuf,
}

/// The node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Where it listens when it is not behind a tunnel.
    pub listen: SocketAddr,
    /// What roles match against.
    pub labels: Labels,
    /// Labels that commands give.
    pub commands: Vec<CommandLabel>,
}

/// A label whose value a command prints.
#[derive(Clone, Debug)]
pub struct CommandLabel {
    /// Label.
    pub name: String,
    /// Program.
    pub program: String,
    /// Arguments.
    pub args: Vec<String>,
    /// How often.
    pub period: Duration,
}

/// The Kubernetes service.
#[derive(Clone, Debug)]
pub struct KubeSettings {
    /// Name of the cluster.
    pub name: KubeClusterName,
    /// Credentials of the API server; absent: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// What roles match against.
    pub labels: Labels,
}

/// The app service.
#[derive(Clone, Debug)]
pub struct AppSettings {
    /// The apps; at least one.
    pub apps: Vec<App>,
}

/// One app.
#[derive(Clone, Debug)]
pub struct App {
    /// What it is called.
    pub name: AppName,
    /// Where it is, as this host reaches it.
    pub uri: String,
    /// Where browsers reach it; absent: its name in front of the proxy's own.
    pub public_addr: Option<String>,
    /// What roles match against.
    pub labels: Labels,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The log.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// From this severity on.
    pub level: tracing::level_filters::LevelFilter,
    /// Form of a line.
    pub format: LogFormat,
}

impl Settings {
    /// Makes the settings of a file and flags; flags win.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first value that cannot be used.
    pub fn new(file: ConfigFile, flags: Flags) -> Result<Self, ConfigError> {
        let common = file.remoteler.clone();
        let roles = roles(&file, &flags);
        let runs = |role| roles.contains(&role);
        let listen_ip = flags.listen_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let nodename = nodename(&common, &flags)?;
        let join = join::settings(&common, &flags)?;
        if join.is_some() && runs(SystemRole::Auth) {
            return Err(value(
                "auth_server",
                "this process runs the auth service itself; leave out auth_server or the auth role",
            ));
        }
        if join.is_none() && !runs(SystemRole::Auth) {
            return Err(value(
                "auth_server",
                "needed when the auth service does not run here: give --auth-server HOST:PORT",
            ));
        }
        Ok(Self {
            auth: runs(SystemRole::Auth).then(|| auth(file.auth_service, &flags, listen_ip)).transpose()?,
            proxy: runs(SystemRole::Proxy).then(|| proxy(file.proxy_service, listen_ip)).transpose()?,
            node: runs(SystemRole::Node).then(|| node(file.ssh_service, &flags, listen_ip)).transpose()?,
            kube: runs(SystemRole::Kube).then(|| kube(file.kubernetes_service, &nodename)).transpose()?,
            app: runs(SystemRole::App).then(|| apps(file.app_service)).transpose()?,
            log: log(&common, &flags)?,
            spool: audit::spool(common.audit_spool.clone())?,
            data_dir: data_dir(&common, &flags)?,
            tunnel: TunnelSettings::new(&common, &flags)?,
            drain_timeout: flags.drain_timeout.unwrap_or(Duration::from_secs(60)),
            nodename,
            join,
        })
    }

    /// The ways out of this network. What is found out about them is kept in the data directory.
    #[must_use]
    pub fn ways(&self) -> remoteler_tunnel::Ways {
        self.tunnel.ways(&self.data_dir)
    }

    /// The services that run here.
    #[must_use]
    pub fn roles(&self) -> std::collections::BTreeSet<SystemRole> {
        [
            self.auth.as_ref().map(|_| SystemRole::Auth),
            self.proxy.as_ref().map(|_| SystemRole::Proxy),
            self.node.as_ref().map(|_| SystemRole::Node),
            self.kube.as_ref().map(|_| SystemRole::Kube),
            self.app.as_ref().map(|_| SystemRole::App),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

pub(super) fn value(field: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { field, reason: reason.into() }
}

fn named<T>(field: &'static str, result: Result<T, NameError>) -> Result<T, ConfigError> {
    result.map_err(|cause| value(field, cause.to_string()))
}

fn roles(file: &ConfigFile, flags: &Flags) -> Vec<SystemRole> {
    if let Some(roles) = &flags.roles {
        return roles.clone();
    }
    let joins = flags.auth_server.is_some() || file.remoteler.auth_server.is_some();
    // Without a word about a service: the whole cluster on one machine, or a node that joins one.
    let default = |there: Option<Option<bool>>, otherwise: bool| match there {
        Some(enabled) => enabled.unwrap_or(true),
        None => otherwise,
    };
    let said = file.names_services();
    let mut roles = Vec::new();
    if default(file.auth_service.as_ref().map(|s| s.enabled), !said && !joins) {
        roles.push(SystemRole::Auth);
    }
    if default(file.proxy_service.as_ref().map(|s| s.enabled), !said && !joins) {
        roles.push(SystemRole::Proxy);
    }
    if default(file.ssh_service.as_ref().map(|s| s.enabled), !said) {
        roles.push(SystemRole::Node);
    }
    if default(file.kubernetes_service.as_ref().map(|s| s.enabled), false) {
        roles.push(SystemRole::Kube);
    }
    if default(file.app_service.as_ref().map(|s| s.enabled), false) {
        roles.push(SystemRole::App);
    }
    roles
}

fn nodename(common: &Common, flags: &Flags) -> Result<NodeName, ConfigError> {
    let given = flags.nodename.clone().or_else(|| common.nodename.clone());
    let name = given.unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        if NodeName::new(&host).is_ok() { host } else { "localhost".to_owned() }
    });
    named("nodename", NodeName::new(name))
}

fn data_dir(common: &Common, flags: &Flags) -> Result<PathBuf, ConfigError> {
    let dir = flags.data_dir.clone().or_else(|| common.data_dir.clone());
    let dir = dir.unwrap_or_else(|| PathBuf::from("/var/lib/remoteler"));
    std::path::absolute(&dir).map_err(|cause| value("data_dir", cause.to_string()))
}

pub(super) fn with_port(field: &'static str, addr: &str, port: u16) -> Result<String, ConfigError> {
    let addr = addr.trim().trim_start_matches("https://").trim_end_matches('/');
    let has_port = match addr.rsplit_once(':') {
        Some((host, port)) => (!host.contains(':') || host.ends_with(']')) && port.parse::<u16>().is_ok(),
        None => false,
    };
    if addr.is_empty() || addr.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return Err(value(field, format!("{addr:?} is no address; HOST:PORT is expected")));
    }
    if has_port {
        return Ok(addr.to_owned());
    }
    let bare_v6 = addr.contains(':') && !addr.starts_with('[');
    Ok(if bare_v6 { format!("[{addr}]:{port}") } else { format!("{addr}:{port}") })
}

fn socket_addr(field: &'static str, text: Option<&str>, ip: IpAddr, port: u16) -> Result<SocketAddr, ConfigError> {
    match text {
        None => Ok(SocketAddr::new(ip, port)),
        Some(text) => text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)))
            .map_err(|_| value(field, format!("{text:?} is no address; IP:PORT is expected"))),
    }
}

fn auth(service: Option<AuthService>, flags: &Flags, ip: IpAddr) -> Result<AuthSettings, ConfigError> {
    let service = service.unwrap_or_default();
    let cluster_config = cluster_config(&service)?;
    let sign_on = SignOnSettings::new(service.identity_providers);
    let suite = service.authentication.as_ref().and_then(|given| given.signature_algorithm_suite.as_deref());
    let keys = KeySettings::new(suite, service.ca_key_params)?;
    let cluster = flags.cluster_name.clone().or(service.cluster_name);
    Ok(AuthSettings {
        cluster_config,
        listen: socket_addr("auth_service.listen_addr", service.listen_addr.as_deref(), ip, 3025)?,
        cluster: cluster.map(|name| named("cluster_name", ClusterName::new(name))).transpose()?,
        key_encryption_file: service.key_encryption_file,
        breached_passwords_file: service.breached_passwords_file,
        keys,
        kubernetes_join: service.kubernetes_join.map(|join| join.kubeconfig_file),
        audit: AuditSettings::new(service.audit.unwrap_or_default())?,
        sign_on,
    })
}

fn proxy(service: Option<ProxyService>, ip: IpAddr) -> Result<ProxySettings, ConfigError> {
    let service = service.unwrap_or_default();
    let certificate = service.https_keypairs.into_iter().next();
    Ok(ProxySettings {
        listen: socket_addr("proxy_service.listen_addr", service.listen_addr.as_deref(), ip, 3080)?,
        public_addr: service.public_addr.map(|addr| with_port("proxy_service.public_addr", &addr, 443)).transpose()?,
        crl_listen: service
            .crl_listen_addr
            .map(|addr| socket_addr("proxy_service.crl_listen_addr", Some(&addr), ip, 80))
            .transpose()?,
        certificate: certificate.map(|pair| WebCertificate { key_file: pair.key_file, cert_file: pair.cert_file }),
    })
}

fn node(service: Option<SshService>, flags: &Flags, ip: IpAddr) -> Result<NodeSettings, ConfigError> {
    let service = service.unwrap_or_default();
    let mut labels = service.labels;
    for (name, text) in &labels {
        check_label(name, text).map_err(|reason| value("ssh_service.labels", reason))?;
    }
    labels.extend(flags.labels.clone().unwrap_or_default());
    Ok(NodeSettings {
        listen: socket_addr("ssh_service.listen_addr", service.listen_addr.as_deref(), ip, 3022)?,
        labels,
        commands: service.commands.into_iter().map(command_label).collect::<Result<_, _>>()?,
    })
}

fn command_label(command: LabelCommand) -> Result<CommandLabel, ConfigError> {
    const FIELD: &str = "ssh_service.commands";
    check_label(&command.name, "").map_err(|reason| value(FIELD, reason))?;
    let period = parse_duration(&command.period).ok_or_else(|| {
        value(FIELD, format!("period {:?} of {} is no duration such as 1h", command.period, command.name))
    })?;
    let mut words = command.command.into_iter();
    let program = words.next().ok_or_else(|| value(FIELD, format!("label {} has no command", command.name)))?;
    Ok(CommandLabel { name: command.name, program, args: words.collect(), period })
}

fn kube(service: Option<KubernetesService>, nodename: &NodeName) -> Result<KubeSettings, ConfigError> {
    let service = service.unwrap_or_default();
    let name = service.kube_cluster_name.unwrap_or_else(|| nodename.to_string());
    Ok(KubeSettings {
        name: named("kube_cluster_name", KubeClusterName::new(name))?,
        kubeconfig: service.kubeconfig_file,
        labels: service.labels,
    })
}

fn apps(service: Option<AppServiceConfig>) -> Result<AppSettings, ConfigError> {
    const FIELD: &str = "app_service.apps";
    let mut apps: Vec<App> = Vec::new();
    for AppEntry { name, uri, public_addr, labels } in service.unwrap_or_default().apps {
        let name = named(FIELD, AppName::new(name))?;
        if apps.iter().any(|other| other.name == name) {
            return Err(value(FIELD, format!("app {name} is there twice")));
        }
        if let Some(addr) = public_addr.as_deref()
            && AppAddress::parse(addr).is_none()
        {
            return Err(value(
                FIELD,
                format!("public_addr {addr:?} of app {name} is no HOST[:PORT] with a name for a host"),
            ));
        }
        // Before the host joins and its token is used up.
        #[cfg(feature = "app")]
        remoteler_app::AppUri::parse(&uri).map_err(|cause| value(FIELD, format!("app {name}: {cause}")))?;
        for (label, text) in &labels {
            check_label(label, text).map_err(|reason| value(FIELD, reason))?;
        }
        apps.push(App { name, uri, public_addr, labels });
    }
    if apps.is_empty() {
        return Err(value(FIELD, "an app service needs at least one app: { name: …, uri: \"http://127.0.0.1:…\" }"));
    }
    Ok(AppSettings { apps })
}

fn log(common: &Common, flags: &Flags) -> Result<LogSettings, ConfigError> {
    let log = common.log.clone().unwrap_or_default();
    if let Some(output) = log.output.as_deref()
        && output != "stderr"
    {
        return Err(value("log.output", format!("{output:?} is not available; stderr is")));
    }
    let level = match log.severity.as_deref() {
        None => tracing::level_filters::LevelFilter::INFO,
        Some(text) => text
            .to_lowercase()
            .parse()
            .map_err(|_| value("log.severity", format!("{text:?} is none of ERROR, WARN, INFO, DEBUG, TRACE")))?,
    };
    let format = match log.format.as_ref().map(|format| format.output.as_str()) {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => return Err(value("log.format.output", format!("{other:?} is neither text nor json"))),
    };
    let level = if flags.debug { tracing::level_filters::LevelFilter::DEBUG } else { level };
    Ok(LogSettings { level, format })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JoinToken;

    fn settings(yaml: &str) -> Result<Settings, ConfigError> {
        Settings::new(ConfigFile::parse(yaml).unwrap(), Flags::default())
    }

    #[test]
    fn no_config_is_a_whole_cluster_on_one_machine() {
        let settings = settings("").unwrap();
        assert!(settings.auth.is_some() && settings.proxy.is_some() && settings.node.is_some());
        assert!(settings.kube.is_none() && settings.join.is_none());
        assert_eq!(settings.proxy.unwrap().listen.port(), 3080);
    }

    #[test]
    fn an_app_service_has_apps_of_different_names() {
        let of = |apps: &str| settings(&format!("remoteler: {{ auth_server: a }}\napp_service: {{ apps: [{apps}] }}"));
        let settings = of("{ name: grafana, uri: 'http://127.0.0.1:3000', labels: { env: prod } }, { name: wiki, uri: 'http://w', public_addr: wiki.example.com }").unwrap();
        assert_eq!(settings.roles(), [SystemRole::App].into());
        let apps = settings.app.unwrap().apps;
        assert_eq!((apps[0].name.as_str(), apps[1].public_addr.as_deref()), ("grafana", Some("wiki.example.com")));
        for (bad, said) in [
            ("", "at least one"),
            ("{ name: a, uri: 'http://x' }, { name: a, uri: 'http://y' }", "twice"),
            ("{ name: A.b, uri: 'http://x' }", "label"),
            ("{ name: a, uri: 'http://x', public_addr: 10.0.0.1 }", "public_addr"),
            #[cfg(feature = "app")]
            ("{ name: a, uri: 'ftp://x' }", "app a: \"ftp://x\" is no address"),
        ] {
            let cause = of(bad).unwrap_err().to_string();
            assert!(cause.contains(said), "{cause}");
        }
    }

    #[test]
    fn with_an_auth_server_it_is_a_node_that_joins() {
        let settings = settings("remoteler: { auth_server: proxy.example.com }").unwrap();
        assert_eq!(settings.roles(), [SystemRole::Node].into());
        assert_eq!(settings.join.unwrap().addr, "proxy.example.com:3080");
    }

    #[test]
    fn a_pod_joins_by_the_name_of_a_token_and_the_file_of_its_own() {
        let join = |params: &str| {
            let settings = settings(&format!("remoteler: {{ auth_server: a, join_params: {{ {params} }} }}"));
            settings.map(|settings| settings.join.unwrap())
        };
        let pod = join("method: kubernetes, token_name: pods").unwrap();
        assert_eq!(pod.service_account.unwrap(), PathBuf::from("/var/run/secrets/remoteler/token"));
        // A name, also when a file is called like it.
        assert!(matches!(pod.token, Some(JoinToken::Value(_))));
        let pod = join("method: kubernetes, token_name: /pods, token_file: /run/t").unwrap();
        assert_eq!(pod.service_account.unwrap(), PathBuf::from("/run/t"));
        assert!(matches!(pod.token, Some(JoinToken::Value(_))));
        assert!(join("token_name: /t").unwrap().service_account.is_none());
        for (bad, said) in
            [("method: iam, token_name: x", "kubernetes are"), ("token_name: x, token_file: /t", "token_file")]
        {
            let cause = join(bad).unwrap_err().to_string();
            assert!(cause.contains(said), "{cause}");
        }
    }

    #[test]
    fn a_pin_that_is_none_stops_the_start() {
        let cause = settings("remoteler: { auth_server: a, ca_pin: [\"sha256:12\"] }").unwrap_err();
        assert!(cause.to_string().starts_with("ca_pin: \"sha256:12\" is no pin"), "{cause}");
    }

    #[test]
    fn addresses_get_the_port_that_belongs_to_them() {
        assert_eq!(with_port("x", "::1", 3080).unwrap(), "[::1]:3080");
        assert_eq!(with_port("x", "[::1]:1", 3080).unwrap(), "[::1]:1");
        assert_eq!(with_port("x", "https://p.example.com/", 443).unwrap(), "p.example.com:443");
        assert!(with_port("x", "a b", 1).is_err());
    }
}
