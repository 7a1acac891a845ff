//! Remembers in the state directory which way led out of which network. Owns the file `ways.json`, which may be lost at any time: what
//! it says changes the order of attempts and nothing else.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use remoteler_tunnel::{Way, WayMemory};
use serde::{Deserialize, Serialize};

use crate::state_store::{DirStore, StateStore};

/// The file, read when it is first asked.
#[derive(Debug)]
pub struct WaysFile {
    store: Arc<dyn StateStore>,
    known: Mutex<Option<BTreeMap<String, Kept>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    WebSocket,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    v: u32,
    /// By network and address. The straight way is what nothing is written about.
    ways: BTreeMap<String, Kept>,
}

impl WaysFile {
    /// In `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self::of(Arc::new(DirStore::new(dir)))
    }

    /// In another store.
    #[must_use]
    pub fn of(store: Arc<dyn StateStore>) -> Self {
        Self { store, known: Mutex::new(None) }
    }

    fn known(&self) -> MutexGuard<'_, Option<BTreeMap<String, Kept>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            let read = self.store.read(FILE, MAX_LEN).ok().flatten();
            let content = read.and_then(|content| serde_json::from_slice::<Content>(&content).ok());
            *known =
                Some(content.filter(|content| content.v == FORMAT).map(|content| content.ways).unwrap_or_default());
        }
        known
    }

    fn recall_in(&self, network: &str, address: &str) -> Option<Way> {
        let known = self.known();
        known.as_ref()?.get(&key(network, address)).map(|Kept::WebSocket| Way::WebSocket)
    }

    fn remember_in(&self, network: &str, address: &str, way: Way) {
        let mut known = self.known();
        let ways = known.get_or_insert_default();
        let key = key(network, address);
        let changed = match way {
            Way::Straight => ways.remove(&key).is_some(),
            Way::WebSocket => ways.insert(key.clone(), Kept::WebSocket).is_none(),
        };
        while ways.len() > MOST {
            let other = ways.keys().find(|other| **other != key).cloned();
            other.map(|other| ways.remove(&other));
        }
        if !changed {
            return;
        }
        let content = Content { v: FORMAT, ways: ways.clone() };
        drop(known);
        let written = serde_json::to_vec(&content)
            .map_err(|cause| cause.to_string())
            .and_then(|text| self.store.write(FILE, &text).map_err(|cause| cause.to_string()));
        if let Err(cause) = written {
            tracing::debug!(cause, "the way out of this network is not remembered");
        }
    }
}

impl WayMemory for WaysFile {
    fn recall(&self, address: &str) -> Option<Way> {
        self.recall_in(&network(), address)
    }

    fn remember(&self, address: &str, way: Way) {
        self.remember_in(&network(), address, way);
    }
}

fn key(network: &str, address: &str) -> String {
    format!("{network} {address}")
}

/// The network that this machine's default route begins in: its own address there without the last part. Nothing is sent.
fn network() -> String {
    // Addresses for documentation (RFC 5737, RFC 3849): no host has them, and the default route leads there.
    let source = |any: &str, far: &str| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(far).ok()?;
        socket.local_addr().ok().map(|addr: SocketAddr| addr.ip())
    };
    match source("0.0.0.0:0", "192.0.2.1:9").or_else(|| source("[::]:0", "[2001:db8::1]:9")) {
        Some(IpAddr::V4(ip)) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Some(IpAddr::V6(ip)) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        None => "none".to_owned(),
    }
}

const FILE: &str = "ways.json";
const FORMAT: u32 = 1;
const MAX_LEN: u64 = 64 * 1024;
/// Networks and addresses that are remembered.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_worked_is_remembered_for_its_network_and_forgotten_when_the_straight_way_works_again() {
        let dir = tempfile::tempdir().unwrap();
        WaysFile::new(dir.path()).remember_in("10.0.0.0/24", "p:443", Way::WebSocket);
        let again = WaysFile::new(dir.path());
        assert_eq!(again.recall_in("10.0.0.0/24", "p:443"), Some(Way::WebSocket));
        assert_eq!(again.recall_in("10.0.1.0/24", "p:443"), None, "another network");
        again.remember_in("10.0.0.0/24", "p:443", Way::Straight);
        assert_eq!(WaysFile::new(dir.path()).recall_in("10.0.0.0/24", "p:443"), None);
    }

    #[test]
    fn a_file_that_does_not_parse_is_no_memory_and_it_never_grows_without_bound() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "nonsense").unwrap();
        let ways = WaysFile::new(dir.path());
        assert_eq!(ways.recall_in("a", "p:443"), None);
        for network in 0..200 {
            ways.remember_in(&network.to_string(), "p:443", Way::WebSocket);
        }
        assert_eq!(ways.recall_in("199", "p:443"), Some(Way::WebSocket));
        assert!(ways.known().as_ref().unwrap().len() <= MOST);
    }
}
