//! Revoking as people see it: `ssh`, `kubectl` and `tsh` of the user are refused, a session that runs ends, and servers that are not ours refuse
//! by the lists: a stock sshd with `RevokedKeys`, `ssh-keygen -Q`, and openssl with `-crl_check`.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use remoteler_tests::{
    Cluster, ClusterOptions, KubeCluster, User, binary, client, eventually, eventually_within, need, os_login, run,
};
use serde_json::Value;

const KUBE: &str = "here";

/// The serials of a user's newest certificates, as the audit log has them: SSH and X.509.
fn serials(cluster: &Cluster, user: &User) -> [String; 2] {
    let event = cluster.events("cert.create").into_iter().rfind(|event| event["user"] == user.name()).unwrap();
    ["ssh_serial", "tls_serial"].map(|field| event[field].as_str().unwrap().to_owned())
}

fn revoke(cluster: &Cluster, flags: &[&str]) -> Value {
    cluster.tctl_json(&[&["auth", "revoke"], flags].concat())
}

/// A file of the user's keys.
fn key_file(user: &User, suffix: &str) -> PathBuf {
    user.tsh_home().join("keys/127.0.0.1").join(format!("{}{suffix}", user.name()))
}

fn ssh(user: &User, words: &[&str]) -> Command {
    let mut ssh = user.openssh("ssh");
    ssh.args(["-o", "BatchMode=yes"]).arg(format!("{}.{}", Cluster::NODE, Cluster::NAME)).args(words);
    ssh
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_revocation_the_users_next_ssh_kubectl_and_api_call_are_refused() {
    if !need(&["ssh", "kubectl"]) {
        return;
    }
    let served = KubeCluster::start(KUBE).await.unwrap();
    let cluster = &served.cluster;
    let ann = &served.ann();
    let bob = &cluster.user("bob", "access");
    let works = |user: &User| [run(&mut ssh(user, &["true"])), user.tsh(&["ls"])].map(|out| out.code == Some(0));
    let kubectl = || run(&mut ann.kubectl(&["get", "pods"])).code == Some(0);
    assert_eq!((works(ann), works(bob), kubectl()), ([true; 2], [true; 2], true));

    // A session that runs.
    let mut session = ssh(ann, &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (session.stdin.take().unwrap(), BufReader::new(session.stdout.take().unwrap()));
    let mut echo = |line: &str| {
        to.write_all(line.as_bytes()).unwrap();
        let mut said = String::new();
        from.read_line(&mut said).unwrap();
        assert_eq!(said, line);
    };
    echo("before\n");

    let [ssh_serial, tls_serial] = serials(cluster, ann);
    let why = ["--reason", "key-compromise", "--comment", "the laptop was stolen"];
    let done = revoke(cluster, &[&["--ssh-serial", &ssh_serial][..], &why].concat());
    assert_eq!(done["target"], format!("ssh-user-{ssh_serial}"));
    revoke(cluster, &[&["--tls-serial", &tls_serial][..], &why].concat());
    eventually("ann is refused everywhere", || {
        let works = (works(ann), kubectl());
        if works == ([false; 2], false) { Ok(()) } else { Err(format!("{works:?}")) }
    });
    assert_eq!(works(bob), [true; 2]);
    cluster.event("auth", |event| event["error"].as_str().is_some_and(|error| error.contains("revoked")));
    let ended = eventually("the session that runs has ended", || {
        session.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
    });
    assert!(!ended.success());

    let listed = cluster.tctl(&["auth", "revoked"]).ok().text();
    assert!(listed.contains(&ssh_serial) && listed.contains("the laptop was stolen"), "{listed}");
    // The account is not locked: who logs in anew gets in.
    ann.tsh(&["logout"]).ok();
    ann.login(&[]).ok();
    ann.tsh(&["kube", "login", KUBE]).ok();
    assert_eq!((works(ann), kubectl()), ([true; 2], true));
}

#[test]
fn a_host_replaces_a_revoked_certificate_and_with_a_revoked_key_tsh_refuses_it() {
    let cluster = Cluster::start();
    let edge = cluster.edge("edge-1");
    let ann = cluster.user("ann", "access");
    let destination = format!("{}@edge-1", os_login());
    let certificate = || {
        let state: Value = serde_json::from_slice(&fs::read(edge.data_dir().join("host.json")).unwrap()).unwrap();
        ssh_key::Certificate::from_openssh(state["ssh_certificate"].as_str().unwrap()).unwrap()
    };
    let log_in_anew = || {
        ann.tsh(&["logout"]).ok();
        ann.login(&[]).ok();
    };
    eventually("the node is reached", || {
        let out = ann.tsh(&["ssh", &destination, "true"]);
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    let first = certificate();
    revoke(&cluster, &["--ssh-serial", &first.serial().to_string(), "--type", "host"]);
    // It looks every 30 s.
    eventually_within(Duration::from_secs(90), "the host has a certificate that is not revoked", || {
        if certificate().serial() == first.serial() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    // A login brings the newest rules along; without one they are fetched within a minute.
    log_in_anew();
    let identity = cluster.dir().join("ann.id");
    cluster.tctl(&["auth", "sign", "--user", "ann", "-o", identity.to_str().unwrap()]).ok();
    let with_identity =
        || ann.tsh(&["-i", identity.to_str().unwrap(), "--proxy", cluster.proxy(), "ssh", &destination, "true"]);
    ann.tsh(&["ssh", &destination, "true"]).ok();
    with_identity().ok();

    // A key is not certified again.
    let key = cluster.dir().join("edge.pub");
    fs::write(&key, certificate().to_openssh().unwrap()).unwrap();
    revoke(&cluster, &["--key", key.to_str().unwrap()]);
    // The first command after a pause, and whoever comes with an identity file, ask before the node is believed.
    let heard_of = ann.tsh_home().join("keys/127.0.0.1/cas.pem");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().append(true).open(heard_of).unwrap().set_modified(long_ago).unwrap();
    let refused = [ann.tsh(&["ssh", &destination, "true"]), with_identity()];
    log_in_anew();
    for out in refused.into_iter().chain([ann.tsh(&["ssh", &destination, "true"])]) {
        assert!(out.code != Some(0) && out.stderr.contains("revoked"), "{:?} {}", out.code, out.stderr); // I73
    }
}

// The lists that `tctl` writes and the proxy serves, by programs that are not ours.
#[test]
fn a_stock_sshd_refuses_what_the_list_of_tctl_names_and_lets_everybody_else_in() {
    if !need(&["ssh", "sshd", "ssh-keygen"]) {
        return;
    }
    let cluster = Cluster::start();
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| cluster.user(name, "access"));
    let list = cluster.dir().join("revoked");
    let write = || cluster.tctl(&["auth", "krl", "-o", list.to_str().unwrap()]).ok();
    write();
    assert_eq!(fs::metadata(&list).unwrap().permissions().mode() & 0o777, 0o644);
    let server = Sshd::new(&cluster, &list);
    let says = |user: &User| {
        let out = run(Command::new("ssh-keygen").args(["-Q", "-f"]).arg(&list).arg(key_file(user, "-cert.pub")));
        let text = out.text();
        assert!(text.contains("REVOKED") || text.trim_end().ends_with("ok"), "{text} {}", out.stderr);
        !text.contains("REVOKED")
    };
    let check = |expected: [bool; 3]| {
        for (user, expected) in [&ann, &bob, &eve].into_iter().zip(expected) {
            assert_eq!(says(user), expected, "ssh-keygen about {}", user.name());
            let out = server.log_in(user);
            assert_eq!(out.code == Some(0), expected, "sshd about {}: {}", user.name(), out.stderr);
        }
    };
    check([true; 3]);
    revoke(&cluster, &["--ssh-serial", &serials(&cluster, &ann)[0]]);
    write();
    check([false, true, true]);
    let key = revoke(&cluster, &["--key", key_file(&bob, "-cert.pub").to_str().unwrap()]);
    write();
    check([false, false, true]);
    cluster.tctl(&["auth", "unrevoke", key["target"].as_str().unwrap()]).ok();
    write();
    check([false, true, true]);
    // Whoever is locked is in the list as long as the lock lasts.
    let lock = cluster.tctl_json(&["lock", "--user", "eve"]);
    write();
    check([false, true, false]);
    cluster.tctl(&["rm", &format!("lock/{}", lock["metadata"]["name"].as_str().unwrap())]).ok();
    write();
    check([false, true, true]);
}

#[test]
fn openssl_refuses_what_the_list_names_and_the_proxy_serves_the_same_with_caching() {
    if !need(&["openssl", "curl"]) {
        return;
    }
    let cluster = Cluster::start();
    let [ann, bob] = ["ann", "bob"].map(|name| cluster.user(name, "access"));
    let path = |name: &str| cluster.dir().join(name).display().to_string();
    fs::write(path("ca.pem"), cluster.tctl(&["auth", "export", "--type", "tls-user"]).ok().text()).unwrap();
    let verify = |user: &User| {
        let leaf = key_file(user, ".crt").display().to_string();
        let words = ["verify", "-CAfile", &path("ca.pem"), "-CRLfile", &path("list.pem"), "-crl_check", &leaf];
        let out = run(Command::new("openssl").args(words));
        if out.code == Some(0) { Ok(()) } else { Err(out.text() + &out.stderr) }
    };
    let number = || {
        let words = ["crl", "-in", &path("list.pem"), "-noout", "-crlnumber", "-CAfile", &path("ca.pem")];
        let out = run(Command::new("openssl").args(words)).ok();
        assert!(out.stderr.contains("verify OK"), "{}", out.stderr);
        out.text()
    };
    let write = || cluster.tctl(&["auth", "crl", "-o", &path("list.pem")]).ok();
    write();
    assert_eq!((verify(&ann), verify(&bob)), (Ok(()), Ok(())));
    let first = number();
    revoke(&cluster, &["--tls-serial", &serials(&cluster, &ann)[1], "--reason", "key-compromise"]);
    write();
    assert!(verify(&ann).unwrap_err().contains("certificate revoked"));
    assert_eq!(verify(&bob), Ok(()));
    assert!(number() > first);

    let url = |file: &str| format!("https://{}/v1/webapi/revocations/{file}", cluster.proxy());
    let curl =
        |words: &[&str]| run(Command::new("curl").args(["--silent", "--show-error", "--insecure"]).args(words)).ok();
    eventually("the proxy has the newest list", || {
        curl(&["--output", &path("list.pem"), &url("user.crl.pem")]);
        verify(&ann).err().filter(|said| said.contains("certificate revoked")).ok_or_else(|| "not yet".to_owned())
    });
    assert_eq!(verify(&bob), Ok(()));
    curl(&["--output", &path("list.der"), &url("user.crl")]);
    run(Command::new("openssl").args(["crl", "-inform", "DER", "-in", &path("list.der"), "-noout"])).ok();
    for file in ["user.krl", "host.krl", "user.crl", "host.crl"] {
        let tags = path("etag");
        let first = curl(&["--etag-save", &tags, "--output", &path("out"), "--write-out", "%{http_code}", &url(file)]);
        assert_eq!(first.text(), "200", "{file}");
        let again =
            curl(&["--etag-compare", &tags, "--output", &path("out2"), "--write-out", "%{http_code}", &url(file)]);
        assert_eq!(again.text(), "304", "{file}");
    }
}

#[test]
fn the_signed_lists_are_shown_without_tls_where_the_configuration_says_so_and_nothing_else_is() {
    if !need(&["openssl", "curl"]) {
        return;
    }
    let proxy_config = "  crl_listen_addr: 127.0.0.1:0\n".to_owned();
    let cluster = Cluster::start_with(ClusterOptions { proxy_config, ..ClusterOptions::default() });
    let status =
        run(Command::new(binary("remoteler")).args(["status", "--format=json", "--data-dir"]).arg(cluster.data_dir()));
    let status: Value = serde_json::from_str(&status.ok().text()).unwrap();
    let addr = status["listeners"]["crl"].as_str().unwrap();
    let path = |name: &str| cluster.dir().join(name).display().to_string();
    fs::write(path("ca.pem"), cluster.tctl(&["auth", "export", "--type", "tls-user"]).ok().text()).unwrap();
    let get = |path_of_url: &str, words: &[&str]| {
        let url = format!("http://{addr}{path_of_url}");
        let fixed = ["--silent", "--show-error", "--write-out", "%{http_code}", "--output", &path("list")];
        run(Command::new("curl").args(fixed).args(words).arg(url)).ok().text()
    };
    assert_eq!(get("/v1/webapi/revocations/user.crl", &["--etag-save", &path("tag")]), "200");
    let words = ["crl", "-inform", "DER", "-in", &path("list"), "-noout", "-CAfile", &path("ca.pem")];
    let out = run(Command::new("openssl").args(words)).ok();
    assert!(out.stderr.contains("verify OK"), "{}", out.stderr);
    assert_eq!(get("/v1/webapi/revocations/user.crl", &["--etag-compare", &path("tag")]), "304");
    assert_eq!(get("/v1/webapi/revocations/user.crl.pem", &[]), "200");
    // Unsigned lists, logins and pages want TLS.
    for elsewhere in ["/v1/webapi/revocations/user.krl", "/v1/webapi/ping", "/.well-known/jwks.json", "/"] {
        assert_eq!(get(elsewhere, &[]), "404", "{elsewhere}");
    }
}

/// A stock server that runs in inetd's manner as the client's `ProxyCommand`, so there is no port.
struct Sshd {
    dir: PathBuf,
}

impl Sshd {
    fn new(cluster: &Cluster, revoked: &Path) -> Self {
        let dir = cluster.dir().join("sshd");
        fs::create_dir(&dir).unwrap();
        // sshd demands this directory of its own when it is started by root; distributions make it when the service starts.
        if os_login() == "root" {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join("host"))).ok();
        fs::write(dir.join("users"), cluster.tctl(&["auth", "export", "--type", "user"]).ok().text()).unwrap();
        let config = format!(
            "HostKey {0}/host\nTrustedUserCAKeys {0}/users\nRevokedKeys {1}\nAuthorizedKeysFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPidFile none\n",
            dir.display(),
            revoked.display()
        );
        fs::write(dir.join("config"), config).unwrap();
        Self { dir }
    }

    fn log_in(&self, user: &User) -> remoteler_tests::Outcome {
        let sshd = client("sshd").unwrap();
        let proxy = format!("ProxyCommand={} -i -f {}/config", sshd.path().display(), self.dir.display());
        let certificate = format!("CertificateFile={}", key_file(user, "-cert.pub").display());
        run(Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args(["-o", &certificate, "-o", &proxy, "-l", &os_login(), "-i"])
            .arg(key_file(user, ""))
            .args(["stock.example.com", "true"]))
    }
}
