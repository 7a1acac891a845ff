//! A cluster with two proxies: an agent that knows one of them keeps a link to each, so that one may drain or die and stock `ssh` goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use remoteler_tests::{Browser, Cluster, ClusterOptions, Edge, Proxy, User, attribute, eventually_within, need, run};

const SECONDS: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery ann";

fn linked(edge: &Edge, proxies: &[&Proxy]) {
    eventually_within(SECONDS, "the edge node has a tunnel to each proxy", || {
        let status = edge.status()?;
        let up = |proxy: &&Proxy| status["tunnels"][proxy.address()]["state"] == "connected";
        if proxies.iter().all(up) { Ok(()) } else { Err(status["tunnels"].to_string()) }
    });
}

fn reaches(user: &User, host: &str) -> Result<(), String> {
    let out = run(user.openssh("ssh").args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, "echo up"]));
    if out.text() == "up\n" { Ok(()) } else { Err(out.stderr) }
}

/// A session that says it lives and then waits for a line.
fn session(user: &User, host: &str) -> Child {
    let mut ssh = user.openssh("ssh");
    ssh.args(["-o", "BatchMode=yes", host, "echo live; read line; echo got $line"]);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut first = String::new();
    // One byte at a time, so that nothing of what follows is taken away.
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "live\n");
    child
}

#[test]
fn one_of_two_proxies_may_drain_or_die_and_the_edge_node_is_reached_through_the_other() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start_with(ClusterOptions { roles: "auth,node".into(), ..ClusterOptions::default() });
    let (mut one, mut two) = (Proxy::join(&cluster, "proxy-1"), Proxy::join(&cluster, "proxy-2"));
    let edge = Edge::launch(&cluster, "edge-1", one.address(), &[], &[]);
    linked(&edge, &[&one, &two]);
    let ann = User::create_at(&cluster, "ann", "access", one.address());
    let bob = User::create_at(&cluster, "bob", "access", two.address());
    for user in [&ann, &bob] {
        eventually_within(SECONDS, "the edge node is reached", || reaches(user, "edge-1"));
    }

    // Drained: what lives goes on, what is new goes through the other one.
    let mut live = session(&ann, "edge-1");
    one.process().signal(Signal::SIGTERM);
    let address = one.address().to_owned();
    eventually_within(SECONDS, "the first proxy takes nothing new", || match std::net::TcpStream::connect(&address) {
        Ok(_) => Err("it still listens".into()),
        Err(_) => Ok(()),
    });
    reaches(&bob, "edge-1").unwrap();
    live.stdin.take().unwrap().write_all(b"the end\n").unwrap();
    let out = live.wait_with_output().unwrap();
    assert!(out.status.success(), "{:?}", out.status);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "got the end\n");
    assert_eq!(one.process().wait(Duration::from_secs(30)), Some(0));

    // Started again it is linked again, and then the other one may die.
    one.start_again();
    linked(&edge, &[&one, &two]);
    two.process().kill_hard();
    reaches(&ann, "edge-1").unwrap();
    two.start_again();
    eventually_within(SECONDS, "the edge node is reached through the restarted proxy", || reaches(&bob, "edge-1"));
    linked(&edge, &[&one, &two]);
}

#[test]
fn an_edge_node_with_one_link_is_reached_through_either_proxy() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start_with(ClusterOptions { roles: "auth,node".into(), ..ClusterOptions::default() });
    let (one, two) = (Proxy::join(&cluster, "proxy-1"), Proxy::join(&cluster, "proxy-2"));
    let config = cluster.dir().join("edge.yaml");
    std::fs::write(&config, "remoteler: { tunnel_connections: 1 }\nssh_service: { enabled: yes }\n").unwrap();
    let mut edge = Edge::launch(&cluster, "edge-1", one.address(), &["-c", config.to_str().unwrap()], &[]);
    eventually_within(SECONDS, "the edge node has a tunnel", || {
        let tunnels = edge.status()?["tunnels"].clone();
        let up = tunnels.as_object().is_some_and(|all| all.values().any(|tunnel| tunnel["state"] == "connected"));
        if up { Ok(()) } else { Err(tunnels.to_string()) }
    });
    let ann = User::create_at(&cluster, "ann", "access", one.address());
    let bob = User::create_at(&cluster, "bob", "access", two.address());
    for user in [&ann, &bob] {
        eventually_within(SECONDS, "the edge node is reached", || reaches(user, "edge-1"));
    }
    let tunnels = edge.status().unwrap()["tunnels"].clone();
    assert_eq!(tunnels.as_object().unwrap().len(), 1, "one link and no more: {tunnels}");

    // What passes two proxies is cut by a lock of its user as anything else.
    let mut live = session(&bob, "edge-1");
    cluster.tctl(&["lock", "--user", "bob", "--message", "gone"]).ok();
    let held_open = live.stdin.take();
    let ended = live.wait().unwrap();
    drop(held_open);
    assert!(!ended.success(), "a locked user's session ended with {ended:?}");

    // Nobody has it any more: that is said, and by both.
    edge.process().kill_hard();
    let carol = User::create_at(&cluster, "carol", "access", two.address());
    for user in [&ann, &carol] {
        eventually_within(SECONDS, "the tunnel is said to be down", || match reaches(user, "edge-1") {
            Err(said) if said.contains("tunnel is down") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

#[test]
fn a_session_of_the_account_page_ends_at_every_proxy_within_two_seconds_of_a_logout_or_a_lock() {
    // I50
    if !need(&["curl"]) {
        return;
    }
    let cluster = Cluster::start_with(ClusterOptions { roles: "auth".into(), ..ClusterOptions::default() });
    // Under one name, as behind a load balancer: browsers send a host's cookies to each of its ports.
    let proxies = [Proxy::join(&cluster, "proxy-1"), Proxy::join(&cluster, "proxy-2")];
    let [one, two] = proxies.each_ref().map(|proxy| format!("https://{}/web/account", proxy.address()));
    cluster.tctl(&["users", "add", "ann", "--roles", "access", "--logins", "ann"]).ok();
    cluster.tctl_with_input(&["users", "passwd", "ann"], &format!("{PASSWORD}\n")).ok();
    let browser = Browser::new(cluster.dir(), "ann");
    let is_in = |account: &str| {
        let page = browser.get(account);
        assert!(page.contains("/web/account/log"), "{page}");
        page.contains("/web/account/logout")
    };
    let form = |account: &str, form: &str| {
        let page = browser.get(account);
        let (_, form_of) = page.split_once(&format!("/web/account/{form}\"")).unwrap_or_else(|| panic!("{page}"));
        let csrf = attribute(form_of, "name=\"csrf\" value=\"").unwrap_or_else(|| panic!("{page}"));
        browser.post(&format!("{account}/{form}"), &[("csrf", &csrf)])
    };
    let log_in = |account: &str| {
        let onward = form(account, "login");
        let path = attribute(&onward, "url=").unwrap_or_else(|| panic!("{onward}"));
        let login = account.replace("/web/account", &path);
        let page = browser.get(&login);
        let token = attribute(&page, "name=\"token\" value=\"").unwrap_or_else(|| panic!("{page}"));
        let fields = [("token", token.as_str()), ("user", "ann"), ("password", PASSWORD), ("code", "")];
        let _ = browser.post(&format!("{login}/local"), &fields);
    };
    // Asked at both in turn from the moment that it was done; the one that is slower counts.
    let ended_within = |what: &str| {
        let begun = Instant::now();
        while is_in(&one) || is_in(&two) {
            assert!(begun.elapsed() < Duration::from_secs(2), "{what}: a session goes on after {:?}", begun.elapsed());
        }
    };

    log_in(&one);
    assert!(is_in(&one) && is_in(&two), "one session at both");
    let _ = form(&two, "logout");
    ended_within("a logout");

    log_in(&two);
    assert!(is_in(&one) && is_in(&two));
    cluster.tctl(&["lock", "--user", "ann"]).ok();
    ended_within("a lock");
}
