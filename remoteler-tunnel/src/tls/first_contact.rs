//! Trust before there is any: a host that joins knows no authority of the cluster, only a pin that its administrator gave
//! it. Owns the one place where verification can be switched off, which takes a value that says so.

use std::sync::Arc;

use remoteler_core::{
    CaSet, Clock, Identity, SystemRole, TrustBundle, VerifyError, X509Purpose, spki_pin, verify_x509_chain,
    x509_identity,
};
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, OtherError};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::verifier::{JudgesServers, PeerError, alert, require_role};

/// Whom to believe at the first contact with a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstContact {
    /// A host that may act as auth service or proxy, whose certificate was signed by a host authority with one of these
    /// pins: `sha256:` and 64 hex digits of the SHA-256 of the authority certificate's SubjectPublicKeyInfo.
    Pinned(Vec<String>),
    /// Anybody (I15). Only for the explicit `--insecure` flag: whoever is in the path gets the join token.
    Insecure,
}

/// Why the first server was not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirstContactError {
    /// No certificate in its chain has the pin.
    #[error("no authority in the server's chain has the pin {}; the server shows {}", .wanted.join(" or "), readable(.shown))]
    Pin {
        /// Pins that were given.
        wanted: Vec<String>,
        /// Pins of the certificates that it showed besides its own.
        shown: Vec<String>,
    },
    /// The authority is the right one, the server's own certificate is not good.
    #[error("the server's certificate is refused")]
    Refused(#[from] PeerError),
}

/// Believes by pin.
pub(crate) struct Pinned {
    pub(crate) pins: Vec<String>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Pinned {
    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), FirstContactError> {
        let Some((leaf, authorities)) = chain.split_first() else { return Err(PeerError::Anonymous.into()) };
        let known = authorities.iter().take(MAX_AUTHORITIES);
        let known: Vec<(String, &CertificateDer<'_>)> =
            known.filter_map(|certificate| Some((spki_pin(certificate).ok()?, certificate))).collect();
        let wanted = |pin: &str| self.pins.iter().any(|wanted| wanted.eq_ignore_ascii_case(pin));
        let Some((_, authority)) = known.iter().find(|(pin, _)| wanted(pin)) else {
            let shown = known.into_iter().map(|(pin, _)| pin).collect();
            return Err(FirstContactError::Pin { wanted: self.pins.clone(), shown });
        };
        let cluster = named_cluster(leaf).map_err(PeerError::from)?;
        let nobody = CaSet { ssh: Vec::new(), x509: Vec::new() };
        let host = CaSet { ssh: Vec::new(), x509: vec![authority.to_vec()] };
        let trust = TrustBundle::new(cluster, nobody, host);
        let verified =
            verify_x509_chain(chain, &trust, X509Purpose::Server, self.clock.now()).map_err(PeerError::from)?;
        Ok(require_role(&verified, &[SystemRole::Auth, SystemRole::Proxy])?)
    }
}

impl JudgesServers for Pinned {
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        self.verify(chain).map_err(|error| match error {
            FirstContactError::Refused(error) => alert(error),
            FirstContactError::Pin { .. } => CertificateError::Other(OtherError(Arc::new(error))).into(),
        })
    }
}

/// Believes anybody.
pub(crate) struct Anybody;

impl JudgesServers for Anybody {
    fn judge(&self, _chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        Ok(())
    }
}

/// The cluster that an unverified leaf says it is of. Harmless: the bundle made with it holds only the pinned authority.
fn named_cluster(leaf: &CertificateDer<'_>) -> Result<remoteler_core::ClusterName, VerifyError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|cause| VerifyError::Malformed(cause.to_string()))?;
    let identity: Identity = x509_identity(&parsed)?;
    Ok(identity.cluster().clone())
}

fn readable(pins: &[String]) -> String {
    if pins.is_empty() { "none".to_owned() } else { pins.join(", ") }
}

/// Certificates of a chain that are looked at.
const MAX_AUTHORITIES: usize = 8;
