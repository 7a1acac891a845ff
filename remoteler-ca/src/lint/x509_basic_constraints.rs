//! It is no authority, and says so (I11).

use super::{Finding, X509Draft, X509Rule, demand, match_extension};

pub(super) const RULE: X509Rule =
    X509Rule { name: "x509_basic_constraints", source: "RFC 5280 section 4.2.1.9", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let found = draft.extension(|extension| match_extension!(extension, BasicConstraints));
    let (constraints, critical) = found.ok_or_else(|| "no basic constraints".to_owned())?;
    demand(critical && !constraints.ca && constraints.path_len_constraint.is_none(), || {
        "it could be an authority".to_owned()
    })
}
