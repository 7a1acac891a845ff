//! A whole cluster of our own: one daemon (auth, proxy, node) in a directory of its own, on ports of its own.

use std::{path::PathBuf, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Edge, Outcome, Process, SmallDisk, User, binary, eventually, run, run_with_input};

/// What differs from the default cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Services of the first daemon.
    pub roles: String,
    /// Further lines of the config file.
    pub extra_config: String,
    /// IP address that the services listen on.
    pub listen_ip: String,
    /// Further lines of the section `remoteler`.
    pub common_config: String,
    /// Further lines of the section `auth_service`.
    pub auth_config: String,
    /// Further lines of the section `proxy_service`.
    pub proxy_config: String,
    /// What is added to the daemon's environment.
    pub environment: Vec<(String, String)>,
    /// Size of a file system of its own for the data directory, in MiB; see [`SmallDisk`].
    pub disk: Option<u32>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            roles: "auth,proxy,node".into(),
            extra_config: String::new(),
            listen_ip: "127.0.0.1".into(),
            common_config: String::new(),
            auth_config: String::new(),
            proxy_config: String::new(),
            environment: Vec::new(),
            disk: None,
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    daemon: Option<Process>,
    proxy: String,
    auth: String,
    node: Option<String>,
    options: ClusterOptions,
    disk: Option<SmallDisk>,
    dir: TempDir,
}

impl Cluster {
    /// Name of the cluster.
    pub const NAME: &'static str = "test.example.com";
    /// Name of its node.
    pub const NODE: &'static str = "local";

    /// Starts auth, proxy and node in one process.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(ClusterOptions::default())
    }

    /// Starts a cluster that differs from the default.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start_with(options: ClusterOptions) -> Self {
        // A short path: sockets in it have at most 107 octets.
        let dir = tempfile::Builder::new().prefix("rt-").tempdir_in("/tmp").expect("a directory can be made");
        let disk = options
            .disk
            .map(|size| SmallDisk::mount(&dir.path().join("data"), size).expect("file systems can be mounted"));
        let mut cluster = Self { daemon: None, proxy: "0".into(), auth: "0".into(), node: None, options, disk, dir };
        let ip = cluster.options.listen_ip.clone();
        cluster.write_config(&format!("{ip}:0"), &format!("{ip}:0"), &format!("{ip}:0"));
        cluster.start_daemon();
        let status = cluster.wait_ready();
        let listener = |name: &str| status["listeners"][name].as_str().map(str::to_owned);
        cluster.proxy = listener("proxy").unwrap_or_default();
        cluster.auth = listener("auth").unwrap_or_default();
        cluster.node = listener("node");
        // From now on the ports stay, also through a restart.
        cluster.rewrite_config();
        cluster
    }

    /// Writes other lines of `auth_service` into the config, for the next start.
    pub fn configure_auth(&mut self, lines: &str) {
        self.options.auth_config = lines.to_owned();
        self.rewrite_config();
    }

    /// Writes other lines of `proxy_service` into the config, for the next start.
    pub fn configure_proxy(&mut self, lines: &str) {
        self.options.proxy_config = lines.to_owned();
        self.rewrite_config();
    }

    fn rewrite_config(&self) {
        let node = self.node.clone().unwrap_or_else(|| format!("{}:0", self.options.listen_ip));
        self.write_config(&self.auth, &self.proxy, &node);
    }

    fn write_config(&self, auth: &str, proxy: &str, node: &str) {
        let on = |role: &str| if self.options.roles.split(',').any(|r| r == role) { "yes" } else { "no" };
        let text = format!(
            "version: v1\nremoteler:\n  nodename: {}\n  data_dir: {}\n{}auth_service:\n  enabled: {}\n  listen_addr: \"{auth}\"\n  cluster_name: {}\n{}\
             proxy_service:\n  enabled: {}\n  listen_addr: \"{proxy}\"\n{}ssh_service:\n  enabled: {}\n  listen_addr: \"{node}\"\n  labels: {{ env: test }}\n{}",
            Self::NODE,
            self.data_dir().display(),
            self.options.common_config,
            on("auth"),
            Self::NAME,
            self.options.auth_config,
            on("proxy"),
            self.options.proxy_config,
            on("node"),
            self.options.extra_config,
        );
        std::fs::write(self.config(), text).expect("the config can be written");
    }

    /// The command that starts the daemon.
    #[must_use]
    pub fn daemon_command(&self) -> Command {
        let mut command = Command::new(binary("remoteler"));
        command.args(["start", "-c"]).arg(self.config()).arg("--drain-timeout=5s");
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the daemon (again).
    pub fn start_daemon(&mut self) {
        let mut command = self.daemon_command();
        self.daemon = Some(Process::start(&mut command, &self.dir.path().join("daemon.log")));
    }

    /// Waits until the daemon says it is ready; its status.
    ///
    /// # Panics
    /// When it ends or is not ready in time.
    pub fn wait_ready(&mut self) -> Value {
        let data_dir = self.data_dir();
        let daemon = self.daemon.as_mut().expect("started");
        eventually("the daemon is ready", || {
            assert!(daemon.runs(), "the daemon ended:\n{}", daemon.log());
            let out = run(Command::new(binary("remoteler"))
                .args(["status", "--format", "json", "--data-dir"])
                .arg(&data_dir));
            let status: Value = serde_json::from_slice(&out.stdout).map_err(|_| out.stderr.clone())?;
            if status["ready"] == true { Ok(status) } else { Err(status.to_string()) }
        })
    }

    /// What was added to the daemon's environment.
    #[must_use]
    pub fn environment(&self) -> &[(String, String)] {
        &self.options.environment
    }

    /// Directory of this cluster.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Data directory of the daemon.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Config file of the daemon.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("remoteler.yaml")
    }

    /// `IP:PORT` of the proxy.
    #[must_use]
    pub fn proxy(&self) -> &str {
        &self.proxy
    }

    /// `IP:PORT` of the auth service.
    #[must_use]
    pub fn auth(&self) -> &str {
        &self.auth
    }

    /// `IP:PORT` of the node.
    ///
    /// # Panics
    /// When the cluster runs none.
    #[must_use]
    pub fn node(&self) -> &str {
        self.node.as_deref().expect("the cluster runs a node")
    }

    /// The daemon's process.
    ///
    /// # Panics
    /// When it was stopped.
    pub fn daemon(&mut self) -> &mut Process {
        self.daemon.as_mut().expect("the daemon was started")
    }

    /// The file system of the data directory.
    ///
    /// # Panics
    /// When it has none of its own.
    #[must_use]
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("the cluster was started with a disk")
    }

    /// Kills the daemon as a power cut would.
    pub fn kill_daemon(&mut self) {
        self.daemon().kill_hard();
    }

    /// Runs `tctl` as the local administrator.
    #[track_caller]
    pub fn tctl(&self, args: &[&str]) -> Outcome {
        self.tctl_with_input(args, "")
    }

    /// Runs `tctl` with input.
    #[track_caller]
    pub fn tctl_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let mut command = Command::new(binary("tctl"));
        command.arg("--data-dir").arg(self.data_dir()).args(args);
        run_with_input(&mut command, input.as_bytes())
    }

    /// Runs `tctl … --format json` and reads the answer.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    #[track_caller]
    pub fn tctl_json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.extend(["--format", "json"]);
        let out = self.tctl(&args).ok();
        serde_json::from_slice(&out.stdout).unwrap_or_else(|cause| panic!("{cause}: {}", out.text()))
    }

    /// Makes a user with a password and logs them in. Their login is the OS user who runs the test.
    #[track_caller]
    pub fn user(&self, name: &str, roles: &str) -> User {
        User::create(self, name, roles)
    }

    /// Starts an edge node that joins through the proxy.
    #[track_caller]
    pub fn edge(&self, name: &str) -> Edge {
        Edge::join(self, name, &[])
    }

    /// A fresh join token and the CA pin.
    #[track_caller]
    pub fn token(&self, kinds: &str) -> (String, String) {
        let made = self.tctl_json(&["tokens", "add", "--type", kinds]);
        let text = |field: &str| made[field].as_str().unwrap_or_else(|| panic!("{field} in {made}")).to_owned();
        (text("token"), text("ca_pin"))
    }

    /// Audit events of a kind, oldest first.
    #[track_caller]
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let events = self.tctl_json(&["audit", "ls", "--type", kind, "--limit", "10000"]);
        events.as_array().expect("a list").clone()
    }

    /// Waits for an audit event of a kind for which `fits` holds.
    #[track_caller]
    pub fn event(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("an event {kind}"), || {
            let events = self.events(kind);
            events.iter().find(|event| fits(event)).cloned().ok_or_else(|| format!("{events:?}"))
        })
    }
    /// Exports the audit log and checks it with the public key alone: all of it is proven, and no writer's chain is broken.
    ///
    /// # Panics
    /// When it is not so; the verdict is in the message.
    #[track_caller]
    pub fn assert_log_verifies(&self) {
        let path = |name: &str| self.dir().join(name).to_str().expect("a path of text").to_owned();
        let (export, key) = (path("export.jsonl"), path("audit.key"));
        let public = self.tctl(&["auth", "export", "--type", "audit"]).ok().text();
        std::fs::write(&key, public).expect("the key can be written");
        self.tctl(&["audit", "export", "-o", &export]).ok();
        let verdict = self.tctl_json(&["audit", "verify", &export, "--key", &key]);
        assert_eq!(verdict["proven"], verdict["size"], "{verdict}");
        assert_eq!(verdict["chain_breaks"], serde_json::json!([]), "{verdict}");
    }
}
