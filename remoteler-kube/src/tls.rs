//! The TLS configuration for connections of users. A client is asked for a certificate and must prove that it holds its key; whether
//! the certificate is believed is decided right after the handshake, by core's one verification function: there the refusal can be
//! recorded with the name that was claimed, and told to the client in words that kubectl prints.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

/// Makes the configuration for [`KubeService::new`](crate::KubeService::new): TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, client certificate
/// asked for, nothing resumable (I14). Who shows none gets no further than the sentence that says so. `certificate` gives the host certificate of this service, with the host authority's behind it.
///
/// # Panics
/// Never: the provider compiled in has the suites of both versions.
#[must_use]
pub fn server_config(certificate: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let possession = Arc::new(ProvesPossession(provider.signature_verification_algorithms));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the ring provider has cipher suites for TLS 1.2 and 1.3")
        .with_client_cert_verifier(possession)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

/// Verifies the handshake's signature by the key in the client's certificate, and leaves the certificate itself to
/// [`Peer::user`](crate::authenticate::Peer::user), without which no request passes.
#[derive(Debug)]
struct ProvesPossession(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for ProvesPossession {
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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
