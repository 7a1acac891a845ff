//! Each of the four ways to log in, as a person goes it: in, a node by stock `ssh`, Kubernetes by `kubectl`, out, and nothing is left.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use remoteler_tests::{
    ApiServer, Browser, Cluster, ClusterOptions, Process, SamlClients, client, eventually, need, need_oidc_provider,
    os_login, run, run_with_input,
};
use serde_json::json;

use crate::world::{Waiting, World};

const KUBE: &str = "main";
const PASSWORD: &str = "correct horse battery ann";

/// A double of GitHub, and its connector `gh`.
fn add_github(world: &World) -> Process {
    let settings = json!({ "cert": world.files.certificate(), "key": world.files.key(), "login": os_login() });
    let mut command = Command::new(client("node").unwrap().path());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("providers/github/github.mjs")).arg(settings.to_string());
    let mut process = Process::start(&mut command, &world.cluster.dir().join("github.log"));
    let base = eventually("the double of GitHub listens", || {
        assert!(process.runs(), "it ended:\n{}", process.log());
        let log = process.log();
        log.lines().find(|line| line.starts_with("https://localhost:")).map(str::to_owned).ok_or(log)
    });
    let connector = json!({
        "kind": "github", "version": "v3", "metadata": { "name": "gh" },
        "spec": {
            "client_id": "remoteler", "client_secret": "canary-github-secret", "redirect_url": world.callback("gh"),
            "endpoint_url": base, "api_endpoint_url": format!("{base}/api"),
            "teams_to_roles": [{ "organization": "acme", "team": "ops", "roles": world.roles }],
        },
    });
    world.cluster.tctl_with_input(&["create"], &connector.to_string()).ok();
    process
}

/// What is to be gone after a logout, wherever a person would look for it.
fn assert_nothing_is_left(world: &World, way: &str, agent: &Path) {
    assert_eq!(world.left(), [] as [std::path::PathBuf; 0], "{way}");
    let mut pending = vec![world.cluster.dir().join("tsh-home")];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            let secret = ["PRIVATE KEY", "-cert-v01@openssh.com AAAA"].iter().any(|mark| text.contains(mark));
            assert!(!secret, "{way}: {} is left", path.display());
        }
    }
    let kubeconfig = std::fs::read_to_string(world.cluster.dir().join("kubeconfig")).unwrap_or_default();
    assert!(!kubeconfig.contains(Cluster::NAME) && !kubeconfig.contains("exec"), "{way}: {kubeconfig}");
    let keys = run(Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", agent)).text();
    assert!(!keys.contains("CERT") && !keys.contains("ED25519"), "{way}: {keys}");
}

// I36 I41 I76
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_logs_in_by_password_openid_github_or_saml_gets_into_ssh_and_kubectl_and_leaves_nothing() {
    let Some(clients) = SamlClients::find() else { return };
    if !need_oidc_provider() || !need(&["ssh", "kubectl", "node", "ssh-agent", "ssh-add"]) {
        return;
    }
    let api_server = ApiServer::start().await.unwrap();
    tokio::task::spawn_blocking(move || walk_all(&clients, &api_server)).await.unwrap();
}

fn walk_all(clients: &SamlClients, api_server: &ApiServer) {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = api_server.write_kubeconfig(dir.path()).unwrap();
    let extra_config = format!(
        "kubernetes_service:\n  enabled: yes\n  kubeconfig_file: {}\n  kube_cluster_name: {KUBE}\n",
        kubeconfig.display()
    );
    let mut world = World::start("local", ClusterOptions { extra_config, ..ClusterOptions::default() });
    let developer = json!({
        "kind": "role", "version": "v7", "metadata": { "name": "developer" },
        "spec": { "allow": { "kubernetes_groups": ["developers"], "kubernetes_labels": { "*": "*" }, "logins": [os_login()] } },
    });
    world.cluster.tctl_with_input(&["create"], &developer.to_string()).ok();
    world.roles = vec!["access".into(), "developer".into()];
    let _idp = world.add_oidc(Some("subject-1"));
    let _github = add_github(&world);
    let _corp = world.add_saml(clients, "idp_pysaml2.py", "http-redirect");
    world.cluster.tctl(&["users", "add", "ann", "--roles", "access,developer", "--logins", &os_login()]).ok();
    world.cluster.tctl_with_input(&["users", "passwd", "ann"], &format!("{PASSWORD}\n")).ok();
    let agent = world.cluster.dir().join("agent");
    let mut ssh_agent = Command::new("ssh-agent");
    ssh_agent.arg("-D").arg("-a").arg(&agent).stdin(Stdio::null());
    let _agent = Process::start(&mut ssh_agent, &world.cluster.dir().join("agent.log"));
    eventually("the ssh-agent listens", || if agent.exists() { Ok(()) } else { Err("not yet".to_owned()) });

    let with_agent = |words: &[&str]| {
        let mut command = world.tsh(words);
        command.env("SSH_AUTH_SOCK", &agent);
        command
    };
    let ways = [("local", "local", "ann".to_owned()), ("oidc", "idp", "ann@example.com".to_owned())];
    let more = [("github", "gh", os_login()), ("saml", "corp", "ann-1".to_owned())];
    for (method, connector, user) in ways.into_iter().chain(more) {
        api_server.expect(&user, &["developers"]);
        let login = ["login", "--insecure", "--proxy", world.cluster.proxy(), "--auth", connector];
        if method == "local" {
            let mut command = with_agent(&login);
            run_with_input(command.args(["--user", "ann"]), format!("{PASSWORD}\n").as_bytes()).ok();
        } else {
            let browser = Browser::new(world.cluster.dir(), connector);
            let mut tsh = Waiting::start(with_agent(&login).args(["--browser", "none"]));
            let (page, code) = tsh.page_and_code();
            let shown = if method == "saml" { world.prove_by_saml(&browser, &page) } else { browser.get(&page) };
            assert!(shown.contains(&user) && shown.contains(&code), "{method}: {shown}");
            world.confirm(&browser, &page, &shown);
            let (status, said) = tsh.finish();
            assert_eq!(status, Some(0), "{method}: {said}");
        }
        let event = world.cluster.event("user.login", |event| event["success"] == true && event["user"] == user);
        assert_eq!(event["method"], method);
        let keys = run(Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &agent)).ok().text();
        assert!(keys.contains("CERT"), "{method}: the ssh-agent has the certificate: {keys}");

        let config = world.cluster.dir().join("ssh_config");
        std::fs::write(&config, run(&mut with_agent(&["config", "--bare"])).ok().text()).unwrap();
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&config).args(["-o", "BatchMode=yes"]).env("TSH_HOME", world.cluster.dir().join("tsh-home"));
        ssh.env_remove("SSH_AUTH_SOCK").arg(format!("{}@{}.{}", os_login(), Cluster::NODE, Cluster::NAME));
        let out = run(ssh.args(["echo", "through"]).stdin(Stdio::null())).ok().text();
        assert!(out.contains("through"), "{method}: {out}");

        eventually("the Kubernetes cluster is listed", || {
            let listed = run(&mut with_agent(&["kube", "ls"])).text();
            if listed.contains(KUBE) { Ok(()) } else { Err(listed) }
        });
        run(&mut with_agent(&["kube", "login", KUBE])).ok();
        let mut kubectl = Command::new(client("kubectl").unwrap().path());
        kubectl.env("HOME", world.cluster.dir()).env("TSH_HOME", world.cluster.dir().join("tsh-home"));
        kubectl.env("KUBECONFIG", world.cluster.dir().join("kubeconfig"));
        let pods = run(kubectl.args(["--namespace", "dev", "get", "pods"]).stdin(Stdio::null())).ok().text();
        assert!(pods.contains("web"), "{method}: {pods}");
        assert_eq!(api_server.violations(), [] as [String; 0], "{method}");

        run(&mut with_agent(&["logout"])).ok();
        assert_nothing_is_left(&world, method, &agent);
    }
    let kept = std::fs::read_to_string(world.cluster.dir().join("daemon.log")).unwrap()
        + &serde_json::to_string(&world.cluster.events("user.login")).unwrap()
        + &world.cluster.tctl(&["get", "oidc"]).ok().text()
        + &world.cluster.tctl(&["get", "github"]).ok().text();
    for secret in [PASSWORD, "canary-client-secret", "canary-github-secret"] {
        assert!(!kept.contains(secret), "{secret} was kept");
    }
}
