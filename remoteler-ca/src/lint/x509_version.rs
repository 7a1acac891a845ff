//! Extensions exist in version 3 only.

use x509_parser::x509::X509Version;

use super::{Finding, X509Draft, X509Rule, demand};

pub(super) const RULE: X509Rule = X509Rule { name: "x509_version", source: "RFC 5280 section 4.1.2.1", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    demand(draft.tbs.version == X509Version::V3, || format!("version {} instead of v3", draft.tbs.version))
}
