//! What a proxy tells an agent on the stream of its registration: where the proxies of the cluster are. Owns the wire form and its
//! bounds. What is said is where to knock, never whom to believe: each proxy proves itself in its own handshake.

use remoteler_core::HostId;
use serde::{Deserialize, Serialize};

use crate::dial::{DIAL_VERSION, DialHeaderError, decode};

/// Most octets of a notice.
pub const MAX_NOTICE_LEN: usize = 16_384;
/// Most proxies that a notice names; an agent looks at no more.
pub const MAX_PROXIES: usize = 32;

/// A proxy of the cluster, and where agents reach it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProxyAddress {
    /// Its host id, as its certificate says it.
    pub id: HostId,
    /// `host:port`.
    pub addr: String,
}

/// The message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Notice {
    v: u32,
    /// All proxies, the sender among them. Absent in notices of a later version about other things.
    #[serde(default)]
    pub(crate) proxies: Option<Vec<ProxyAddress>>,
}

impl Notice {
    pub(crate) fn proxies(known: &[ProxyAddress]) -> Self {
        let mut proxies: Vec<_> = known.iter().filter(|proxy| is_address(&proxy.addr)).cloned().collect();
        proxies.sort();
        proxies.truncate(MAX_PROXIES);
        Self { v: DIAL_VERSION, proxies: Some(proxies) }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and ids always serialise")
    }

    pub(crate) fn from_json(octets: &[u8]) -> Result<Self, DialHeaderError> {
        let mut notice: Self = decode(octets)?;
        if let Some(proxies) = &mut notice.proxies {
            proxies.retain(|proxy| is_address(&proxy.addr));
            proxies.truncate(MAX_PROXIES);
        }
        Ok(notice)
    }
}

/// `host:port` of visible ASCII and no more: it stands in logs.
fn is_address(text: &str) -> bool {
    text.len() <= MAX_ADDRESS
        && text.bytes().all(|octet| octet.is_ascii_graphic())
        && text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

const MAX_ADDRESS: usize = 260;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxy(number: u128, addr: &str) -> ProxyAddress {
        ProxyAddress { id: HostId::from_uuid(uuid::Uuid::from_u128(number)), addr: addr.into() }
    }

    #[test]
    fn a_notice_is_read_back_and_the_largest_fits() {
        let many: Vec<_> = (0..100).map(|n| proxy(n, &format!("{n:0>250}:65535"))).collect();
        let json = Notice::proxies(&many).to_json();
        assert!(json.len() <= MAX_NOTICE_LEN, "{}", json.len());
        let read = Notice::from_json(&json).unwrap().proxies.unwrap();
        assert_eq!(read.len(), MAX_PROXIES);
        assert!(many.starts_with(&read));
    }

    #[test]
    fn the_json_is_the_one_that_the_protocol_document_shows() {
        let json = String::from_utf8(Notice::proxies(&[proxy(1, "p.example.com:443")]).to_json()).unwrap();
        assert_eq!(
            json,
            r#"{"v":1,"proxies":[{"id":"00000000-0000-0000-0000-000000000001","addr":"p.example.com:443"}]}"#
        );
    }

    #[test]
    fn what_is_no_address_is_passed_over_and_other_notices_are_understood() {
        for bad in ["", "p", ":1", "p:0", "p:65536", "p q:1", "p\n:1"] {
            assert!(Notice::proxies(&[proxy(1, bad)]).proxies.unwrap().is_empty(), "{bad:?}");
        }
        assert_eq!(Notice::from_json(br#"{"v":1,"later":true}"#).unwrap().proxies, None);
        assert!(Notice::from_json(br#"{"v":2}"#).is_err());
    }

    proptest! {
        // I25
        #[test]
        fn no_octets_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Notice::from_json(&octets);
        }
    }
}
