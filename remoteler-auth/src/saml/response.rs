//! The service provider's decision on a response (SAML 2.0 Profiles section 4.1.4). Owns every check of I45 to I47 but one, that an assertion was not
//! seen before: that takes a store. Who calls has taken the login request, and says what it expects.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_ca::SamlDecrypter;
use remoteler_core::Timestamp;

use super::{
    claims::{NameId, SamlClaims},
    cursor::{Cursor, ShapeError, need_attribute, need_empty, need_text},
    encrypted::{self, EncryptionError},
    error::SamlError,
    idp::IdpKey,
    names::{ASSERTION, BEARER, DSIG, ENTITY, PROTOCOL, SUCCESS},
    signature::{Signed, verify},
    tree::{Comments, Element, MAX_DOCUMENT},
};

/// How far clocks may be apart (I46).
const SKEW: Duration = Duration::from_secs(60);
/// How long an assertion may count: its id is remembered that long.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Longest name and value that is taken up, in octets.
const MAX_VALUE: usize = 8 * 1024;
/// Longest name of a user, in octets.
const MAX_NAME: usize = 512;

/// This cluster, as one identity provider knows it.
#[derive(Clone, Debug)]
pub struct ServiceProvider {
    /// Where responses are posted: the assertion consumer service.
    pub acs: String,
    /// Names under which assertions may be for us; our entity id among them, if it is to count.
    pub audiences: Vec<String>,
    /// Entity id of the identity provider.
    pub issuer: String,
    /// Its keys.
    pub keys: Vec<IdpKey>,
    /// Whether a response may come that nobody asked for.
    pub allow_unsolicited: bool,
    /// The key for which it encrypts assertions; `None` when it is not to.
    pub decrypter: Option<Arc<SamlDecrypter>>,
}

/// What the login is that a response is for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Id of the request that was sent and is taken with this answer; `None` when there was none.
    pub request: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
}

/// The octets of a form field `SAMLResponse` (SAML 2.0 Bindings section 3.5.4). They are XML as they are: nothing is inflated.
///
/// # Errors
/// [`SamlError::Base64`], [`SamlError::Xml`] for more than 256 KiB.
pub fn decode_form_field(field: &str) -> Result<Vec<u8>, SamlError> {
    // Base64 makes four of three; some break it into lines.
    if field.len() > MAX_DOCUMENT / 3 * 4 + MAX_DOCUMENT / 8 {
        return Err(super::tree::XmlError::TooLarge("octets").into());
    }
    let joined: String = field.split_ascii_whitespace().collect();
    STANDARD.decode(joined).map_err(|_| SamlError::Base64)
}

impl ServiceProvider {
    /// Believes a response, or says why not. What comes back was read from octets whose digest was signed. That the assertion was not used before is
    /// asked by whoever calls.
    ///
    /// # Errors
    /// [`SamlError`]
    pub fn accept(&self, octets: &[u8], expected: Expected<'_>) -> Result<SamlClaims, SamlError> {
        let response = Element::parse(octets, Comments::Refuse)?;
        if !response.is(PROTOCOL, "Response") {
            return Err(ShapeError::new(&response, "stands where a Response is due").into());
        }
        let assertion = self.envelope(&response, &expected)?;
        let signed = self.signed(&response, assertion, expected.now)?;
        // From here on nothing is read but what was signed.
        let assertion = match signed.element() {
            element if element.is(ASSERTION, "Assertion") => element,
            element => {
                // All of the response is signed: the same checks once more, on the octets that were.
                self.envelope(element, &expected)?
            }
        };
        if assertion.is(ASSERTION, "Assertion") {
            self.assertion(assertion, &expected)
        } else {
            self.decrypted(&signed, &expected)
        }
    }

    /// Believes the encrypted assertion of a response that is signed as a whole. One that is signed itself must be so rightly.
    fn decrypted(&self, response: &Signed, expected: &Expected<'_>) -> Result<SamlClaims, SamlError> {
        let decrypter = self.decrypter.as_deref().ok_or(EncryptionError::Off)?;
        let assertion = encrypted::open(response, decrypter)?;
        let (signatures, assertions) = counted(&assertion);
        if assertions != 1 {
            return Err(ShapeError::new(&assertion, "has more than one assertion in it").into());
        }
        match (signatures, has_signature(&assertion)) {
            (0, false) => self.assertion(&assertion, expected),
            (1, true) => {
                let signed = verify(&assertion, &[], &self.keys, expected.now)?;
                self.assertion(signed.element(), expected)
            }
            _ => Err(ShapeError::new(&assertion, "has signatures elsewhere than in itself").into()),
        }
    }

    /// Checks what is around the assertion, encrypted or not, and that there is one.
    fn envelope<'a>(&self, response: &'a Element, expected: &Expected<'_>) -> Result<&'a Element, SamlError> {
        check_version(response)?;
        let issued = moment(response, "IssueInstant")?;
        if issued > expected.now.plus(SKEW) {
            return Err(SamlError::Time { what: "is of the future" });
        }
        same("Destination", need_attribute(response, "Destination")?, &self.acs)?;
        self.answers(response.attribute("InResponseTo"), expected)?;

        let mut parts = Cursor::new(response)?;
        if let Some(issuer) = parts.maybe(ASSERTION, "Issuer") {
            self.issuer(issuer)?;
        }
        let _ = parts.maybe(DSIG, "Signature");
        check_status(parts.need(PROTOCOL, "Status")?)?;
        let assertion = match parts.maybe(ASSERTION, "EncryptedAssertion") {
            Some(_) if self.decrypter.is_none() => return Err(EncryptionError::Off.into()),
            Some(encrypted) => encrypted,
            None => parts.need(ASSERTION, "Assertion")?,
        };
        parts.end()?;
        Ok(assertion)
    }

    /// Verifies every signature in the document. There is none but that of the response and that of its assertion.
    fn signed(&self, response: &Element, assertion: &Element, now: Timestamp) -> Result<Signed, SamlError> {
        let (signatures, assertions) = counted(response);
        if assertions != 1 {
            return Err(ShapeError::new(response, "has more than one assertion in it").into());
        }
        let (outer, inner) = (has_signature(response), has_signature(assertion));
        // Whatever else is signed: what covers the ciphertext is the signature of the response.
        if assertion.is(ASSERTION, "EncryptedAssertion") && (inner || !outer) {
            return Err(EncryptionError::NotCovered.into());
        }
        if signatures != usize::from(outer) + usize::from(inner) {
            return Err(ShapeError::new(response, "has signatures elsewhere than in itself and its assertion").into());
        }
        let outer = outer.then(|| verify(response, &[], &self.keys, now)).transpose()?;
        let inner = inner.then(|| verify(assertion, &[response], &self.keys, now)).transpose()?;
        inner.or(outer).ok_or(SamlError::Unsigned)
    }

    fn assertion(&self, assertion: &Element, expected: &Expected<'_>) -> Result<SamlClaims, SamlError> {
        let now = expected.now;
        check_version(assertion)?;
        let assertion_id = bounded(assertion, need_attribute(assertion, "ID")?, MAX_NAME)?;
        if moment(assertion, "IssueInstant")? > now.plus(SKEW) {
            return Err(SamlError::Time { what: "is of the future" });
        }
        let mut parts = Cursor::new(assertion)?;
        self.issuer(parts.need(ASSERTION, "Issuer")?)?;
        let _ = parts.maybe(DSIG, "Signature");
        let (name_id, confirmed_until) = self.subject(parts.need(ASSERTION, "Subject")?, expected)?;
        let until = self.conditions(parts.need(ASSERTION, "Conditions")?, now)?;
        let statement = parts.need(ASSERTION, "AuthnStatement")?;
        let mut attributes = BTreeMap::new();
        for statement in parts.all(ASSERTION, "AttributeStatement") {
            take_attributes(statement, &mut attributes)?;
        }
        parts.end()?;

        if moment(statement, "AuthnInstant")? > now.plus(SKEW) {
            return Err(SamlError::Time { what: "is of the future" });
        }
        let session_ends = maybe_moment(statement, "SessionNotOnOrAfter")?;
        if session_ends.is_some_and(|ends| ends.plus(SKEW) <= now) {
            return Err(SamlError::Time { what: "is of a session that is over" });
        }
        let session_index = statement.attribute("SessionIndex");
        Ok(SamlClaims {
            issuer: self.issuer.clone(),
            name_id,
            assertion_id,
            remember_until: until.min(confirmed_until).plus(SKEW),
            session_index: session_index.map(|index| bounded(statement, index, MAX_NAME)).transpose()?,
            session_ends,
            attributes,
        })
    }

    /// The user, and until when the bearer of the assertion is taken for the user.
    fn subject(&self, subject: &Element, expected: &Expected<'_>) -> Result<(NameId, Timestamp), SamlError> {
        let mut parts = Cursor::new(subject)?;
        if parts.peek().is_some_and(|next| next.is(ASSERTION, "EncryptedID")) {
            return Err(EncryptionError::Part("EncryptedID").into());
        }
        let name = parts.need(ASSERTION, "NameID")?;
        let confirmation = parts.need(ASSERTION, "SubjectConfirmation")?;
        parts.end()?;
        let value = need_text(name).map_err(|_| SamlError::Nobody("its NameID is empty".into()))?;
        let attribute = |local| name.attribute(local).map(|value| bounded(name, value, MAX_NAME)).transpose();
        let name_id = NameId {
            value: bounded(name, value, MAX_NAME)?,
            format: attribute("Format")?,
            name_qualifier: attribute("NameQualifier")?,
            sp_name_qualifier: attribute("SPNameQualifier")?,
        };
        if name_id.value.chars().any(char::is_control) {
            return Err(SamlError::Nobody("its NameID has control characters".into()));
        }

        same("Method", need_attribute(confirmation, "Method")?, BEARER)?;
        let mut parts = Cursor::new(confirmation)?;
        let proof = parts.need(ASSERTION, "SubjectConfirmationData")?;
        parts.end()?;
        need_empty(proof)?;
        same("Recipient", need_attribute(proof, "Recipient")?, &self.acs)?;
        self.answers(proof.attribute("InResponseTo"), expected)?;
        if proof.attribute("NotBefore").is_some() {
            // Profiles section 4.1.4.2: it must not be there.
            return Err(ShapeError::new(proof, "has a NotBefore").into());
        }
        let until = moment(proof, "NotOnOrAfter")?;
        check_end(until, expected.now)?;
        Ok((name_id, until))
    }

    /// Until when the assertion counts.
    fn conditions(&self, conditions: &Element, now: Timestamp) -> Result<Timestamp, SamlError> {
        if moment(conditions, "NotBefore")? > now.plus(SKEW) {
            return Err(SamlError::Time { what: "does not count yet" });
        }
        let until = moment(conditions, "NotOnOrAfter")?;
        check_end(until, now)?;
        let mut audiences = 0;
        for condition in Cursor::new(conditions)?.rest() {
            match (&*condition.namespace, &*condition.local) {
                (ASSERTION, "AudienceRestriction") => {
                    audiences += 1;
                    let mut parts = Cursor::new(condition)?;
                    let named = parts.all(ASSERTION, "Audience");
                    parts.end()?;
                    let ours = |audience: &&Element| audience.text().is_some_and(|text| self.is_audience(text));
                    if !named.iter().any(ours) {
                        return Err(mismatch("Audience", self.audiences.first().map_or("", String::as_str)));
                    }
                }
                // Every assertion is used once, and none is handed on.
                (ASSERTION, "OneTimeUse" | "ProxyRestriction") => {}
                // Core section 2.5.1: a condition that is not understood makes the assertion one that cannot be believed.
                _ => return Err(ShapeError::new(conditions, "has a condition that is not known").into()),
            }
        }
        if audiences == 0 {
            return Err(ShapeError::new(conditions, "lacks AudienceRestriction").into());
        }
        Ok(until)
    }

    fn is_audience(&self, text: &str) -> bool {
        self.audiences.iter().any(|audience| audience == text)
    }

    fn issuer(&self, issuer: &Element) -> Result<(), SamlError> {
        if issuer.attribute("Format").is_some_and(|format| format != ENTITY) {
            return Err(ShapeError::new(issuer, "has a Format that is no entity's").into());
        }
        same("Issuer", need_text(issuer)?, &self.issuer)
    }

    fn answers(&self, found: Option<&str>, expected: &Expected<'_>) -> Result<(), SamlError> {
        match (found, expected.request) {
            (Some(found), Some(request)) if found == request => Ok(()),
            (None, None) if self.allow_unsolicited => Ok(()),
            (None, None) => Err(SamlError::Unsolicited),
            _ => Err(SamlError::OtherRequest),
        }
    }
}

/// How many signatures and how many assertions there are, wherever they stand.
fn counted(element: &Element) -> (usize, usize) {
    let (mut signatures, mut assertions) = (0, 0);
    element.walk(&mut |element| {
        signatures += usize::from(element.is(DSIG, "Signature"));
        // By its local name: whatever namespace it claims, nothing else is called so.
        assertions += usize::from(matches!(&*element.local, "Assertion" | "EncryptedAssertion"));
    });
    (signatures, assertions)
}

fn has_signature(element: &Element) -> bool {
    element.elements().any(|child| child.is(DSIG, "Signature"))
}

fn same(what: &'static str, found: &str, expected: &str) -> Result<(), SamlError> {
    if found == expected { Ok(()) } else { Err(mismatch(what, expected)) }
}

fn mismatch(what: &'static str, expected: &str) -> SamlError {
    SamlError::Mismatch { what, expected: expected.into() }
}

fn check_version(element: &Element) -> Result<(), SamlError> {
    if need_attribute(element, "Version")? == "2.0" {
        Ok(())
    } else {
        Err(ShapeError::new(element, "is of another version than 2.0").into())
    }
}

fn check_end(until: Timestamp, now: Timestamp) -> Result<(), SamlError> {
    if until.plus(SKEW) <= now {
        Err(SamlError::Time { what: "does not count any more" })
    } else if until > now.plus(MAX_LIFE) {
        Err(SamlError::Time { what: "counts for more than 24 hours" })
    } else {
        Ok(())
    }
}

/// Anything but success is a refusal, with the codes that SAML has names for.
fn check_status(status: &Element) -> Result<(), SamlError> {
    let mut parts = Cursor::new(status)?;
    let code = parts.need(PROTOCOL, "StatusCode")?;
    if need_attribute(code, "Value")? == SUCCESS {
        return Ok(());
    }
    let mut codes = Vec::new();
    code.walk(&mut |element| codes.extend(element.attribute("Value").and_then(known_status)));
    Err(SamlError::Status(if codes.is_empty() { "no reason is known".into() } else { codes.join(", ").into() }))
}

/// Core section 3.2.2.2: the codes that say something to a person.
fn known_status(value: &str) -> Option<&'static str> {
    const KNOWN: [&str; 12] = [
        "Requester",
        "Responder",
        "VersionMismatch",
        "AuthnFailed",
        "InvalidNameIDPolicy",
        "NoAuthnContext",
        "NoAvailableIDP",
        "NoPassive",
        "RequestDenied",
        "RequestUnsupported",
        "UnknownPrincipal",
        "UnsupportedBinding",
    ];
    let name = value.strip_prefix("urn:oasis:names:tc:SAML:2.0:status:")?;
    KNOWN.into_iter().find(|known| *known == name)
}

fn take_attributes(statement: &Element, taken: &mut BTreeMap<String, Vec<String>>) -> Result<(), SamlError> {
    let mut parts = Cursor::new(statement)?;
    let attributes = parts.all(ASSERTION, "Attribute");
    if parts.peek().is_some_and(|next| next.is(ASSERTION, "EncryptedAttribute")) {
        return Err(EncryptionError::Part("EncryptedAttribute").into());
    }
    parts.end()?;
    for attribute in attributes {
        let name = bounded(attribute, need_attribute(attribute, "Name")?, MAX_NAME)?;
        let mut parts = Cursor::new(attribute)?;
        let values = parts.all(ASSERTION, "AttributeValue");
        parts.end()?;
        let texts = values.into_iter().filter_map(|value| value.text().map(|text| bounded(value, text, MAX_VALUE)));
        taken.entry(name).or_default().extend(texts.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(())
}

fn bounded(element: &Element, value: &str, most: usize) -> Result<String, ShapeError> {
    if value.len() > most {
        return Err(ShapeError::new(element, format!("has a value of more than {most} octets")));
    }
    Ok(value.to_owned())
}

/// A moment that must be there. Core section 1.3.3: in UTC.
fn moment(element: &Element, local: &str) -> Result<Timestamp, ShapeError> {
    maybe_moment(element, local)?.ok_or_else(|| ShapeError::new(element, format!("lacks {local}")))
}

fn maybe_moment(element: &Element, local: &str) -> Result<Option<Timestamp>, ShapeError> {
    let Some(value) = element.attribute(local) else { return Ok(None) };
    let parsed = value.ends_with('Z').then(|| Timestamp::parse(value).ok()).flatten();
    parsed.map(Some).ok_or_else(|| ShapeError::new(element, format!("has a {local} that is no time in UTC")))
}
