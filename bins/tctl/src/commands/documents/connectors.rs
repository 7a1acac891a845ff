//! Documents of connectors, looked at before they are sent.

use remoteler_core::{ClaimMapping, GithubSpec, OidcSpec, Resource, TeamMapping};
use serde_json::Value;

use super::{Faults, faults};

pub(super) fn faults_in_oidc(spec: &Value) -> Faults {
    let mut found = Faults::default();
    faults::<OidcSpec>(spec, &["spec"], &["claims_to_roles"], &mut found);
    for (number, mapping) in spec["claims_to_roles"].as_array().into_iter().flatten().enumerate() {
        faults::<ClaimMapping>(mapping, &["spec", "claims_to_roles", &number.to_string()], &[], &mut found);
    }
    found
}

pub(super) fn faults_in_github(spec: &Value) -> Faults {
    let mut found = Faults::default();
    faults::<GithubSpec>(spec, &["spec"], &["teams_to_roles"], &mut found);
    for (number, mapping) in spec["teams_to_roles"].as_array().into_iter().flatten().enumerate() {
        faults::<TeamMapping>(mapping, &["spec", "teams_to_roles", &number.to_string()], &[], &mut found);
    }
    found
}

pub(super) fn check_oidc(document: &Resource) -> anyhow::Result<()> {
    Ok(serde_json::from_value::<OidcSpec>(document.spec.clone())?.check(&document.metadata.name)?)
}

pub(super) fn check_github(document: &Resource) -> anyhow::Result<()> {
    Ok(serde_json::from_value::<GithubSpec>(document.spec.clone())?.check(&document.metadata.name)?)
}
