//! A daemon that joined through the proxy: behind a reverse tunnel, listening on nothing.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use crate::{Cluster, Process, binary, eventually, run};

/// A running edge daemon.
#[derive(Debug)]
pub struct Edge {
    process: Process,
    name: String,
    data_dir: PathBuf,
    command: Vec<String>,
    log: PathBuf,
}

impl Edge {
    /// Joins as a node named `name` through the cluster's proxy and waits for the tunnel.
    #[track_caller]
    pub fn join(cluster: &Cluster, name: &str, extra: &[&str]) -> Self {
        let edge = Self::launch(cluster, name, cluster.proxy(), extra, &[]);
        edge.wait_connected();
        edge
    }

    /// Starts the daemon, by way of `wrapper` (such as `ip netns exec X`), and waits for nothing.
    #[must_use]
    #[track_caller]
    pub fn launch(cluster: &Cluster, name: &str, proxy: &str, extra: &[&str], wrapper: &[&str]) -> Self {
        let (token, pin) = cluster.token("node,kube,app");
        let data_dir = cluster.dir().join(name);
        let token_file = cluster.dir().join(format!("{name}.token"));
        std::fs::write(&token_file, token).expect("the token can be written");
        let mut command: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        command.push(binary("remoteler").display().to_string());
        let words = ["start", "--auth-server", proxy, "--ca-pin", &pin, "--nodename", name, "--labels", "env=edge"];
        command.extend(words.iter().map(|word| (*word).to_owned()));
        command.extend([
            "--data-dir".into(),
            data_dir.display().to_string(),
            "--token".into(),
            token_file.display().to_string(),
        ]);
        command.extend(extra.iter().map(|word| (*word).to_owned()));
        let log = cluster.dir().join(format!("{name}.log"));
        let process = spawn(&command, &log);
        Self { process, name: name.into(), data_dir, command, log }
    }

    /// Name of the node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// Starts it again with the same command line.
    pub fn restart(&mut self) {
        self.process.kill_hard();
        self.process = spawn(&self.command, &self.log);
    }

    /// Waits until a tunnel is up.
    #[track_caller]
    pub fn wait_connected(&self) {
        eventually("the edge node has a tunnel", || {
            let status = self.status()?;
            let tunnels = status["tunnels"].as_object().cloned().unwrap_or_default();
            let up = tunnels.values().any(|tunnel| tunnel["state"] == "connected");
            if up && status["ready"] == true { Ok(()) } else { Err(format!("{status}\n{}", self.process.log())) }
        });
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
}

fn spawn(command: &[String], log: &std::path::Path) -> Process {
    let (program, args) = command.split_first().expect("a program and arguments");
    Process::start(Command::new(program).args(args), log)
}
