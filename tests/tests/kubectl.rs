//! Stock `kubectl`, of every version found, through the Kubernetes service to the API server's double: each request arrives with exactly
//! the user's impersonation, and everything people do with `kubectl` works, over WebSocket and over SPDY.
//!
//! `REMOTELER_TEST_KUBECTL_OLD` names an older `kubectl` to be tried as well. With `REMOTELER_TEST_KUBECONFIG` (a cluster's administrator)
//! or `KUBEBUILDER_ASSETS` (a directory with `etcd` and `kube-apiserver`) the parts that need no kubelet also run against that API server.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use remoteler_core::{AuditKind, Clock, Timestamp};
use remoteler_kube::Upstream;
use remoteler_tests::{ApiServer, KubeFixture, RealApiServer, client, need};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(60);

/// How exec, attach and port-forward travel.
#[derive(Clone, Copy, Debug)]
enum Transport {
    Newest,
    Spdy,
}

struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    transport: Transport,
}

impl Kubectl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments).kill_on_drop(true);
        command.env("HOME", self.kubeconfig.parent().unwrap()).env_remove("KUBECONFIG");
        if matches!(self.transport, Transport::Spdy) {
            command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false").env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        }
        command
    }

    /// Runs to the end; gives exit code, stdout and stderr.
    async fn run(&self, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeding = tokio::spawn(async move {
            let _ = stdin.write_all(&input).await;
        });
        let output = timeout(LIMIT, child.wait_with_output()).await.expect("kubectl ends").unwrap();
        feeding.await.unwrap();
        let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Runs what must work; gives stdout.
    async fn ok(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(arguments, b"").await;
        assert_eq!(code, 0, "{} {arguments:?} ({:?}): {stderr}", self.program.display(), self.transport);
        stdout
    }

    /// Waits until the API server says that it is ready.
    async fn ready(&self) {
        let asking = async { while self.run(&["get", "--raw", "/readyz"], b"").await.0 != 0 {} };
        timeout(Duration::from_secs(180), asking).await.expect("the API server gets ready");
    }

    /// Starts what does not end by itself.
    fn start(&self, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    }
}

/// The `kubectl`s of this machine, each by the transports it has.
fn kubectls(kubeconfig: &Path) -> Vec<Kubectl> {
    if !need(&["kubectl"]) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let kubeconfig = kubeconfig.to_owned();
    if let Some(present) = client("kubectl") {
        for transport in [Transport::Newest, Transport::Spdy] {
            found.push(Kubectl { program: present.path().into(), kubeconfig: kubeconfig.clone(), transport });
        }
    }
    if let Some(old) = env::var_os("REMOTELER_TEST_KUBECTL_OLD") {
        found.push(Kubectl { program: old.into(), kubeconfig, transport: Transport::Newest });
    }
    found
}

async fn set_up() -> (ApiServer, KubeFixture, Vec<Kubectl>) {
    let api_server = ApiServer::start().await.unwrap();
    api_server.expect("ann", &["developers", "viewers"]);
    let fixture = KubeFixture::start(&api_server).await.unwrap();
    let ann = fixture.issue(&fixture.user("ann", &["developer"])).unwrap();
    let kubeconfig = fixture.write_kubeconfig(&ann).unwrap();
    (api_server, fixture, kubectls(&kubeconfig))
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    timeout(LIMIT, lines.next_line()).await.expect("a line comes in time").unwrap().expect("output goes on")
}

// I55, I56: the double fails every request that does not impersonate exactly ann and her groups.
#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_watched_applied_and_deleted_as_the_user() {
    let (api_server, fixture, kubectls) = set_up().await;
    for kubectl in &kubectls {
        assert!(kubectl.ok(&["get", "pods"]).await.contains("web"));
        assert_eq!(kubectl.ok(&["get", "pod", "web", "-o", "jsonpath={.status.phase}"]).await, "Running");
        assert!(kubectl.ok(&["get", "namespaces", "-o", "name"]).await.contains("namespace/dev"));

        let manifest = fixture.dir().join("settings.yaml");
        for colour in ["red", "blue"] {
            let text =
                format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{colour: {colour}}}\n");
            std::fs::write(&manifest, text).unwrap();
            kubectl.ok(&["apply", "--validate=false", "-f", manifest.to_str().unwrap()]).await;
            assert_eq!(api_server.object("configmaps", "dev", "settings").unwrap()["data"]["colour"], colour);
        }
        kubectl.ok(&["delete", "configmap", "settings", "--wait=false"]).await;
        assert_eq!(api_server.object("configmaps", "dev", "settings"), None);

        let (code, _, stderr) = kubectl.run(&["get", "pod", "absent"], b"").await;
        assert_eq!(code, 1);
        assert!(stderr.contains("NotFound"), "{stderr}");
    }
    assert_eq!(api_server.violations(), Vec::<String>::new());
    let requests = api_server.seen().len();
    let events = fixture.audit.events();
    let recorded =
        events.iter().filter(|event| matches!(event, AuditKind::KubeRequest { response_code: None, .. })).count();
    assert_eq!(recorded, requests, "one event for each request that reached the API server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_a_change_at_once() {
    let (api_server, _fixture, kubectls) = set_up().await;
    for (turn, kubectl) in kubectls.iter().enumerate() {
        let (_child, mut lines) = kubectl.start(&["get", "configmaps", "--watch", "-o", "name"]);
        let watching = || api_server.seen().iter().filter(|seen| seen.target.contains("watch=true")).count() > turn;
        let begun = async {
            while !watching() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, begun).await.expect("kubectl begins to watch");
        let name = format!("change-{turn}");
        api_server.put("configmaps", "dev", &name, json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {}}));
        loop {
            if next_line(&mut lines).await == format!("configmap/{name}") {
                break;
            }
        }
    }
    assert_eq!(api_server.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_line_by_line() {
    let (api_server, _fixture, kubectls) = set_up().await;
    api_server.log("first");
    for (turn, kubectl) in kubectls.iter().enumerate() {
        assert!(kubectl.ok(&["logs", "web"]).await.starts_with("first\n"));
        let (_child, mut lines) = kubectl.start(&["logs", "-f", "web"]);
        for _ in 0..=turn {
            next_line(&mut lines).await;
        }
        let line = format!("line {turn}");
        api_server.log(&line);
        assert_eq!(next_line(&mut lines).await, line);
    }
    assert_eq!(api_server.violations(), Vec::<String>::new());
}

// I55, I56 over WebSocket and SPDY.
#[tokio::test(flavor = "multi_thread")]
async fn exec_carries_input_output_errors_and_the_exit_code() {
    let (api_server, _fixture, kubectls) = set_up().await;
    for kubectl in &kubectls {
        let script = "cat; echo to-stderr >&2; exit 7";
        let (code, stdout, stderr) = kubectl.run(&["exec", "-i", "web", "--", "sh", "-c", script], b"to-stdin\n").await;
        assert_eq!(stdout, "to-stdin\n", "{stderr}");
        assert!(stderr.contains("to-stderr"), "{stderr}");
        assert_eq!(code, 7, "{stderr}");

        assert_eq!(kubectl.ok(&["exec", "web", "--", "printf", "%s", "a b/c;d&e"]).await, "a b/c;d&e");

        let large: Vec<u8> = (0..3_000_000_u32).map(|i| b'a' + u8::try_from(i % 26).unwrap()).collect();
        let (code, stdout, stderr) = kubectl.run(&["exec", "-i", "web", "--", "cat"], &large).await;
        assert_eq!((code, stdout.len()), (0, large.len()), "{stderr}");
        assert!(stdout.as_bytes() == large, "3 MB came back changed");
    }
    assert_eq!(api_server.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_talks_to_the_running_process() {
    let (api_server, _fixture, kubectls) = set_up().await;
    for kubectl in &kubectls {
        let (code, stdout, stderr) = kubectl.run(&["attach", "-i", "web"], b"hello process\n").await;
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("hello process"), "{stdout} {stderr}");
    }
    assert_eq!(api_server.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn cp_copies_files_both_ways() {
    let (api_server, fixture, kubectls) = set_up().await;
    let content: Vec<u8> = (0..300_000_u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
    for (turn, kubectl) in kubectls.iter().enumerate() {
        let (local, back) = (fixture.dir().join(format!("up-{turn}")), fixture.dir().join(format!("back-{turn}")));
        std::fs::write(&local, &content).unwrap();
        let name = format!("copied-{turn}");
        kubectl.ok(&["cp", local.to_str().unwrap(), &format!("web:{name}")]).await;
        assert!(std::fs::read(api_server.pod_dir().join(&name)).unwrap() == content);
        kubectl.ok(&["cp", &format!("web:{name}"), back.to_str().unwrap()]).await;
        assert!(std::fs::read(back).unwrap() == content);
    }
    assert_eq!(api_server.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_for_several_connections_at_once() {
    let (api_server, _fixture, kubectls) = set_up().await;
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    for kubectl in &kubectls {
        let (_child, mut lines) =
            kubectl.start(&["port-forward", "--address", "127.0.0.1", "pod/web", &format!(":{port}")]);
        let line = next_line(&mut lines).await;
        let local = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split_once(' ')).unwrap().0.to_owned();
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(TcpStream::connect(format!("127.0.0.1:{local}")).await.unwrap());
        }
        for (index, stream) in connections.iter_mut().enumerate() {
            let said = format!("through the pod {index}");
            stream.write_all(said.as_bytes()).await.unwrap();
            let mut heard = vec![0; said.len()];
            timeout(LIMIT, stream.read_exact(&mut heard)).await.expect("the echo comes").unwrap();
            assert_eq!(heard, said.as_bytes());
        }
    }
    assert_eq!(api_server.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_knows_the_user_and_the_groups() {
    let (api_server, _fixture, kubectls) = set_up().await;
    for kubectl in &kubectls {
        if kubectl.run(&["auth", "whoami", "--help"], b"").await.1.contains("SelfSubjectReview") {
            let shown: Value = serde_json::from_str(&kubectl.ok(&["auth", "whoami", "-o", "json"]).await).unwrap();
            assert_eq!(shown["status"]["userInfo"]["username"], "ann");
            let groups = shown["status"]["userInfo"]["groups"].as_array().unwrap();
            let groups: BTreeSet<_> = groups.iter().filter_map(Value::as_str).collect();
            assert_eq!(groups, BTreeSet::from(["developers", "viewers", "system:authenticated"]));
        }
        assert_eq!(kubectl.ok(&["auth", "can-i", "get", "pods"]).await.trim(), "yes");
    }
    assert_eq!(api_server.violations(), Vec::<String>::new());
}

// I55: kubectl sends Impersonate-User itself; the double sees only ours.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_cannot_become_somebody_else_with_as() {
    let (api_server, _fixture, kubectls) = set_up().await;
    for kubectl in &kubectls {
        let asked = kubectl.run(&["get", "pods", "--as", "root", "--as-group", "system:masters"], b"").await;
        assert_eq!(asked.0, 0, "{}", asked.2);
        assert!(asked.2.contains("Warning: Impersonate-* headers") && asked.2.contains("made as ann"), "{}", asked.2);
        assert_eq!(kubectl.run(&["get", "pods"], b"").await.2, "", "nobody is warned who did not ask");
        kubectl.ok(&["exec", "web", "--as", "root", "--", "true"]).await;
    }
    assert_eq!(api_server.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_printed_by_kubectl_in_words() {
    let (api_server, fixture, kubectls) = set_up().await;
    let mut old = fixture.user("ann", &["developer"]);
    old.valid.1 = old.valid.0.plus(Duration::from_secs(1));
    let expired = fixture.write_kubeconfig(&fixture.issue(&old).unwrap()).unwrap();
    let nobody = fixture.issue(&fixture.user("bob", &["nobody"])).unwrap();
    let nobody = fixture.write_kubeconfig(&nobody).unwrap();
    for Kubectl { program, transport, .. } in kubectls {
        let said = async |kubeconfig: &Path| {
            let kubectl = Kubectl { program: program.clone(), kubeconfig: kubeconfig.into(), transport };
            let (code, _, stderr) = kubectl.run(&["get", "pods"], b"").await;
            assert_eq!(code, 1, "{stderr}");
            stderr
        };
        let stderr = said(&nobody).await;
        // Old clients take 403 at discovery for an empty list of resources, and say that.
        let told = stderr.contains("access denied: bob may not use Kubernetes cluster staging");
        assert!(told || stderr.contains("doesn't have a resource type"), "{stderr}");
        let stderr = said(&expired).await;
        assert!(stderr.contains("log in again") || stderr.contains("logged in"), "{stderr}");
    }
    assert!(api_server.seen().is_empty());
}

// I55, I56 by the judgement of Kubernetes itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_what_the_double_takes() {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(|dir| RealApiServer::start(Path::new(&dir)).unwrap());
    let started = assets.as_ref().map(|server| server.kubeconfig().as_os_str().to_owned());
    let Some(admin) = env::var_os("REMOTELER_TEST_KUBECONFIG").or(started) else {
        eprintln!("SKIPPED: neither REMOTELER_TEST_KUBECONFIG nor KUBEBUILDER_ASSETS names a real API server");
        return;
    };
    let admin = Path::new(&admin);
    let fixture = KubeFixture::start_before(Upstream::from_kubeconfig(admin, None).unwrap()).await.unwrap();
    let ann = fixture.issue(&fixture.user("ann", &["developer"])).unwrap();
    let ann = fixture.write_kubeconfig(&ann).unwrap();
    for (admin, kubectl) in kubectls(admin).iter().zip(kubectls(&ann)) {
        if assets.is_some() {
            admin.ready().await;
        }
        let namespace = format!("remoteler-{}", uuid::Uuid::new_v4());
        let here = ["--namespace", namespace.as_str()];
        let command = |words: &[&'static str]| words.iter().copied().chain(here).map(str::to_owned).collect::<Vec<_>>();
        let ok = async |words: &[&'static str]| {
            let words = command(words);
            kubectl.ok(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        admin.ok(&["create", "namespace", &namespace]).await;
        // Not the cluster's role `edit`: it is empty where no controller manager puts its parts together.
        let verbs = "--verb=get,list,watch,create,delete";
        admin.ok(&["create", "role", "dev", verbs, "--resource=configmaps", here[0], here[1]]).await;
        admin.ok(&["create", "rolebinding", "dev", "--role=dev", "--group=developers", here[0], here[1]]).await;

        let (_child, mut lines) = kubectl.start(&[
            "get",
            "configmaps",
            "--watch",
            "-o",
            "name",
            "--field-selector=metadata.name=settings",
            here[0],
            here[1],
        ]);
        ok(&["create", "configmap", "settings", "--from-literal=colour=red"]).await;
        assert_eq!(next_line(&mut lines).await, "configmap/settings");
        let colour = ok(&["get", "configmap", "settings", "-o", "jsonpath={.data.colour}", "--as", "root"]).await;
        assert_eq!(colour, "red");
        ok(&["delete", "configmap", "settings"]).await;
        let (code, _, stderr) = kubectl.run(&["get", "secrets", "--namespace", "kube-system"], b"").await;
        assert_eq!(code, 1);
        assert!(stderr.contains("User \"ann\" cannot list resource"), "{stderr}");
        admin.ok(&["delete", "namespace", &namespace, "--wait=false"]).await;
    }
}

// I78
#[tokio::test]
async fn exec_ends_with_the_certificate() {
    let (_api_server, fixture, kubectls) = set_up().await;
    for kubectl in kubectls {
        let mut short = fixture.user("ann", &["developer"]);
        // Certificates count whole seconds.
        short.valid.1 = Timestamp::from_unix_seconds(fixture.clock.now().unix_seconds() + 60);
        let kubeconfig = fixture.write_kubeconfig(&fixture.issue(&short).unwrap()).unwrap();
        let kubectl = Kubectl { kubeconfig, ..kubectl };
        let mut command = kubectl.command(&["exec", "-i", "web", "--", "cat"]);
        let mut exec = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(exec.stdout.take().unwrap()).lines();
        let mut input = exec.stdin.take().unwrap();
        input.write_all(b"hello\n").await.unwrap();
        assert_eq!(next_line(&mut lines).await, "hello");

        fixture.clock.advance(Duration::from_secs(61));
        assert_eq!(fixture.live.look().ended.len(), 1);
        // What it prints then is kubectl's own: what it is sent is tested with the frames of a WebSocket, and over SPDY nothing can be said.
        timeout(LIMIT, exec.wait()).await.expect("kubectl ends").unwrap();
        let (code, _, said) = kubectl.run(&["exec", "web", "--", "true"], b"").await;
        assert!(code != 0 && !said.is_empty(), "{said}");
        drop(input);
    }
}
