//! A smart card says where its revocation list lies: domain controllers refuse it otherwise. Nothing else promises a list.

use x509_parser::extensions::{DistributionPointName, GeneralName};

use super::{Finding, X509Draft, X509Rule, demand, match_extension};
use crate::Purpose;

pub(super) const RULE: X509Rule =
    X509Rule { name: "x509_revocation", source: "RFC 5280 section 4.2.1.13; MS-PKCA", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let found = draft.extension(|extension| match_extension!(extension, CRLDistributionPoints));
    demand(found.is_some() == (draft.purpose == Purpose::SmartCard), || {
        format!("a revocation list {} for a {}", if found.is_some() { "named" } else { "missing" }, draft.purpose)
    })?;
    let Some((points, _)) = found else { return Ok(()) };
    let names = points.points.iter().flat_map(|point| match &point.distribution_point {
        Some(DistributionPointName::FullName(names)) => names.as_slice(),
        Some(DistributionPointName::NameRelativeToCRLIssuer(_)) | None => &[],
    });
    let mut urls = names.filter(|name| matches!(name, GeneralName::URI(url) if url.starts_with("http://")));
    demand(urls.next().is_some(), || "a revocation list without an http address".to_owned())
}
