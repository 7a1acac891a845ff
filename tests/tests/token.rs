//! The authority's keys in a hardware token, SoftHSM's here: a cluster that has them there works, keys come and go by rotations while people
//! log in, and what is wrong with a token is told in one line.

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use remoteler_tests::{Cluster, ClusterOptions, SoftHsm, User, eventually, need, run};

/// What the authorities' keys are called in the token, in order.
const KEYS: [&str; 4] = [
    "test.example.com host ssh",
    "test.example.com host x509",
    "test.example.com user ssh",
    "test.example.com user x509",
];

/// A cluster whose first start makes its keys in the token.
fn in_token(hsm: &SoftHsm) -> Cluster {
    Cluster::start_with(ClusterOptions {
        auth_config: hsm.config("token"),
        environment: hsm.environment(),
        ..ClusterOptions::default()
    })
}

fn restart(cluster: &mut Cluster) {
    cluster.kill_daemon();
    cluster.start_daemon();
    cluster.wait_ready();
}

/// Where `tctl auth status` says that the keys lie.
#[track_caller]
fn places(cluster: &Cluster) -> Vec<serde_json::Value> {
    let status = cluster.tctl_json(&["auth", "status"]);
    let rotations = status["rotations"].as_array().expect("a list").clone();
    rotations.iter().flat_map(|each| each["keys"].as_array().expect("a list").clone()).collect()
}

/// Programs that know nothing of us accept what a login gave, under the authorities' exported keys.
#[track_caller]
fn certificates_are_good(cluster: &Cluster, user: &User) {
    let host = cluster.proxy().split(':').next().expect("an address");
    let keys = fs::read_dir(user.tsh_home().join("keys")).expect("a login leaves keys");
    let folder = keys.map(|entry| entry.expect("readable").path()).find(|path| path.to_string_lossy().contains(host));
    let folder = folder.expect("keys of this proxy");
    let file = |end: &str| folder.join(format!("{}{end}", user.name())).display().to_string();
    let shown = run(Command::new("ssh-keygen").args(["-L", "-f", &file("-cert.pub")])).ok().text();
    let exported = cluster.dir().join("user-ca.pub");
    fs::write(&exported, cluster.tctl(&["auth", "export", "--type", "user"]).ok().stdout).expect("writable");
    let prints = run(Command::new("ssh-keygen").args(["-l", "-f"]).arg(&exported)).ok().text();
    let signed_by = shown.lines().find(|line| line.contains("Signing CA")).expect("it says who signed");
    assert!(
        prints.split_whitespace().any(|word| word.starts_with("SHA256:") && signed_by.contains(word)),
        "{shown}{prints}"
    );
    let authority = cluster.dir().join("user-ca.pem");
    fs::write(&authority, cluster.tctl(&["auth", "export", "--type", "tls-user"]).ok().stdout).expect("writable");
    let verified = run(Command::new("openssl")
        .args(["verify", "-purpose", "sslclient", "-CAfile"])
        .arg(&authority)
        .arg(file(".crt")));
    verified.ok();
}

#[track_caller]
fn runs_a_command(user: &User) {
    eventually("the node takes the certificate", || {
        let out = run(user.openssh("ssh").args(["-o", "BatchMode=yes", Cluster::NODE, "echo", "here"]));
        if out.text() == "here\n" { Ok(()) } else { Err(out.stderr) }
    });
}

#[test]
fn a_cluster_with_its_keys_in_a_token_works_and_survives_a_power_cut() {
    let Some(hsm) = SoftHsm::make() else { return };
    if !need(&["ssh", "ssh-keygen", "openssl"]) {
        return;
    }
    let mut cluster = in_token(&hsm);
    assert_eq!(hsm.private_keys(), KEYS);
    let place = serde_json::json!({ "place": "token", "token": SoftHsm::LABEL });
    assert!(places(&cluster).iter().all(|keys| keys["ssh"] == place && keys["x509"] == place));
    let status = cluster.tctl(&["auth", "status"]).ok().text();
    assert_eq!(status.matches("in token ca of tests").count(), 2, "{status}");
    let ann = cluster.user("ann", "access");
    certificates_are_good(&cluster, &ann);
    runs_a_command(&ann);
    let before = cluster.tctl(&["auth", "export", "--type", "user"]).ok().stdout;

    restart(&mut cluster);
    assert_eq!(cluster.tctl(&["auth", "export", "--type", "user"]).ok().stdout, before);
    ann.tsh(&["logout"]).ok();
    ann.login(&[]).ok();
    certificates_are_good(&cluster, &ann);
    runs_a_command(&ann);
    assert_eq!(hsm.private_keys(), KEYS);
    // The module and its threads are let go of in order.
    cluster.daemon().signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(cluster.daemon().wait(Duration::from_secs(30)), Some(0));
}

/// Takes one step for both authorities, as soon as every service has followed.
#[track_caller]
fn step(cluster: &Cluster, phase: &str) {
    for kind in ["user", "host"] {
        cluster.rotate(kind, phase);
    }
}

const PHASES: [&str; 4] = ["init", "update_clients", "update_servers", "standby"];

#[test]
fn rotations_move_the_keys_into_a_token_and_out_of_it_while_people_log_in() {
    let Some(hsm) = SoftHsm::make() else { return };
    let mut cluster =
        Cluster::start_with(ClusterOptions { environment: hsm.environment(), ..ClusterOptions::default() });
    let ann = cluster.user("ann", "access");
    assert!(places(&cluster).iter().all(|keys| keys["ssh"]["place"] == "file"));
    for (new_keys, there, ends_in) in [("token", KEYS.to_vec(), "token"), ("database", vec![], "file")] {
        cluster.configure_auth(&hsm.config(new_keys));
        restart(&mut cluster);
        let logging_in = LogIns::start(&cluster);
        for phase in PHASES {
            step(&cluster, phase);
            logging_in.more();
        }
        logging_in.end();
        assert_eq!(hsm.private_keys(), there, "{new_keys}");
        let places = places(&cluster);
        assert!(places.len() == 2 && places.iter().all(|keys| keys["ssh"]["place"] == ends_in), "{places:?}");
    }
    // The token is needed no more.
    cluster.configure_auth("");
    restart(&mut cluster);
    ann.login(&[]).ok();
    runs_a_command(&ann);
}

/// Somebody who logs in and out all the time.
struct LogIns {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl LogIns {
    fn start(cluster: &Cluster) -> Self {
        let name = format!("bob-{}", cluster.events("user.login").len());
        let bob = cluster.user(&name, "access");
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                bob.tsh(&["logout"]).ok();
                bob.login(&[]).ok();
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { stop, done, thread }
    }

    /// Waits for two more: the second began after now.
    #[track_caller]
    fn more(&self) {
        let from = self.done.load(Ordering::SeqCst);
        eventually("logins go on", || {
            let now = self.done.load(Ordering::SeqCst);
            if now >= from + 2 { Ok(()) } else { Err(format!("{} of 2", now - from)) }
        });
    }

    #[track_caller]
    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("no login fails");
    }
}

#[test]
fn what_is_wrong_with_a_token_is_told_in_one_line_and_the_daemon_ends() {
    use std::os::unix::fs::PermissionsExt;

    let Some(hsm) = SoftHsm::make() else { return };
    let mut cluster = in_token(&hsm);
    cluster.kill_daemon();
    let config = hsm.config("token");
    let said = |cluster: &mut Cluster, config: &str| {
        cluster.configure_auth(config);
        run(&mut cluster.daemon_command()).one_line_failure()
    };
    let pin = hsm.pin_file().display().to_string();
    for (config, expected) in [
        (config.replace(SoftHsm::LABEL, "other"), "shows no token with label \"other\", but \"ca of tests\" in slot"),
        (config.replace("token_label: ca of tests", "slot_number: 77"), "shows no token with slot number 77"),
        (config.replace(SoftHsm::MODULE, "/nowhere/module.so"), "PKCS#11 module /nowhere/module.so cannot be loaded"),
        (config.replace(&pin, "/nowhere/pin"), "the token's PIN in /nowhere/pin cannot be read"),
        (config.replace("pin_path:", "pin_pth:"), "unknown key \"pin_pth\"; did you mean \"pin_path\"?"),
        (config.replace("pin_path:", "pin:"), "a PIN does not belong into a configuration file"),
        (String::new(), "are in token ca of tests, and no token is configured; name it in ca_key_params"),
    ] {
        let said = said(&mut cluster, &config);
        assert!(said.contains(expected), "{expected:?} is not in {said}");
    }
    fs::set_permissions(hsm.pin_file(), fs::Permissions::from_mode(0o644)).expect("the file is ours");
    assert!(said(&mut cluster, &config).contains("is open to every user of this machine")); // I67
    fs::set_permissions(hsm.pin_file(), fs::Permissions::from_mode(0o600)).expect("the file is ours");

    // A wrong PIN is shown to the token once, however often the daemon is started.
    hsm.write_pin("99999999");
    let refused = said(&mut cluster, &config);
    assert!(refused.contains("refused the PIN, which is not tried again"), "{refused}");
    assert!(!refused.contains("99999999"), "{refused}"); // I76
    for _ in 0..2 {
        assert!(said(&mut cluster, &config).contains("was shown a wrong PIN before and counts"));
    }
    hsm.write_pin(SoftHsm::PIN);
    hsm.tool(&["--list-objects"]).ok(); // the way out that it names
    cluster.start_daemon();
    cluster.wait_ready();
    cluster.kill_daemon();

    let listed = hsm.tool(&["--list-objects", "--type", "privkey"]).ok().text();
    let id = {
        let after = listed.split(KEYS[2]).nth(1).expect("the key is there");
        after.lines().find_map(|line| line.trim().strip_prefix("ID:")).expect("it has an id").trim().to_owned()
    };
    hsm.tool(&["--delete-object", "--type", "privkey", "--id", &id]).ok();
    let gone = said(&mut cluster, &config);
    assert!(gone.contains("has no private key \"test.example.com user ssh\"") && gone.contains(&id), "{gone}");
}
