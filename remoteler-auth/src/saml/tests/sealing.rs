//! Encrypts as identity providers do, for keys that are made once for all tests.

use std::sync::{Arc, LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_ca::SamlDecrypter;
use remoteler_core::{ClusterName, OsEntropy, fill_random};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rsa::{
    Oaep, Pkcs1v15Encrypt, RsaPublicKey,
    pkcs1::DecodeRsaPublicKey,
    rand_core::{Infallible, TryCryptoRng, TryRng},
};
use sha1::Sha1;
use sha2::Sha256;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::maker::{Maker, NOW, parse, take, template, write};
use crate::saml::{
    SamlClaims, SamlError, ServiceProvider,
    names::{ASSERTION, DSIG, XENC, XENC11},
    tests::maker::expected,
    tree::{Element, Node},
};

/// Our key, and that of somebody else.
pub(super) static OURS: LazyLock<Arc<SamlDecrypter>> = LazyLock::new(|| made("corp"));
pub(super) static OTHER: LazyLock<Arc<SamlDecrypter>> = LazyLock::new(|| made("other"));

fn made(connector: &str) -> Arc<SamlDecrypter> {
    Arc::new(SamlDecrypter::generate(&ClusterName::new("root").unwrap(), connector, None, NOW).unwrap())
}

/// How something is encrypted: what it says, and what is so.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(super) content: &'static str,
    pub(super) key: &'static str,
    pub(super) digest: Option<&'static str>,
    pub(super) mask: Option<&'static str>,
    /// Octets of the key of the content.
    pub(super) size: usize,
    /// The label of OAEP.
    pub(super) label: &'static str,
}

pub(crate) const USUAL: How = How {
    content: "http://www.w3.org/2009/xmlenc11#aes256-gcm",
    key: "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p",
    digest: None,
    mask: None,
    size: 32,
    label: "",
};

/// An `EncryptedAssertion` for whom this certificate is, with `plain` in it.
pub(crate) fn encrypted(certificate: &str, plain: &[u8], how: How) -> String {
    let How { content, key, digest, mask, size, label } = how;
    let algorithm = if size == 16 { &AES_128_GCM } else { &AES_256_GCM };
    let secret = fill_random::<32>(&OsEntropy);
    let nonce = fill_random::<12>(&OsEntropy);
    let mut sealed = plain.to_vec();
    LessSafeKey::new(UnboundKey::new(algorithm, &secret[..algorithm.key_len()]).unwrap())
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
        .unwrap();
    let sealed = STANDARD.encode([&nonce[..], &sealed].concat());

    let der = STANDARD.decode(certificate).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let public = RsaPublicKey::from_pkcs1_der(&certificate.public_key().subject_public_key.data).unwrap();
    let (secret, label_of) = (&secret[..size], label.as_bytes());
    let sha256 = digest.is_some_and(|digest| digest.ends_with("sha256"));
    let wrapped = match (sha256, mask.is_some_and(|mask| mask.ends_with("sha256"))) {
        _ if key.ends_with("rsa-1_5") => public.encrypt(&mut System, Pkcs1v15Encrypt, secret),
        (false, _) => public.encrypt(&mut System, Oaep::<Sha1>::new_with_label(label_of), secret),
        (true, true) => public.encrypt(&mut System, Oaep::<Sha256>::new_with_label(label_of), secret),
        (true, false) => public.encrypt(&mut System, Oaep::<Sha256, Sha1>::new_with_mgf_hash(), secret),
    };
    let wrapped = STANDARD.encode(wrapped.unwrap());

    let label = match label {
        "" => String::new(),
        label => format!("<xenc:OAEPparams>{}</xenc:OAEPparams>", STANDARD.encode(label)),
    };
    let named =
        |name: &str, uri: Option<&str>| uri.map(|uri| format!("<{name} Algorithm=\"{uri}\"/>")).unwrap_or_default();
    let (digest, mask) = (named("ds:DigestMethod", digest), named("xenc11:MGF", mask));
    format!(
        "<saml:EncryptedAssertion xmlns:saml=\"{ASSERTION}\" xmlns:xenc=\"{XENC}\" xmlns:xenc11=\"{XENC11}\" xmlns:ds=\"{DSIG}\">\
         <xenc:EncryptedData Id=\"_data\" Type=\"http://www.w3.org/2001/04/xmlenc#Element\">\
         <xenc:EncryptionMethod Algorithm=\"{content}\"/><ds:KeyInfo><xenc:EncryptedKey Id=\"_key\">\
         <xenc:EncryptionMethod Algorithm=\"{key}\">{label}{digest}{mask}</xenc:EncryptionMethod>\
         <ds:KeyInfo><ds:KeyName>corp</ds:KeyName></ds:KeyInfo>\
         <xenc:CipherData><xenc:CipherValue>{wrapped}</xenc:CipherValue></xenc:CipherData></xenc:EncryptedKey></ds:KeyInfo>\
         <xenc:CipherData><xenc:CipherValue>{sealed}</xenc:CipherValue></xenc:CipherData></xenc:EncryptedData></saml:EncryptedAssertion>"
    )
}

/// The assertion of a response, as a document of its own.
pub(super) fn assertion(response: &Element) -> String {
    String::from_utf8(write(&take(&mut response.clone(), "Assertion"))).unwrap()
}

/// The usual response with `inner` where its assertion would be, not signed yet.
pub(crate) fn around(template: &str, inner: &str) -> Element {
    let mut response = parse(template);
    take(&mut response, "Assertion");
    if !inner.is_empty() {
        let holder = parse(&format!("<x>{inner}</x>"));
        response.children.extend(holder.children);
    }
    response
}

impl Maker {
    /// Us, with a key to decrypt with.
    pub(super) fn decrypting(&self) -> ServiceProvider {
        ServiceProvider { decrypter: Some(Arc::clone(&OURS)), ..self.provider() }
    }

    /// A signed response around something.
    pub(super) fn signed_around(&self, inner: &str) -> Element {
        let mut response = around(&template("ann@example.com"), inner);
        self.sign(&mut response, "_response");
        response
    }

    /// What becomes of a signed response around this, encrypted for us.
    pub(super) fn says(&self, plain: &str) -> Result<SamlClaims, SamlError> {
        self.judged(&self.signed_around(&encrypted(OURS.certificate(), plain.as_bytes(), USUAL)))
    }

    pub(super) fn judged(&self, document: &Element) -> Result<SamlClaims, SamlError> {
        self.decrypting().accept(&write(document), expected())
    }
}

/// Every element of this name, wherever it stands.
pub(super) fn named<'a>(element: &'a mut Element, local: &str) -> Option<&'a mut Element> {
    if &*element.local == local {
        return Some(element);
    }
    element.children.iter_mut().find_map(|node| match node {
        Node::Element(child) => named(child, local),
        Node::Text(_) => None,
    })
}

struct System;

impl TryRng for System {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_ne_bytes(fill_random(&OsEntropy)))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_ne_bytes(fill_random(&OsEntropy)))
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Infallible> {
        octets.fill_with(|| fill_random::<1>(&OsEntropy)[0]);
        Ok(())
    }
}

impl TryCryptoRng for System {}
