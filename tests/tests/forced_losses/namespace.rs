//! A network of its own for an edge node, one cable away, which may lose packets and change its address. Owns namespace and cable.

use std::process::Command;

use remoteler_tests::run;

use crate::sh;

/// A namespace and the cable to it.
pub(crate) struct Namespace {
    name: String,
    cable: String,
    network: String,
    outside: String,
}

impl Namespace {
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let id = std::process::id() % 250;
        let network = format!("10.214.{id}");
        let namespace =
            Self { name: format!("rtloss{id}"), cable: format!("rtl{id}"), outside: format!("{network}.1"), network };
        let Self { name, cable, outside, network } = &namespace;
        let steps = [
            format!("ip netns add {name}"),
            format!("ip link add {cable} type veth peer name {cable}p netns {name}"),
            format!("ip addr add {outside}/24 dev {cable}"),
            format!("ip link set {cable} up"),
            format!("ip netns exec {name} ip addr add {network}.10/24 dev {cable}p"),
            format!("ip netns exec {name} ip link set {cable}p up"),
            format!("ip netns exec {name} ip link set lo up"),
        ];
        steps.iter().all(|step| sh(step)).then_some(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The address of this machine at the cable.
    pub(crate) fn outside(&self) -> &str {
        &self.outside
    }

    /// From now on packets are lost each way, with this probability.
    pub(crate) fn lose_packets(&self, probability: &str) {
        for (chain, way) in [("INPUT", "-i"), ("OUTPUT", "-o")] {
            let Self { name, cable, .. } = self;
            let rule = format!("{chain} {way} {cable}p -m statistic --mode random --probability {probability} -j DROP");
            assert!(sh(&format!("ip netns exec {name} iptables -A {rule}")));
        }
    }

    pub(crate) fn lose_none(&self) {
        assert!(sh(&format!("ip netns exec {} iptables -F", self.name)));
    }

    /// Takes the address away and gives another one.
    pub(crate) fn move_to(&self, round: u8) {
        let Self { name, cable, network, .. } = self;
        let inside = |step: String| assert!(sh(&format!("ip netns exec {name} {step}")));
        inside(format!("ip addr flush dev {cable}p"));
        inside(format!("ip addr add {network}.{}/24 dev {cable}p", 11 + round));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(Command::new("ip").args(["link", "del", &self.cable]));
        run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}
