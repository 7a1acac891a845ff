//! Encrypted assertions (XML Encryption 1.1, in the one form that SAML 2.0 Core section 6 gives them). Owns which algorithms open, and what decrypted octets
//! must be.
//!
//! Only what a verified signature covers is decrypted: [`open`] takes the proof [`Signed`] of the response, and looks at nothing else. So nobody but the identity
//! provider chooses what the private key and the parser work on, and neither their answers nor their time are an oracle to anybody else. What was decrypted is a
//! document of its own: declarations of namespaces around it do not count, for a signature does not cover those that nothing beside the ciphertext uses.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_ca::{OaepDigests, SamlDecrypter};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{
    cursor::{Cursor, ShapeError, need_attribute, need_empty, need_text},
    names::{ASSERTION, DSIG, PROTOCOL, XENC, XENC11},
    signature::Signed,
    tree::{Comments, Element, XmlError, is_id},
};

/// Why an encrypted assertion is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncryptionError {
    /// The connector takes none, or has no key yet.
    #[error(
        "the SAML assertion is encrypted, which this connector does not take; set encrypted_assertions: true in it and give the identity provider our metadata anew, or turn the encryption off there"
    )]
    Off,
    /// A part of an assertion is encrypted.
    #[error(
        "the SAML assertion holds an {0}, which is not decrypted; have the identity provider encrypt whole assertions, or nothing"
    )]
    Part(&'static str),
    /// Nothing signed covers it.
    #[error(
        "the SAML assertion is encrypted and the response around it is not signed, so that anybody may have made it; have the identity provider sign the response, after it encrypts"
    )]
    NotCovered,
    /// An algorithm that opens nothing here.
    #[error(
        "the SAML assertion is encrypted with {0}, which is refused; have the identity provider encrypt with AES-256-GCM or AES-128-GCM, and its key with RSA-OAEP"
    )]
    Algorithm(&'static str),
    /// Not in the form of SAML.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// For another key, or changed.
    #[error(
        "the SAML assertion does not open with the key of this connector; give the identity provider the certificate for encryption in our metadata"
    )]
    Closed,
    /// Decrypted octets that are not read.
    #[error("what was decrypted cannot be read: {0}")]
    Content(#[from] XmlError),
    /// Decrypted octets that are something else.
    #[error("what was decrypted is no Assertion that stands for itself, with all its namespaces declared")]
    NotAnAssertion,
}

/// The algorithms that our metadata asks for: of contents, then of keys.
pub(crate) const OFFERED: [&str; 4] = [AES256_GCM, AES128_GCM, OAEP_MGF1P, OAEP];

/// The assertion in the one `EncryptedAssertion` of a signed response, as a document of its own.
pub(crate) fn open(signed: &Signed, key: &SamlDecrypter) -> Result<Element, EncryptionError> {
    let response = signed.element();
    let mut holders = response.elements().filter(|child| child.is(ASSERTION, "EncryptedAssertion"));
    let (true, Some(holder), None) = (response.is(PROTOCOL, "Response"), holders.next(), holders.next()) else {
        return Err(ShapeError::new(response, "has no encrypted assertion of its own, or several").into());
    };
    let octets = Sealed::read(holder)?.open(key).ok_or(EncryptionError::Closed)?;
    // A prefix that is declared around it only is one that anybody may have declared.
    let assertion = match Element::parse(&octets, Comments::Refuse) {
        Err(XmlError::Malformed("a prefix is not declared")) => return Err(EncryptionError::NotAnAssertion),
        read => read?,
    };
    if !assertion.is(ASSERTION, "Assertion") {
        return Err(EncryptionError::NotAnAssertion);
    }
    check(response, &assertion)?;
    Ok(assertion)
}

/// That nothing in the assertion is encrypted once more, and none of its ids is one of the response.
fn check(response: &Element, assertion: &Element) -> Result<(), EncryptionError> {
    let (mut known, mut again, mut twice) = (BTreeSet::new(), false, false);
    response.walk(&mut |element| known.extend(ids(element)));
    assertion.walk(&mut |element| {
        again |= *element.namespace == *XENC;
        twice |= ids(element).any(|id| known.contains(id));
    });
    match (again, twice) {
        (true, _) => Err(ShapeError::new(assertion, "has something encrypted in it").into()),
        (_, true) => Err(XmlError::Refused("one id twice").into()),
        _ => Ok(()),
    }
}

fn ids(element: &Element) -> impl Iterator<Item = &str> {
    let ids = element.attributes.iter().filter(|attribute| is_id(&attribute.namespace, &attribute.local));
    ids.map(|attribute| &*attribute.value)
}

/// An `EncryptedAssertion`, taken apart.
#[derive(Debug)]
struct Sealed {
    content: &'static Algorithm,
    octets: Vec<u8>,
    digests: OaepDigests,
    wrapped: Vec<u8>,
}

impl Sealed {
    /// Reads the one form that is taken: `EncryptedData`, with its `EncryptedKey` in its own `KeyInfo`. Nothing in it refers to something elsewhere.
    fn read(holder: &Element) -> Result<Self, EncryptionError> {
        let mut parts = Cursor::new(holder)?;
        let data = parts.need(XENC, "EncryptedData")?;
        parts.end()?;
        if data.attribute("Type").is_some_and(|kind| kind != ELEMENT) {
            return Err(ShapeError::new(data, "is of another Type than an element").into());
        }
        let mut of_data = Cursor::new(data)?;
        let method = of_data.need(XENC, "EncryptionMethod")?;
        need_empty(method)?;
        let content = match need_attribute(method, "Algorithm")? {
            AES128_GCM => &AES_128_GCM,
            AES256_GCM => &AES_256_GCM,
            other => return Err(EncryptionError::Algorithm(named(other))),
        };
        let info = of_data.need(DSIG, "KeyInfo")?;
        let octets = cipher(&mut of_data)?;
        of_data.end()?;

        let mut of_info = Cursor::new(info)?;
        let key = of_info.need(XENC, "EncryptedKey")?;
        of_info.end()?;
        let mut of_key = Cursor::new(key)?;
        let digests = oaep(of_key.need(XENC, "EncryptionMethod")?)?;
        // Whosever it says that the key is: there is one for this connector.
        let _ = of_key.maybe(DSIG, "KeyInfo");
        let wrapped = cipher(&mut of_key)?;
        of_key.end()?;
        Ok(Self { content, octets, digests, wrapped })
    }

    /// One answer for all that can be wrong with it.
    fn open(mut self, decrypter: &SamlDecrypter) -> Option<Zeroizing<Vec<u8>>> {
        let key = decrypter.unwrap_key(self.digests, &self.wrapped)?;
        let key = LessSafeKey::new(UnboundKey::new(self.content, &key).ok()?);
        // XML Encryption 1.1 section 5.2.4: the nonce, then what it seals, then the tag; no further data.
        let (nonce, sealed) = self.octets.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        key.open_in_place(nonce, Aad::empty(), sealed).ok().map(|octets| Zeroizing::new(octets.to_vec()))
    }
}

/// How a key is encrypted: RSA-OAEP with an empty label.
fn oaep(method: &Element) -> Result<OaepDigests, EncryptionError> {
    let named_mask = match need_attribute(method, "Algorithm")? {
        OAEP_MGF1P => false,
        OAEP => true,
        other => return Err(EncryptionError::Algorithm(named(other))),
    };
    let mut parts = Cursor::new(method)?;
    if parts.maybe(XENC, "OAEPparams").is_some_and(|params| params.text() != Some("")) {
        return Err(EncryptionError::Algorithm("RSA-OAEP with a label"));
    }
    // Section 5.5.2: both are SHA-1 where nothing is said, and in any order.
    let (mut digest, mut mask) = (parts.maybe(DSIG, "DigestMethod"), parts.maybe(XENC11, "MGF"));
    digest = digest.or_else(|| parts.maybe(DSIG, "DigestMethod"));
    parts.end()?;
    if !named_mask && mask.take().is_some() {
        return Err(ShapeError::new(method, "names the mask that its algorithm has already").into());
    }
    let algorithm = |element: Option<&'_ Element>, default| {
        element.map_or(Ok(default), |element| {
            need_empty(element)?;
            need_attribute(element, "Algorithm").map(str::to_owned)
        })
    };
    match (&*algorithm(digest, SHA1.to_owned())?, &*algorithm(mask, MASK_SHA1.to_owned())?) {
        (SHA1, MASK_SHA1) => Ok(OaepDigests::Sha1),
        (SHA256, MASK_SHA1) => Ok(OaepDigests::Sha256MaskSha1),
        (SHA256, MASK_SHA256) => Ok(OaepDigests::Sha256),
        _ => Err(EncryptionError::Algorithm(
            "RSA-OAEP with other digests than SHA-256, its mask of SHA-256 or SHA-1, or SHA-1 for both",
        )),
    }
}

/// The octets of the `CipherData` that comes next. They stand in it: what would be found elsewhere is not looked for.
fn cipher(parts: &mut Cursor<'_>) -> Result<Vec<u8>, ShapeError> {
    let mut of_data = Cursor::new(parts.need(XENC, "CipherData")?)?;
    let value = of_data.need(XENC, "CipherValue")?;
    of_data.end()?;
    let joined: String = need_text(value)?.split_ascii_whitespace().collect();
    STANDARD.decode(joined).map_err(|_| ShapeError::new(value, "is not base64"))
}

/// What a person calls an algorithm that is refused.
fn named(uri: &str) -> &'static str {
    let known = REFUSED.into_iter().find(|(refused, _)| *refused == uri);
    known.map_or("an algorithm that is not known", |(_, name)| name)
}

/// Without a tag on what is encrypted, or with padding that tells too much.
const REFUSED: [(&str, &str); 6] = [
    ("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "AES-128-CBC"),
    ("http://www.w3.org/2001/04/xmlenc#aes192-cbc", "AES-192-CBC"),
    ("http://www.w3.org/2001/04/xmlenc#aes256-cbc", "AES-256-CBC"),
    ("http://www.w3.org/2001/04/xmlenc#tripledes-cbc", "Triple DES"),
    ("http://www.w3.org/2009/xmlenc11#aes192-gcm", "AES-192-GCM"),
    ("http://www.w3.org/2001/04/xmlenc#rsa-1_5", "RSA PKCS #1 v1.5"),
];

const ELEMENT: &str = "http://www.w3.org/2001/04/xmlenc#Element";
const AES128_GCM: &str = "http://www.w3.org/2009/xmlenc11#aes128-gcm";
const AES256_GCM: &str = "http://www.w3.org/2009/xmlenc11#aes256-gcm";
const OAEP_MGF1P: &str = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p";
const OAEP: &str = "http://www.w3.org/2009/xmlenc11#rsa-oaep";
const SHA1: &str = "http://www.w3.org/2000/09/xmldsig#sha1";
const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
const MASK_SHA1: &str = "http://www.w3.org/2009/xmlenc11#mgf1sha1";
const MASK_SHA256: &str = "http://www.w3.org/2009/xmlenc11#mgf1sha256";

/// What a fuzzer does with the form of an encrypted assertion: it is read, or refused.
pub(crate) fn fuzz(document: &Element) {
    document.walk(&mut |element| {
        if element.is(ASSERTION, "EncryptedAssertion") {
            let _ = Sealed::read(element);
        }
    });
}
