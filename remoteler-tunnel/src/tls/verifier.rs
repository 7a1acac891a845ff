//! The verifiers that rustls calls, as thin shells around core's one verification function. Owns the translation of its
//! reasons into TLS alerts. Looks at the trust bundle of the moment, so a removed authority is out at the next handshake.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use remoteler_core::{
    Clock, PolicySource, SystemRole, Timestamp, TrustBundle, Verified, VerifyError, X509Purpose, verify_x509_chain,
};
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, OtherError};

use super::possession::proves_possession;

/// Gives the trust bundle of the moment. Called in every handshake.
///
/// Implementations: a bundle that never changes ([`TrustBundle`]), and the policy view of a service ([`PolicyTrust`]).
pub trait TrustSource: Send + Sync {
    /// The newest bundle this process has.
    fn trust(&self) -> Arc<TrustBundle>;
}

impl TrustSource for TrustBundle {
    fn trust(&self) -> Arc<TrustBundle> {
        Arc::new(self.clone())
    }
}

/// The bundle in a service's policy view.
pub struct PolicyTrust(pub Arc<dyn PolicySource>);

impl TrustSource for PolicyTrust {
    fn trust(&self) -> Arc<TrustBundle> {
        Arc::new(self.0.policy().trust.clone())
    }
}

/// Why the peer of a finished handshake is nobody.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// It showed no certificate.
    #[error("the peer showed no certificate")]
    Anonymous,
    /// Its certificate is refused.
    #[error("the peer's certificate is refused")]
    Refused(#[from] VerifyError),
    /// A host without the role that is needed here.
    #[error("the peer is host {host}, which is no {}", one_of(.needed))]
    Role {
        /// Its id.
        host: String,
        /// Any of these would do.
        needed: Vec<SystemRole>,
    },
}

/// Verifies the certificates that the peer of a finished handshake showed, and yields core's proof of who it is. The verifier
/// in the handshake has done the same; this makes sure of it (I14) and cannot be skipped, because there is no other way to
/// the proof.
///
/// # Errors
/// [`PeerError`] when there is no certificate or it is refused.
pub fn verified_peer(
    certificates: Option<&[CertificateDer<'_>]>,
    trust: &dyn TrustSource,
    purpose: X509Purpose,
    clock: &dyn Clock,
) -> Result<Verified, PeerError> {
    let chain = certificates.filter(|chain| !chain.is_empty()).ok_or(PeerError::Anonymous)?;
    Ok(verify_x509_chain(chain, &trust.trust(), purpose, clock.now())?)
}

/// Whether the server is a host that may act as one of `needed`.
pub(crate) fn require_role(verified: &Verified, needed: &[SystemRole]) -> Result<(), PeerError> {
    match verified {
        Verified::Host(host) if needed.iter().any(|role| host.is(*role)) => Ok(()),
        Verified::Host(host) => Err(PeerError::Role { host: host.identity().id.to_string(), needed: needed.to_vec() }),
        Verified::User(_) => Err(VerifyError::WrongType { expected: "host", found: "user" }.into()),
    }
}

/// Believes clients of the cluster: users and hosts. What they may do is decided after the handshake.
pub(crate) struct ClusterClients {
    pub(crate) trust: Arc<dyn TrustSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) mandatory: bool,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClusterClients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = chain(leaf, rest);
        match verified_peer(Some(&chain), &*self.trust, X509Purpose::Client, &*self.clock) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(error) => Err(alert(error)),
        }
    }

    proves_possession!(self => self.provider.signature_verification_algorithms);
}

impl fmt::Debug for ClusterClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterClients").field("mandatory", &self.mandatory).finish_non_exhaustive()
    }
}

/// Decides about the chain of a server, whatever its name.
pub(crate) trait JudgesServers: Send + Sync {
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error>;
}

/// Believes hosts of the cluster that may act as one of `roles`. Names do not matter: the role in the certificate does.
pub(crate) struct ClusterServers {
    pub(crate) trust: Arc<dyn TrustSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) roles: Vec<SystemRole>,
}

impl JudgesServers for ClusterServers {
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let verified = verified_peer(Some(chain), &*self.trust, X509Purpose::Server, &*self.clock).map_err(alert)?;
        require_role(&verified, &self.roles).map_err(alert)
    }
}

/// What rustls needs of a verifier besides the judgement.
pub(crate) struct ServerVerifier<J> {
    pub(crate) judge: J,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl<J: JudgesServers> ServerCertVerifier for ServerVerifier<J> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge.judge(&chain(leaf, rest))?;
        Ok(ServerCertVerified::assertion())
    }

    proves_possession!(self => self.provider.signature_verification_algorithms);
}

impl<J> fmt::Debug for ServerVerifier<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").finish_non_exhaustive()
    }
}

fn chain<'a>(leaf: &CertificateDer<'a>, rest: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(rest).cloned().collect()
}

/// The reason as rustls carries it: where there is an alert that tells the peer what to do, that one.
pub(crate) fn alert(error: PeerError) -> rustls::Error {
    let reason = match &error {
        // With the end or the beginning, so that a host with a wrong clock can find out when the peer would be believed.
        PeerError::Refused(VerifyError::Expired(end)) => {
            CertificateError::ExpiredContext { time: moment(*end), not_after: moment(*end) }
        }
        PeerError::Refused(VerifyError::NotYetValid(beginning)) => {
            CertificateError::NotValidYetContext { time: moment(*beginning), not_before: moment(*beginning) }
        }
        PeerError::Refused(VerifyError::UnknownAuthority { .. }) => CertificateError::UnknownIssuer,
        PeerError::Refused(VerifyError::Revoked(_)) => CertificateError::Revoked,
        PeerError::Refused(VerifyError::BadSignature) => CertificateError::BadSignature,
        PeerError::Refused(_) | PeerError::Anonymous | PeerError::Role { .. } => {
            CertificateError::Other(OtherError(Arc::new(error)))
        }
    };
    reason.into()
}

fn moment(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.unix_seconds_unsigned()))
}

fn one_of(roles: &[SystemRole]) -> String {
    roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
