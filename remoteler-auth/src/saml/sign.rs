//! Makes the enveloped signature that [`super::signature`] verifies: for our own requests, and for the responses that tests make.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    algorithm::{DigestAlgorithm, SignatureAlgorithm},
    c14n::{Choice, canonical},
    names::{DSIG, ENVELOPED, EXC_C14N},
    tree::{Comments, Element, Node, XmlError},
};

/// Puts a signature of `element` into it, as its child number `at`. `sign` gets the octets and returns the signature in the form of `algorithm`;
/// `None` from it comes back as `Ok(false)`, and nothing was put anywhere.
pub(crate) fn sign_enveloped(
    element: &mut Element,
    at: usize,
    algorithm: SignatureAlgorithm,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<bool, XmlError> {
    let too_large = |_| XmlError::TooLarge("octets when it is canonical");
    let octets = canonical(element, &Choice::whole()).map_err(too_large)?;
    let id = element.attribute("ID").ok_or(XmlError::Malformed("what is signed has no ID"))?;
    let digest = DigestAlgorithm::Sha256;
    let info = format!(
        "<ds:SignedInfo xmlns:ds=\"{DSIG}\"><ds:CanonicalizationMethod Algorithm=\"{EXC_C14N}\"/>\
         <ds:SignatureMethod Algorithm=\"{method}\"/><ds:Reference URI=\"#{id}\"><ds:Transforms>\
         <ds:Transform Algorithm=\"{ENVELOPED}\"/><ds:Transform Algorithm=\"{EXC_C14N}\"/></ds:Transforms>\
         <ds:DigestMethod Algorithm=\"{digest_method}\"/><ds:DigestValue>{value}</ds:DigestValue></ds:Reference></ds:SignedInfo>",
        method = algorithm.uri(),
        digest_method = digest.uri(),
        value = STANDARD.encode(digest.digest(&octets)),
    );
    let info = canonical(&Element::parse(info.as_bytes(), Comments::Refuse)?, &Choice::whole()).map_err(too_large)?;
    let Some(signature) = sign(&info) else { return Ok(false) };
    let signature = format!(
        "<ds:Signature xmlns:ds=\"{DSIG}\">{}<ds:SignatureValue>{}</ds:SignatureValue></ds:Signature>",
        String::from_utf8_lossy(&info),
        STANDARD.encode(signature)
    );
    let signature = Element::parse(signature.as_bytes(), Comments::Refuse)?;
    let at = at.min(element.children.len());
    element.children.insert(at, Node::Element(signature));
    Ok(true)
}
