//! What the demo prints: a short story a person can read, and the commands to try by hand.

use std::path::{Path, PathBuf};

use remoteler_core::{AuditEvent, SessionId};
use remoteler_ssh::{CastEvent, CastReader, PlainText, printable};

use super::{cluster::DemoCluster, edge::EdgeProcess, visitor::Visitor};

/// Tells the story, one numbered step at a time.
pub(crate) struct Story {
    step: u32,
    dir: PathBuf,
}

impl Story {
    pub(crate) fn new(dir: &Path) -> Self {
        println!("Remoteler demo. Everything runs on this machine, as you, in {}.\n", dir.display());
        Self { step: 0, dir: dir.to_owned() }
    }

    fn step(&mut self, text: &str) {
        self.step += 1;
        println!("{:>2}. {text}", self.step);
    }

    pub(crate) fn cluster(&mut self, cluster: &DemoCluster) {
        self.step(&format!("A cluster is up: auth service, proxy and node {:?} in one process.", DemoCluster::NODE));
        println!("    cluster {}, proxy {}", DemoCluster::NAME, cluster.proxy);
        println!("    CA pin {}", cluster.ca_pin);
    }

    pub(crate) fn edge(&mut self, edge: &EdgeProcess) {
        self.step(&format!(
            "An edge node {:?} joined through the proxy with a join token (process {}).",
            EdgeProcess::NAME,
            edge.pid
        ));
        println!("    It listens on no port; a reverse tunnel to the proxy is up.");
    }

    pub(crate) fn user(&mut self, ann: &Visitor) {
        let roles: Vec<_> = ann.certs.roles.iter().map(ToString::to_string).collect();
        self.step(&format!("User {:?} was made and logged in through the proxy with a password.", Visitor::NAME));
        println!("    roles {}, may log in as {}", roles.join(", "), ann.certs.logins.join(", "));
        println!(
            "    SSH and X.509 certificates until {}; the private keys never left this process",
            ann.certs.expires
        );
    }

    pub(crate) fn command(&mut self, node: &str, command: &str, output: &str) {
        self.step(&format!("{} ran a command on {node}, end to end over SSH:", Visitor::NAME));
        println!("    {node}$ {command}");
        quote(output);
    }

    pub(crate) fn terminal(&mut self, node: &str, command: &str, output: &str) {
        self.step(&format!("{} opened a terminal on {node}, through the tunnel:", Visitor::NAME));
        println!("    {node}$ {command}");
        quote(output);
    }

    pub(crate) fn pods(&mut self, pods: &[String]) {
        self.step(&format!("{} asked the API server for pods, impersonated by the Kubernetes service:", Visitor::NAME));
        if pods.is_empty() {
            println!("    there are none");
        }
        for pod in pods {
            println!("    {}", printable(pod));
        }
    }

    pub(crate) fn recording(&mut self, id: &SessionId, text: &str) {
        self.step(&format!("The terminal was recorded at the edge and uploaded; recording {id} plays:"));
        quote(text);
    }

    pub(crate) fn events(&mut self, events: &[AuditEvent]) {
        self.step("The audit log; what was allowed was recorded before it happened:");
        for event in events {
            println!("    {}  {:<22} {}", event.time, event.name(), printable(&summary(event)));
        }
    }

    pub(crate) fn done(&self) {
        println!("\nAll of it worked.");
    }

    pub(crate) fn try_it(&self, cluster: &DemoCluster, edge: &EdgeProcess, ann: &Visitor) -> anyhow::Result<()> {
        let bin = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
        let home = self.dir.join("home");
        println!("\nIt stays up until Ctrl-C. Try it by hand, in another terminal:\n");
        if !bin.join("tsh").exists() || !bin.join("tctl").exists() {
            println!("  cargo build --release --bin tsh --bin tctl");
        }
        println!("  export PATH={}:$PATH TSH_HOME={}", bin.display(), home.join(".tsh").display());
        println!(
            "  tsh login --insecure --proxy {} --user {} < {}",
            cluster.proxy,
            Visitor::NAME,
            self.dir.join("ann.password").display()
        );
        println!("  tsh ls");
        println!("  tsh ssh {}@{}", ann.login, EdgeProcess::NAME);
        println!("  tsh config --bare > {}", self.dir.join("ssh_config").display());
        println!("  ssh -F {} {}@{} uptime", self.dir.join("ssh_config").display(), ann.login, DemoCluster::NODE);
        println!("  tsh recordings ls");
        println!("  tctl --data-dir {} audit ls", cluster.data_dir.display());
        println!("  kill -9 {}      # the edge node; the story of what then is in the log", edge.pid);
        println!();
        Ok(())
    }
}

fn quote(text: &str) {
    for line in text.trim_end().lines() {
        println!("    | {}", printable(line));
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
