//! The algorithm that is named inside is the one that the authority will sign with.

use x509_parser::asn1_rs::Oid;

use super::{Finding, X509Draft, X509Rule, demand};
use crate::x509_leaf::signature_oid;

pub(super) const RULE: X509Rule = X509Rule { name: "x509_signature", source: "RFC 5280 section 4.1.2.3", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let expected =
        Oid::from(signature_oid(draft.issuer.algorithm)).map_err(|_| "an algorithm without a name".to_owned())?;
    let found = &draft.tbs.signature.algorithm;
    demand(*found == expected, || format!("signature algorithm {found} instead of {expected}"))
}
