//! What stands for SAML in a build without it: every document of a connector and every answer is refused.

use std::collections::BTreeMap;

use remoteler_core::{BrowserView, SamlSpec, Secret};

use super::{
    conclude::{LoginFault, Proven},
    connectors::Connector,
    oidc::Away,
    records::{Asked, LoginRecord, PendingState, ProviderSecrets},
};
use crate::{
    failure::{ApiResult, bad_request, not_found},
    records::Batch,
    service::Inner,
};

/// The field of the form that an identity provider posts.
pub(super) const FIELD: &str = "SAMLResponse";
const NONE: &str = "this build has no SAML; use one with the feature saml";

/// Of no connector: none of SAML is read.
pub(super) struct MadeKeys;

pub(super) fn check(_spec: &SamlSpec) -> Result<(), String> {
    Err(NONE.into())
}

pub(super) fn proven(_pending: &PendingState) -> Result<Proven, LoginFault> {
    Err(LoginFault::said(NONE))
}

#[expect(clippy::unused_async, clippy::unused_self, reason = "they are what the build with SAML has")]
impl Inner {
    pub(super) async fn make_saml_keys(&self, _connector: &Connector) -> ApiResult<MadeKeys> {
        Ok(MadeKeys)
    }

    pub(super) async fn with_saml_keys(
        &self,
        _connector: &Connector,
        _made: &MadeKeys,
        batch: Batch,
    ) -> ApiResult<Option<Batch>> {
        Ok(Some(batch))
    }

    pub(super) async fn saml_metadata(&self, _name: &str) -> ApiResult<BrowserView> {
        Err(not_found(NONE))
    }

    pub(super) fn send_to_saml(&self) -> Away {
        Away { url: String::new(), secrets: ProviderSecrets::Saml { request: String::new() } }
    }

    pub(super) async fn saml_request(
        &self,
        _name: &str,
        _spec: &SamlSpec,
        _asked: &Asked,
        _pending: &PendingState,
        _state: &Secret,
    ) -> Result<BrowserView, LoginFault> {
        Err(LoginFault::said(NONE))
    }

    pub(super) async fn saml_posted(
        &self,
        _record: LoginRecord,
        _pending: PendingState,
        _params: &BTreeMap<String, String>,
        _from: Option<String>,
    ) -> ApiResult<BrowserView> {
        Err(bad_request(NONE))
    }
}
