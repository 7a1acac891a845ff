//! Names are of the kinds of the purpose and well formed; servers have at least one, because nothing else is compared.

use x509_parser::{asn1_rs::Oid, extensions::GeneralName};

use super::{Finding, X509Draft, X509Rule, demand, match_extension};
use crate::{Purpose, x509_leaf::PRINCIPAL_NAME};

pub(super) const RULE: X509Rule =
    X509Rule { name: "x509_alternative_names", source: "RFC 5280 section 4.2.1.6; RFC 6125 section 6.4", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let found = draft.extension(|extension| match_extension!(extension, SubjectAlternativeName));
    let names = found.map(|(names, _)| names.general_names.as_slice()).unwrap_or_default();
    let needed = matches!(draft.purpose, Purpose::Host | Purpose::Server | Purpose::SmartCard);
    demand(needed != names.is_empty(), || format!("{} alternative names for a {}", names.len(), draft.purpose))?;
    for name in names {
        let fits = match (draft.purpose, name) {
            (Purpose::Host | Purpose::Server, GeneralName::DNSName(name)) => is_dns_name(name, draft.purpose),
            (Purpose::Server, GeneralName::IPAddress(octets)) => matches!(octets.len(), 4 | 16),
            (Purpose::SmartCard, GeneralName::OtherName(oid, _)) => {
                Oid::from(PRINCIPAL_NAME).is_ok_and(|upn| upn == *oid)
            }
            _ => false,
        };
        demand(fits, || format!("{name} for a {}", draft.purpose))?;
    }
    Ok(())
}

fn is_dns_name(name: &str, purpose: Purpose) -> bool {
    let below = if purpose == Purpose::Server { name.strip_prefix("*.").unwrap_or(name) } else { name };
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && below.split('.').all(label_ok)
}
