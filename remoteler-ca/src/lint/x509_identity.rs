//! Users and hosts of the cluster carry their identity, what is made for others carries none: our listeners refuse it by that.

use remoteler_core::{Identity, X509_IDENTITY_OID};
use x509_parser::asn1_rs::{FromDer, Oid, Utf8String};

use super::{Finding, X509Draft, X509Rule, demand};
use crate::Purpose;

pub(super) const RULE: X509Rule = X509Rule { name: "x509_identity", source: "own policy (I1)", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let oid = Oid::from(&X509_IDENTITY_OID).map_err(|_| "an identity without a name".to_owned())?;
    let found = draft.tbs.extensions().iter().find(|extension| extension.oid == oid);
    demand(found.is_some() == draft.purpose.has_identity(), || {
        format!(
            "an identity {} in a certificate for a {}",
            if found.is_some() { "stands" } else { "is missing" },
            draft.purpose
        )
    })?;
    let Some(extension) = found else { return Ok(()) };
    let (_, text) = Utf8String::from_der(extension.value).map_err(|cause| cause.to_string())?;
    let identity = Identity::decode(text.as_ref()).map_err(|cause| cause.to_string())?;
    let right = match identity {
        Identity::User(_) => draft.purpose == Purpose::User,
        Identity::Host(_) => draft.purpose == Purpose::Host,
        Identity::AppUser(_) => draft.purpose == Purpose::AppClient,
        Identity::KubeUser(_) | Identity::ProvenUser(_) => draft.purpose == Purpose::KubeClient,
    };
    demand(right, || format!("the identity of something else in a certificate for a {}", draft.purpose))
}
