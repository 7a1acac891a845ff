//! TLS of the cluster: who we are, whom we believe, and the configurations made of both. Owns keys of this process and the
//! rule that nothing is resumed. Never decides whether a certificate is good: [`remoteler_core::verify_x509_chain`] does,
//! in the handshake and again after it, when its proof is handed out.

mod config;
mod export;
mod failure;
mod first_contact;
mod identity;
mod possession;
mod verifier;

pub use config::{ClientAuth, ClientTls, ServerTls, TlsConfigError, judged_later, web_server_config};
pub use export::ExportsKeys;
pub use failure::{handshake_failure, is_certificate_failure};
pub use first_contact::{FirstContact, FirstContactError};
pub use identity::{SharedTlsIdentity, TlsIdentity, TlsIdentityError};
pub use verifier::{PeerError, PolicyTrust, TrustSource, verified_peer};

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};

/// The one crypto provider. AES-128 goes first: it costs a quarter less than AES-256, and no one breaks either.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = default_provider();
        let first = cipher_suite::TLS13_AES_128_GCM_SHA256;
        provider.cipher_suites.retain(|suite| suite.suite() != first.suite());
        provider.cipher_suites.insert(0, first);
        Arc::new(provider)
    });
    PROVIDER.clone()
}
