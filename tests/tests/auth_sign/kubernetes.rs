//! Stock kubectl with a kubeconfig from `auth sign --format kubernetes`: nothing of ours runs beside it. The API server's double fails each
//! request that does not come exactly as the user.

use std::{fs, path::Path, process::Command};

use remoteler_core::{ClusterName, KubeClusterName};
use remoteler_tests::{ApiServer, Cluster, ClusterOptions, Outcome, client, eventually, need, run};

use super::{add_user, export, private, sign, text, try_sign, with};

const KUBE: &str = "staging";

fn kubectl(kubeconfig: &Path, words: &[&str]) -> Outcome {
    let mut command = Command::new(client("kubectl").unwrap().path());
    command.env_clear().env("HOME", kubeconfig.parent().unwrap().join("no-home"));
    run(command.arg("--kubeconfig").arg(kubeconfig).args(words))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_opens_one_kubernetes_cluster_as_its_user_and_nothing_else() {
    if !need(&["kubectl"]) {
        return;
    }
    let api_server = ApiServer::start().await.unwrap();
    api_server.expect("ann", &["developers"]);
    let dir = tempfile::tempdir().unwrap();
    let extra_config = format!(
        "kubernetes_service:\n  enabled: yes\n  kubeconfig_file: {}\n  kube_cluster_name: {KUBE}\n",
        api_server.write_kubeconfig(dir.path()).unwrap().display()
    );
    let cluster = Cluster::start_with(ClusterOptions { extra_config, ..ClusterOptions::default() });
    add_user(&cluster, "ann", "access", &["kubernetes_groups=developers"]);
    let proxy = cluster.proxy().to_owned();
    let words = ["--user", "ann", "--format", "kubernetes", "--kube-cluster-name", KUBE, "--proxy", &proxy];
    let kubeconfig = sign(&cluster, "ann.kubeconfig", &words);
    private(&kubeconfig);
    eventually("the Kubernetes cluster is reached", || {
        let pods = kubectl(&kubeconfig, &["get", "pods", "--namespace", "dev"]);
        if pods.code == Some(0) && pods.text().contains("web") { Ok(()) } else { Err(pods.stderr) }
    });
    assert_eq!(api_server.violations(), Vec::<String>::new()); // I56
    cluster.event("kube.request", |event| event["user"] == "ann");

    // With an exported authority and single files: as kubectl's flags take them.
    let files = sign(&cluster, "ann", &["--user", "ann", "--format", "tls"]);
    let (name, cluster_name) = (KubeClusterName::new(KUBE).unwrap(), ClusterName::new(Cluster::NAME).unwrap());
    let server = format!("--server=https://{proxy}/v1/kube/{cluster_name}/{KUBE}");
    let server_name = format!("--tls-server-name={}", name.server_name(&cluster_name));
    let flag = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    let empty = cluster.dir().join("empty.kubeconfig");
    fs::write(&empty, "").unwrap();
    let by_flags = |authority: &Path| {
        let ca = flag("certificate-authority", authority);
        let (own, key) = (flag("client-certificate", &with(&files, ".crt")), flag("client-key", &with(&files, ".key")));
        kubectl(&empty, &["get", "pods", "--namespace", "dev", &server, &server_name, &ca, &own, &key])
    };
    assert!(by_flags(&export(&cluster, "tls-host")).ok().text().contains("web"));
    let refused = by_flags(&export(&cluster, "tls-user"));
    assert!(refused.code == Some(1) && refused.stderr.contains("certificate"), "{}", refused.stderr); // I1

    // The same certificate says another cluster's name: the service there would read whose it is, and refuses.
    let words = ["--user", "ann", "--format", "kubernetes", "--kube-cluster-name", "production", "--proxy", &proxy];
    let other = fs::read_to_string(sign(&cluster, "other.kubeconfig", &words)).unwrap();
    let here = fs::read_to_string(&kubeconfig).unwrap();
    let user = |text: &str| {
        let data =
            text.lines().filter(|line| line.contains("client-certificate-data") || line.contains("client-key-data"));
        data.map(str::to_owned).collect::<Vec<_>>()
    };
    let mixed =
        user(&here).into_iter().zip(user(&other)).fold(here.clone(), |all, (own, other)| all.replace(&own, &other));
    assert_ne!(mixed, here);
    let path = cluster.dir().join("mixed.kubeconfig");
    fs::write(&path, mixed).unwrap();
    let refused = kubectl(&path, &["get", "pods", "--namespace", "dev"]);
    assert_eq!((refused.code, refused.text().as_str()), (Some(1), ""), "{}", refused.stderr); // I60
    assert_eq!(api_server.violations(), Vec::<String>::new());

    let line = try_sign(&cluster, "x", &["--user", "bob", "--format", "kubernetes", "--kube-cluster-name", KUBE]);
    assert!(line.one_line_failure().contains("bob"));
    assert_eq!(try_sign(&cluster, "x", &["--user", "ann", "--format", "kubernetes"]).code, Some(2));
    assert!(!cluster.dir().join("x").exists(), "{}", text(cluster.dir()));
}
