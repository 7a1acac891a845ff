//! SSH certificates (OpenSSH PROTOCOL.certkeys). Owns the way from fields to the octets that are signed, and from those and a signature
//! to OpenSSH's text. ssh-key's builder does the encoding. Never decides what stands in a certificate.

use std::cell::RefCell;

use base64::{Engine, engine::general_purpose::STANDARD};
use ssh_key::{
    Algorithm, Certificate, EcdsaCurve, HashAlg, Mpint, PublicKey, Signature,
    certificate::{Builder, CertType},
    encoding::Encode,
    public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey},
};
use x509_parser::{asn1_rs::FromDer, public_key::RSAPublicKey};

use crate::{Signer, profile::Window, signer::SignerAlgorithm};

/// All that stands in a certificate. Whoever fills it in has checked every part.
pub(crate) struct Fields {
    pub(crate) cert_type: CertType,
    pub(crate) key_id: String,
    pub(crate) principals: Vec<String>,
    pub(crate) key: PublicKey,
    pub(crate) serial: u64,
    pub(crate) nonce: [u8; 32],
    pub(crate) window: Window,
    /// Names and values; the builder sorts them, OpenSSH wants them in lexical order.
    pub(crate) extensions: Vec<(&'static str, String)>,
}

/// Writes everything up to the signature, `authority` as the key that will sign: the octets that are linted, and then signed as they are.
pub(crate) fn to_be_signed(fields: Fields, authority: &KeyData) -> ssh_key::Result<Vec<u8>> {
    let valid_after = u64::try_from(fields.window.not_before).unwrap_or(0);
    // "For ever" in SSH is the largest number.
    let valid_before = fields.window.not_after.map_or(u64::MAX, |end| u64::try_from(end).unwrap_or(0));
    let mut builder = Builder::new(fields.nonce, fields.key.key_data().clone(), valid_after, valid_before)?;
    builder.serial(fields.serial)?;
    builder.cert_type(fields.cert_type)?;
    builder.key_id(fields.key_id)?;
    for principal in fields.principals {
        builder.valid_principal(principal)?;
    }
    for (name, value) in fields.extensions {
        builder.extension(name, value)?;
    }
    written(builder, authority)
}

/// What `builder` would have signed.
pub(crate) fn written(builder: Builder, authority: &KeyData) -> ssh_key::Result<Vec<u8>> {
    let writer = NeverSigns { authority, octets: RefCell::default() };
    match builder.sign(&writer) {
        // It never signs, so the error is its own unless the octets were not written.
        Err(cause) => writer.octets.into_inner().ok_or(cause),
        Ok(_) => Err(ssh_key::Error::FormatEncoding),
    }
}

/// Stands in the place of a key while the builder writes; keeps what it is asked to sign and refuses.
struct NeverSigns<'a> {
    authority: &'a KeyData,
    octets: RefCell<Option<Vec<u8>>>,
}

impl From<&NeverSigns<'_>> for KeyData {
    fn from(writer: &NeverSigns<'_>) -> Self {
        writer.authority.clone()
    }
}

impl signature::Signer<Signature> for NeverSigns<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        self.octets.replace(Some(message.to_vec()));
        Err(signature::Error::new())
    }
}

/// Reads `to_be_signed` as the certificate it will be, with a signature that is none, for the lint rules to look at.
pub(crate) fn draft(to_be_signed: &[u8]) -> ssh_key::Result<Certificate> {
    let none = Signature::new(Algorithm::Ed25519, vec![0; 64])?;
    Certificate::from_bytes(&with_signature(to_be_signed, &none)?)
}

/// Puts a signature in the form of [`SignerAlgorithm`] behind what was signed and writes OpenSSH's line.
pub(crate) fn assemble(
    to_be_signed: &[u8],
    subject_type: &str,
    comment: &str,
    algorithm: SignerAlgorithm,
    signature: Vec<u8>,
) -> ssh_key::Result<String> {
    let octets = with_signature(to_be_signed, &ssh_signature(algorithm, signature)?)?;
    let mut line = String::with_capacity(subject_type.len() + octets.len() * 4 / 3 + comment.len() + 6);
    line.push_str(subject_type);
    line.push(' ');
    STANDARD.encode_string(&octets, &mut line);
    line.push(' ');
    line.push_str(comment);
    Ok(line)
}

fn with_signature(to_be_signed: &[u8], signature: &Signature) -> ssh_key::Result<Vec<u8>> {
    let mut octets = Vec::with_capacity(to_be_signed.len() + 600);
    octets.extend_from_slice(to_be_signed);
    signature.encode_prefixed(&mut octets)?;
    Ok(octets)
}

/// From the form of [`SignerAlgorithm`] to that of SSH (RFC 8709, RFC 5656 section 3.1.2, RFC 8332).
fn ssh_signature(algorithm: SignerAlgorithm, octets: Vec<u8>) -> ssh_key::Result<Signature> {
    match algorithm {
        SignerAlgorithm::Ed25519 => Signature::new(Algorithm::Ed25519, octets),
        SignerAlgorithm::EcdsaP256 => {
            let (r, s) = yasna::parse_der(&octets, |reader| {
                reader.read_sequence(|reader| {
                    Ok((reader.next().read_bigint_bytes()?.0, reader.next().read_bigint_bytes()?.0))
                })
            })
            .map_err(|_| ssh_key::Error::FormatEncoding)?;
            let mut pair = Vec::with_capacity(80);
            Mpint::from_positive_bytes(&r).encode(&mut pair)?;
            Mpint::from_positive_bytes(&s).encode(&mut pair)?;
            Signature::new(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }, pair)
        }
        SignerAlgorithm::RsaSha512 => Signature::new(Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, octets),
        SignerAlgorithm::RsaSha256 => Signature::new(Algorithm::Rsa { hash: Some(HashAlg::Sha256) }, octets),
    }
}

/// The signer's public half in the form of SSH; `None` when it is not of the algorithm it claims.
pub(crate) fn key_data(signer: &dyn Signer) -> Option<KeyData> {
    let octets = signer.public_key();
    match signer.algorithm() {
        SignerAlgorithm::Ed25519 => Ed25519PublicKey::try_from(octets).ok().map(KeyData::Ed25519),
        SignerAlgorithm::EcdsaP256 => EcdsaPublicKey::from_sec1_bytes(octets)
            .ok()
            .filter(|key| key.curve() == EcdsaCurve::NistP256)
            .map(KeyData::Ecdsa),
        SignerAlgorithm::RsaSha256 | SignerAlgorithm::RsaSha512 => {
            let (rest, key) = RSAPublicKey::from_der(octets).ok()?;
            let part = |octets: &[u8]| Mpint::from_positive_bytes(octets);
            let key = RsaPublicKey::new(part(key.exponent), part(key.modulus)).ok()?;
            rest.is_empty().then_some(KeyData::Rsa(key))
        }
    }
}

/// Name of the certificate type of a subject key, `ssh-ed25519-cert-v01@openssh.com` for one.
pub(crate) fn certificate_type(key: &PublicKey) -> String {
    key.algorithm().to_certificate_type()
}
