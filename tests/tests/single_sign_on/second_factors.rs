//! Second factors of people who come from an identity provider: set up after a login there, and answered for single sessions by a code at the terminal or by a
//! touch in the browser.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use expectrl::{Expect, Regex, session::OsSession};
use remoteler_tests::{
    ApiServer, AuthenticatorApp, Browser, Chromium, Cluster, ClusterOptions, answer_code, client, ends, eventually,
    need, need_oidc_provider, on_terminal, os_login,
};
use serde_json::{Value, json};

use crate::world::World;

const KUBE: &str = "staging";
const ANN: &str = "ann@example.com";

impl World {
    /// From now on connectors give a role as `access`, whose sessions need a second factor. What is proven for Kubernetes lasts longer than a slow machine
    /// takes for a test.
    fn demand(&mut self) {
        let mut role = self.cluster.tctl_json(&["get", "role/access"]);
        role["metadata"] = json!({ "name": "strict" });
        role["spec"]["options"] = json!({ "require_session_mfa": "yes" });
        role["spec"]["allow"]["kubernetes_groups"] = json!(["developers"]);
        role["spec"]["allow"]["kubernetes_labels"] = json!({ "*": "*" });
        let preference = json!({
            "kind": "cluster_auth_preference", "version": "v2", "metadata": { "name": "cluster-auth-preference" },
            "spec": { "mfa_verification_interval": "20m" },
        });
        self.cluster.tctl_with_input(&["create", "-f"], &format!("{role}\n---\n{preference}\n")).ok();
        self.roles = vec!["strict".into()];
    }

    /// `tsh ssh` to the node, at a terminal.
    fn ssh(&self) -> OsSession {
        on_terminal(self.tsh(&["ssh", &format!("{}@{}", os_login(), Cluster::NODE), "echo out-$((40+2))"]))
    }

    /// `kubectl`, at a terminal.
    fn kubectl(&self) -> OsSession {
        let mut kubectl = Command::new(client("kubectl").unwrap().path());
        kubectl.env("HOME", self.cluster.dir()).env("TSH_HOME", self.cluster.dir().join("tsh-home"));
        kubectl.env("KUBECONFIG", self.cluster.dir().join("kubeconfig"));
        kubectl.args(["--namespace", "dev", "get", "pods", "-o", "name", "--request-timeout=60s"]);
        on_terminal(kubectl)
    }

    /// The proofs there were.
    fn proofs(&self) -> Vec<Value> {
        let mut events = self.cluster.events("mfa_auth_challenge.validate");
        events.retain(|event| event["success"] == true);
        events
    }
}

/// As if the login had been more than five minutes ago.
fn forget_fresh_logins(cluster: &Cluster) {
    let database = rusqlite::Connection::open(cluster.data_dir().join("auth.sqlite")).unwrap();
    let forgotten = database.execute("DELETE FROM items WHERE key LIKE 'fresh-logins/%'", []).unwrap();
    assert!(forgotten > 0, "a login is remembered");
}

/// What the terminal shows behind `mark`, up to the next space.
fn shown(session: &mut OsSession, mark: &str) -> String {
    let found = session.expect(Regex(&format!("{mark} *([^ \r\n]+)"))).unwrap();
    String::from_utf8_lossy(found.get(1).unwrap()).into_owned()
}

// I36 I49
#[test]
fn who_comes_from_a_provider_logs_in_there_anew_for_a_factor_and_answers_with_it_for_each_session() {
    if !need_oidc_provider() {
        return;
    }
    let mut world = World::start("oidc", ClusterOptions::default());
    world.demand();
    let _provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    world.log_in(&browser);
    let mut session = world.ssh();
    session.expect("tsh mfa add").unwrap();
    ends(session, 255);

    world.restart(forget_fresh_logins);
    let mut command = world.tsh(&["--insecure", "mfa", "add", "--name", "phone"]);
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    let mut tsh = on_terminal(command);
    tsh.expect("of a login by connector idp; log in again").unwrap();
    let page = shown(&mut tsh, "on this machine:");
    let code = shown(&mut tsh, "show this code:");
    let confirm = browser.get(&page);
    assert!(confirm.contains(ANN) && confirm.contains(&code), "{confirm}");
    world.confirm(&browser, &page, &confirm);
    let mut app = AuthenticatorApp::new(&shown(&mut tsh, "type this secret into it:"));
    answer_code(&mut tsh, &app.code());
    tsh.expect("phone is a second factor of yours now").unwrap();
    ends(tsh, 0);
    let logins = world.cluster.events("user.login");
    assert!(logins.len() == 2 && logins.iter().all(|event| event["user"] == ANN && event["method"] == "oidc"));

    let mut session = world.ssh();
    answer_code(&mut session, "000000");
    session.expect("the code is wrong").unwrap();
    answer_code(&mut session, &app.code());
    session.expect("out-42").unwrap();
    ends(session, 0);
    let proofs = world.proofs();
    let proof = proofs.last().unwrap();
    assert_eq!((&proof["user"], &proof["mfa_device"]), (&json!(ANN), &json!("phone")), "{proofs:?}");
    let start = world.cluster.event("session.start", |event| event["user"] == ANN);
    assert_eq!(start["with_mfa"], proof["session"]);
    // What proved one session proves no other.
    let mut again = world.ssh();
    answer_code(&mut again, &app.code());
    ends(again, 0);
    world.cluster.event("session.start", |event| event["with_mfa"] != start["with_mfa"]);
}

/// Somebody at a browser with a security key.
struct Person {
    child: Child,
    says: BufReader<ChildStdout>,
    /// Closed, it ends the browser.
    hears: Option<ChildStdin>,
}

impl Person {
    fn start(chromium: &Chromium, address: &str) -> Self {
        let mut script = chromium.script("session_key.mjs");
        script.arg(format!("https://{address}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let (hears, says) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut person = Self { child, says, hears };
        assert_eq!(person.said(), "the key is set up");
        person
    }

    fn said(&mut self) -> String {
        let mut line = String::new();
        assert!(self.says.read_line(&mut line).unwrap() > 0, "the browser's script ended; its words are above");
        line.trim().to_owned()
    }

    /// Touches the key on this page, which has to show these words.
    fn touch(&mut self, page: &str, words: &[&str]) {
        writeln!(self.hears.as_mut().unwrap(), "{page} {}", words.join(" ")).unwrap();
        assert_eq!(self.said(), format!("touched for {page}"));
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        drop(self.hears.take());
        let _ = self.child.wait();
    }
}

// I48 I49
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_touch_begins_the_session_that_its_page_names_and_kubectl_in_a_row_needs_no_second_one() {
    let Some(chromium) = Chromium::find() else { return };
    if !need_oidc_provider() || !need(&["kubectl"]) {
        return;
    }
    let api_server = ApiServer::start().await.unwrap();
    tokio::task::spawn_blocking(move || touch_all(&chromium, &api_server)).await.unwrap();
}

fn touch_all(chromium: &Chromium, api_server: &ApiServer) {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = api_server.write_kubeconfig(dir.path()).unwrap();
    api_server.expect(ANN, &["developers"]);
    let extra_config = format!(
        "kubernetes_service:\n  enabled: yes\n  kubeconfig_file: {}\n  kube_cluster_name: {KUBE}\n",
        kubeconfig.display()
    );
    let mut world = World::start("oidc", ClusterOptions { extra_config, ..ClusterOptions::default() }).under_a_name();
    world.demand();
    let _provider = world.add_oidc(Some("subject-1"));
    world.log_in(&Browser::new(world.cluster.dir(), "browser"));
    eventually("the Kubernetes cluster is listed", || {
        let listed = world.run(&["kube", "ls"]).text();
        if listed.contains(KUBE) { Ok(()) } else { Err(listed) }
    });
    world.run(&["kube", "login", KUBE]).ok();
    let mut ann = Person::start(chromium, &world.address);

    // Two sessions at once. A touch is for the one that its page names, whose terminal alone gets anything for it.
    let (mut ssh, mut kubectl) = (world.ssh(), world.kubectl());
    let page_of = |session: &mut OsSession| (shown(session, "open"), shown(session, "which shows").replace(',', ""));
    let (ssh_page, ssh_code) = page_of(&mut ssh);
    let (kube_page, kube_code) = page_of(&mut kubectl);
    assert_ne!(ssh_page, kube_page);
    ann.touch(&ssh_page, &[&ssh_code, ANN, Cluster::NODE, &os_login(), "127.0.0.1:"]);
    answer_code(&mut kubectl, "");
    kubectl.expect("no security key was touched for this session yet").unwrap();
    answer_code(&mut ssh, "");
    ssh.expect("out-42").unwrap();
    ends(ssh, 0);
    ann.touch(&kube_page, &[&kube_code, ANN, KUBE, "127.0.0.1:"]);
    let stranger = Browser::new(world.cluster.dir(), "stranger").get(&kube_page);
    assert!(stranger.contains("opened in another browser"), "{stranger}");
    answer_code(&mut kubectl, "");
    ends(kubectl, 0);

    // Nobody answers: they would wait for ever, were they asked.
    for _ in 0..4 {
        ends(world.kubectl(), 0);
    }
    let at_once: Vec<_> = (0..4).map(|_| world.kubectl()).collect();
    at_once.into_iter().for_each(|kubectl| ends(kubectl, 0));
    let proofs = world.proofs();
    assert_eq!(proofs.len(), 2, "{proofs:?}");
    let start = world.cluster.event("session.start", |event| event["user"] == ANN);
    let of_kube = proofs.iter().find(|proof| proof["target"] == KUBE).unwrap();
    assert!(
        proofs.iter().any(|proof| proof["session"] == start["with_mfa"]) && start["with_mfa"] != of_kube["session"]
    );
    let requests = world.cluster.events("kube.request");
    assert!(requests.len() >= 9 && requests.iter().all(|request| request["with_mfa"] == of_kube["session"]));

    world.run(&["logout"]).ok();
    assert_eq!(world.left(), [] as [std::path::PathBuf; 0]);
}
