//! What counts as one source of connections. Owns the rule that one machine has all of an IPv6 /64, so that no limit by source can be
//! passed by changing the lower half of an address.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// An IPv4 address, also one mapped into IPv6, or the /64 network of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceNet(IpAddr);

impl SourceNet {
    /// The source that `address` belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }

    /// The source in a text: `address:port`, `[address]:port` or an address alone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let address = text.parse::<SocketAddr>().map(|addr| addr.ip()).or_else(|_| text.parse());
        address.ok().map(Self::of)
    }
}

/// The /48 of an IPv6 address, with 65,536 sources in it: what one customer may have (RFC 6177), or what a carrier or hoster gives to many in
/// /64s, who then share one bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerNet(Ipv6Addr);

impl CustomerNet {
    /// The network that `address` belongs to; none for an IPv4 address, also one mapped into IPv6, which is a source by itself.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(Self(Ipv6Addr::from_bits(v6.to_bits() >> 80 << 80))),
        }
    }
}

impl fmt::Display for SourceNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let of = |text: &str| SourceNet::parse(text).unwrap();
        assert_eq!(of("2001:db8::1"), of("[2001:db8::ffff:1]:22")); // I30
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("[::ffff:192.0.2.1]:7"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1:3").to_string(), "192.0.2.1");
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
        assert_eq!(SourceNet::parse("somewhere"), None);
    }

    #[test]
    fn networks_of_one_ipv6_customer_are_told_from_those_of_the_next() {
        let of = |text: &str| CustomerNet::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:1:ffff:ffff::7")); // I30
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
        assert_eq!((of("192.0.2.1"), of("::ffff:192.0.2.1")), (None, None));
    }
}
