//! The keys for which identity providers encrypt assertions: one for each connector that takes such. Owns when they are made and forgotten.

use std::sync::Arc;

use remoteler_ca::{SamlDecrypter, StoredSamlKey};
use remoteler_core::SamlSpec;

use crate::{
    blocking::blocking,
    failure::{self, ApiResult, not_found},
    records::key,
    service::Inner,
};

impl Inner {
    /// The key of a connector that takes encrypted assertions, made when there is none yet; `None` for any other.
    pub(in crate::sso) async fn saml_decrypter(
        &self,
        name: &str,
        spec: &SamlSpec,
    ) -> ApiResult<Option<Arc<SamlDecrypter>>> {
        if !spec.encrypted_assertions {
            return Ok(None);
        }
        if let Some(known) = self.known_saml_decrypter(name, spec).await? {
            return Ok(Some(known));
        }
        let keys = Arc::clone(self.issuer.keys());
        let (cluster, connector, now) = (self.cluster.clone(), name.to_owned(), self.clock.now());
        let made = blocking(move || SamlDecrypter::generate(&cluster, &connector, keys.ring(), now)).await;
        let made = made.map_err(|cause| failure::authority(&cause))?;
        match self.records.create(&key::of(key::SAML_ENCRYPTION_KEYS, name), &made.to_stored(), None).await {
            Ok(_) => Ok(Some(Arc::new(made))),
            // Somebody else made one meanwhile.
            Err(cause) if cause.is_conflict() => {
                let known = self.known_saml_decrypter(name, spec).await?;
                known.map(Some).ok_or_else(|| not_found("the connector was removed meanwhile"))
            }
            Err(cause) => Err(cause.into()),
        }
    }

    /// The same, without making one: a login waits for no new key, for which nothing can be encrypted yet.
    pub(super) async fn known_saml_decrypter(
        &self,
        name: &str,
        spec: &SamlSpec,
    ) -> ApiResult<Option<Arc<SamlDecrypter>>> {
        if !spec.encrypted_assertions {
            return Ok(None);
        }
        let stored = self.records.read::<StoredSamlKey>(&key::of(key::SAML_ENCRYPTION_KEYS, name)).await?;
        let Some(stored) = stored else { return Ok(None) };
        let keys = Arc::clone(self.issuer.keys());
        // A key of RSA is checked when it is read: some milliseconds.
        let opened = blocking(move || SamlDecrypter::open(&stored, keys.ring())).await;
        opened.map(|opened| Some(Arc::new(opened))).map_err(|cause| failure::authority(&cause))
    }

    pub(super) async fn forget_saml_decrypter(&self, name: &str) -> ApiResult<()> {
        self.records.delete(&key::of(key::SAML_ENCRYPTION_KEYS, name)).await?;
        Ok(())
    }
}
