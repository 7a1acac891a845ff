//! One common name, not empty; no name can be read as two where it is printed.

use super::{Finding, X509Draft, X509Rule, demand};

pub(super) const RULE: X509Rule =
    X509Rule { name: "x509_subject", source: "RFC 5280 section 4.1.2.6; own policy", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let subject = &draft.tbs.subject;
    let mut names = subject.iter_common_name();
    let one =
        names.next().is_some_and(|name| name.as_str().is_ok_and(|name| !name.is_empty())) && names.next().is_none();
    demand(one, || "not exactly one common name".to_owned())?;
    for attribute in subject.iter_attributes() {
        let text = attribute.as_str().map_err(|_| "an attribute that is no text".to_owned())?;
        let clean = (1..=MAX_CHARACTERS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        demand(clean, || format!("attribute {:?}", text.chars().take(80).collect::<String>()))?;
    }
    Ok(())
}

/// Names of users and roles have up to 128 characters. That is more than the 64 of RFC 5280 appendix A.1, which no verifier in use enforces:
/// webpki, Go and OpenSSL read them.
const MAX_CHARACTERS: usize = 128;
