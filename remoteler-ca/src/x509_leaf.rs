//! X.509 leaf certificates (RFC 5280 section 4). Owns their encoding: rcgen writes one organisation in a subject, and ours hold one
//! for each role. Never decides what stands in them, and never signs.

use std::net::IpAddr;

use remoteler_core::{Timestamp, X509_IDENTITY_OID};
use time::OffsetDateTime;
use yasna::{
    DERWriter, DERWriterSeq, Tag, construct_der,
    models::{GeneralizedTime, ObjectIdentifier, UTCTime},
};

use crate::{
    Purpose, TlsPublicKey,
    profile::{Window, X509_NO_END},
    signer::SignerAlgorithm,
    x509_authority::IssuerName,
};

/// All that stands in a leaf. Whoever fills it in has checked every part.
pub(crate) struct Leaf<'a> {
    pub(crate) purpose: Purpose,
    pub(crate) organizations: Vec<String>,
    pub(crate) common_name: String,
    pub(crate) names: Vec<AltName>,
    pub(crate) key: &'a TlsPublicKey,
    pub(crate) serial: [u8; 16],
    pub(crate) window: Window,
    /// Value of the extension with our identity.
    pub(crate) identity: Option<Vec<u8>>,
    /// Where the authority's revocation list lies.
    pub(crate) crl: Option<String>,
    /// The account's security identifier in Active Directory.
    pub(crate) sid: Option<String>,
}

/// A subject alternative name (RFC 5280 section 4.2.1.6).
pub(crate) enum AltName {
    Dns(String),
    Ip(IpAddr),
    /// User principal name of Active Directory, as an `otherName`.
    Upn(String),
}

/// Writes the TBSCertificate (RFC 5280 section 4.1): the octets that are linted, and then signed as they are.
pub(crate) fn to_be_signed(leaf: &Leaf<'_>, issuer: &IssuerName) -> Result<Vec<u8>, Timestamp> {
    let not_before = moment(leaf.window.not_before)?;
    let not_after = moment(leaf.window.not_after.unwrap_or(X509_NO_END))?;
    Ok(construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2)); // v3
            writer.next().write_bigint_bytes(&leaf.serial, true);
            write_algorithm(writer.next(), issuer.algorithm);
            writer.next().write_der(&issuer.name);
            writer.next().write_sequence(|writer| {
                write_time(writer.next(), not_before);
                write_time(writer.next(), not_after);
            });
            writer.next().write_sequence(|writer| {
                for organization in &leaf.organizations {
                    write_attribute(writer.next(), ORGANIZATION, organization);
                }
                write_attribute(writer.next(), COMMON_NAME, &leaf.common_name);
            });
            writer.next().write_der(leaf.key.as_der());
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| write_extensions(writer, issuer, leaf));
            });
        });
    }))
}

/// Puts the signature behind what was signed (RFC 5280 section 4.1.1).
pub(crate) fn assemble(to_be_signed: &[u8], algorithm: SignerAlgorithm, signature: &[u8]) -> Vec<u8> {
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(to_be_signed);
            write_algorithm(writer.next(), algorithm);
            writer.next().write_bitvec_bytes(signature, signature.len() * 8);
        });
    })
}

fn write_extensions(writer: &mut DERWriterSeq<'_>, issuer: &IssuerName, leaf: &Leaf<'_>) {
    write_extension(writer.next(), AUTHORITY_KEY_IDENTIFIER, Critical::No, |writer| {
        writer.write_sequence(|writer| {
            writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(&issuer.key_id));
        });
    });
    write_extension(writer.next(), BASIC_CONSTRAINTS, Critical::Yes, |writer| {
        writer.write_sequence(|_| {}); // not an authority
    });
    write_extension(writer.next(), KEY_USAGE, Critical::Yes, |writer| {
        writer.write_bitvec_bytes(&[0x80], 1); // digitalSignature
    });
    write_extension(writer.next(), EXTENDED_KEY_USAGE, Critical::No, |writer| {
        writer.write_sequence(|writer| {
            for usage in leaf.purpose.usages() {
                writer.next().write_oid(&ObjectIdentifier::from_slice(usage));
            }
        });
    });
    if !leaf.names.is_empty() {
        write_extension(writer.next(), SUBJECT_ALT_NAME, Critical::No, |writer| {
            writer.write_sequence(|writer| {
                for name in &leaf.names {
                    write_alt_name(writer.next(), name);
                }
            });
        });
    }
    if let Some(url) = &leaf.crl {
        write_extension(writer.next(), CRL_DISTRIBUTION_POINTS, Critical::No, |writer| {
            writer.write_sequence(|points| {
                points.next().write_sequence(|point| {
                    point.next().write_tagged(Tag::context(0), |name| {
                        name.write_tagged_implicit(Tag::context(0), |full| {
                            full.write_sequence(|names| {
                                names.next().write_tagged_implicit(Tag::context(6), |uri| uri.write_ia5_string(url));
                            });
                        });
                    });
                });
            });
        });
    }
    if let Some(sid) = &leaf.sid {
        write_extension(writer.next(), &NTDS_SECURITY, Critical::No, |writer| {
            writer.write_sequence(|names| {
                write_other_name(names.next(), NTDS_OBJECT_SID, |writer| writer.write_bytes(sid.as_bytes()));
            });
        });
    }
    if let Some(identity) = &leaf.identity {
        write_extension(writer.next(), &X509_IDENTITY_OID, Critical::No, |writer| writer.write_der(identity));
    }
}

fn write_alt_name(writer: DERWriter<'_>, name: &AltName) {
    match name {
        AltName::Dns(name) => writer.write_tagged_implicit(Tag::context(2), |writer| writer.write_ia5_string(name)),
        AltName::Ip(address) => writer.write_tagged_implicit(Tag::context(7), |writer| match address {
            IpAddr::V4(address) => writer.write_bytes(&address.octets()),
            IpAddr::V6(address) => writer.write_bytes(&address.octets()),
        }),
        AltName::Upn(name) => write_other_name(writer, PRINCIPAL_NAME, |writer| writer.write_utf8_string(name)),
    }
}

/// `otherName [0] { type-id, [0] EXPLICIT value }`
fn write_other_name(writer: DERWriter<'_>, oid: &[u64], value: impl FnOnce(DERWriter<'_>)) {
    writer.write_tagged_implicit(Tag::context(0), |writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
            writer.next().write_tagged(Tag::context(0), value);
        });
    });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Critical {
    Yes,
    No,
}

fn write_extension(writer: DERWriter<'_>, oid: &[u64], critical: Critical, value: impl FnOnce(DERWriter<'_>)) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical == Critical::Yes {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&construct_der(value));
    });
}

fn write_attribute(writer: DERWriter<'_>, oid: &[u64], value: &str) {
    writer.write_set(|writer| {
        writer.next().write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
            writer.next().write_utf8_string(value);
        });
    });
}

pub(crate) fn write_algorithm(writer: DERWriter<'_>, algorithm: SignerAlgorithm) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(signature_oid(algorithm)));
        if matches!(algorithm, SignerAlgorithm::RsaSha256 | SignerAlgorithm::RsaSha512) {
            writer.next().write_null(); // RFC 4055 section 5: the parameters MUST be NULL; the others have none.
        }
    });
}

/// Object identifier of a signature algorithm in X.509 (RFC 8410, RFC 5758, RFC 4055).
pub(crate) const fn signature_oid(algorithm: SignerAlgorithm) -> &'static [u64] {
    match algorithm {
        SignerAlgorithm::Ed25519 => &[1, 3, 101, 112],
        SignerAlgorithm::EcdsaP256 => &[1, 2, 840, 10045, 4, 3, 2],
        SignerAlgorithm::RsaSha256 => &[1, 2, 840, 113_549, 1, 1, 11],
        SignerAlgorithm::RsaSha512 => &[1, 2, 840, 113_549, 1, 1, 13],
    }
}

/// UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5).
fn write_time(writer: DERWriter<'_>, moment: OffsetDateTime) {
    if (1950..2050).contains(&moment.year()) {
        writer.write_utctime(&UTCTime::from_datetime(moment));
    } else {
        writer.write_generalized_time(&GeneralizedTime::from_datetime(moment));
    }
}

fn moment(seconds: i64) -> Result<OffsetDateTime, Timestamp> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Timestamp::from_unix_seconds(seconds))
}

const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const CRL_DISTRIBUTION_POINTS: &[u64] = &[2, 5, 29, 31];
/// `szOID_NT_PRINCIPAL_NAME`: the user principal name (MS-WCCE section 2.2.2.7.7.4).
pub(crate) const PRINCIPAL_NAME: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
/// `szOID_NTDS_CA_SECURITY_EXT` (MS-WCCE section 2.2.2.7.7.4): ties the certificate to an account by its security identifier.
pub(crate) const NTDS_SECURITY: [u64; 9] = [1, 3, 6, 1, 4, 1, 311, 25, 2];
/// `szOID_NTDS_OBJECTSID`
const NTDS_OBJECT_SID: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 25, 2, 1];
