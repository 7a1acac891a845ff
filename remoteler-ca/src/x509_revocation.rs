//! X.509 revocation lists (RFC 5280 section 5), for servers that are not ours. rcgen encodes, the authority's key signs. Owns what a list of ours
//! says: number, authority key, reasons, next update.

use std::time::Duration;

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, RevokedCertParams, SerialNumber};
use remoteler_core::{RevocationReason, Timestamp};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{Authority, CaError, x509_authority::RcgenSigner};

/// A certificate of the authority that is not valid any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// 1 to 20 octets, as in the certificate.
    pub serial: Vec<u8>,
    /// Since when.
    pub since: Timestamp,
    /// Why; without a reason the entry has none, as the standard wants it.
    pub reason: RevocationReason,
}

/// A list to be signed: everything the authority revoked whose end has not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// Grows with each list that is published.
    pub number: u64,
    /// How long readers may keep it.
    pub valid_for: Duration,
    /// In any order; a serial that stands there twice is written once.
    pub certificates: Vec<RevokedCertificate>,
}

impl Authority {
    /// Signs a revocation list: DER. Like every signature it blocks, see [`Authority`].
    ///
    /// # Errors
    /// [`CaError::RevokedSerial`] for a serial that is none, [`CaError::RevocationList`] for a `valid_for` of nothing or a key that does not sign, [`CaError::Clock`] for times that cannot be expressed.
    pub fn sign_revocation_list(&self, list: &RevocationList, now: Timestamp) -> Result<Vec<u8>, CaError> {
        let moment =
            |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.unix_seconds()).map_err(|_| CaError::Clock(at));
        let mut certificates: Vec<&RevokedCertificate> = list.certificates.iter().collect();
        certificates.sort_by(|one, other| one.serial.cmp(&other.serial).then(one.since.cmp(&other.since)));
        certificates.dedup_by(|later, earlier| later.serial == earlier.serial);
        let mut revoked_certs = Vec::with_capacity(certificates.len());
        for certificate in certificates {
            let serial = certificate.serial.as_slice();
            if serial.is_empty() || serial.len() > 20 || serial.iter().all(|octet| *octet == 0) {
                return Err(CaError::RevokedSerial(serial.len()));
            }
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: moment(certificate.since)?,
                reason_code: reason(certificate.reason),
                invalidity_date: None,
            });
        }
        let params = CertificateRevocationListParams {
            this_update: moment(now)?,
            next_update: moment(now.plus(list.valid_for))?,
            crl_number: SerialNumber::from(list.number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::PreSpecified(self.issuer().key_id.clone()),
        };
        let certificate = CertificateDer::from(self.certificate_der());
        let issuer =
            Issuer::from_ca_cert_der(&certificate, RcgenSigner(self.x509_signer())).map_err(CaError::RevocationList)?;
        params.signed_by(&issuer).map(|list| list.der().to_vec()).map_err(CaError::RevocationList)
    }
}

const fn reason(reason: RevocationReason) -> Option<rcgen::RevocationReason> {
    use rcgen::RevocationReason as Code;
    match reason {
        RevocationReason::Unspecified => None,
        RevocationReason::KeyCompromise => Some(Code::KeyCompromise),
        RevocationReason::AffiliationChanged => Some(Code::AffiliationChanged),
        RevocationReason::Superseded => Some(Code::Superseded),
        RevocationReason::CessationOfOperation => Some(Code::CessationOfOperation),
        RevocationReason::PrivilegeWithdrawn => Some(Code::PrivilegeWithdrawn),
    }
}
