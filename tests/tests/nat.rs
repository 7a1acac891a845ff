//! An edge node in a network namespace whose only way out is a NAT to the proxy, and of the proxy its one port.

use std::process::Command;

use remoteler_tests::{Cluster, ClusterOptions, Edge, need, run};

/// A namespace behind NAT: its address is not routed anywhere, the host's end of the cable masquerades it.
struct Namespace {
    name: String,
    outside: String,
    inside: String,
    cable: String,
}

impl Namespace {
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let id = std::process::id() % 250;
        let namespace = Self {
            name: format!("rtnat{id}"),
            outside: format!("10.213.{id}.1"),
            inside: format!("10.213.{id}.2"),
            cable: format!("rtn{id}"),
        };
        namespace.build().then_some(namespace)
    }

    fn build(&self) -> bool {
        let Self { name, outside, inside, cable } = self;
        let peer = format!("{cable}p");
        let steps = [
            format!("ip netns add {name}"),
            format!("ip link add {cable} type veth peer name {peer} netns {name}"),
            format!("ip addr add {outside}/30 dev {cable}"),
            format!("ip link set {cable} up"),
            format!("ip netns exec {name} ip addr add {inside}/30 dev {peer}"),
            format!("ip netns exec {name} ip link set {peer} up"),
            format!("ip netns exec {name} ip link set lo up"),
            // NAT on the way out: what arrives at the proxy comes from another address, and nothing can be opened inwards.
            format!("ip netns exec {name} iptables -t nat -A POSTROUTING -o {peer} -j MASQUERADE"),
            format!(
                "ip netns exec {name} iptables -A INPUT -i {peer} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
            ),
            format!("ip netns exec {name} iptables -A INPUT -i {peer} -j DROP"),
        ];
        steps.iter().all(|step| {
            let out = run(Command::new("sh").args(["-c", step]));
            if out.code != Some(0) {
                eprintln!("{step}: {}", out.stderr);
            }
            out.code == Some(0)
        })
    }

    /// Nothing goes out any more but to `port` of the other end of the cable, as where only 443 is open.
    fn close_all_but(&self, port: &str) {
        let Self { name, outside, .. } = self;
        for rule in [
            "-o lo -j ACCEPT".to_owned(),
            "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT".to_owned(),
            format!("-p tcp -d {outside} --dport {port} -j ACCEPT"),
            "-j DROP".to_owned(),
        ] {
            let rule = format!("ip netns exec {name} iptables -A OUTPUT {rule}");
            run(Command::new("sh").args(["-c", &rule])).ok();
        }
    }

    /// Whether what runs inside gets a connection to `IP:PORT`. What is dropped is not answered, so that is waited for no longer than this.
    fn gets_out_to(&self, addr: &str, seconds: &str) -> bool {
        let connect = format!("exec 3<>/dev/tcp/{}", addr.replace(':', "/"));
        let words = ["netns", "exec", &self.name, "timeout", seconds, "bash", "-c", &connect];
        run(Command::new("ip").args(words)).code == Some(0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(Command::new("ip").args(["link", "del", &self.cable]));
        run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

#[test]
fn a_node_behind_nat_is_reached_through_its_own_outbound_tunnel() {
    if !need(&["ssh", "ip", "iptables", "bash"]) {
        return;
    }
    let Some(namespace) = Namespace::new() else {
        eprintln!("SKIPPED: network namespaces with NAT cannot be made here");
        return;
    };
    let cluster =
        Cluster::start_with(ClusterOptions { listen_ip: namespace.outside.clone(), ..ClusterOptions::default() });
    // Two ports of one machine: the proxy's is open, and the auth service's would be if it were asked there.
    assert!(namespace.gets_out_to(cluster.auth(), "60"), "without a filter every port is reached");
    namespace.close_all_but(cluster.proxy().rsplit(':').next().expect("an address has a port"));
    assert!(namespace.gets_out_to(cluster.proxy(), "60"));
    assert!(!namespace.gets_out_to(cluster.auth(), "2"), "only the proxy's port is open");
    let wrapper = ["ip", "netns", "exec", &namespace.name];
    let edge = Edge::launch(&cluster, "edge-1", cluster.proxy(), &[], &wrapper);
    edge.wait_connected();
    let ann = cluster.user("ann", "access");

    let out = run(ann.openssh("ssh").args(["-o", "BatchMode=yes", "edge-1", "ip -4 -o addr"])).ok();

    assert!(out.text().contains(&namespace.inside), "the command ran inside the namespace: {}", out.text());
    // Nothing can be opened towards it.
    let inwards = format!("{}:22", namespace.inside).parse().unwrap();
    assert!(std::net::TcpStream::connect_timeout(&inwards, std::time::Duration::from_millis(300)).is_err());
}
