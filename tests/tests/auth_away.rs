//! The auth service is away: what runs goes on, valid certificates work, logins say what is wrong, and afterwards every event is there once. `REMOTELER_AWAY` says for how many
//! seconds; nothing on the way looks at how long it has been, so 3 show what 1800 would.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use remoteler_tests::{Cluster, ClusterOptions, Edge, Process, User, binary, eventually, eventually_within, need, run};

const SECONDS: Duration = Duration::from_secs(30);

/// A shell through the proxy that answers each line.
struct Shell {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Shell {
    fn open(user: &User, host: &str) -> Self {
        let mut command = user.openssh("ssh");
        command.args(["-o", "BatchMode=yes", host, "while read line; do echo \"<$line>\"; done"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn echoes(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
        assert_eq!(self.lines.next().unwrap().unwrap(), format!("<{word}>"));
    }

    fn close(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

fn reaches(user: &User, host: &str) -> Result<(), String> {
    let out = run(user.openssh("ssh").args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=30", host, "echo up"]));
    if out.text() == "up\n" { Ok(()) } else { Err(out.stderr) }
}

/// Uids of the `session.start` events of each session.
fn starts(cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in cluster.events("session.start") {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        found.entry(text("sid")).or_default().push(text("uid"));
    }
    found
}

#[test]
fn while_auth_is_away_sessions_go_on_and_afterwards_every_event_is_there_once() {
    if !need(&["ssh"]) {
        return;
    }
    let away = std::env::var("REMOTELER_AWAY").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut cluster = Cluster::start_with(ClusterOptions { roles: "auth".into(), ..ClusterOptions::default() });
    let (token, pin) = cluster.token("proxy");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let config = cluster.dir().join("proxy.yaml");
    let text = format!(
        "remoteler: {{ nodename: proxy-1, data_dir: {}, auth_server: \"{}\", ca_pin: \"{pin}\", join_params: {{ token_name: \"{token}\" }} }}\n\
         proxy_service: {{ listen_addr: \"{address}\" }}\n",
        cluster.dir().join("proxy").display(),
        cluster.auth()
    );
    std::fs::write(&config, text).unwrap();
    let log = cluster.dir().join("proxy.log");
    let proxy = Process::start(Command::new(binary("remoteler")).args(["start", "-c"]).arg(&config), &log);
    eventually("the proxy listens", || {
        std::net::TcpStream::connect(&address).map_err(|cause| format!("{cause}: {}", proxy.log()))
    });
    let edge = Edge::launch(&cluster, "edge-1", &address, &[], &[]);
    edge.wait_connected();
    let ann = User::create_at(&cluster, "ann", "access", &address);
    eventually_within(SECONDS, "the edge node is reached", || reaches(&ann, "edge-1"));
    // An attempt that was given up may have begun a session, too: what is told settles first.
    let (mut told, mut since) = (0, Instant::now());
    let before = eventually_within(2 * SECONDS, "the first session is told", || {
        let count = starts(&cluster).len();
        if count != told {
            (told, since) = (count, Instant::now());
        }
        if told > 0 && since.elapsed() > Duration::from_secs(3) { Ok(told) } else { Err(format!("{told} so far")) }
    });
    let mut shell = Shell::open(&ann, "edge-1");
    shell.echoes("before");

    let mut new = 1; // the shell
    cluster.kill_daemon();
    let began = Instant::now();
    while new < 4 || began.elapsed() < Duration::from_secs(away) {
        shell.echoes("meanwhile");
        reaches(&ann, "edge-1").unwrap(); // a valid certificate and a node that the proxy knows
        new += 1;
    }
    ann.tsh(&["logout"]).ok(); // with a valid certificate nobody would be asked
    let asked = Instant::now();
    let refused = ann.login(&[]);
    assert_ne!(refused.code, Some(0));
    let said = refused.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(asked.elapsed() < SECONDS && said.contains("auth service does not answer"), "{said}: {}", refused.stderr);
    assert!(!said.contains(cluster.auth()), "where it is, is nobody's business out there: {said}");
    eprintln!("a login meanwhile, after {:?}: {said}", asked.elapsed());

    cluster.start_daemon();
    cluster.wait_ready();
    shell.echoes("after");
    shell.close();
    eventually_within(SECONDS, "a login works again", || {
        let out = ann.login(&[]);
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    let found = eventually_within(SECONDS, "what happened meanwhile is told", || {
        let found = starts(&cluster);
        if found.len() >= before + new { Ok(found) } else { Err(format!("{} of {}", found.len(), before + new)) }
    });
    assert_eq!(found.len(), before + new, "{found:?}");
    assert!(found.values().all(|uids| uids.len() == 1), "an event is there twice: {found:?}"); // I75
    eventually_within(SECONDS, "every session has its one end", || {
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for event in cluster.events("session.end") {
            *ends.entry(event["sid"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        assert!(ends.values().all(|count| *count == 1), "{ends:?}"); // I75
        if ends.len() == found.len() { Ok(()) } else { Err(format!("{} of {}", ends.len(), found.len())) }
    });
    drop((edge, proxy));
}
