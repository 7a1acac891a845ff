//! What both ends of one TLS session can derive and nobody else can (RFC 8446 section 7.5). Owns no key.

use tokio_rustls::{client, server};

/// A TLS session whose handshake is done.
pub trait ExportsKeys {
    /// `N` octets of this session, a label apart from other uses; `None` when the session cannot.
    fn export<const N: usize>(&self, label: &[u8]) -> Option<[u8; N]>;
}

impl<S> ExportsKeys for server::TlsStream<S> {
    fn export<const N: usize>(&self, label: &[u8]) -> Option<[u8; N]> {
        self.get_ref().1.export_keying_material([0; N], label, None).ok()
    }
}

impl<S> ExportsKeys for client::TlsStream<S> {
    fn export<const N: usize>(&self, label: &[u8]) -> Option<[u8; N]> {
        self.get_ref().1.export_keying_material([0; N], label, None).ok()
    }
}

impl<S: ExportsKeys> ExportsKeys for Box<S> {
    fn export<const N: usize>(&self, label: &[u8]) -> Option<[u8; N]> {
        (**self).export(label)
    }
}
