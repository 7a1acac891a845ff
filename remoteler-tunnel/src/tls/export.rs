//! What both ends of one TLS session can derive and nobody else can (RFC 8446 section 7.5), and whom it is with. Owns no key.

use rustls::pki_types::CertificateDer;
use tokio_rustls::{client, server};

/// A TLS session whose handshake is done.
pub trait ExportsKeys {
    /// `N` octets of this session, a label apart from other uses; `None` when the session cannot.
    fn export<const N: usize>(&self, label: &[u8]) -> Option<[u8; N]>;

    /// What the peer has shown, its own certificate first; empty if it has shown none.
    fn peer_certificates(&self) -> Vec<CertificateDer<'static>>;
}

impl<S> ExportsKeys for server::TlsStream<S> {
    fn export<const N: usize>(&self, label: &[u8]) -> Option<[u8; N]> {
        self.get_ref().1.export_keying_material([0; N], label, None).ok()
    }

    fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        owned(self.get_ref().1.peer_certificates())
    }
}

impl<S> ExportsKeys for client::TlsStream<S> {
    fn export<const N: usize>(&self, label: &[u8]) -> Option<[u8; N]> {
        self.get_ref().1.export_keying_material([0; N], label, None).ok()
    }

    fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        owned(self.get_ref().1.peer_certificates())
    }
}

impl<S: ExportsKeys> ExportsKeys for Box<S> {
    fn export<const N: usize>(&self, label: &[u8]) -> Option<[u8; N]> {
        (**self).export(label)
    }

    fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        (**self).peer_certificates()
    }
}

fn owned(shown: Option<&[CertificateDer<'_>]>) -> Vec<CertificateDer<'static>> {
    shown.unwrap_or_default().iter().map(|certificate| certificate.clone().into_owned()).collect()
}
