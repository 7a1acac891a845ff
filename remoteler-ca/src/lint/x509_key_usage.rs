//! The key signs handshakes and nothing else: no certificates, no revocation lists (I11).

use super::{Finding, X509Draft, X509Rule, demand, match_extension};

pub(super) const RULE: X509Rule = X509Rule { name: "x509_key_usage", source: "RFC 5280 section 4.2.1.3", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let found = draft.extension(|extension| match_extension!(extension, KeyUsage));
    let (usage, critical) = found.ok_or_else(|| "no key usage".to_owned())?;
    demand(critical && usage.flags == DIGITAL_SIGNATURE, || format!("key usage {usage}"))
}

const DIGITAL_SIGNATURE: u16 = 1;
