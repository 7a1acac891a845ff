//! Enveloped XML signatures, in the one form that SAML 2.0 Core section 5.4 gives them. Owns the proof [`Signed`]: octets whose digest was signed by
//! a key of the configuration, read anew. Who has no such proof has no claims (I45).

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_core::Timestamp;

use super::{
    algorithm::{DigestAlgorithm, SignatureAlgorithm},
    c14n::{Choice, canonical},
    cursor::{Cursor, ShapeError, need_attribute, need_empty, need_text},
    idp::IdpKey,
    names::{DSIG, ENVELOPED, EXC_C14N},
    tree::{Comments, Element, Node, XmlError, is_ncname},
};

/// Why a signature is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not in the form of section 5.4.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// An algorithm, transform or way to canonical octets that is not believed.
    #[error(
        "the signature uses {0}, which is not on the list; have the identity provider sign with rsa-sha256, sha256 and exclusive canonicalization"
    )]
    Algorithm(&'static str),
    /// It signs something else than the element that it stands in.
    #[error("the signature does not sign the {0} that it stands in")]
    Elsewhere(Box<str>),
    /// What was signed was changed.
    #[error("the {0} was changed after it was signed")]
    Digest(Box<str>),
    /// No key that is configured made it.
    #[error(
        "the signature is by none of the {0} keys of the identity provider that are configured; has it changed its key?"
    )]
    Key(usize),
    /// All certificates are over, or not yet valid.
    #[error("no certificate of the identity provider is valid at this time; give its new one to the connector")]
    NoKey,
    /// The canonical octets do not read as the document did.
    #[error("the signed octets cannot be read: {0}")]
    Octets(#[from] XmlError),
}

/// Proof that a key of the identity provider signed this element, without its signature: read from the canonical octets whose digest was signed.
#[derive(Debug)]
pub(crate) struct Signed {
    element: Element,
}

impl Signed {
    /// What was signed.
    pub(crate) fn element(&self) -> &Element {
        &self.element
    }
}

/// Verifies the one signature that stands in `element`; `around` are the elements around it, the outermost first.
pub(crate) fn verify<'a>(
    element: &'a Element,
    around: &[&'a Element],
    keys: &[IdpKey],
    now: Timestamp,
) -> Result<Signed, SignatureError> {
    let mut found = element.children.iter().enumerate().filter_map(|(at, node)| match node {
        Node::Element(child) if child.is(DSIG, "Signature") => Some((at, child)),
        Node::Element(_) | Node::Text(_) => None,
    });
    let (Some((at, signature)), None) = (found.next(), found.next()) else {
        return Err(ShapeError::new(element, "has no signature of its own, or several").into());
    };
    let parts = Parts::read(signature)?;

    let id = need_attribute(element, "ID")?;
    if !is_ncname(id) || parts.uri.strip_prefix('#') != Some(id) {
        return Err(SignatureError::Elsewhere(element.local.clone()));
    }
    let choice = Choice::whole().without(at).inclusive(parts.inclusive.clone(), around.to_vec());
    let octets = canonical(element, &choice).map_err(|_| XmlError::TooLarge("octets when it is canonical"))?;
    if parts.digest_algorithm.digest(&octets).as_ref() != parts.digest {
        return Err(SignatureError::Digest(element.local.clone()));
    }

    let mut outer = around.to_vec();
    outer.extend([element, signature]);
    let choice = Choice::whole().inclusive(parts.info_inclusive.clone(), outer);
    let info = canonical(parts.info, &choice).map_err(|_| XmlError::TooLarge("octets when it is canonical"))?;
    if !keys.iter().any(|key| key.is_current(now)) {
        return Err(SignatureError::NoKey);
    }
    let made = |key: &IdpKey| key.is_current(now) && key.made(parts.algorithm, &info, &parts.signature);
    if !keys.iter().any(made) {
        return Err(SignatureError::Key(keys.len()));
    }
    Ok(Signed { element: Element::parse(&octets, Comments::Refuse)? })
}

/// A signature, taken apart.
struct Parts<'a> {
    info: &'a Element,
    info_inclusive: Vec<&'a str>,
    algorithm: SignatureAlgorithm,
    signature: Vec<u8>,
    uri: &'a str,
    inclusive: Vec<&'a str>,
    digest_algorithm: DigestAlgorithm,
    digest: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn read(signature: &'a Element) -> Result<Self, SignatureError> {
        let mut parts = Cursor::new(signature)?;
        let info = parts.need(DSIG, "SignedInfo")?;
        let value = parts.need(DSIG, "SignatureValue")?;
        // Whatever the key information says: keys come from the configuration (I47).
        let _ = parts.maybe(DSIG, "KeyInfo");
        parts.end()?;

        let mut of_info = Cursor::new(info)?;
        let method = of_info.need(DSIG, "CanonicalizationMethod")?;
        if need_attribute(method, "Algorithm")? != EXC_C14N {
            return Err(SignatureError::Algorithm("another canonicalization"));
        }
        let info_inclusive = prefixes(method)?;
        let method = of_info.need(DSIG, "SignatureMethod")?;
        need_empty(method)?;
        let algorithm = SignatureAlgorithm::from_uri(need_attribute(method, "Algorithm")?)
            .ok_or(SignatureError::Algorithm("a signature algorithm"))?;
        let reference = of_info.need(DSIG, "Reference")?;
        of_info.end()?;

        let uri = need_attribute(reference, "URI")?;
        let mut of_reference = Cursor::new(reference)?;
        let transforms = of_reference.need(DSIG, "Transforms")?;
        let method = of_reference.need(DSIG, "DigestMethod")?;
        need_empty(method)?;
        let digest_algorithm = DigestAlgorithm::from_uri(need_attribute(method, "Algorithm")?)
            .ok_or(SignatureError::Algorithm("a digest algorithm"))?;
        let digest = octets(of_reference.need(DSIG, "DigestValue")?)?;
        of_reference.end()?;

        let mut of_transforms = Cursor::new(transforms)?;
        let enveloped = of_transforms.need(DSIG, "Transform")?;
        let exclusive = of_transforms.need(DSIG, "Transform")?;
        of_transforms.end()?;
        need_empty(enveloped)?;
        if need_attribute(enveloped, "Algorithm")? != ENVELOPED || need_attribute(exclusive, "Algorithm")? != EXC_C14N {
            return Err(SignatureError::Algorithm("a transform"));
        }
        let inclusive = prefixes(exclusive)?;
        let signature = octets(value)?;
        Ok(Self { info, info_inclusive, algorithm, signature, uri, inclusive, digest_algorithm, digest })
    }
}

/// The prefixes of an `InclusiveNamespaces` in a method or transform, if there is one.
fn prefixes(method: &Element) -> Result<Vec<&str>, SignatureError> {
    let mut parts = Cursor::new(method)?;
    let Some(inclusive) = parts.maybe(EXC_C14N, "InclusiveNamespaces") else {
        parts.end()?;
        return Ok(Vec::new());
    };
    parts.end()?;
    need_empty(inclusive)?;
    let list = inclusive.attribute("PrefixList").unwrap_or_default().split_ascii_whitespace();
    let list: Vec<_> = list.map(|prefix| if prefix == "#default" { "" } else { prefix }).collect();
    if list.len() > MAX_PREFIXES {
        return Err(ShapeError::new(inclusive, "names too many prefixes").into());
    }
    Ok(list)
}

/// Base64, which may be broken into lines.
fn octets(element: &Element) -> Result<Vec<u8>, SignatureError> {
    let joined: String = need_text(element)?.split_ascii_whitespace().collect();
    STANDARD.decode(joined).map_err(|_| ShapeError::new(element, "is not base64").into())
}

/// Most prefixes of a list.
const MAX_PREFIXES: usize = 32;
