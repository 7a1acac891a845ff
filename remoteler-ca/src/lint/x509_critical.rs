//! Critical are those that every verifier knows, and no others: TLS stacks refuse a certificate over one they do not know.

use x509_parser::oid_registry::{OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE};

use super::{Finding, X509Draft, X509Rule, demand};

pub(super) const RULE: X509Rule = X509Rule { name: "x509_critical", source: "RFC 5280 section 4.2; own policy", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let critical = draft.tbs.extensions().iter().filter(|extension| extension.critical);
    for extension in critical {
        let known = [OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE].contains(&extension.oid);
        demand(known, || format!("extension {} is critical", extension.oid))?;
    }
    Ok(())
}
