//! A failed handshake in words for a person. Owns the translation; decides nothing.

use std::io;

use remoteler_core::{Timestamp, with_causes};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// What went wrong in a TLS handshake, or in the first read after it, in one line: our own verifier's reason where the peer's
/// certificate was refused, and what an alert means where the peer refused ours.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "only these of many foreign variants have words of their own")]
pub fn handshake_failure(cause: &io::Error) -> String {
    let Some(error) = cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return cause.to_string();
    };
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => with_causes(&*other.0),
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => format!(
            "its certificate is valid only from {}, which has not come by this machine's clock; set that",
            moment(*not_before)
        ),
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            format!(
                "its certificate has expired: it ended at {} by this machine's clock; is that right?",
                moment(*not_after)
            )
        }
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => "the peer's certificate was revoked".into(),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => "the certificate shown to it has expired; log in again".into(),
            AlertDescription::CertificateRevoked => {
                "the certificate shown to it was revoked; ask an administrator why".into()
            }
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
                "it does not believe the certificate shown to it; log in again".into()
            }
            AlertDescription::CertificateRequired => "it wants a certificate; log in first".into(),
            AlertDescription::AccessDenied => "it refuses the certificate shown to it".into(),
            AlertDescription::NoApplicationProtocol => "it does not speak this protocol; is it another service?".into(),
            other => format!("it ended the handshake with the alert {other:?}"),
        },
        other => other.to_string(),
    }
}

fn moment(time: UnixTime) -> Timestamp {
    Timestamp::from_unix_seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// Whether the failure is our certificate's or its peer's, and not the network's.
#[must_use]
pub fn is_certificate_failure(cause: &io::Error) -> bool {
    matches!(
        cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}
