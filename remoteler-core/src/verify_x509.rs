//! The one function that verifies X.509 certificates of the cluster (RFC 5280 section 6, by webpki). Which authority's key
//! signed decides whether the holder is a user or a host.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring as algorithms};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    AppUserIdentity, CaKind, Identity, KubeUserIdentity, OnlyAt, ProvenUserIdentity, RevocationTarget, SessionTarget,
    ShownCertificate, Timestamp, TlsSerial, TrustBundle, Verified, VerifiedHost, VerifiedUser, VerifyError,
    trust::authority_key, verify::Behind, x509_identity,
};

/// In which place of a TLS handshake the certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum X509Purpose {
    /// The peer is a TLS client: users and hosts may be.
    Client,
    /// The peer is a client of a Kubernetes API server: whoever [`X509Purpose::Client`] takes, and users restricted to one Kubernetes
    /// cluster. Which one, [`crate::authorize_kube`] compares.
    KubeClient,
    /// The peer is a client of a web application: whoever [`X509Purpose::Client`] takes, and users restricted to one application. Which one,
    /// [`crate::authorize_app`] compares.
    AppClient,
    /// The peer is a TLS server: only hosts may be.
    Server,
}

/// Verifies the leaf `chain[0]` against the authorities in `trust` at `now`.
///
/// A leaf must be signed by an authority itself: further certificates in the chain are not looked at. User certificates must
/// end; a host certificate may last until 9999-12-31T23:59:59Z (RFC 5280 section 4.1.2.5). Neither its serial nor its key is revoked.
///
/// # Errors
/// [`VerifyError`] with the reason. Nothing of the certificate may be used then.
pub fn verify_x509_chain(
    chain: &[CertificateDer<'_>],
    trust: &TrustBundle,
    purpose: X509Purpose,
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    let leaf = chain.first().ok_or(VerifyError::Missing)?;
    let end_entity = EndEntityCert::try_from(leaf).map_err(|cause| refusal(cause, VerifyError::Malformed))?;
    let (rest, parsed) = X509Certificate::from_der(leaf).map_err(|cause| VerifyError::Malformed(cause.to_string()))?;
    if !rest.is_empty() {
        return Err(VerifyError::Malformed("octets follow the certificate".into()));
    }
    let kinds: &[CaKind] = match purpose {
        X509Purpose::Client | X509Purpose::KubeClient | X509Purpose::AppClient => &[CaKind::User, CaKind::Host],
        X509Purpose::Server => &[CaKind::Host],
    };
    let mut failure = None;
    let signed_by = kinds.iter().copied().find_map(|kind| {
        let mut authorities = trust.authority(kind).x509.iter();
        let signed_by = authorities.find(|authority| match verify_path(&end_entity, authority, purpose, now) {
            Ok(()) => true,
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => false,
            Err(cause) => {
                failure = Some(refusal(cause, VerifyError::Path));
                false
            }
        });
        signed_by.map(|authority| (kind, authority))
    });
    let Some((kind, authority)) = signed_by else {
        let purpose = match purpose {
            X509Purpose::Client | X509Purpose::KubeClient | X509Purpose::AppClient => "user or host",
            X509Purpose::Server => "host",
        };
        return Err(
            failure.unwrap_or_else(|| VerifyError::UnknownAuthority { purpose, cluster: trust.cluster.clone() })
        );
    };

    let serial = TlsSerial::from_octets(parsed.raw_serial()).ok();
    let shown = ShownCertificate {
        authority: kind,
        authority_key: authority_key(authority).map_err(|cause| VerifyError::Malformed(cause.to_string()))?,
        serial: serial.map(|serial| RevocationTarget::TlsSerial { authority: kind, serial }),
        key: RevocationTarget::tls_key(parsed.public_key().raw),
    };
    if let Some(revoked) = trust.revoked.of(&shown) {
        return Err(VerifyError::Revoked(revoked));
    }
    let identity = x509_identity(&parsed)?;
    if *identity.cluster() != trust.cluster {
        return Err(VerifyError::WrongCluster { named: identity.cluster().clone(), signed_by: trust.cluster.clone() });
    }
    let verified_user = |user| {
        let end = parsed.validity().not_after.timestamp();
        if end >= NO_END {
            return Err(VerifyError::ForEver);
        }
        Ok(VerifiedUser::new(user, Timestamp::from_unix_seconds(end), parsed.raw_serial_as_string(), shown))
    };
    match (kind, identity) {
        (CaKind::User, Identity::User(user)) => Ok(Verified::User(verified_user(user)?)),
        (CaKind::User, Identity::KubeUser(KubeUserIdentity { user, kube_cluster })) => match purpose {
            X509Purpose::KubeClient => {
                Ok(Verified::User(verified_user(user)?.restricted(OnlyAt::KubeCluster(kube_cluster))))
            }
            X509Purpose::Client | X509Purpose::AppClient | X509Purpose::Server => {
                Err(VerifyError::Restricted(OnlyAt::KubeCluster(kube_cluster)))
            }
        },
        (CaKind::User, Identity::AppUser(AppUserIdentity { user, app, session, proof, login_expires, proxy })) => {
            match purpose {
                X509Purpose::AppClient => {
                    let behind = Behind { proof, app_session: Some(session), app_proxy: proxy, login_expires };
                    Ok(Verified::User(verified_user(user)?.restricted(OnlyAt::App(app)).with(behind)))
                }
                X509Purpose::Client | X509Purpose::KubeClient | X509Purpose::Server => {
                    Err(VerifyError::Restricted(OnlyAt::App(app)))
                }
            }
        }
        (CaKind::User, Identity::ProvenUser(ProvenUserIdentity { user, proof, login_expires })) => {
            match (purpose, proof.target().clone()) {
                (X509Purpose::KubeClient, SessionTarget::KubeCluster { name }) => {
                    let behind = Behind { proof: Some(proof), app_session: None, app_proxy: None, login_expires };
                    Ok(Verified::User(verified_user(user)?.restricted(OnlyAt::KubeCluster(name)).with(behind)))
                }
                (_, target) => Err(VerifyError::OneSession(target)),
            }
        }
        (CaKind::Host, Identity::Host(host)) => Ok(Verified::Host(VerifiedHost::new(host, shown))),
        (CaKind::User, Identity::Host(_)) => Err(VerifyError::WrongType { expected: "user", found: "host" }),
        (CaKind::Host, Identity::User(_) | Identity::KubeUser(_) | Identity::ProvenUser(_) | Identity::AppUser(_)) => {
            Err(VerifyError::WrongType { expected: "host", found: "user" })
        }
    }
}

/// 9999-12-31T23:59:59Z, which means "no well-defined end" (RFC 5280 section 4.1.2.5).
const NO_END: i64 = 253_402_300_799;

/// I7: the signature algorithms our authorities may use.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

fn verify_path(
    leaf: &EndEntityCert<'_>,
    authority: &[u8],
    purpose: X509Purpose,
    now: Timestamp,
) -> Result<(), webpki::Error> {
    let authority = CertificateDer::from(authority);
    let anchors = [anchor_from_trusted_cert(&authority)?];
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unix_seconds_unsigned()));
    leaf.verify_for_usage(ALGORITHMS, &anchors, &[], now, usage(purpose), None, None).map(|_| ())
}

/// The extended key usage must name the purpose: a certificate without that extension is not taken (RFC 5280 section 4.2.1.12).
fn usage(purpose: X509Purpose) -> KeyUsage {
    // DER of 1.3.6.1.5.5.7.3.1 (serverAuth) and 1.3.6.1.5.5.7.3.2 (clientAuth), without tag and length.
    match purpose {
        X509Purpose::Server => KeyUsage::required(&[0x2b, 6, 1, 5, 5, 7, 3, 1]),
        X509Purpose::Client | X509Purpose::KubeClient | X509Purpose::AppClient => {
            KeyUsage::required(&[0x2b, 6, 1, 5, 5, 7, 3, 2])
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other causes, also future ones, are reported by their text")]
fn refusal(cause: webpki::Error, otherwise: fn(String) -> VerifyError) -> VerifyError {
    let moment = |time: UnixTime| Timestamp::from_unix_seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    match cause {
        webpki::Error::CertExpired { not_after, .. } => VerifyError::Expired(moment(not_after)),
        webpki::Error::CertNotValidYet { not_before, .. } => VerifyError::NotYetValid(moment(not_before)),
        webpki::Error::UnsupportedCriticalExtension => {
            VerifyError::CriticalOption("an unknown critical extension".into())
        }
        other => otherwise(other.to_string()),
    }
}
