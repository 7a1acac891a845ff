//! The keys for which identity providers encrypt assertions: one for each connector that takes such, made when that is written, and for one identity
//! provider. Owns to whom they are shown and lent.

use std::sync::Arc;

use remoteler_ca::{SamlDecrypter, StoredSamlKey};
use remoteler_core::SamlSpec;

use crate::{
    blocking::blocking,
    failure::{self, ApiResult},
    records::key,
    service::Inner,
    sso::{records::Asked, stored::StoredConnector},
};

impl Inner {
    /// The certificate that identity providers encrypt for.
    pub(super) async fn saml_encryption_certificate(&self, name: &str, spec: &SamlSpec) -> ApiResult<Option<String>> {
        if !spec.encrypted_assertions {
            return Ok(None);
        }
        let stored = self.records.read::<StoredSamlKey>(&key::of(key::SAML_ENCRYPTION_KEYS, name)).await?;
        Ok(stored.map(|stored| stored.certificate))
    }

    /// The key that opens what was encrypted for a connector, for a login by `spec`. A test brings a document of its own, and with it whose signatures
    /// count: it is lent the key only for the identity provider of the connector that is stored.
    pub(super) async fn lend_saml_decrypter(
        &self,
        name: &str,
        spec: &SamlSpec,
        asked: &Asked,
    ) -> ApiResult<Option<Arc<SamlDecrypter>>> {
        if !spec.encrypted_assertions {
            return Ok(None);
        }
        if matches!(asked, Asked::Report(_)) {
            let stored = self.stored_connector(name).await?.and_then(StoredConnector::into_saml);
            if !stored.is_some_and(|stored| stored.encrypted_assertions && same_idp(&stored, spec)) {
                return Ok(None);
            }
        }
        let place = key::of(key::SAML_ENCRYPTION_KEYS, name);
        let Some((stored, revision)) = self.records.read_at::<StoredSamlKey>(&place).await? else { return Ok(None) };
        let (keys, before) = (Arc::clone(self.issuer.keys()), stored.clone());
        // A key of RSA is checked when it is read: some milliseconds.
        let opened = blocking(move || SamlDecrypter::open(&stored, keys.ring())).await;
        let opened = opened.map_err(|cause| failure::authority(&cause))?;
        if opened.to_stored() != before {
            // Sealed anew with the present key; when that fails it is done the next time.
            let _ = self.records.replace(&place, revision, &opened.to_stored()).await;
        }
        Ok(Some(Arc::new(opened)))
    }
}

/// Whether both believe the same signatures.
fn same_idp(one: &SamlSpec, other: &SamlSpec) -> bool {
    let of = |spec: &SamlSpec| {
        let SamlSpec { entity_descriptor, entity_descriptor_url, issuer, sso, cert, .. } = spec.clone();
        (entity_descriptor, entity_descriptor_url, issuer, sso, cert)
    };
    of(one) == of(other)
}
