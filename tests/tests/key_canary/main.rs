//! The authority's private keys are in the auth service's memory and its database, and nowhere else (I8): not in a file of the cluster or of a user,
//! not on a wire, not in the memory of another process, not in a core file. And the keys of who logs in are on that one's machine and nowhere else.
//! The search is shown to find them where they are.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod canary;
mod relay;

use std::{
    fs,
    io::{BufRead, BufReader, PipeReader, Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, process::ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use remoteler_tests::{Cluster, ClusterOptions, Edge, Process, User, binary, eventually, need, run};

use crate::{
    canary::{Canary, database},
    relay::Tap,
};

/// How the keys are kept at rest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtRest {
    InTheClear,
    Sealed,
}

// I8
#[test]
fn keys_in_the_clear_are_in_the_database_and_in_the_auth_services_memory_and_nowhere_else() {
    private_keys_stay_where_they_are(AtRest::InTheClear);
}

// I8
#[test]
fn sealed_keys_are_in_the_auth_services_memory_and_nowhere_else() {
    private_keys_stay_where_they_are(AtRest::Sealed);
}

fn private_keys_stay_where_they_are(at_rest: AtRest) {
    if !need(&["ssh"]) {
        return;
    }
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can look into the memory of other processes");
        return;
    }
    let (mut cluster, canary) = cluster(at_rest);
    let auth = cluster.daemon().id();
    let wires = Tap::default();
    let (mut proxy, proxy_address) = proxy(&cluster, &wires.tcp(cluster.auth()));
    let proxy_address = wires.tcp(&proxy_address);
    let mut edge = Edge::launch(&cluster, "edge-1", &proxy_address, &["-d"], &[]);
    edge.wait_connected();
    let ann = User::create_at(&cluster, "ann", "access", &proxy_address);
    let mut session = session(&ann, "edge-1");
    let local = administer(&cluster);
    let (mut listing, _unread) = listing_that_waits(&cluster);

    // The search works: it finds them where they must be.
    assert!(canary.found_in_memory(auth).is_some(), "the auth service signs with them");
    let in_files = |left_out: &dyn Fn(&Path) -> bool| canary.files_with_it(cluster.dir(), left_out);
    let of_database =
        |path: &Path| path.starts_with(cluster.data_dir()) && is_of_database(path, &database(&cluster.data_dir()));
    match at_rest {
        AtRest::InTheClear => {
            assert!(in_files(&|_| false).iter().any(|(path, _)| of_database(path)), "they lie in the database");
            assert_eq!(in_files(&of_database), []);
        }
        AtRest::Sealed => assert_eq!(in_files(&|_| false), []),
    }
    let homes = ann.home().to_owned();
    assert!(
        canary::files(&homes).len() > 5 && canary::files(cluster.dir()).len() > 20,
        "there was something to search"
    );

    let of_ann = Canary::of_login(ann.home());
    assert!(!of_ann.files_with_it(&homes, &|_| false).is_empty(), "they lie in her home");
    assert_eq!(of_ann.files_with_it(cluster.dir(), &|path| path.starts_with(&homes)), []);

    let crossed = wires.octets();
    assert!(crossed.len() > 10_000, "{} octets crossed the wires", crossed.len());
    assert_eq!((canary.found_in(&crossed), of_ann.found_in(&crossed)), (None, None));
    let answered = local.octets();
    assert!(String::from_utf8_lossy(&answered).contains(Cluster::NAME), "the administrator's socket was tapped");
    assert_eq!(canary.found_in(&answered), None);

    for (what, top) in
        [("proxy", proxy.id()), ("node", edge.process().id()), ("ssh", session.id()), ("tctl", listing.id())]
    {
        let processes = with_descendants(top);
        assert!(processes.len() > 1 || what == "proxy" || what == "tctl", "{what} has children: {processes:?}");
        for process in processes {
            assert_eq!(canary.found_in_memory(process), None, "in process {process} of {what}");
            // It signs with them.
            if what != "ssh" {
                assert_eq!(of_ann.found_in_memory(process), None, "in process {process} of {what}");
            }
        }
    }
    assert_eq!(of_ann.found_in_memory(auth), None);
    // They were alive all the time.
    assert!(proxy.runs() && edge.process().runs());
    for child in [&mut session, &mut listing] {
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A cluster with an auth service alone in its process, which logs all there is to log.
fn cluster(at_rest: AtRest) -> (Cluster, Canary) {
    let mut cluster = Cluster::start_with(ClusterOptions {
        roles: "auth".into(),
        common_config: "  log: { severity: TRACE }\n".into(),
        ..ClusterOptions::default()
    });
    add_connectors(&cluster);
    let canary = Canary::of(&cluster.data_dir());
    if at_rest == AtRest::Sealed {
        let key = cluster.dir().join("key-encryption.key");
        let octets: Vec<u8> = (0..32_u8).map(|at| at.wrapping_mul(29).wrapping_add(at_rest as u8)).collect();
        fs::write(&key, octets).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        cluster.kill_daemon();
        cluster.configure_auth(&format!("  key_encryption_file: {}\n", key.display()));
        cluster.start_daemon();
        cluster.wait_ready();
    }
    (cluster, canary)
}

/// Two connectors: one with a client's secret, one with a key that signs its requests. Nobody asks their providers anything.
fn add_connectors(cluster: &Cluster) {
    let octets: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(71).wrapping_add(19));
    let secret: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    let oidc = serde_json::json!({
        "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
        "spec": {
            "issuer_url": "https://idp.example.com", "client_id": "remoteler", "client_secret": secret,
            "redirect_url": "https://proxy.example.com/web/callback/idp",
            "claims_to_roles": [{ "claim": "groups", "value": "dev", "roles": ["access"] }],
        },
    });
    let saml = serde_json::json!({
        "kind": "saml", "version": "v2", "metadata": { "name": "corp" },
        "spec": {
            "encrypted_assertions": true, "acs": "https://proxy.example.com/web/callback/corp",
            "entity_descriptor_url": "https://idp.example.com/metadata",
            "attributes_to_roles": [{ "name": "groups", "value": "dev", "roles": ["access"] }],
        },
    });
    for connector in [oidc, saml] {
        cluster.tctl_with_input(&["create"], &connector.to_string()).ok();
    }
}

/// A proxy in a process of its own, which reaches the auth service at `auth`.
fn proxy(cluster: &Cluster, auth: &str) -> (Process, String) {
    let (token, pin) = cluster.token("proxy");
    let data_dir = cluster.dir().join("proxy");
    let config = cluster.dir().join("proxy.yaml");
    let text = format!(
        "remoteler: {{ nodename: proxy-1, data_dir: {}, auth_server: \"{auth}\", ca_pin: \"{pin}\", join_params: {{ token_name: \"{token}\" }} }}\n\
         proxy_service: {{ listen_addr: \"127.0.0.1:0\" }}\n",
        data_dir.display(),
    );
    fs::write(&config, text).unwrap();
    let log = cluster.dir().join("proxy.log");
    let process = Process::start(Command::new(binary("remoteler")).args(["start", "-c"]).arg(&config), &log);
    let address = eventually("the proxy is ready", || {
        let mut status = Command::new(binary("remoteler"));
        let out = run(status.args(["status", "--format", "json", "--data-dir"]).arg(&data_dir));
        let status: serde_json::Value =
            serde_json::from_slice(&out.stdout).map_err(|_| format!("{}{}", out.stderr, process.log()))?;
        let address = status["listeners"]["proxy"].as_str().map(str::to_owned);
        address.filter(|_| status["ready"] == true).ok_or_else(|| status.to_string())
    });
    (process, address)
}

/// A session of stock `ssh` that stays.
fn session(user: &User, host: &str) -> Child {
    let mut command = user.openssh("ssh");
    let mut child = eventually("the node is reached", || {
        let started = command.args([host, "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.map_err(|cause| cause.to_string())?;
        let _ = child.stdin.as_mut().unwrap().write_all(b"here\n");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
        stdout.read_line(&mut line).map_err(|cause| cause.to_string())?;
        if line == "here\n" {
            return Ok(child);
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(format!("{line:?}"))
    });
    assert!(child.try_wait().unwrap().is_none());
    child
}

/// Asks the auth service for all that an administrator can ask for, through a tap on its socket.
fn administer(cluster: &Cluster) -> Tap {
    let tap = Tap::default();
    let directory = cluster.dir().join("tapped");
    fs::create_dir(&directory).unwrap();
    tap.unix(&directory.join("auth.sock"), &cluster.data_dir().join("auth.sock"));
    for words in [
        "status",
        "auth status",
        "auth export --type user",
        "auth export --type host",
        "auth export --type tls-user",
        "auth export --type tls-host",
        "auth export --type token",
        "auth revoked",
        "users ls",
        "tokens ls",
        "nodes ls",
        "get role",
        "get user",
        "audit ls --limit 10000",
    ] {
        let mut command = Command::new(binary("tctl"));
        let out = run(command.arg("--data-dir").arg(&directory).args(words.split(' ')));
        assert_eq!(out.code, Some(0), "{words}: {}", out.stderr);
    }
    tap
}

/// `tctl` that has its answer and waits for somebody to read more than the first octet of it.
fn listing_that_waits(cluster: &Cluster) -> (Child, PipeReader) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl(writer.as_fd(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut command = Command::new(binary("tctl"));
    command.arg("--data-dir").arg(cluster.data_dir()).args(["audit", "ls", "--format", "json", "--limit", "10000"]);
    let child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    drop(command); // and with it this process's own writing end: should tctl fail, the next line does not wait
    reader.read_exact(&mut [0]).unwrap();
    (child, reader)
}

/// A process and all that it started.
fn with_descendants(top: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|process: u32| {
            let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
            Some((process, parent))
        })
        .collect();
    let mut family = vec![top];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        at += 1;
    }
    family
}

fn is_of_database(path: &Path, database: &Path) -> bool {
    path.to_string_lossy().starts_with(&*database.to_string_lossy())
}

// I8
#[test]
fn a_process_with_the_authoritys_keys_leaves_no_core_file() {
    let directory = tempfile::Builder::new().prefix("rt-core-").tempdir_in("/tmp").unwrap();
    let start = |words: &[&str]| {
        let mut command = Command::new("bash");
        command.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]).args(words).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let crashed = |mut child: Child| {
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGABRT).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
        status.core_dumped()
    };
    let other = start(&["sleep", "60"]);
    eventually("sleep runs", || {
        let name = fs::read_to_string(format!("/proc/{}/comm", other.id())).unwrap();
        if name == "sleep\n" { Ok(()) } else { Err(name) }
    });
    if !crashed(other) {
        eprintln!("SKIPPED: this machine writes no core files at all");
        return;
    }
    let data_dir = directory.path().join("data");
    let (binary, data_dir) = (binary("remoteler").display().to_string(), data_dir.display().to_string());
    let config = directory.path().join("auth.yaml");
    fs::write(&config, "auth_service: { listen_addr: \"127.0.0.1:0\", cluster_name: test.example.com }\n").unwrap();
    let auth = start(&[&binary, "start", "-c", &config.display().to_string(), "--data-dir", &data_dir]);
    eventually("the auth service is ready", || {
        let out = run(Command::new(&binary).args(["status", "--format", "json", "--data-dir", &data_dir]));
        let status: serde_json::Value = serde_json::from_slice(&out.stdout).map_err(|_| out.stderr.clone())?;
        if status["ready"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    assert!(!crashed(auth), "a core file was written");
}
