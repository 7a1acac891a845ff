//! The usages are exactly those of the purpose, and never "any" (I11).

use super::{Finding, X509Draft, X509Rule, demand, match_extension};
use crate::purpose::{CLIENT_AUTH, SERVER_AUTH, SMART_CARD_LOGON};

pub(super) const RULE: X509Rule =
    X509Rule { name: "x509_extended_key_usage", source: "RFC 5280 section 4.2.1.12", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let found = draft.extension(|extension| match_extension!(extension, ExtendedKeyUsage));
    let (usage, _) = found.ok_or_else(|| "no extended key usage".to_owned())?;
    // Nothing is ever issued with these.
    let foreign =
        usage.any || usage.code_signing || usage.email_protection || usage.time_stamping || usage.ocsp_signing;
    demand(!foreign, || "a usage that is never issued".to_owned())?;
    let expected = draft.purpose.usages();
    demand(!expected.is_empty(), || format!("an X.509 certificate for a {}", draft.purpose))?;
    let has = |oid: &[u64]| expected.contains(&oid);
    let others: Vec<String> = usage.other.iter().map(ToString::to_string).collect();
    let wanted: Vec<&str> = if has(SMART_CARD_LOGON) { vec!["1.3.6.1.4.1.311.20.2.2"] } else { Vec::new() };
    let right = usage.server_auth == has(SERVER_AUTH) && usage.client_auth == has(CLIENT_AUTH) && others == wanted;
    demand(right, || format!("other usages than those of a {}", draft.purpose))
}
