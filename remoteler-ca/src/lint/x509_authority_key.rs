//! The authority is named by its key too, for there may be two of one name while it is rotated.

use super::{Finding, X509Draft, X509Rule, demand, match_extension};

pub(super) const RULE: X509Rule = X509Rule { name: "x509_authority_key", source: "RFC 5280 section 4.2.1.1", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let found = draft.extension(|extension| match_extension!(extension, AuthorityKeyIdentifier));
    let (identifier, _) = found.ok_or_else(|| "no authority key identifier".to_owned())?;
    let right = identifier.key_identifier.as_ref().is_some_and(|id| id.0 == draft.issuer.key_id);
    demand(right, || "the key identifier of another authority".to_owned())
}
