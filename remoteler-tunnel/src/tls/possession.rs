//! Proof that a peer holds the key of the certificate it showed: the part of a rustls verifier that is the same whatever is thought of the
//! certificate. Owns the one place where signatures of handshakes are checked, and the verifier of servers that judge a client's
//! certificate only after the handshake.

use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};

/// `proves_possession!(self => algorithms)`: the three methods of a verifier (of clients or of servers) that check the signature of the
/// handshake by the key in the certificate.
macro_rules! proves_possession {
    ($this:ident => $algorithms:expr) => {
        fn verify_tls12_signature(
            &$this,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(message, certificate, signature, &$algorithms)
        }

        fn verify_tls13_signature(
            &$this,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, certificate, signature, &$algorithms)
        }

        fn supported_verify_schemes(&$this) -> Vec<rustls::SignatureScheme> {
            $algorithms.supported_schemes()
        }
    };
}
pub(super) use proves_possession;

/// Asks clients for a certificate and lets everybody in, with or without one. Who uses it must verify the certificates that were shown
/// before anything is granted.
#[derive(Debug)]
pub(super) struct AskOnly(pub(super) WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    proves_possession!(self => self.0);
}
