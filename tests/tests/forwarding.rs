//! What comes back from a node to the user's machine, in a whole cluster: the ssh-agent (`-A`) and ports (`-R`), with stock `ssh` and with `tsh ssh`, at a
//! node that is reached directly and at one behind a tunnel.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use remoteler_tests::{Cluster, User, eventually, eventually_within, need, os_login, run};

const EDGE: &str = "edge-1";

/// Users are promised 2 s, which `REMOTELER_STRICT=1` wants; a loaded machine that runs tests may take longer.
fn at_once() -> Duration {
    let strict = std::env::var_os("REMOTELER_STRICT").is_some_and(|value| value == "1");
    Duration::from_secs(if strict { 2 } else { 30 })
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An ssh-agent of the user's own with one key.
fn agent(dir: &Path) -> (Running, PathBuf) {
    let (socket, key) = (dir.join("agent.sock"), dir.join("agent-key"));
    let mut command = Command::new("ssh-agent");
    let agent = Running(command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap());
    eventually("the agent listens", || {
        std::os::unix::net::UnixStream::connect(&socket).map_err(|cause| cause.to_string())
    });
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "mine alone", "-f"]).arg(&key)).ok();
    run(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket)).ok();
    (agent, socket)
}

/// A cluster with a node behind a tunnel, and ann, whose role forwards agents.
fn set_up() -> (Cluster, remoteler_tests::Edge, User) {
    let cluster = Cluster::start();
    let edge = cluster.edge(EDGE);
    let role = "kind: role\nversion: v7\nmetadata: { name: forwarder }\nspec:\n  options: { forward_agent: true }\n  \
                allow: { logins: ['{{internal.logins}}'], node_labels: { '*': '*' } }\n";
    cluster.tctl_with_input(&["create", "-f", "-"], role).ok();
    let ann = cluster.user("ann", "forwarder");
    eventually("the edge node is reached", || {
        let out = run(stock(&ann, &[], EDGE).arg("true"));
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    (cluster, edge, ann)
}

fn stock(user: &User, flags: &[&str], node: &str) -> Command {
    let mut ssh = user.openssh("ssh");
    ssh.args(["-o", "BatchMode=yes"]).args(flags).arg(format!("{node}.{}", Cluster::NAME));
    ssh
}

fn ours(user: &User, flags: &[&str], node: &str) -> Command {
    let mut tsh = user.tsh_command();
    tsh.arg("ssh").args(["-l", &os_login()]).args(flags).arg(node);
    tsh
}

type Client = fn(&User, &[&str], &str) -> Command;
const CLIENTS: [(&str, Client); 2] = [("ssh", stock), ("tsh ssh", ours)];

/// Sends back what it gets.
fn echo_service() -> String {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in target.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    address
}

/// Forwards a port of `node` and yields it.
fn forward(client: Client, user: &User, node: &str, target: &str) -> (Running, u16) {
    let mut command = client(user, &["-N", "-R", &format!("0:{target}")], node);
    let mut child = Running(command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap());
    let mut said = BufReader::new(child.0.stderr.take().unwrap());
    let (mut line, mut heard) = (String::new(), String::new());
    let port = loop {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended: {heard}");
        heard.push_str(&line);
        // "Allocated port N for remote forward to …" and "forward … listens on port N of …"
        let words: Vec<_> = line.split_whitespace().collect();
        let port = words.windows(2).find(|pair| pair[0].ends_with("port")).and_then(|pair| pair[1].parse().ok());
        if let Some(port) = port {
            break port;
        }
    };
    // What it says later is not waited for.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    (child, port)
}

fn echoes(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

// I74
#[test]
fn the_users_agent_signs_for_programs_of_a_session_and_only_where_that_is_asked_for() {
    if !need(&["ssh", "ssh-agent", "ssh-add", "ssh-keygen"]) {
        return;
    }
    let (cluster, _edge, ann) = set_up();
    let (_agent, socket) = agent(cluster.dir());
    for node in [Cluster::NODE, EDGE] {
        for (name, client) in CLIENTS {
            let out =
                run(client(&ann, &["-A"], node).arg("ssh-add -L; echo $SSH_AUTH_SOCK").env("SSH_AUTH_SOCK", &socket));
            let said = out.ok().text();
            assert!(said.contains("mine alone"), "{name} at {node}: {said}");
            let place = PathBuf::from(said.lines().last().unwrap());
            eventually("the socket goes with its session", || {
                if place.parent().unwrap().exists() { Err(place.display().to_string()) } else { Ok(()) }
            });
            let out = run(client(&ann, &["-a"], node).arg("echo [$SSH_AUTH_SOCK]").env("SSH_AUTH_SOCK", &socket));
            assert_eq!(out.ok().text().trim(), "[]", "{name} at {node}");
        }
        let event = cluster.event("port", |event| event["server_hostname"] == node && event["originator"].is_string());
        assert_eq!((&event["direction"], &event["success"]), (&"agent".into(), &true.into()));
    }
    let none = run(ours(&ann, &["-A"], EDGE).arg("echo [$SSH_AUTH_SOCK]"));
    assert!(none.stderr.contains("SSH_AUTH_SOCK names none"), "{}", none.stderr);
    assert_eq!(none.ok().text().trim(), "[]");
    let may = cluster.tctl(&["explain", "--user", "ann", "--login", &os_login(), "--node", EDGE]).ok().text();
    assert!(may.contains("agent forwarding, local port forwarding, remote port forwarding"), "{may}");
}

// I79
#[test]
fn ports_of_nodes_lead_to_the_users_machine_until_a_lock_ends_them() {
    if !need(&["ssh"]) {
        return;
    }
    let (cluster, _edge, ann) = set_up();
    let target = echo_service();
    let mut forwards = Vec::new();
    for node in [Cluster::NODE, EDGE] {
        for (_, client) in CLIENTS {
            let (running, port) = forward(client, &ann, node, &target);
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            echoes(&mut stream);
            let addr = format!("localhost:{port}");
            let event =
                cluster.event("port", |event| event["addr"] == addr.as_str() && event["server_hostname"] == node);
            assert_eq!((&event["direction"], &event["user"]), (&"remote".into(), &"ann".into()));
            forwards.push((running, port, stream));
        }
    }
    let began = Instant::now();
    cluster.tctl(&["lock", "--user", "ann", "--message", "call the help desk"]).ok();
    for (mut running, port, mut stream) in forwards {
        stream.set_read_timeout(Some(at_once())).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        eventually_within(at_once(), "nobody listens any more", || match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => Err(format!("port {port}")),
            Err(_) => Ok(()),
        });
        eventually_within(at_once(), "the client has ended", || match running.0.try_wait().unwrap() {
            Some(_) => Ok(()),
            None => Err("it runs".into()),
        });
    }
    eprintln!("four forwards had ended {:?} after tctl was called", began.elapsed());
    assert!(began.elapsed() < at_once(), "{:?}", began.elapsed());
}

#[test]
fn the_sockets_of_a_daemon_that_was_killed_are_gone_when_it_is_back() {
    if !need(&["ssh", "ssh-agent", "ssh-add", "ssh-keygen"]) {
        return;
    }
    let mut cluster = Cluster::start();
    let role = "kind: role\nversion: v7\nmetadata: { name: forwarder }\nspec:\n  options: { forward_agent: true }\n  \
                allow: { logins: ['{{internal.logins}}'], node_labels: { '*': '*' } }\n";
    cluster.tctl_with_input(&["create", "-f", "-"], role).ok();
    let ann = cluster.user("ann", "forwarder");
    let (_agent, socket) = agent(cluster.dir());
    let mut command = stock(&ann, &["-A"], Cluster::NODE);
    command.arg("echo $SSH_AUTH_SOCK; exec cat").env("SSH_AUTH_SOCK", &socket);
    let mut session = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut place = String::new();
    BufReader::new(session.0.stdout.take().unwrap()).read_line(&mut place).unwrap();
    let place = PathBuf::from(place.trim());
    let whole = place.parent().and_then(Path::parent).unwrap();
    assert!(place.exists() && whole.file_name().unwrap().to_str().unwrap().starts_with("remoteler-agents-"));
    cluster.kill_daemon();
    assert!(place.exists(), "nobody was there to remove it");
    cluster.start_daemon();
    cluster.wait_ready();
    eventually("what was left is removed", || if whole.exists() { Err(whole.display().to_string()) } else { Ok(()) });
}
