//! Whether a host and its cluster still believe each other. A host that was away while the host authority was replaced is shut out, and so
//! is one whose certificate was revoked: nothing it does by itself ends that, and somebody must be told what does. Owns the question and the words for the answer; mends
//! nothing.

use std::{fmt, io, sync::Arc, time::Duration};

use remoteler_core::{Clock, PolicySource, SystemRole, wire};
use remoteler_tunnel::{ConnectError, SharedTlsIdentity, Ways};
use rustls::{AlertDescription, CertificateError};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::connector::AuthTrust;

/// Why a host has no part in its cluster any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutOut {
    /// The auth service shows a certificate of an authority that is not known here.
    UnknownAuthority,
    /// The auth service does not believe the host's certificate.
    Refused,
    /// The certificate was revoked, or its key.
    Revoked,
    /// Another machine is this host.
    Copied,
}

impl fmt::Display for ShutOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownAuthority => {
                "the auth service shows a certificate of a host authority that this host does not know: either it was replaced while \
                 this host was away, or somebody stands between; "
            }
            Self::Refused => {
                "the cluster does not believe this host's certificates any more: their authority was replaced while this host was away; "
            }
            Self::Revoked => {
                "this host's certificate was revoked, or its key: by an administrator, whom to ask why (a revoked key must be taken back \
                 first with `tctl auth unrevoke`), or because another machine runs with a copy of this disk (if this is the \
                 right one, make the token with `tctl nodes rejoin`); "
            }
            Self::Copied => {
                "another machine is this host: it runs with a copy of this disk, or this disk was put back to a former state; if this is the \
                 right one, make a token with `tctl nodes rejoin`, not `tctl tokens add`; "
            }
        })?;
        f.write_str(
            "make a token with `tctl tokens add` and run `remoteler rejoin --token FILE --ca-pin sha256:…` here to be the same host again",
        )
    }
}

/// Connects to the auth service at `addr`, or behind the proxy there, as the host, and says whether one of the two does not believe the
/// other for the sake of its authority, or the host because it was revoked. `None` is everything else: they get on, nobody answers, or something fails for another reason.
///
/// In TLS 1.3 a server refuses a client's certificate after the client's side of the handshake is done, so its first word is waited
/// for, at most 3 s.
pub(crate) async fn shut_out(
    addr: &str,
    identity: Arc<SharedTlsIdentity>,
    policy: Arc<dyn PolicySource>,
    clock: Arc<dyn Clock>,
    ways: &Ways,
) -> Option<ShutOut> {
    let config = AuthTrust::Policy(policy).config(Some(identity), &[SystemRole::Auth], wire::ALPN_AUTH, clock).ok()?;
    match ways.connect(addr, config).await {
        Ok(mut stream) => match timeout(FIRST_WORD, stream.read(&mut [0])).await {
            Ok(Err(cause)) => judged(&cause),
            Ok(Ok(_)) | Err(_) => None,
        },
        Err(ConnectError::Handshake { source, .. }) => judged(&source),
        Err(_) => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these of many foreign variants end by a rejoin alone")]
fn judged(cause: &io::Error) -> Option<ShutOut> {
    match cause.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(ShutOut::UnknownAuthority),
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => Some(ShutOut::Refused),
        rustls::Error::AlertReceived(AlertDescription::CertificateRevoked) => Some(ShutOut::Revoked),
        _ => None,
    }
}

const FIRST_WORD: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_authorities_and_revocation_shuts_a_host_out() {
        let of = |error: rustls::Error| judged(&io::Error::new(io::ErrorKind::InvalidData, error));
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(of(unknown), Some(ShutOut::UnknownAuthority));
        assert_eq!(of(rustls::Error::AlertReceived(AlertDescription::UnknownCA)), Some(ShutOut::Refused));
        assert_eq!(of(rustls::Error::AlertReceived(AlertDescription::CertificateRevoked)), Some(ShutOut::Revoked));
        for other in [
            rustls::Error::InvalidCertificate(CertificateError::Expired),
            rustls::Error::AlertReceived(AlertDescription::CertificateExpired),
            rustls::Error::AlertReceived(AlertDescription::InternalError),
        ] {
            assert_eq!(of(other), None);
        }
        assert_eq!(judged(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }

    #[test]
    fn the_words_are_one_line_and_name_the_way_back() {
        for reason in [ShutOut::UnknownAuthority, ShutOut::Refused, ShutOut::Revoked, ShutOut::Copied] {
            let text = reason.to_string();
            assert!(text.contains("remoteler rejoin") && !text.contains('\n'), "{text}");
        }
    }
}
