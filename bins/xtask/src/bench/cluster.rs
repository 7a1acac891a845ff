//! A cluster of real processes: auth service and one node in the first, a proxy in the second, a node behind a reverse tunnel in the
//! third; and a user who is logged in.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{
    memory::Kept,
    process::Daemon,
    shell::{eventually, output, quiet_shell},
};

/// The running cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Auth service and node [`Cluster::DIRECT`].
    pub(super) hub: Daemon,
    /// The proxy and nothing else.
    pub(super) proxy: Daemon,
    /// Node [`Cluster::EDGE`], behind the proxy's tunnel.
    pub(super) edge: Daemon,
    bin: PathBuf,
    dir: PathBuf,
    proxy_addr: String,
    ca_pin: String,
}

impl Cluster {
    /// A node that the proxy dials.
    pub(super) const DIRECT: &str = "direct";
    /// A node that the proxy reaches through a tunnel.
    pub(super) const EDGE: &str = "edge";
    const NAME: &str = "bench.example.com";

    pub(super) fn start(bin: &Path, dir: &Path) -> anyhow::Result<Self> {
        for program in ["remoteler", "tsh", "tctl", HOLDER] {
            ensure!(bin.join(program).is_file(), "{} is not built", bin.join(program).display());
        }
        let config = dir.join("hub.yaml");
        let text = format!(
            "remoteler: {{ nodename: {}, data_dir: {}, log: {{ severity: WARN }} }}\n\
             auth_service: {{ listen_addr: \"127.0.0.1:0\", cluster_name: {} }}\n\
             proxy_service: {{ enabled: no }}\n\
             ssh_service: {{ listen_addr: \"127.0.0.1:0\", labels: {{ env: bench }} }}\n",
            Self::DIRECT,
            dir.join("hub").display(),
            Self::NAME
        );
        fs::write(&config, text)?;
        let mut hub = Daemon::start(&mut quiet_shell(daemon(bin, &config)), &dir.join("hub.log"))?;
        let status = ready(bin, &dir.join("hub"), &mut hub)?;
        let auth = listener(&status, "auth")?;

        let made = output(&mut tctl(bin, dir, &["tokens", "add", "--type", "proxy", "--format", "json"]), "")?;
        let (token, ca_pin) = token(&made)?;
        let config = dir.join("proxy.yaml");
        let text = format!(
            "remoteler: {{ nodename: proxy, data_dir: {}, auth_server: \"{auth}\", ca_pin: \"{ca_pin}\", \
             join_params: {{ token_name: \"{token}\" }}, log: {{ severity: WARN }} }}\n\
             proxy_service: {{ listen_addr: \"127.0.0.1:0\" }}\n",
            dir.join("proxy").display()
        );
        fs::write(&config, text)?;
        let mut proxy = Daemon::start(&mut daemon(bin, &config), &dir.join("proxy.log"))?;
        let status = ready(bin, &dir.join("proxy"), &mut proxy)?;
        let proxy_addr = listener(&status, "proxy")?;

        let edge = launch_agent(bin, dir, &proxy_addr, &ca_pin, Self::EDGE)?;
        let mut cluster = Self { hub, proxy, edge, bin: bin.to_owned(), dir: dir.to_owned(), proxy_addr, ca_pin };
        connected(bin, &dir.join(Self::EDGE), &mut cluster.edge)?;
        cluster.log_in()?;
        Ok(cluster)
    }

    fn log_in(&self) -> anyhow::Result<()> {
        let os_user = output(Command::new("id").arg("-un"), "")?;
        let tctl = |args: &[&str], input: &str| output(&mut tctl(&self.bin, &self.dir, args), input);
        tctl(&["users", "add", USER, "--roles", "access", "--logins", &os_user], "")?;
        tctl(&["users", "passwd", USER], "correct horse battery staple\n")?;
        let login = ["login", "--insecure", "--proxy", &self.proxy_addr, "--user", USER];
        output(self.tsh().args(login), "correct horse battery staple\n")?;
        let written = |nodes: &[&str]| {
            let config = output(self.tsh().args(["config", "--bare"]), "")?;
            let known = |node: &&str| config.lines().any(|line| line == format!("Host {node}"));
            ensure!(nodes.iter().all(known), "not all nodes are known yet:\n{config}");
            Ok(fs::write(self.ssh_config(), config)?)
        };
        eventually("both nodes are known to the user", || written(&[Self::DIRECT, Self::EDGE]))
    }

    /// Where everything of this run is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `tsh` as the user, ready for arguments.
    pub(super) fn tsh(&self) -> Command {
        let mut command = Command::new(self.bin.join("tsh"));
        self.user_environment(&mut command);
        command
    }

    /// Stock `ssh` as the user, with what `tsh config` printed, ready for arguments.
    pub(super) fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.ssh_config());
        self.user_environment(&mut command);
        command
    }

    fn user_environment(&self, command: &mut Command) {
        command.env("HOME", &self.dir).env("TSH_HOME", self.tsh_home()).env_remove("SSH_AUTH_SOCK");
    }

    fn ssh_config(&self) -> PathBuf {
        self.dir.join("ssh_config")
    }

    fn tsh_home(&self) -> PathBuf {
        self.dir.join("tsh")
    }

    /// The user's private key; the certificate is beside it, with `-cert.pub`.
    pub(super) fn user_key(&self) -> PathBuf {
        let host = self.proxy_addr.rsplit_once(':').map_or(self.proxy_addr.as_str(), |(host, _)| host);
        self.tsh_home().join("keys").join(host).join(USER)
    }

    /// The authority of users, as a line of `TrustedUserCAKeys`.
    pub(super) fn user_authority(&self) -> anyhow::Result<String> {
        output(&mut tctl(&self.bin, &self.dir, &["auth", "export", "--type", "user"]), "")
    }

    /// Lets one process join as `count` hosts, and waits until all have their tunnels.
    pub(super) fn hold_tunnels(&self, count: usize, kept: Kept) -> anyhow::Result<HeldTunnels> {
        let made =
            output(&mut tctl(&self.bin, &self.dir, &["tokens", "add", "--type", "node", "--format", "json"]), "")?;
        let mut command = Command::new(self.bin.join(HOLDER));
        command.args(["join", "--proxy", &self.proxy_addr, "--ca-pin", &self.ca_pin, "--count", &count.to_string()]);
        if kept == Kept::LinkAndCalls {
            command.arg("--api");
        }
        let held = HeldTunnels::start(&mut command, &token(&made)?.0)?;
        ensure!(held.said.starts_with("READY"), "not all of {count} agents have their tunnels");
        Ok(held)
    }

    /// Starts the agent `program` and waits for its tunnel.
    pub(super) fn agent_of(&self, program: &Path, name: &str) -> anyhow::Result<Daemon> {
        let mut agent = launch_program(program, &self.bin, &self.dir, &self.proxy_addr, &self.ca_pin, name)?;
        connected(&self.bin, &self.dir.join(name), &mut agent)?;
        Ok(agent)
    }

    /// Starts a program that is an agent by itself, called as the example `smallest_agent` is, and waits until it says that it is reached.
    pub(super) fn agent_embedded(&self, program: &Path, name: &str) -> anyhow::Result<HeldTunnels> {
        let made =
            output(&mut tctl(&self.bin, &self.dir, &["tokens", "add", "--type", "node", "--format", "json"]), "")?;
        let home = self.dir.join(name);
        fs::create_dir_all(&home)?;
        let mut command = Command::new(program);
        command.args([&self.proxy_addr, &self.ca_pin, name, "nothing", "127.0.0.1:9"]).current_dir(home);
        let held = HeldTunnels::start(&mut command, &token(&made)?.0)?;
        ensure!(held.said.starts_with("nothing@"), "{} has no tunnel: {}", program.display(), held.said);
        Ok(held)
    }

    /// Starts `count` more agents and waits for all tunnels.
    pub(super) fn agents(&self, count: usize) -> anyhow::Result<Vec<Daemon>> {
        let names: Vec<String> = (0..count).map(|index| format!("agent-{index}")).collect();
        let launch = |name: &String| launch_agent(&self.bin, &self.dir, &self.proxy_addr, &self.ca_pin, name);
        let mut agents = names.iter().map(launch).collect::<anyhow::Result<Vec<_>>>()?;
        for (name, agent) in names.iter().zip(&mut agents) {
            connected(&self.bin, &self.dir.join(name), agent)?;
        }
        Ok(agents)
    }
}

/// A program that holds the tunnels of agents. Ended when dropped.
pub(super) struct HeldTunnels {
    child: Child,
    /// Its first line.
    said: String,
}

impl HeldTunnels {
    /// Starts it with a token on its standard input, and waits for its first line.
    fn start(command: &mut Command, token: &str) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut held = Self { child, said: String::new() };
        held.child.stdin.take().context("the agents have no input")?.write_all(token.as_bytes())?;
        let said = held.child.stdout.take().context("the agents have no output")?;
        BufReader::new(said).read_line(&mut held.said)?;
        Ok(held)
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for HeldTunnels {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const USER: &str = "ann";
/// Holds the ends of tunnels; a program of the benches.
const HOLDER: &str = "bench-link";

fn tctl(bin: &Path, dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(bin.join("tctl"));
    command.arg("--data-dir").arg(dir.join("hub")).args(args);
    command
}

fn token(printed: &str) -> anyhow::Result<(String, String)> {
    let made: Value = serde_json::from_str(printed).context("tctl did not print JSON")?;
    let field = |name: &str| {
        let text = made.get(name).and_then(Value::as_str).map(str::to_owned);
        text.with_context(|| format!("tctl tokens add printed no {name}"))
    };
    Ok((field("token")?, field("ca_pin")?))
}

fn launch_agent(bin: &Path, dir: &Path, proxy: &str, ca_pin: &str, name: &str) -> anyhow::Result<Daemon> {
    launch_program(&bin.join("remoteler"), bin, dir, proxy, ca_pin, name)
}

fn launch_program(
    program: &Path,
    bin: &Path,
    dir: &Path,
    proxy: &str,
    ca_pin: &str,
    name: &str,
) -> anyhow::Result<Daemon> {
    let made = output(&mut tctl(bin, dir, &["tokens", "add", "--type", "node", "--format", "json"]), "")?;
    let config = dir.join(format!("{name}.yaml"));
    let text = format!(
        "remoteler: {{ nodename: {name}, data_dir: {}, auth_server: \"{proxy}\", ca_pin: \"{ca_pin}\", \
         join_params: {{ token_name: \"{}\" }}, log: {{ severity: WARN }} }}\n\
         ssh_service: {{ labels: {{ env: bench }} }}\n",
        dir.join(name).display(),
        token(&made)?.0
    );
    fs::write(&config, text)?;
    Daemon::start(&mut quiet_shell(daemon_of(program, &config)), &dir.join(format!("{name}.log")))
}

fn daemon(bin: &Path, config: &Path) -> Command {
    daemon_of(&bin.join("remoteler"), config)
}

fn daemon_of(program: &Path, config: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["start", "-c"]).arg(config);
    command
}

/// Waits until a daemon says that it is ready; its status.
fn ready(bin: &Path, data_dir: &Path, daemon: &mut Daemon) -> anyhow::Result<Value> {
    eventually("a daemon is ready", || {
        daemon.check()?;
        let status = status(bin, data_dir)?;
        ensure!(status.get("ready") == Some(&Value::Bool(true)), "{status}");
        Ok(status)
    })
}

fn connected(bin: &Path, data_dir: &Path, daemon: &mut Daemon) -> anyhow::Result<()> {
    eventually("an agent has its tunnel", || {
        daemon.check()?;
        let status = status(bin, data_dir)?;
        let tunnels = status.get("tunnels").and_then(Value::as_object).into_iter().flat_map(|map| map.values());
        let up = |tunnel: &Value| tunnel.get("state").and_then(Value::as_str) == Some("connected");
        ensure!(tunnels.into_iter().any(up), "{status}");
        Ok(())
    })
}

fn status(bin: &Path, data_dir: &Path) -> anyhow::Result<Value> {
    let mut command = Command::new(bin.join("remoteler"));
    let printed = output(command.args(["status", "--format", "json", "--data-dir"]).arg(data_dir), "")?;
    serde_json::from_str(&printed).context("remoteler status did not print JSON")
}

fn listener(status: &Value, name: &str) -> anyhow::Result<String> {
    let addr = status.get("listeners").and_then(|listeners| listeners.get(name)).and_then(Value::as_str);
    Ok(addr.with_context(|| format!("no listener {name} in {status}"))?.to_owned())
}
