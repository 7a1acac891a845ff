//! What the demo prints: a short story a person can read, and the commands to try by hand.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use remoteler_core::{AuditEvent, SessionId};
use remoteler_ssh::{CastEvent, CastReader, PlainText, printable};

use super::{cluster::DemoCluster, edge::EdgeProcess, visitor::Visitor};

/// A line of the story. That nobody reads it any more is no reason to stop what it tells of.
macro_rules! tell {
    ($($line:tt)*) => {{
        let _ = writeln!(io::stdout(), $($line)*);
    }};
}

/// Tells the story, one numbered step at a time.
pub(crate) struct Story {
    step: u32,
    dir: PathBuf,
}

impl Story {
    pub(crate) fn new(dir: &Path) -> Self {
        tell!("Remoteler demo. Everything runs on this machine, as you, in {}.\n", dir.display());
        Self { step: 0, dir: dir.to_owned() }
    }

    fn step(&mut self, text: &str) {
        self.step += 1;
        tell!("{:>2}. {text}", self.step);
    }

    pub(crate) fn cluster(&mut self, cluster: &DemoCluster) {
        self.step(&format!("A cluster is up: auth service, proxy and node {:?} in one process.", DemoCluster::NODE));
        tell!("    cluster {}, proxy {}", DemoCluster::NAME, cluster.proxy);
        tell!("    CA pin {}", cluster.ca_pin);
    }

    pub(crate) fn edge(&mut self, edge: &EdgeProcess) {
        self.step(&format!(
            "An edge node {:?} joined through the proxy with a join token (process {}).",
            EdgeProcess::NAME,
            edge.pid
        ));
        tell!("    It listens on no port; a reverse tunnel to the proxy is up.");
    }

    pub(crate) fn user(&mut self, ann: &Visitor) {
        let roles: Vec<_> = ann.certs.roles.iter().map(ToString::to_string).collect();
        self.step(&format!("User {:?} was made and logged in through the proxy with a password.", Visitor::NAME));
        tell!("    roles {}, may log in as {}", roles.join(", "), ann.certs.logins.join(", "));
        tell!("    SSH and X.509 certificates until {}; the private keys never left this process", ann.certs.expires);
    }

    pub(crate) fn command(&mut self, node: &str, command: &str, output: &str) {
        self.step(&format!("{} ran a command on {node}, end to end over SSH:", Visitor::NAME));
        tell!("    {node}$ {command}");
        quote(output);
    }

    pub(crate) fn terminal(&mut self, node: &str, command: &str, output: &str) {
        self.step(&format!("{} opened a terminal on {node}, through the tunnel:", Visitor::NAME));
        tell!("    {node}$ {command}");
        quote(output);
    }

    pub(crate) fn pods(&mut self, pods: &[String]) {
        self.step(&format!("{} asked the API server for pods, impersonated by the Kubernetes service:", Visitor::NAME));
        if pods.is_empty() {
            tell!("    there are none");
        }
        for pod in pods {
            tell!("    {}", printable(pod));
        }
    }

    pub(crate) fn recording(&mut self, id: &SessionId, text: &str) {
        self.step(&format!("The terminal was recorded at the edge and uploaded; recording {id} plays:"));
        quote(text);
    }

    pub(crate) fn events(&mut self, events: &[AuditEvent]) {
        self.step("The audit log; what was allowed was recorded before it happened:");
        for event in events {
            tell!("    {}  {:<22} {}", event.time, event.name(), printable(&summary(event)));
        }
    }

    pub(crate) fn done(&self) {
        tell!("\nAll of it worked.");
    }

    pub(crate) fn try_it(&self, cluster: &DemoCluster, edge: &EdgeProcess, ann: &Visitor) -> anyhow::Result<()> {
        let bin = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
        let home = self.dir.join("home");
        tell!("\nIt stays up until Ctrl-C. Try it by hand, in another terminal:\n");
        if !bin.join("tsh").exists() || !bin.join("tctl").exists() {
            tell!("  cargo build --release --bin tsh --bin tctl");
        }
        tell!("  export PATH={}:$PATH TSH_HOME={}", bin.display(), home.join(".tsh").display());
        tell!(
            "  tsh login --insecure --proxy {} --user {} < {}",
            cluster.proxy,
            Visitor::NAME,
            self.dir.join("ann.password").display()
        );
        tell!("  tsh ls");
        tell!("  tsh ssh {}@{}", ann.login, EdgeProcess::NAME);
        tell!("  tsh config --bare > {}", self.dir.join("ssh_config").display());
        tell!("  ssh -F {} {}@{} uptime", self.dir.join("ssh_config").display(), ann.login, DemoCluster::NODE);
        tell!("  tsh recordings ls");
        tell!("  tctl --data-dir {} audit ls", cluster.data_dir.display());
        tell!("  kill -9 {}      # the edge node; the story of what then is in the log", edge.pid);
        tell!();
        Ok(())
    }
}

fn quote(text: &str) {
    for line in text.trim_end().lines() {
        tell!("    | {}", printable(line));
    }
}

/// The fields that tell most, `name=value`.
fn summary(event: &AuditEvent) -> String {
    let value = serde_json::to_value(event).unwrap_or_default();
    let wanted = [
        "user",
        "name",
        "node_name",
        "server_hostname",
        "login",
        "command",
        "action",
        "path",
        "request_path",
        "cert_type",
        "success",
        "exitCode",
        "size",
        "error",
    ];
    wanted
        .iter()
        .filter_map(|field| {
            let text = match value.get(field)? {
                serde_json::Value::String(text) if text.is_empty() => return None,
                serde_json::Value::String(text) => text.clone(),
                other @ (serde_json::Value::Null
                | serde_json::Value::Bool(_)
                | serde_json::Value::Number(_)
                | serde_json::Value::Array(_)
                | serde_json::Value::Object(_)) => other.to_string(),
            };
            let text: String = text.chars().take(60).collect();
            Some(format!("{field}={text}"))
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// The text of a recording.
pub(super) fn plain_text(cast: &[u8]) -> anyhow::Result<String> {
    let mut reader = CastReader::new(cast)?;
    let (mut plain, mut text) = (PlainText::default(), String::new());
    while let Some(event) = reader.next_event()? {
        if let CastEvent::Output(output) = &event.event {
            plain.push(output, &mut text);
        }
    }
    plain.finish(&mut text);
    Ok(text)
}
