//! Our requests (SAML 2.0 Core section 3.4): made, signed, and put into a URL or a form (Bindings sections 3.4 and 3.5). Each is signed by the key of
//! its connector.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::DeflateEncoder};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::escape::escape;
use remoteler_ca::SamlSigner;
use remoteler_core::Timestamp;

use super::{
    algorithm::SignatureAlgorithm,
    c14n::{Choice, canonical},
    names::{ASSERTION, POST, PROTOCOL},
    sign::sign_enveloped,
    tree::{Comments, Element, XmlError},
};

/// A request to log a user in.
#[derive(Clone, Copy, Debug)]
pub struct AuthnRequest<'a> {
    /// Its id: an underscore and what nobody can guess. The response must repeat it.
    pub id: &'a str,
    /// The time.
    pub now: Timestamp,
    /// Where it goes: the single sign-on service of the identity provider.
    pub destination: &'a str,
    /// Where the response is to be posted.
    pub acs: &'a str,
    /// Our entity id.
    pub issuer: &'a str,
    /// Whether the user is to prove anew who they are.
    pub force_authn: bool,
}

/// A form that the browser posts to the identity provider by a person's click, or a script of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostForm {
    /// Where to.
    pub action: String,
    /// Value of the field `SAMLRequest`.
    pub saml_request: String,
    /// Value of the field `RelayState`.
    pub relay_state: String,
}

/// Why no request was made. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A value of the connector cannot stand in XML.
    #[error("the SAML request could not be written: {0}")]
    Xml(#[from] XmlError),
    /// The key did not sign.
    #[error("the SAML request could not be signed")]
    Unsigned,
}

impl AuthnRequest<'_> {
    fn element(&self) -> Result<Element, XmlError> {
        let text = format!(
            "<samlp:AuthnRequest xmlns:samlp=\"{PROTOCOL}\" xmlns:saml=\"{ASSERTION}\" ID=\"{id}\" Version=\"2.0\" \
             IssueInstant=\"{now}\" Destination=\"{destination}\" ForceAuthn=\"{force}\" ProtocolBinding=\"{POST}\" \
             AssertionConsumerServiceURL=\"{acs}\"><saml:Issuer>{issuer}</saml:Issuer>\
             <samlp:NameIDPolicy AllowCreate=\"true\"/></samlp:AuthnRequest>",
            id = escape(self.id),
            now = self.now,
            destination = escape(self.destination),
            force = self.force_authn,
            acs = escape(self.acs),
            issuer = escape(self.issuer),
        );
        Element::parse(text.as_bytes(), Comments::Refuse)
    }

    /// The URL that the browser is redirected to (HTTP-Redirect binding, deflated and signed as Bindings section 3.4.4.1 says).
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn redirect(&self, relay_state: &str, signer: &SamlSigner) -> Result<String, RequestError> {
        let text = written(&self.element()?)?;
        let mut deflated = DeflateEncoder::new(Vec::new(), Compression::default());
        let octets = deflated.write_all(&text).and_then(|()| deflated.finish()).map_err(|_| RequestError::Unsigned)?;
        let query = format!(
            "SAMLRequest={}&RelayState={}&SigAlg={}",
            encoded(&STANDARD.encode(octets)),
            encoded(relay_state),
            encoded(SignatureAlgorithm::RsaSha256.uri())
        );
        let signature = signer.sign(query.as_bytes()).map_err(|_| RequestError::Unsigned)?;
        let joint = if self.destination.contains('?') { '&' } else { '?' };
        Ok(format!("{}{joint}{query}&Signature={}", self.destination, encoded(&STANDARD.encode(signature))))
    }

    /// The form that the browser posts (HTTP-POST binding, with an enveloped signature).
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn post(&self, relay_state: &str, signer: &SamlSigner) -> Result<PostForm, RequestError> {
        let mut element = self.element()?;
        // After the issuer, where the schema has it.
        if !sign_enveloped(&mut element, 1, SignatureAlgorithm::RsaSha256, |octets| signer.sign(octets).ok())? {
            return Err(RequestError::Unsigned);
        }
        Ok(PostForm {
            action: self.destination.to_owned(),
            saml_request: STANDARD.encode(written(&element)?),
            relay_state: relay_state.to_owned(),
        })
    }
}

fn written(element: &Element) -> Result<Vec<u8>, XmlError> {
    canonical(element, &Choice::whole()).map_err(|_| XmlError::TooLarge("octets when it is canonical"))
}

fn encoded(text: &str) -> String {
    /// RFC 3986 section 2.3 has these beside letters and digits.
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}
