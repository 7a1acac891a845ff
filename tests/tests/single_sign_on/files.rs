//! `tsh login -o` by a provider: what a person did in a browser ends in files, and nowhere else.

use std::process::{Command, Stdio};

use remoteler_tests::{Browser, Cluster, ClusterOptions, need, need_oidc_provider, os_login, run};

use crate::world::{Waiting, World};

/// Goes to the page of this login and confirms it: exit status, result, and the rest of what was said.
fn confirmed(world: &World, browser: &Browser, mut tsh: Waiting) -> (Option<i32>, String, String) {
    let (page, code) = tsh.page_and_code();
    let shown = browser.get(&page);
    assert!(shown.contains("ann@example.com") && shown.contains(&code), "{shown}");
    world.confirm(browser, &page, &shown);
    tsh.output()
}

#[test]
fn a_login_in_a_browser_goes_into_files_that_stock_ssh_uses_and_nothing_else_is_kept() {
    if !need_oidc_provider() || !need(&["ssh"]) {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    let key = world.cluster.dir().join("id");
    let out = key.to_str().unwrap();
    let words = ["--browser", "none", "-o", out, "--format", "openssh"];
    let (status, result, said) = confirmed(&world, &browser, world.login(&words));
    assert_eq!(status, Some(0), "{said}");
    assert!(result.contains(&format!("{out}-cert.pub the certificate of ann@example.com, valid until")), "{result}");
    assert!(!world.cluster.dir().join("tsh-home").exists() && !world.cluster.dir().join("kubeconfig").exists());
    assert_ne!(world.run(&["status"]).code, Some(0));

    let known = world.cluster.dir().join("known_hosts");
    std::fs::write(&known, world.cluster.tctl(&["auth", "export", "--type", "host"]).ok().stdout).unwrap();
    let (host, port) = world.cluster.node().rsplit_once(':').unwrap();
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]);
    ssh.args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none"]);
    ssh.args(["-o", &format!("UserKnownHostsFile={}", known.display())]);
    ssh.args(["-o", &format!("HostKeyAlias={}.{}", Cluster::NODE, Cluster::NAME)]);
    ssh.args(["-i", out, "-l", &os_login(), "-p", port, host, "echo in"]).stdin(Stdio::null());
    assert_eq!(run(&mut ssh).ok().text(), "in\n");
    world.cluster.event("session.start", |event| event["user"] == "ann@example.com");

    // Whoever came back from the provider is not who was to come: the file is for a program that expects the other.
    let other = world.cluster.dir().join("other");
    let words = ["--browser", "none", "--user", "bob", "-o", other.to_str().unwrap()];
    let (status, result, said) = confirmed(&world, &browser, world.login(&words));
    assert_eq!((status, result.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("the certificates would be ann@example.com's, not bob's"), "{said}");
    assert!(!other.exists());
}
