//! The one function that verifies SSH certificates (OpenSSH PROTOCOL.certkeys). Trust is byte equality of the signing key.

use std::time::Duration;

use ssh_key::{Algorithm, Certificate, EcdsaCurve, certificate::CertType, public::KeyData};

use crate::{
    CaKind, Identity, Timestamp, TrustBundle, Verified, VerifiedHost, VerifiedUser, VerifyError, check_principal,
    ssh_identity,
};

/// What the certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshCertificatePurpose<'a> {
    /// A user logs in.
    User,
    /// A host proves that it is the one dialled by this name.
    Host(&'a str),
}

/// Verifies `certificate` against the authorities in `trust` at `now`.
///
/// Checked, in this order: signing key is an authority of the purpose; certificate type; algorithms of both keys; validity
/// window (60 s of skew at the beginning, none at the end); no critical options (none is issued, so none is accepted); principals;
/// signature; identity, its cluster, and that principals and identity agree; for hosts, the name.
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
    check_key(certificate.signature_key())?;
    check_key(certificate.public_key())?;
    let expires = check_window(certificate, kind, now)?;
    if let Some((name, _)) = certificate.critical_options().iter().next() {
        return Err(VerifyError::CriticalOption(name.chars().take(80).collect()));
    }
    check_principals(certificate.valid_principals())?;
    certificate.verify_signature().map_err(|_| VerifyError::BadSignature)?;

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
            Ok(Verified::User(VerifiedUser::new(user, expires, certificate.serial().to_string())))
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
            Ok(Verified::Host(VerifiedHost::new(host)))
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

const fn type_name(cert_type: CertType) -> &'static str {
    match cert_type {
        CertType::User => "user",
        CertType::Host => "host",
    }
}

/// I7: an exact list; I2: a key that is itself a certificate is not on it.
fn check_key(key: &KeyData) -> Result<(), VerifyError> {
    let accepted = match key.algorithm() {
        Algorithm::Ed25519 => true,
        Algorithm::Ecdsa { curve } => matches!(curve, EcdsaCurve::NistP256 | EcdsaCurve::NistP384),
        Algorithm::Rsa { .. } => key.rsa().is_some_and(|rsa| (2048..=8192).contains(&rsa.key_size())),
        _ => false,
    };
    accepted.then_some(()).ok_or_else(|| VerifyError::Algorithm(key.algorithm().to_string()))
}

fn check_window(certificate: &Certificate, kind: CaKind, now: Timestamp) -> Result<Timestamp, VerifyError> {
    let seconds = now.unix_seconds_unsigned();
    let (after, before) = (certificate.valid_after(), certificate.valid_before());
    if kind == CaKind::User && before == u64::MAX {
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
