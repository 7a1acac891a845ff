//! Pods join with no secret: by the service-account token that an API server vouches for, a double and, where there is one, a real one.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{env, fs, path::Path, process::Command, time::Duration};

use remoteler_tests::{
    ApiServer, Cluster, ClusterOptions, Outcome, Process, RealApiServer, binary, eventually, eventually_within, need,
    run,
};
use serde_json::Value;

const RULE: &str = "\
kind: token
version: v2
metadata: { name: pods }
spec:
  roles: [node]
  join_method: kubernetes
  names: pod-*
  labels: { env: staging }
  kubernetes:
    type: in_cluster
    allow: [{ service_account: \"remoteler:agent\" }]
";

/// A cluster whose auth service asks the API server of `kubeconfig`, with a rule for pods.
fn cluster_asking(kubeconfig: &Path) -> Cluster {
    let auth_config = format!("  kubernetes_join: {{ kubeconfig_file: {} }}\n", kubeconfig.display());
    let cluster = Cluster::start_with(ClusterOptions { auth_config, ..ClusterOptions::default() });
    let file = cluster.dir().join("pods.yaml");
    fs::write(&file, RULE).unwrap();
    cluster.tctl(&["create", &file.display().to_string()]).ok();
    cluster
}

/// The daemon in a pod of this name, whose projected token is this.
fn pod(cluster: &Cluster, name: &str, token: &str) -> Command {
    let pin = cluster.token("node").1;
    let (token_file, config) =
        (cluster.dir().join(format!("{name}.token")), cluster.dir().join(format!("{name}.yaml")));
    fs::write(&token_file, token).unwrap();
    let text = format!(
        "version: v1\nremoteler:\n  nodename: {name}\n  data_dir: {}\n  auth_server: {}\n  ca_pin: [\"{pin}\"]\n  \
         join_params: {{ method: kubernetes, token_name: pods, token_file: {} }}\nssh_service: {{ enabled: yes }}\n",
        cluster.dir().join(name).display(),
        cluster.proxy(),
        token_file.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(binary("remoteler"));
    command.args(["start", "-c"]).arg(config);
    command
}

#[track_caller]
fn joins(cluster: &Cluster, name: &str, token: &str) -> Process {
    let process = Process::start(&mut pod(cluster, name, token), &cluster.dir().join(format!("{name}.log")));
    eventually("the pod is a node", || {
        let nodes = cluster.tctl_json(&["nodes", "ls"]);
        let there =
            nodes.as_array().unwrap().iter().any(|node| node["name"] == name && node["labels"]["env"] == "staging");
        if there { Ok(()) } else { Err(format!("{nodes}\n{}", process.log())) }
    });
    let event = cluster.event("instance.join", |event| event["node_name"] == name);
    assert_eq!((&event["token"], &event["service_account"]), (&"pods".into(), &"remoteler:agent".into()));
    process
}

/// Starts the pod's daemon again, by what it kept when it joined: it is ready, its tunnel is up, and it did not join once more.
#[track_caller]
fn restarts(cluster: &Cluster, name: &str) {
    let joined = || cluster.events("instance.join").iter().filter(|event| event["node_name"] == name).count();
    let before = joined();
    let mut command = Command::new(binary("remoteler"));
    command.args(["start", "-c"]).arg(cluster.dir().join(format!("{name}.yaml")));
    let mut process = Process::start(&mut command, &cluster.dir().join(format!("{name}-again.log")));
    eventually_within(Duration::from_secs(60), "the pod is up again", || {
        assert!(process.runs(), "it ended:\n{}", process.log());
        let data_dir = cluster.dir().join(name);
        let out =
            run(Command::new(binary("remoteler")).args(["status", "--format", "json", "--data-dir"]).arg(data_dir));
        let status: Value = serde_json::from_slice(&out.stdout).map_err(|_| out.stderr.clone())?;
        let tunnels = status["tunnels"].as_object().cloned().unwrap_or_default();
        let up = status["ready"] == true && tunnels.values().any(|tunnel| tunnel["state"] == "connected");
        if up { Ok(()) } else { Err(format!("{status}\n{}", process.log())) }
    });
    assert_eq!(joined(), before);
}

#[track_caller]
fn refused(cluster: &Cluster, name: &str, token: &str) -> String {
    let out: Outcome = run(&mut pod(cluster, name, token));
    let said = out.one_line_failure();
    assert!(token.len() < 8 || !said.contains(token), "{said}");
    said
}

// I76
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_joins_by_what_the_api_server_says_of_it() {
    let api_server = ApiServer::start().await.unwrap();
    api_server.vouch("pod-token-of-the-agent", Cluster::NAME, "system:serviceaccount:remoteler:agent");
    api_server.vouch("pod-token-of-another", Cluster::NAME, "system:serviceaccount:remoteler:other");
    api_server.vouch(
        "pod-token-for-the-api-server",
        "https://kubernetes.default.svc",
        "system:serviceaccount:remoteler:agent",
    );
    api_server.vouch("token-of-an-administrator", Cluster::NAME, "system:admin");
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = api_server.write_kubeconfig(dir.path()).unwrap();
    tokio::task::spawn_blocking(move || {
        let cluster = cluster_asking(&kubeconfig);
        let pod = joins(&cluster, "pod-1", "pod-token-of-the-agent");
        for (name, token, said) in [
            ("pod-2", "pod-token-of-another", "remoteler:other"),
            ("pod-2", "pod-token-for-the-api-server", "audience"),
            ("pod-2", "token-of-an-administrator", "service account"),
            ("pod-2", "pod-token-of-nobody", "does not vouch"),
            ("web-1", "pod-token-of-the-agent", "pod-*"),
        ] {
            let line = refused(&cluster, name, token);
            assert!(line.contains(said), "{said} in {line}");
        }
        // A restart needs no token, and nobody to vouch for the pod.
        fs::remove_file(cluster.dir().join("pod-1.token")).unwrap();
        drop(pod);
        restarts(&cluster, "pod-1");
    })
    .await
    .unwrap();
    assert!(api_server.violations().is_empty(), "{:?}", api_server.violations());
}

#[test]
fn a_real_api_server_vouches_for_a_pod_and_for_nothing_else() {
    let Some(assets) = env::var_os("KUBEBUILDER_ASSETS") else {
        eprintln!("SKIPPED: KUBEBUILDER_ASSETS names no real API server");
        return;
    };
    if !need(&["kubectl"]) {
        return;
    }
    let server = RealApiServer::start(Path::new(&assets)).unwrap();
    let kubectl = |args: &[&str]| run(Command::new("kubectl").arg("--kubeconfig").arg(server.kubeconfig()).args(args));
    eventually_within(Duration::from_secs(120), "the API server is ready", || {
        let out = kubectl(&["get", "--raw", "/readyz"]);
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    kubectl(&["create", "namespace", "remoteler"]).ok();
    for account in ["agent", "other"] {
        kubectl(&["create", "serviceaccount", account, "--namespace", "remoteler"]).ok();
    }
    let token = |account: &str, audience: &str| {
        let made = kubectl(&["create", "token", account, "--namespace", "remoteler", "--audience", audience]).ok();
        made.text().trim().to_owned()
    };
    let cluster = cluster_asking(server.kubeconfig());
    let _pod = joins(&cluster, "pod-1", &token("agent", Cluster::NAME));
    let line = refused(&cluster, "pod-2", &token("other", Cluster::NAME));
    assert!(line.contains("remoteler:other"), "{line}");
    for token in [token("agent", "https://kubernetes.default.svc"), format!("{}x", token("agent", Cluster::NAME))] {
        let line = refused(&cluster, "pod-2", &token);
        assert!(line.contains("does not vouch"), "{line}");
    }
    kubectl(&["delete", "serviceaccount", "agent", "--namespace", "remoteler"]).ok();
}
