//! A proxy in a process of its own, which joined a cluster whose auth service is elsewhere.

use std::{path::PathBuf, process::Command};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{Cluster, Process, binary, eventually, run};

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    process: Process,
    name: String,
    data_dir: PathBuf,
    config: PathBuf,
    environment: Vec<(String, String)>,
    log: PathBuf,
}

impl Proxy {
    /// Joins `cluster` as a proxy on a port of its own, in the environment of the cluster's daemon, and waits until that listens.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn join(cluster: &Cluster, name: &str) -> Self {
        Self::join_with(cluster, name, "")
    }

    /// The same with more in its section, behind a comma each.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn join_with(cluster: &Cluster, name: &str, more: &str) -> Self {
        let (token, pin) = cluster.token("proxy");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        drop(listener);
        let (config, log) = (cluster.dir().join(format!("{name}.yaml")), cluster.dir().join(format!("{name}.log")));
        let data_dir = cluster.dir().join(name);
        let text = format!(
            "remoteler: {{ nodename: {name}, data_dir: {}, auth_server: \"{}\", ca_pin: \"{pin}\", join_params: {{ token_name: \"{token}\" }} }}\n\
             proxy_service: {{ listen_addr: \"{address}\"{more} }}\n",
            data_dir.display(),
            cluster.auth()
        );
        std::fs::write(&config, text).expect("the config can be written");
        let environment = cluster.environment().to_vec();
        let process = launch(&config, &environment, &log);
        let proxy = Self { address, process, name: name.to_owned(), data_dir, config, environment, log };
        eventually("the proxy listens", || {
            std::net::TcpStream::connect(&proxy.address).map(drop).map_err(|e| format!("{e}: {}", proxy.process.log()))
        });
        proxy
    }

    /// Starts it again with the same config.
    pub fn start_again(&mut self) {
        self.process = launch(&self.config, &self.environment, &self.log);
    }

    /// `IP:PORT` that it listens on.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Name of its host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its config file.
    #[must_use]
    pub fn config(&self) -> &std::path::Path {
        &self.config
    }

    /// The process that was started; after a handover another one serves.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Tells the serving process to make way, and waits for the next one; gives both.
    ///
    /// # Panics
    /// When none serves before or afterwards.
    #[track_caller]
    pub fn make_way(&self) -> (Pid, Pid) {
        let before = self.serving().expect("a process serves");
        kill(before, Signal::SIGUSR2).expect("it can be told");
        let next = eventually("another process serves", || match (self.status(), self.serving()) {
            (Ok(status), Some(next)) if status["ready"] == true && next != before => Ok(next),
            (status, _) => Err(format!("{status:?}")),
        });
        (before, next)
    }

    /// What the daemon says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Value, String> {
        let out = run(Command::new(binary("remoteler"))
            .args(["status", "--format", "json", "--data-dir"])
            .arg(&self.data_dir));
        serde_json::from_slice(&out.stdout).map_err(|_| format!("{}\n{}", out.stderr, self.process.log()))
    }

    /// Process id of the daemon that serves now.
    #[must_use]
    pub fn serving(&self) -> Option<Pid> {
        let pid = self.status().ok()?["pid"].as_i64()?;
        i32::try_from(pid).ok().map(Pid::from_raw)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Whoever took over from the process that was started is nobody's child here.
        if let Some(pid) = self.serving() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

fn launch(config: &std::path::Path, environment: &[(String, String)], log: &std::path::Path) -> Process {
    let mut command = Command::new(binary("remoteler"));
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Process::start(command.args(["start", "-c"]).arg(config), log)
}
