//! The one function that verifies SSH certificates (OpenSSH PROTOCOL.certkeys). Trust is byte equality of the signing key.

use std::time::Duration;

use ssh_key::{
    Certificate, EcdsaCurve,
    certificate::CertType,
    public::{KeyData, RsaPublicKey},
};

use crate::{
    CaKind, Identity, OnlyAt, RevocationTarget, ShownCertificate, Timestamp, TrustBundle, Verified, VerifiedHost,
    VerifiedUser, VerifyError, check_principal, ssh_identity,
};

/// What the certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshCertificatePurpose<'a> {
    /// A user logs in.
    User,
    /// A host proves that it is the one dialled by this name.
    Host(&'a str),
}

/// Stack that a thread needs which parses SSH certificates from the network: 16 MiB.
///
/// The parser in use (ssh-key) follows certificates that stand in the place of a signing key without a limit of depth. The deepest
/// that fits into an SSH packet of 256 KiB overflows a stack of 2 MiB, the default of threads, before any check of ours is asked.
/// Runtimes that serve or dial SSH therefore give this to their threads (I2, I25); it is reserved, and used only when needed.
pub const SSH_PARSER_STACK: usize = 16 * 1024 * 1024;

/// Verifies `certificate` against the authorities in `trust` at `now`.
///
/// Checked, in this order: signing key is an authority of the purpose; certificate type; algorithms of both keys; validity
/// window (60 s of skew at the beginning, none at the end); no critical options (none is issued, so none is accepted); principals;
/// signature; that neither serial nor key is revoked; identity, its cluster, and that principals and identity agree; for hosts, the name.
///
/// # Errors
/// [`VerifyError`] with the first reason found. Nothing of the certificate may be used then.
pub fn verify_ssh_certificate(
    certificate: &Certificate,
    trust: &TrustBundle,
    purpose: SshCertificatePurpose<'_>,
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    let kind = match purpose {
        SshCertificatePurpose::User => CaKind::User,
        SshCertificatePurpose::Host(_) => CaKind::Host,
    };
    if !trust.authority(kind).ssh.iter().any(|authority| authority.key_data() == certificate.signature_key()) {
        return Err(VerifyError::UnknownAuthority { purpose: kind.as_str(), cluster: trust.cluster.clone() });
    }
    let (expected, found) = (kind.as_str(), type_name(certificate.cert_type()));
    if expected != found {
        return Err(VerifyError::WrongType { expected, found });
    }
    check_ssh_key(certificate.signature_key())?;
    check_ssh_key(certificate.public_key())?;
    let expires = check_window(certificate, kind, now)?;
    if let Some((name, _)) = certificate.critical_options().iter().next() {
        return Err(VerifyError::CriticalOption(name.chars().take(80).collect()));
    }
    check_principals(certificate.valid_principals())?;
    certificate.verify_signature().map_err(|_| VerifyError::BadSignature)?;
    let shown = ShownCertificate {
        authority: kind,
        authority_key: RevocationTarget::ssh_key(certificate.signature_key()),
        serial: RevocationTarget::ssh_serial(kind, certificate.serial()).ok(),
        key: RevocationTarget::ssh_key(certificate.public_key()),
    };
    if let Some(revoked) = trust.revoked.of(&shown) {
        return Err(VerifyError::Revoked(revoked));
    }

    let identity = ssh_identity(certificate)?;
    if *identity.cluster() != trust.cluster {
        return Err(VerifyError::WrongCluster { named: identity.cluster().clone(), signed_by: trust.cluster.clone() });
    }
    match (identity, purpose) {
        (Identity::User(user), SshCertificatePurpose::User) => {
            let same = user
                .logins
                .iter()
                .map(crate::Login::as_str)
                .eq(certificate.valid_principals().iter().map(String::as_str));
            if !same {
                return Err(VerifyError::PrincipalMismatch);
            }
            Ok(Verified::User(VerifiedUser::new(user, expires, certificate.serial().to_string(), shown)))
        }
        (Identity::Host(host), SshCertificatePurpose::Host(wanted)) => {
            if !certificate.valid_principals().iter().any(|principal| principal == wanted) {
                return Err(VerifyError::WrongHost {
                    wanted: wanted.into(),
                    valid_for: certificate.valid_principals().join(", "),
                });
            }
            if host.principals() != certificate.valid_principals() {
                return Err(VerifyError::PrincipalMismatch);
            }
            Ok(Verified::Host(VerifiedHost::new(host, shown)))
        }
        (Identity::KubeUser(restricted), SshCertificatePurpose::User | SshCertificatePurpose::Host(_)) => {
            Err(VerifyError::Restricted(OnlyAt::KubeCluster(restricted.kube_cluster)))
        }
        (Identity::AppUser(restricted), SshCertificatePurpose::User | SshCertificatePurpose::Host(_)) => {
            Err(VerifyError::Restricted(OnlyAt::App(restricted.app)))
        }
        (Identity::ProvenUser(proven), SshCertificatePurpose::User | SshCertificatePurpose::Host(_)) => {
            Err(VerifyError::OneSession(proven.proof.target().clone()))
        }
        (Identity::User(_), SshCertificatePurpose::Host(_)) => {
            Err(VerifyError::WrongType { expected: "host", found: "user" })
        }
        (Identity::Host(_), SshCertificatePurpose::User) => {
            Err(VerifyError::WrongType { expected: "user", found: "host" })
        }
    }
}

const SKEW: Duration = Duration::from_secs(60);
const MAX_PRINCIPALS: usize = 256;
/// 9999-12-31T23:59:59Z
const NO_END: u64 = 253_402_300_799;

const fn type_name(cert_type: CertType) -> &'static str {
    match cert_type {
        CertType::User => "user",
        CertType::Host => "host",
    }
}

/// Checks that a key is one that is certified and believed: Ed25519, ECDSA on P-256 or P-384, or RSA of 2048 to 8192 bits.
/// Everything else is refused, also a key that is itself a certificate.
///
/// # Errors
/// [`VerifyError::Algorithm`] names what was found.
pub fn check_ssh_key(key: &KeyData) -> Result<(), VerifyError> {
    // By the variant, not by `algorithm()`: a nested certificate answers there with the algorithm of its inner key (I2).
    let accepted = key.ed25519().is_some()
        || key.ecdsa().is_some_and(|ecdsa| matches!(ecdsa.curve(), EcdsaCurve::NistP256 | EcdsaCurve::NistP384))
        || key.rsa().is_some_and(|rsa| (2048..=8192).contains(&rsa_bits(rsa)));
    accepted.then_some(()).ok_or_else(|| {
        let name = match (key.rsa(), key.certificate()) {
            (Some(rsa), _) => format!("RSA of {} bits", rsa_bits(rsa)),
            (_, Some(_)) => "a certificate in place of a key".into(),
            (None, None) => key.algorithm().to_string(),
        };
        VerifyError::Algorithm(name)
    })
}

/// Exact length of the modulus; `key_size()` rounds up to whole octets.
fn rsa_bits(rsa: &RsaPublicKey) -> usize {
    let octets = rsa.n().as_positive_bytes().unwrap_or_default();
    let leading = octets.first().map_or(0, |first| first.leading_zeros() as usize);
    (octets.len() * 8).saturating_sub(leading)
}

fn check_window(certificate: &Certificate, kind: CaKind, now: Timestamp) -> Result<Timestamp, VerifyError> {
    let seconds = now.unix_seconds_unsigned();
    let (after, before) = (certificate.valid_after(), certificate.valid_before());
    // Not only the largest number: an end past the year 9999 is none, as in X.509.
    if kind == CaKind::User && before >= NO_END {
        return Err(VerifyError::ForEver);
    }
    let moment = |at: u64| Timestamp::from_unix_seconds(i64::try_from(at).unwrap_or(i64::MAX));
    if before <= seconds {
        return Err(VerifyError::Expired(moment(before)));
    }
    if after > seconds.saturating_add(SKEW.as_secs()) {
        return Err(VerifyError::NotYetValid(moment(after)));
    }
    Ok(moment(before))
}

fn check_principals(principals: &[String]) -> Result<(), VerifyError> {
    if principals.is_empty() || principals.len() > MAX_PRINCIPALS {
        return Err(VerifyError::PrincipalCount(principals.len()));
    }
    for principal in principals {
        check_principal(principal)?;
    }
    Ok(())
}
