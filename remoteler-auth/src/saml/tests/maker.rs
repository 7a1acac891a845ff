//! An identity provider in a few lines: makes responses by a template, and signs them with a key of its own.

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_core::Timestamp;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};

use crate::saml::{
    Expected, IdpKey, SamlClaims, SamlError, ServiceProvider,
    algorithm::SignatureAlgorithm,
    c14n::{Choice, canonical},
    names::{ASSERTION, DSIG},
    sign::sign_enveloped,
    tree::{Comments, Element, Node},
};

pub(crate) const ACS: &str = "https://proxy.example.com/web/saml/corp/acs";
pub(crate) const ENTITY_ID: &str = "https://proxy.example.com/web/saml/corp/metadata";
pub(crate) const ISSUER: &str = "https://idp.example.com/saml";
pub(crate) const REQUEST: &str = "_request-1";
/// 2026-03-01T12:00:00Z
pub(crate) const NOW: Timestamp = Timestamp::from_unix_seconds(1_772_366_400);

pub(crate) struct Maker {
    pair: EcdsaKeyPair,
    pub(crate) certificate: String,
}

impl Maker {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["idp.example.com".into()]).unwrap().self_signed(&key).unwrap();
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &random).unwrap();
        Self { pair, certificate: STANDARD.encode(certificate.der()) }
    }

    pub(crate) fn provider(&self) -> ServiceProvider {
        ServiceProvider {
            acs: ACS.into(),
            audiences: vec![ENTITY_ID.into()],
            issuer: ISSUER.into(),
            keys: vec![IdpKey::from_certificate(&self.certificate).unwrap()],
            allow_unsolicited: false,
            decrypter: None,
        }
    }

    /// Signs what has this id, where the schema has the signature: after the issuer.
    pub(crate) fn sign(&self, document: &mut Element, id: &str) {
        let element = find(document, id).expect("there is such an id");
        let at = element.elements().position(|child| &*child.local == "Issuer").map_or(0, |at| at + 1);
        let sign = |octets: &[u8]| Some(self.pair.sign(&SystemRandom::new(), octets).unwrap().as_ref().to_vec());
        assert!(sign_enveloped(element, at, SignatureAlgorithm::EcdsaP256, sign).unwrap());
    }

    /// The usual response, with its assertion signed.
    pub(crate) fn response(&self) -> Element {
        self.signed(&template("ann@example.com"), &["_assertion"])
    }

    /// `text` with these ids signed, the inner first.
    pub(crate) fn signed(&self, text: &str, ids: &[&str]) -> Element {
        let mut document = parse(text);
        ids.iter().for_each(|id| self.sign(&mut document, id));
        document
    }

    pub(crate) fn accept(&self, document: &Element) -> Result<SamlClaims, SamlError> {
        self.provider().accept(&write(document), expected())
    }
}

pub(crate) fn expected() -> Expected<'static> {
    Expected { request: Some(REQUEST), now: NOW }
}

pub(crate) fn parse(text: &str) -> Element {
    Element::parse(text.as_bytes(), Comments::Refuse).unwrap()
}

pub(crate) fn write(document: &Element) -> Vec<u8> {
    canonical(document, &Choice::whole()).unwrap()
}

/// The element with this id.
pub(crate) fn find<'a>(element: &'a mut Element, id: &str) -> Option<&'a mut Element> {
    if element.attribute("ID") == Some(id) {
        return Some(element);
    }
    elements_mut(element).find_map(|child| find(child, id))
}

pub(crate) fn elements_mut(element: &mut Element) -> impl Iterator<Item = &mut Element> {
    element.children.iter_mut().filter_map(|node| match node {
        Node::Element(element) => Some(element),
        Node::Text(_) => None,
    })
}

/// Takes the first child of this name out.
pub(crate) fn take(element: &mut Element, local: &str) -> Element {
    let at = element.children.iter().position(|node| matches!(node, Node::Element(child) if &*child.local == local));
    match element.children.remove(at.expect("there is one")) {
        Node::Element(child) => child,
        Node::Text(_) => unreachable!("it was an element"),
    }
}

pub(crate) fn set(element: &mut Element, attribute: &str, value: &str) {
    element.attributes.iter_mut().find(|found| &*found.local == attribute).expect("there is one").value = value.into();
}

/// Says another name.
pub(crate) fn rename(element: &mut Element, name: &str) {
    if &*element.local == "NameID" {
        element.children = vec![Node::Text(name.into())];
    }
    elements_mut(element).for_each(|child| rename(child, name));
}

pub(crate) fn template(name: &str) -> String {
    format!(
        r#"<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="{ASSERTION}" xmlns:ds="{DSIG}" ID="_response" Version="2.0" IssueInstant="2026-03-01T11:59:59Z" Destination="{ACS}" InResponseTo="{REQUEST}"><saml:Issuer>{ISSUER}</saml:Issuer><samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status><saml:Assertion xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ID="_assertion" Version="2.0" IssueInstant="2026-03-01T11:59:59.123Z"><saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity">{ISSUER}</saml:Issuer><saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress">{name}</saml:NameID><saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData NotOnOrAfter="2026-03-01T12:05:00Z" Recipient="{ACS}" InResponseTo="{REQUEST}"/></saml:SubjectConfirmation></saml:Subject><saml:Conditions NotBefore="2026-03-01T11:59:30Z" NotOnOrAfter="2026-03-01T12:05:00Z"><saml:AudienceRestriction><saml:Audience>{ENTITY_ID}</saml:Audience></saml:AudienceRestriction></saml:Conditions><saml:AuthnStatement AuthnInstant="2026-03-01T11:59:00Z" SessionIndex="s1" SessionNotOnOrAfter="2026-03-01T20:00:00Z"><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement><saml:AttributeStatement><saml:Attribute Name="groups" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic"><saml:AttributeValue xsi:type="xs:string">dev</saml:AttributeValue><saml:AttributeValue xsi:type="xs:string">o&amp;m</saml:AttributeValue></saml:Attribute></saml:AttributeStatement></saml:Assertion></samlp:Response>"#
    )
}
