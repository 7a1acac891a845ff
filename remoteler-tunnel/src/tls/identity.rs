//! This process's own certificate and key for TLS. Owns the key. Never writes it anywhere.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};

/// A certificate chain, leaf first, with the leaf's key. Servers add the host authority's certificate to the chain, so that a
/// joining host can find its pin there.
#[derive(Clone)]
pub struct TlsIdentity(Arc<CertifiedKey>);

/// Why a certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsIdentityError {
    /// Not PEM, or nothing of that kind in it.
    #[error("no {what} can be read from the PEM text")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// Why not.
        source: rustls::pki_types::pem::Error,
    },
    /// A key of a kind that TLS cannot use.
    #[error("the private key cannot be used; P-256, P-384, Ed25519 or RSA in PKCS#8 is needed")]
    Key(#[source] rustls::Error),
    /// The key is another's.
    #[error("certificate and private key do not belong together")]
    Mismatch,
    /// No certificate at all.
    #[error("no certificate was given with the key")]
    Empty,
}

impl TlsIdentity {
    /// From DER: the chain, leaf first, and the key.
    ///
    /// # Errors
    /// [`TlsIdentityError`] when key and leaf do not make a pair.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsIdentityError> {
        if chain.is_empty() {
            return Err(TlsIdentityError::Empty);
        }
        let key = super::provider().key_provider.load_private_key(key).map_err(TlsIdentityError::Key)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Self(Arc::new(certified))),
            Err(_) => Err(TlsIdentityError::Mismatch),
        }
    }

    /// From PEM text: all certificates of `chain` in their order, and the first key of `key`.
    ///
    /// # Errors
    /// [`TlsIdentityError`] when one is missing or they do not make a pair.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsIdentityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|source| TlsIdentityError::Pem { what: "certificate", source })?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|source| TlsIdentityError::Pem { what: "private key", source })?;
        Self::new(chain, key)
    }

    /// The chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.cert
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("certificates", &self.0.cert.len()).finish_non_exhaustive()
    }
}

/// An identity that its owner renews while configurations use it: the next handshake shows the new one.
#[derive(Debug)]
pub struct SharedTlsIdentity(ArcSwap<TlsIdentity>);

impl SharedTlsIdentity {
    /// Starts with `identity`.
    #[must_use]
    pub fn new(identity: TlsIdentity) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(identity)))
    }

    /// Replaces the identity for all handshakes to come.
    pub fn replace(&self, identity: TlsIdentity) {
        self.0.store(Arc::new(identity));
    }

    /// The identity shown now.
    #[must_use]
    pub fn current(&self) -> TlsIdentity {
        TlsIdentity::clone(&self.0.load())
    }
}

impl ResolvesServerCert for SharedTlsIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().0.clone())
    }
}

impl ResolvesClientCert for SharedTlsIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
