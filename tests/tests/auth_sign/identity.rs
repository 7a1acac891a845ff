//! The identity file in the hands of `tsh` and `tctl`: it is all they need, and they believe no more than it says.

use std::{fs, path::Path, process::Command};

use remoteler_tests::{Cluster, Outcome, binary, eventually, need, os_login, run};

use super::{add_user, private, sign, text, try_sign};

/// `program -i FILE` by somebody with an empty home and no agent.
fn with_identity(program: &str, file: &Path, home: &Path) -> Command {
    let mut command = Command::new(binary(program));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home);
    command.arg("-i").arg(file);
    command
}

struct Scene {
    cluster: Cluster,
    home: std::path::PathBuf,
    file: std::path::PathBuf,
}

impl Scene {
    fn new() -> Self {
        let cluster = Cluster::start();
        add_user(&cluster, "jenkins", "access", &[]);
        let home = cluster.dir().join("empty-home");
        fs::create_dir(&home).unwrap();
        let proxy = cluster.proxy().to_owned();
        // Without --user: the user named like the file.
        let file = sign(&cluster, "jenkins.cert", &["--proxy", &proxy]);
        private(&file);
        Self { cluster, home, file }
    }

    #[track_caller]
    fn tsh(&self, words: &[&str]) -> Outcome {
        run(with_identity("tsh", &self.file, &self.home).args(words))
    }
}

#[test]
fn a_program_works_with_one_file_and_leaves_nothing_behind() {
    let scene = Scene::new();
    let (cluster, node) = (&scene.cluster, format!("{}@{}", os_login(), Cluster::NODE));
    let listed = scene.tsh(&["ls", "--format", "json"]).ok().text();
    assert!(listed.contains(Cluster::NODE), "{listed}");
    assert_eq!(scene.tsh(&["ssh", &node, "echo hello; exit 3"]).text(), "hello\n");
    cluster.event("session.start", |event| event["user"] == "jenkins");

    let (here, there) = (cluster.dir().join("here"), cluster.dir().join("there"));
    fs::write(&here, "content").unwrap();
    scene.tsh(&["scp", "-q", text(&here), &format!("{node}:{}", there.display())]).ok();
    assert_eq!(fs::read_to_string(&there).unwrap(), "content");

    let status = scene.tsh(&["status"]).ok().text();
    assert!(status.contains("jenkins") && status.contains(cluster.proxy()) && status.contains("valid for"), "{status}");
    assert!(scene.tsh(&["clusters"]).ok().text().contains(Cluster::NAME));
    scene.tsh(&["kube", "ls"]).ok();
    let credential = scene.tsh(&["kube", "credentials", "--kube-cluster", "any"]).ok().text();
    assert!(credential.contains("clientCertificateData"), "{credential}");
    assert_eq!(fs::read_dir(&scene.home).unwrap().count(), 0, "something was written into the home");
    // The same by the environment, without any home, as services have it.
    let mut service = Command::new(binary("tsh"));
    service.env_clear().env("TSH_IDENTITY", &scene.file).args(["ls"]);
    assert!(run(&mut service).ok().text().contains(Cluster::NODE));
}

#[test]
fn stock_ssh_goes_through_tsh_proxy_with_the_same_file() {
    if !need(&["ssh"]) {
        return;
    }
    let scene = Scene::new();
    let key = sign_for_ssh(&scene);
    let tsh = binary("tsh");
    let proxy = format!("ProxyCommand={} -i {} proxy ssh %r@%h:%p", tsh.display(), scene.file.display());
    let known = format!("UserKnownHostsFile={}", super::export(&scene.cluster, "host").display());
    let host = format!("{}@{}.{}", os_login(), Cluster::NODE, Cluster::NAME);
    let out = run(Command::new("ssh").env("HOME", &scene.home).args(["-F", "none", "-o", "BatchMode=yes"]).args([
        "-o",
        &proxy,
        "-o",
        &known,
        "-o",
        "GlobalKnownHostsFile=none",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "IdentityAgent=none",
        "-i",
        &key,
        &host,
        "echo through",
    ]));
    assert_eq!(out.ok().text(), "through\n");
}

/// The key and certificate of the identity file as ssh takes them: what stands in it is in ssh's own forms.
fn sign_for_ssh(scene: &Scene) -> String {
    let content = fs::read_to_string(&scene.file).unwrap();
    let end = "-----END OPENSSH PRIVATE KEY-----\n";
    let start = content.find("-----BEGIN OPENSSH PRIVATE KEY-----").unwrap();
    let key = &content[start..content.find(end).unwrap() + end.len()];
    let certificate = content.lines().find(|line| line.contains("-cert-v01@openssh.com ")).unwrap();
    let path = scene.cluster.dir().join("cut-out");
    fs::write(&path, key).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(super::with(&path, "-cert.pub"), format!("{certificate}\n")).unwrap();
    text(&path).to_owned()
}

#[test]
fn what_makes_no_sense_with_an_identity_file_is_refused_with_advice() {
    let scene = Scene::new();
    for (words, advice) in [
        (&["login"][..], "leave out -i"),
        (&["logout"], "leave out -i"),
        (&["config"], "--format openssh"),
        (&["kube", "login", "x"], "--format kubernetes"),
        (&["ls", "--user", "ann"], "jenkins"),
        (&["ls", "--cluster", "other"], "other"),
    ] {
        let line = scene.tsh(words).one_line_failure();
        assert!(line.contains(advice), "{line}");
    }
    let missing = run(with_identity("tsh", &scene.home.join("none"), &scene.home).arg("ls")).one_line_failure();
    assert!(missing.contains("none"), "{missing}");
    fs::set_permissions(&scene.file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    for program in ["tsh", "tctl"] {
        let exposed = run(with_identity(program, &scene.file, &scene.home).arg("status")).one_line_failure();
        assert!(exposed.contains("chmod 600"), "{exposed}"); // I67
    }
}

#[test]
fn hosts_of_another_authority_than_the_files_are_not_believed() {
    let (scene, other) = (Scene::new(), Cluster::start());
    let content = fs::read_to_string(&scene.file).unwrap();
    let foreign = other.tctl(&["auth", "export", "--type", "tls-host"]).ok().text();
    let own = scene.cluster.tctl(&["auth", "export", "--type", "tls-host"]).ok().text();
    assert!(content.contains(&own));
    fs::write(&scene.file, content.replace(&own, &foreign)).unwrap();
    let line = scene.tsh(&["ls"]).one_line_failure();
    assert!(line.contains("TLS"), "{line}"); // I73
    let node = format!("{}@{}", os_login(), Cluster::NODE);
    assert_eq!(scene.tsh(&["ssh", &node, "true"]).code, Some(255));

    let foreign = other.tctl(&["auth", "export", "--type", "host"]).ok().text();
    let foreign: Vec<_> = foreign.split(' ').take(4).collect();
    let changed = content
        .lines()
        .map(|line| if line.starts_with("@cert-authority ") { foreign.join(" ") + "\n" } else { format!("{line}\n") });
    fs::write(&scene.file, changed.collect::<String>()).unwrap();
    let refused = scene.tsh(&["ssh", &node, "true"]);
    assert_eq!(refused.code, Some(255), "{}", refused.stderr); // I73
}

#[test]
fn an_administrator_works_from_afar_with_a_file_and_others_are_refused() {
    let scene = Scene::new();
    add_user(&scene.cluster, "ada", "editor", &[]);
    let proxy = scene.cluster.proxy().to_owned();
    let ada = sign(&scene.cluster, "ada.id", &["--user", "ada", "--proxy", &proxy]);
    let tctl = |file: &Path, words: &[&str]| run(with_identity("tctl", file, &scene.home).args(words));
    let users = tctl(&ada, &["users", "ls", "--format", "json"]).ok().text();
    assert!(users.contains("jenkins"), "{users}");
    let auth = scene.cluster.auth().to_owned();
    tctl(&ada, &["tokens", "ls", "--auth-server", &auth]).ok();
    let line = tctl(&scene.file, &["users", "ls"]).one_line_failure();
    assert!(line.contains("jenkins"), "{line}");
    // An editor does not become somebody else by signing.
    let out = scene.cluster.dir().join("stolen");
    let line = tctl(&ada, &["auth", "sign", "--user", "jenkins", "-o", text(&out)]).one_line_failure();
    assert!(line.contains("user_cert") && !out.exists(), "{line}"); // I9
    assert_eq!(fs::read_dir(&scene.home).unwrap().count(), 0);
}

#[test]
fn a_file_that_has_ended_says_so_and_how_to_make_another() {
    let scene = Scene::new();
    let brief = "kind: role\nversion: v7\nmetadata: { name: brief }\nspec: { options: { max_session_ttl: 1s } }\n";
    scene.cluster.tctl_with_input(&["create"], brief).ok();
    add_user(&scene.cluster, "bob", "access,brief", &[]);
    let proxy = scene.cluster.proxy().to_owned();
    let bob = sign(&scene.cluster, "bob", &["--proxy", &proxy]);
    eventually("the certificates end", || {
        let line = run(with_identity("tctl", &bob, &scene.home).arg("status")).stderr;
        if line.contains("ended at") && line.contains("tctl auth sign") { Ok(()) } else { Err(line) }
    });
    let line = run(with_identity("tsh", &bob, &scene.home).arg("ls")).one_line_failure();
    assert!(line.contains("expired at") && line.contains("tctl auth sign"), "{line}");
    assert!(run(with_identity("tsh", &bob, &scene.home).arg("status")).text().contains("EXPIRED"));
}

#[test]
fn a_file_named_like_nobody_needs_a_name() {
    let scene = Scene::new();
    let line = try_sign(&scene.cluster, "nobody.cert", &[]).one_line_failure();
    assert!(line.contains("nobody") && line.contains("--user or --host"), "{line}");
    assert!(!scene.cluster.dir().join("nobody.cert").exists());
}
