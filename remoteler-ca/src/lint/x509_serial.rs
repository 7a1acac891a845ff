//! A serial is positive and has at most 20 octets; ours have 16 so that 126 bits can be random.

use super::{Finding, X509Draft, X509Rule, demand};

pub(super) const RULE: X509Rule = X509Rule { name: "x509_serial", source: "RFC 5280 section 4.1.2.2", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let octets = draft.tbs.raw_serial();
    let positive = octets.first().is_some_and(|first| (0x40..0x80).contains(first));
    demand(positive && octets.len() == 16, || format!("a serial of {} octets, or not positive", octets.len()))
}
