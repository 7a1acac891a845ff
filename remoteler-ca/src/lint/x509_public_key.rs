//! The key is one of the list (I7), and not the key of the authority itself.

use super::{Finding, X509Draft, X509Rule, demand};
use crate::TlsPublicKey;

pub(super) const RULE: X509Rule =
    X509Rule { name: "x509_public_key", source: "RFC 5280 section 4.1.2.7; own policy", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let info = &draft.tbs.subject_pki;
    TlsPublicKey::from_der(info.raw).map_err(|cause| cause.to_string())?;
    let own = info.subject_public_key.data.as_ref() == draft.issuer.public_key;
    demand(!own, || "the authority's own key as the subject's".to_owned())
}
