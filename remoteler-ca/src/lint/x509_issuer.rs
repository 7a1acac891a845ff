//! The issuer is the subject of the authority, octet for octet, and not empty.

use super::{Finding, X509Draft, X509Rule, demand};

pub(super) const RULE: X509Rule = X509Rule { name: "x509_issuer", source: "RFC 5280 section 4.1.2.4", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let issuer = &draft.tbs.issuer;
    demand(issuer.as_raw() == draft.issuer.name, || format!("issuer {issuer} is not the authority"))?;
    demand(issuer.iter().next().is_some(), || "an empty issuer".to_owned())
}
