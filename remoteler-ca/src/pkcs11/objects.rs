//! The objects in a token: the templates that keys are made with, and the forms in which public halves and signatures come out. Owns the
//! rule that a key only signs and never leaves. Never decides which key.

use cryptoki::{
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectHandle},
    session::Session,
};
use yasna::construct_der;

use super::answer::Asked;
use crate::{SignerAlgorithm, TokenKeyId, rsa_key::RSA_BITS};

/// Makes a key pair; its public half.
pub(super) fn generate(
    session: &Session,
    algorithm: SignerAlgorithm,
    id: TokenKeyId,
    label: &str,
) -> Result<ObjectHandle, Asked> {
    let make = |mechanism: &Mechanism<'_>, public: Vec<Attribute>, private: Vec<Attribute>| {
        let named = || [Attribute::Id(id.octets().to_vec()), Attribute::Label(label.as_bytes().to_vec())];
        let public: Vec<_> = named()
            .into_iter()
            .chain([Attribute::Token(true), Attribute::Private(false), Attribute::Verify(true)])
            .chain(public)
            .collect();
        let private: Vec<_> = named()
            .into_iter()
            .chain([
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ])
            .chain(private)
            .collect();
        session.generate_key_pair(mechanism, &public, &private).map(|(public, _private)| public)
    };
    let curve = |mechanism: &Mechanism<'_>, parameters: &[u8]| {
        make(mechanism, vec![Attribute::EcParams(parameters.to_vec())], vec![Attribute::Derive(false)])
    };
    let made = match algorithm {
        SignerAlgorithm::EcdsaP256 => curve(&Mechanism::EccKeyPairGen, P256),
        // PKCS#11 3.0 section 2.3.1 has two ways to say which curve, and modules know one of them.
        SignerAlgorithm::Ed25519 => match curve(&Mechanism::EccEdwardsKeyPairGen, ED25519_NAME) {
            Err(Error::Pkcs11(code, _)) if parameters_refused(code) => {
                curve(&Mechanism::EccEdwardsKeyPairGen, ED25519_OID)
            }
            other => other,
        },
        SignerAlgorithm::RsaSha256 | SignerAlgorithm::RsaSha512 => make(
            &Mechanism::RsaPkcsKeyPairGen,
            vec![
                Attribute::ModulusBits((RSA_BITS as u64).into()),
                Attribute::PublicExponent(vec![1, 0, 1]),
                Attribute::Encrypt(false),
                Attribute::Wrap(false),
            ],
            vec![Attribute::Decrypt(false), Attribute::Unwrap(false)],
        ),
    };
    Ok(made?)
}

fn parameters_refused(code: RvError) -> bool {
    [
        RvError::CurveNotSupported,
        RvError::DomainParamsInvalid,
        RvError::AttributeValueInvalid,
        RvError::TemplateInconsistent,
    ]
    .contains(&code)
}

/// Reads a public half in the form of [`SignerAlgorithm`].
pub(super) fn public_half(session: &Session, key: ObjectHandle, algorithm: SignerAlgorithm) -> Result<Vec<u8>, Asked> {
    let octets = |kind: AttributeType| {
        let found = session.get_attributes(key, &[kind])?.into_iter().next();
        match found {
            Some(Attribute::EcPoint(octets) | Attribute::Modulus(octets) | Attribute::PublicExponent(octets)) => {
                Ok(octets)
            }
            _ => Err(Asked::Unusable("its public key has no value")),
        }
    };
    match algorithm {
        SignerAlgorithm::Ed25519 => point(&octets(AttributeType::EcPoint)?, 32),
        SignerAlgorithm::EcdsaP256 => point(&octets(AttributeType::EcPoint)?, 65),
        SignerAlgorithm::RsaSha256 | SignerAlgorithm::RsaSha512 => {
            let (modulus, exponent) = (octets(AttributeType::Modulus)?, octets(AttributeType::PublicExponent)?);
            Ok(construct_der(|writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_bigint_bytes(&modulus, true);
                    writer.next().write_bigint_bytes(&exponent, true);
                });
            }))
        }
    }
}

/// `CKA_EC_POINT` is the DER of an OCTET STRING (PKCS#11 3.0 section 2.3.3); some modules give the point itself, or a BIT STRING.
fn point(octets: &[u8], length: usize) -> Result<Vec<u8>, Asked> {
    let tags: [&[u8]; 2] = [&[OCTET_STRING, length as u8], &[BIT_STRING, length as u8 + 1, 0]];
    let inside = tags.iter().find_map(|tag| octets.strip_prefix(*tag).filter(|inside| inside.len() == length));
    match inside {
        Some(point) => Ok(point.to_vec()),
        None if octets.len() == length => Ok(octets.to_vec()),
        None => Err(Asked::Unusable("its public key is no point of the curve")),
    }
}

/// From the form of PKCS#11 to that of [`SignerAlgorithm`]; `None` when it has another length.
pub(super) fn signature(algorithm: SignerAlgorithm, octets: Vec<u8>) -> Option<Vec<u8>> {
    match algorithm {
        SignerAlgorithm::Ed25519 => (octets.len() == 64).then_some(octets),
        SignerAlgorithm::RsaSha256 | SignerAlgorithm::RsaSha512 => (octets.len() * 8 == RSA_BITS).then_some(octets),
        SignerAlgorithm::EcdsaP256 => {
            // r and s, one behind the other (PKCS#11 3.0 section 2.3.1).
            let (r, s) = (octets.get(..32)?, octets.get(32..64)?);
            (octets.len() == 64).then(|| {
                construct_der(|writer| {
                    writer.write_sequence(|writer| {
                        writer.next().write_bigint_bytes(r, true);
                        writer.next().write_bigint_bytes(s, true);
                    });
                })
            })
        }
    }
}

const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;
/// The OID of `prime256v1` in DER.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// `edwards25519` as a PrintableString.
const ED25519_NAME: &[u8] = &[0x13, 0x0c, b'e', b'd', b'w', b'a', b'r', b'd', b's', b'2', b'5', b'5', b'1', b'9'];
/// `id-Ed25519` (RFC 8410).
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_taken_in_every_form_that_modules_give_and_no_other() {
        let raw = [7; 32];
        for form in [raw.to_vec(), [&[4, 32][..], &raw].concat(), [&[3, 33, 0][..], &raw].concat()] {
            assert!(matches!(point(&form, 32), Ok(point) if point == raw), "{form:?}");
        }
        for form in
            [vec![], vec![7; 31], vec![7; 33], [&[4, 31][..], &raw].concat(), [&[4, 32][..], &raw, &[0]].concat()]
        {
            assert!(point(&form, 32).is_err(), "{form:?}");
        }
    }

    #[test]
    fn a_signature_of_another_length_is_none() {
        for (algorithm, length) in
            [(SignerAlgorithm::Ed25519, 64), (SignerAlgorithm::EcdsaP256, 64), (SignerAlgorithm::RsaSha256, 384)]
        {
            assert!(signature(algorithm, vec![1; length]).is_some());
            for wrong in [0, length - 1, length + 1] {
                assert!(signature(algorithm, vec![1; wrong]).is_none(), "{algorithm:?} {wrong}");
            }
        }
    }

    #[test]
    fn numbers_of_an_ecdsa_signature_are_written_as_the_shortest_positive_ones() {
        let mut octets = vec![0; 64];
        octets[31] = 0x80; // r = 128: needs a zero octet before it
        octets[63] = 1; // s = 1
        assert_eq!(signature(SignerAlgorithm::EcdsaP256, octets).unwrap(), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 1]);
    }
}
