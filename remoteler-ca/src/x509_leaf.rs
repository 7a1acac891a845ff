//! X.509 certificates of users and hosts (RFC 5280 section 4). Owns their encoding: rcgen writes one organisation in a subject,
//! and ours hold one for each role. Never decides what stands in them.

use remoteler_core::{Identity, X509_IDENTITY_OID, x509_naming};
use time::OffsetDateTime;
use yasna::{
    DERWriter, DERWriterSeq, Tag, construct_der,
    models::{GeneralizedTime, ObjectIdentifier, UTCTime},
};

use crate::{
    CaError, Signer,
    profile::{Common, X509_NO_END},
    signer::SignerAlgorithm,
    x509_authority::IssuerName,
};

/// Signs the certificate of a user: for TLS clients only.
pub(crate) fn user(
    signer: &dyn Signer,
    issuer: &IssuerName,
    identity: &Identity,
    common: &Common,
) -> Result<Vec<u8>, CaError> {
    issue(signer, issuer, identity, common, &[CLIENT_AUTH], &[])
}

/// Signs the certificate of a host: for TLS servers of these DNS names, and for TLS clients.
pub(crate) fn host(
    signer: &dyn Signer,
    issuer: &IssuerName,
    identity: &Identity,
    dns_names: &[String],
    common: &Common,
) -> Result<Vec<u8>, CaError> {
    issue(signer, issuer, identity, common, &[SERVER_AUTH, CLIENT_AUTH], dns_names)
}

fn issue(
    signer: &dyn Signer,
    issuer: &IssuerName,
    identity: &Identity,
    common: &Common,
    usages: &[&[u64]],
    dns_names: &[String],
) -> Result<Vec<u8>, CaError> {
    let not_before = moment(common.not_before)?;
    let not_after = moment(common.not_after.unwrap_or(X509_NO_END))?;
    let naming = x509_naming(identity);
    let to_be_signed = construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2)); // v3
            writer.next().write_bigint_bytes(&common.tls_serial, true);
            write_algorithm(writer.next(), signer.algorithm());
            writer.next().write_der(&issuer.name);
            writer.next().write_sequence(|writer| {
                write_time(writer.next(), not_before);
                write_time(writer.next(), not_after);
            });
            writer.next().write_sequence(|writer| {
                for organization in &naming.organizations {
                    write_attribute(writer.next(), ORGANIZATION, organization);
                }
                write_attribute(writer.next(), COMMON_NAME, &naming.common_name);
            });
            writer.next().write_der(common.tls_key.as_der());
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| write_extensions(writer, issuer, usages, dns_names, &naming.extension));
            });
        });
    });
    let signature = signer.sign(&to_be_signed).map_err(CaError::Signer)?;
    Ok(construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&to_be_signed);
            write_algorithm(writer.next(), signer.algorithm());
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

fn write_extensions(
    writer: &mut DERWriterSeq<'_>,
    issuer: &IssuerName,
    usages: &[&[u64]],
    dns_names: &[String],
    identity: &[u8],
) {
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
            for usage in usages {
                writer.next().write_oid(&ObjectIdentifier::from_slice(usage));
            }
        });
    });
    if !dns_names.is_empty() {
        write_extension(writer.next(), SUBJECT_ALT_NAME, Critical::No, |writer| {
            writer.write_sequence(|writer| {
                for name in dns_names {
                    writer.next().write_tagged_implicit(Tag::context(2), |writer| writer.write_ia5_string(name));
                }
            });
        });
    }
    write_extension(writer.next(), &X509_IDENTITY_OID, Critical::No, |writer| writer.write_der(identity));
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

fn write_algorithm(writer: DERWriter<'_>, algorithm: SignerAlgorithm) {
    let oid: &[u64] = match algorithm {
        SignerAlgorithm::Ed25519 => &[1, 3, 101, 112],
        SignerAlgorithm::EcdsaP256 => &[1, 2, 840, 10045, 4, 3, 2], // ecdsa-with-SHA256
    };
    writer.write_sequence(|writer| writer.next().write_oid(&ObjectIdentifier::from_slice(oid)));
}

/// UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5).
fn write_time(writer: DERWriter<'_>, moment: OffsetDateTime) {
    if (1950..2050).contains(&moment.year()) {
        writer.write_utctime(&UTCTime::from_datetime(moment));
    } else {
        writer.write_generalized_time(&GeneralizedTime::from_datetime(moment));
    }
}

fn moment(seconds: i64) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| CaError::Clock(remoteler_core::Timestamp::from_unix_seconds(seconds)))
}

const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];
