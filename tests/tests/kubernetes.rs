//! Kubernetes the whole way: `tsh kube login`, then stock `kubectl` through the proxy's one port, to a cluster of the daemon itself and to one
//! behind an edge daemon's tunnel. The API server's double fails each request that does not come exactly as the user.
//!
//! `REMOTELER_TEST_KUBECTL_OLD` names an older `kubectl` to be tried as well: it upgrades connections by SPDY.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use remoteler_core::{ClusterName, KubeClusterName};
use remoteler_tests::{
    ApiServer, Cluster, ClusterOptions, Edge, Outcome, Process, User, client, eventually, need, run, run_with_input,
};
use serde_json::json;
use tempfile::TempDir;

/// The Kubernetes cluster of the daemon itself.
const HERE: &str = "here";
/// The one behind the edge daemon's tunnel; no DNS label on purpose.
const THERE: &str = "arn:aws:eks:eu-1:1234:There_1";

/// An API server's double and the config that makes a daemon serve it.
struct Served {
    name: &'static str,
    api_server: ApiServer,
    dir: TempDir,
}

impl Served {
    async fn new(name: &'static str) -> Self {
        let api_server = ApiServer::start().await.unwrap();
        api_server.expect("ann", &["developers", "viewers"]);
        Self { name, api_server, dir: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> String {
        let kubeconfig = self.api_server.write_kubeconfig(self.dir.path()).unwrap();
        format!(
            "kubernetes_service:\n  enabled: yes\n  kubeconfig_file: {}\n  kube_cluster_name: \"{}\"\n  labels: {{ env: dev }}\n",
            kubeconfig.display(),
            self.name
        )
    }
}

/// Two Kubernetes clusters in a cluster of ours.
struct Scene {
    here: Served,
    there: Served,
    cluster: Cluster,
    _edge: Edge,
}

impl Scene {
    async fn new() -> Self {
        let (here, there) = (Served::new(HERE).await, Served::new(THERE).await);
        let cluster = Cluster::start_with(ClusterOptions { extra_config: here.config(), ..ClusterOptions::default() });
        let config = cluster.dir().join("edge.yaml");
        fs::write(&config, format!("ssh_service:\n  enabled: yes\n{}", there.config())).unwrap();
        let edge = Edge::join(&cluster, "edge-1", &["-c", config.to_str().unwrap()]);
        Self { here, there, cluster, _edge: edge }
    }

    fn served(&self) -> [&Served; 2] {
        [&self.here, &self.there]
    }

    /// A user whose groups come from traits.
    fn ann(&self) -> User {
        let traits = ["kubernetes_groups=developers", "kubernetes_groups=viewers"];
        let ann = User::create_with_traits(&self.cluster, "ann", "access", &traits);
        eventually("both clusters are listed", || {
            let listed = ann.tsh(&["kube", "ls"]).text();
            if listed.contains(HERE) && listed.contains(THERE) { Ok(()) } else { Err(listed) }
        });
        ann
    }

    fn no_violations(&self) {
        for served in self.served() {
            assert_eq!(served.api_server.violations(), Vec::<String>::new(), "{}", served.name);
        }
    }

    /// The part of a kubeconfig's entry that is ours to know.
    fn context(name: &str) -> String {
        format!("{}-{name}", Cluster::NAME)
    }
}

/// One `kubectl` in the home of one user, at one context.
struct Kubectl<'a> {
    program: &'a Path,
    user: &'a User,
    context: String,
}

impl Kubectl<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        self.user.environment(&mut command);
        command.args(["--context", &self.context, "--namespace", "dev"]).args(words);
        command
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        run(&mut self.command(words)).ok().text()
    }

    fn start(&self, words: &[&str], log: &Path) -> Process {
        Process::start(&mut self.command(words), log)
    }
}

fn kubectls() -> Vec<PathBuf> {
    let present = client("kubectl").map(|found| found.path().to_owned());
    present.into_iter().chain(env::var_os("REMOTELER_TEST_KUBECTL_OLD").map(PathBuf::from)).collect()
}

/// Waits until `process` has said something of which `found` makes a value.
fn said<T>(process: &Process, found: impl Fn(&str) -> Option<T>) -> T {
    eventually("it says so", || found(&process.log()).ok_or_else(|| process.log()))
}

// I55, I56: the doubles fail every request that does not impersonate exactly ann and her groups.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works_after_tsh_kube_login_here_and_behind_a_tunnel() {
    if !need(&["kubectl"]) {
        return;
    }
    let scene = Scene::new().await;
    let ann = scene.ann();
    let echo = echo_port();
    for (turn, program) in kubectls().iter().enumerate() {
        for served in scene.served() {
            ann.tsh(&["kube", "login", served.name]).ok();
            let context = Scene::context(served.name);
            let kubectl = Kubectl { program, user: &ann, context: context.clone() };
            assert_eq!(kubectl.ok(&["config", "current-context"]).trim(), context);
            let work = scene.cluster.dir().join(format!("work-{turn}-{}", served.api_server.addr().port()));
            fs::create_dir(&work).unwrap();

            reads_and_applies(&kubectl, served, &work);
            watches(&kubectl, served, &work);
            follows_logs(&kubectl, served, &work);
            executes(&kubectl);
            copies(&kubectl, served, &work);
            forwards_ports(&kubectl, echo, &work);
        }
    }
    scene.no_violations();
    for served in scene.served() {
        let event = scene.cluster.event("kube.request", |event| {
            event["kubernetes_cluster"] == served.name && event["request_path"].as_str().unwrap().contains("/exec?")
        });
        assert_eq!(
            (&event["user"], &event["kubernetes_user"], &event["kubernetes_groups"]),
            (&json!("ann"), &json!("ann"), &json!(["developers", "viewers"]))
        );
        assert!(event["addr.remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{event}");
    }
}

fn reads_and_applies(kubectl: &Kubectl<'_>, served: &Served, work: &Path) {
    assert_eq!(kubectl.ok(&["get", "pod", "web", "-o", "jsonpath={.status.phase}"]), "Running");
    let manifest = work.join("settings.yaml");
    for colour in ["red", "blue"] {
        let text =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{colour: {colour}}}\n");
        fs::write(&manifest, text).unwrap();
        kubectl.ok(&["apply", "--validate=false", "-f", manifest.to_str().unwrap()]);
        assert_eq!(served.api_server.object("configmaps", "dev", "settings").unwrap()["data"]["colour"], colour);
    }
    kubectl.ok(&["delete", "configmap", "settings", "--wait=false"]);
}

fn watches(kubectl: &Kubectl<'_>, served: &Served, work: &Path) {
    let before = served.api_server.seen().len();
    let watching = kubectl.start(&["get", "configmaps", "--watch", "-o", "name"], &work.join("watch.log"));
    eventually("kubectl watches", || {
        let seen = served.api_server.seen();
        let begun = seen.iter().skip(before).any(|seen| seen.target.contains("watch=true"));
        if begun { Ok(()) } else { Err(watching.log()) }
    });
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {}});
    let name = format!("change-{before}");
    served.api_server.put("configmaps", "dev", &name, object);
    said(&watching, |log| log.contains(&format!("configmap/{name}")).then_some(()));
}

fn follows_logs(kubectl: &Kubectl<'_>, served: &Served, work: &Path) {
    served.api_server.log("the beginning");
    let following = kubectl.start(&["logs", "-f", "web"], &work.join("logs.log"));
    said(&following, |log| log.contains("the beginning").then_some(()));
    let line = format!("line after {}", served.api_server.seen().len());
    served.api_server.log(&line);
    said(&following, |log| log.contains(&line).then_some(()));
}

fn executes(kubectl: &Kubectl<'_>) {
    let script = "cat; echo to-stderr >&2; exit 7";
    let Outcome { code, stdout, stderr } =
        run_with_input(&mut kubectl.command(&["exec", "-i", "web", "--", "sh", "-c", script]), b"to-stdin\n");
    assert_eq!((code, stdout.as_slice()), (Some(7), b"to-stdin\n".as_slice()), "{stderr}");
    assert!(stderr.contains("to-stderr"), "{stderr}");
}

fn copies(kubectl: &Kubectl<'_>, served: &Served, work: &Path) {
    let content: Vec<u8> = (0..300_000_u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
    let (up, back) = (work.join("up"), work.join("back"));
    fs::write(&up, &content).unwrap();
    kubectl.ok(&["cp", up.to_str().unwrap(), "web:copied"]);
    assert!(fs::read(served.api_server.pod_dir().join("copied")).unwrap() == content);
    kubectl.ok(&["cp", "web:copied", back.to_str().unwrap()]);
    assert!(fs::read(back).unwrap() == content);
    fs::remove_file(served.api_server.pod_dir().join("copied")).unwrap();
}

fn forwards_ports(kubectl: &Kubectl<'_>, echo: u16, work: &Path) {
    let words = ["port-forward", "--address", "127.0.0.1", "pod/web", &format!(":{echo}")];
    let forwarding = kubectl.start(&words, &work.join("forward.log"));
    let port: u16 = said(&forwarding, |log| {
        let (_, rest) = log.split_once("Forwarding from 127.0.0.1:")?;
        rest.split_once(' ')?.0.parse().ok()
    });
    for turn in 0..2 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let sent = format!("through the pod {turn}");
        stream.write_all(sent.as_bytes()).unwrap();
        let mut heard = vec![0; sent.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, sent.as_bytes());
    }
}

/// A port that says back what it hears, for as long as the test runs.
fn echo_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    port
}

// I56
#[tokio::test(flavor = "multi_thread")]
async fn a_user_to_whom_no_role_gives_a_group_is_told_so_and_nothing_is_sent() {
    if !need(&["kubectl"]) {
        return;
    }
    let scene = Scene::new().await;
    let ann = scene.ann();
    for served in scene.served() {
        ann.tsh(&["kube", "login", served.name]).ok();
    }
    let bob = scene.cluster.user("bob", "access");
    // Bob would hardly get so far by `tsh kube login`; ann's kubeconfig leads his login to the same doors.
    let kubeconfig = fs::read_to_string(ann.kubeconfig()).unwrap();
    let kubeconfig = kubeconfig.replace(ann.tsh_home().to_str().unwrap(), bob.tsh_home().to_str().unwrap());
    fs::write(bob.kubeconfig(), kubeconfig).unwrap();
    let program = client("kubectl").unwrap();
    for served in scene.served() {
        let kubectl = Kubectl { program: program.path(), user: &bob, context: Scene::context(served.name) };
        let refused = run(&mut kubectl.command(&["get", "pods"]));
        assert_eq!(refused.code, Some(1), "{}", refused.text());
        let told = format!("access denied: bob may not use Kubernetes cluster {}", served.name);
        assert!(refused.stderr.contains(&told), "{}", refused.stderr);
        assert!(served.api_server.seen().is_empty(), "{}", served.name);
        scene.cluster.event("auth", |event| {
            event["service"] == "kube"
                && event["user"] == "bob"
                && event["error"].as_str().unwrap().contains(served.name)
        });
    }
    let absent = bob.tsh(&["kube", "login", "absent"]).one_line_failure();
    assert!(absent.contains("there is no Kubernetes cluster absent"), "{absent}");
}

// I55
#[tokio::test(flavor = "multi_thread")]
async fn nobody_becomes_somebody_else_by_as_or_by_forged_headers() {
    if !need(&["kubectl", "curl"]) {
        return;
    }
    let scene = Scene::new().await;
    let ann = scene.ann();
    for served in scene.served() {
        ann.tsh(&["kube", "login", served.name]).ok();
        for program in kubectls() {
            let kubectl = Kubectl { program: &program, user: &ann, context: Scene::context(served.name) };
            kubectl.ok(&["get", "pods", "--as", "root", "--as-group", "system:masters"]);
            kubectl.ok(&["exec", "web", "--as", "root", "--as-group", "system:masters", "--", "true"]);
        }
        for version in ["--http1.1", "--http2"] {
            let answer = run(&mut forging_curl(&scene, &ann, served, version)).ok();
            assert!(answer.text().contains("\"PodList\""), "{}", answer.text());
        }
    }
    scene.no_violations();
}

/// `curl` with ann's certificate and every claim that somebody could make in headers.
fn forging_curl(scene: &Scene, ann: &User, served: &Served, version: &str) -> Command {
    let keys = ann.tsh_home().join("keys/127.0.0.1");
    let name = KubeClusterName::new(served.name).unwrap();
    let server_name = name.server_name(&ClusterName::new(Cluster::NAME).unwrap());
    let path = remoteler_core::wire::segment(served.name);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "20", version]);
    curl.arg("--cacert").arg(keys.join("cas.pem"));
    curl.arg("--cert").arg(keys.join("ann.crt")).arg("--key").arg(keys.join("ann.key"));
    curl.args(["--connect-to", &format!("{server_name}:443:{}", scene.cluster.proxy())]);
    let forged = [
        "Impersonate-User: root",
        "impersonate-user: root",
        "Impersonate_User: root",
        "Impersonate-Group: system:masters",
        "Impersonate-Uid: 0",
        "Impersonate-Extra-Scopes: all",
        "X-Remote-User: root",
        "X-Remote-Group: system:masters",
        "Authorization: Bearer stolen",
        "X-Forwarded-For: 127.0.0.1",
    ];
    for header in forged {
        curl.args(["--header", header]);
    }
    curl.arg(format!("https://{server_name}/v1/kube/{}/{path}/api/v1/namespaces/dev/pods", Cluster::NAME));
    curl
}
