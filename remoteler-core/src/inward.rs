//! Where a configured destination may lead: a name never into the machine itself or onto its link, unless that is what was configured (I29). Who
//! answers for a name in the DNS, today or from tomorrow on, would else choose what is reached there ("DNS rebinding"). Never resolves anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether what is configured as `host` may lead to `ip`. An address, with its zone or without, is what somebody wrote down and leads where it says, and
/// `localhost` (RFC 6761 section 6.3) to loopback; any other name leads to no loopback, link-local or unspecified address, nor to one of these in the clothes
/// of IPv6 (mapped, compatible, translated, 6to4, NAT64).
#[must_use]
pub fn may_lead_to(host: &str, ip: IpAddr) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = bare.split_once('%').map_or(bare, |(address, _)| address);
    if address.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
    let local = name == "localhost" || name.ends_with(".localhost");
    if local { is_loopback(ip) } else { !is_inward(ip) }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn is_inward(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_inward_v4(ip),
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unicast_link_local()
                || carried_v4(ip).is_some_and(is_inward_v4)
        }
    }
}

fn is_inward_v4(ip: Ipv4Addr) -> bool {
    ip.is_loopback() || ip.is_link_local() || ip.octets()[0] == 0
}

/// The IPv4 address in one of IPv6: RFC 4291 section 2.5.5, RFC 3056 section 2, RFC 6052 section 2.1, RFC 8215, RFC 7915.
fn carried_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let (high, low) = match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0x64, 0xff9b, 0 | 1, _, _, _] | [0, 0, 0, 0, 0xffff, 0] => (g, h),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // I29
    #[test]
    fn a_name_leads_neither_into_this_machine_nor_onto_its_link_however_that_is_written() {
        for inward in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "64:ff9b::7f00:1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::7f00:1",
            "::ffff:0:127.0.0.1",
        ] {
            let ip = inward.parse().unwrap();
            assert!(!may_lead_to("db.example.com", ip), "{inward}");
            assert!(!may_lead_to("localhost.example.com", ip), "{inward}");
            assert!(may_lead_to(inward, ip), "{inward} was configured");
        }
        for outward in ["10.1.2.3", "192.0.2.1", "2001:db8::1", "fd00::1", "::ffff:192.0.2.1", "64:ff9b::c000:201"] {
            assert!(may_lead_to("db.example.com", outward.parse().unwrap()), "{outward}");
        }
    }

    #[test]
    fn localhost_is_this_machine_and_nothing_else_and_a_zone_does_not_make_an_address_a_name() {
        for local in ["localhost", "LOCALHOST.", "app.localhost"] {
            assert!(may_lead_to(local, "127.0.0.1".parse().unwrap()) && may_lead_to(local, "::1".parse().unwrap()));
            assert!(!may_lead_to(local, "192.0.2.1".parse().unwrap()), "{local}");
        }
        for address in ["fe80::1%eth0", "[fe80::1%2]", "[::1]"] {
            assert!(may_lead_to(address, "fe80::1".parse().unwrap()), "{address}");
        }
    }
}
