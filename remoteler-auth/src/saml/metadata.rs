//! Metadata (SAML 2.0 Metadata): what this cluster tells about itself, and what an identity provider does. Owns both forms. Metadata is configuration: it
//! is believed because of where it was got from, and a signature in it is not asked for.

use quick_xml::escape::escape;
use remoteler_core::Timestamp;

use super::{
    c14n::{Choice, canonical},
    encrypted::OFFERED,
    idp::{IdpKey, IdpKeyError, MAX_KEYS},
    names::{DSIG, METADATA, POST, PROTOCOL, REDIRECT},
    tree::{Comments, Element, XmlError},
};

/// Why metadata of an identity provider cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Not a document that is read.
    #[error("the metadata cannot be read: {0}")]
    Xml(#[from] XmlError),
    /// It describes no identity provider, or several.
    #[error("the metadata describes {0} identity providers; one is needed")]
    Providers(usize),
    /// Something is missing.
    #[error("the metadata of the identity provider has no {0}")]
    Lacks(&'static str),
    /// More keys than anybody needs.
    #[error("the metadata of the identity provider has more than {MAX_KEYS} signing keys")]
    TooManyKeys,
    /// A key is not believed.
    #[error(transparent)]
    Key(#[from] IdpKeyError),
    /// Its `validUntil` is past.
    #[error("the metadata of the identity provider is not valid any more; get it anew")]
    Over,
}

/// How a request reaches the identity provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// In a URL.
    Redirect,
    /// In a form.
    Post,
}

/// An identity provider, as its metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdpMetadata {
    /// Its name.
    pub entity_id: String,
    /// Keys it signs with: several while it changes them.
    pub keys: Vec<IdpKey>,
    /// Where requests go, in the order of the document.
    pub sso: Vec<(Binding, String)>,
    /// Until when it may be used: the earliest `validUntil`, where it has one.
    pub valid_until: Option<Timestamp>,
}

impl IdpMetadata {
    /// Reads metadata as of `now`: of one entity, or of several of which one is an identity provider.
    ///
    /// # Errors
    /// [`MetadataError`]
    pub fn parse(octets: &[u8], now: Timestamp) -> Result<Self, MetadataError> {
        let root = Element::parse(octets, Comments::Skip)?;
        let mut found = Vec::new();
        root.walk(&mut |entity| {
            if entity.is(METADATA, "EntityDescriptor") {
                let roles = entity.elements().filter(|role| role.is(METADATA, "IDPSSODescriptor"));
                let saml2 = |role: &&Element| {
                    let protocols = role.attribute("protocolSupportEnumeration").unwrap_or_default();
                    protocols.split_ascii_whitespace().any(|protocol| protocol == PROTOCOL)
                };
                found.extend(roles.filter(saml2).map(|role| (entity, role)));
            }
        });
        let (entity, role) = match found.as_slice() {
            [one] => *one,
            others => return Err(MetadataError::Providers(others.len())),
        };
        let mut valid_until: Option<Timestamp> = None;
        for holder in [&root, entity, role] {
            if let Some(until) = holder.attribute("validUntil") {
                let until = Timestamp::parse(until).ok().filter(|until| *until > now).ok_or(MetadataError::Over)?;
                valid_until = Some(valid_until.map_or(until, |earlier| earlier.min(until)));
            }
        }
        let entity_id =
            entity.attribute("entityID").filter(|id| !id.is_empty()).ok_or(MetadataError::Lacks("entityID"))?;
        let keys = keys(role)?;
        let services = role.elements().filter(|service| service.is(METADATA, "SingleSignOnService"));
        let sso: Vec<_> = services
            .filter_map(|service| {
                let binding = match service.attribute("Binding")? {
                    REDIRECT => Binding::Redirect,
                    POST => Binding::Post,
                    _ => return None,
                };
                Some((binding, service.attribute("Location")?.to_owned()))
            })
            .collect();
        if sso.is_empty() {
            return Err(MetadataError::Lacks("SingleSignOnService for HTTP-Redirect or HTTP-POST"));
        }
        Ok(Self { entity_id: entity_id.to_owned(), keys, sso, valid_until })
    }

    /// Whether it may be used at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.valid_until.is_none_or(|until| until > now)
    }

    /// What an administrator wrote instead of metadata.
    ///
    /// # Errors
    /// [`MetadataError`]
    pub fn by_hand<'a>(
        entity_id: &str,
        sso: &str,
        certificates: impl Iterator<Item = &'a str>,
    ) -> Result<Self, MetadataError> {
        let keys: Vec<IdpKey> = certificates.map(IdpKey::from_certificate).collect::<Result<_, _>>()?;
        match keys.len() {
            0 => Err(MetadataError::Lacks("certificate")),
            1..=MAX_KEYS => {
                let sso = vec![(Binding::Redirect, sso.to_owned())];
                Ok(Self { entity_id: entity_id.to_owned(), keys, sso, valid_until: None })
            }
            _ => Err(MetadataError::TooManyKeys),
        }
    }
}

fn keys(role: &Element) -> Result<Vec<IdpKey>, MetadataError> {
    let descriptors = role
        .elements()
        .filter(|key| key.is(METADATA, "KeyDescriptor") && matches!(key.attribute("use"), None | Some("signing")));
    let mut keys = Vec::new();
    for descriptor in descriptors {
        let mut certificates = Vec::new();
        descriptor.walk(&mut |element| {
            if element.is(DSIG, "X509Certificate") {
                certificates.extend(element.text());
            }
        });
        for certificate in certificates {
            let key = IdpKey::from_certificate(certificate)?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    match keys.len() {
        0 => Err(MetadataError::Lacks("signing key in an X509Certificate")),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(MetadataError::TooManyKeys),
    }
}

/// What an identity provider needs to know of this cluster.
#[derive(Clone, Copy, Debug)]
pub struct SpMetadata<'a> {
    /// Our entity id.
    pub entity_id: &'a str,
    /// Where responses are posted; the first is the default.
    pub acs: &'a [String],
    /// The certificate of the key that signs requests: base64 of DER.
    pub certificate: &'a str,
    /// That of the key that assertions may be encrypted for. `None`: there is none, and who finds none does not encrypt.
    pub encryption: Option<&'a str>,
}

impl SpMetadata<'_> {
    /// The document.
    ///
    /// # Errors
    /// [`XmlError`] when a value cannot stand in XML.
    pub fn document(&self) -> Result<Vec<u8>, XmlError> {
        let services: String = self
            .acs
            .iter()
            .enumerate()
            .map(|(index, acs)| {
                format!(
                    "<md:AssertionConsumerService Binding=\"{POST}\" Location=\"{}\" index=\"{index}\" isDefault=\"{}\"/>",
                    escape(acs.as_str()),
                    index == 0
                )
            })
            .collect();
        let key = |use_of: &str, certificate: &str, methods: &str| {
            format!(
                "<md:KeyDescriptor use=\"{use_of}\"><ds:KeyInfo xmlns:ds=\"{DSIG}\"><ds:X509Data><ds:X509Certificate>{}\
                 </ds:X509Certificate></ds:X509Data></ds:KeyInfo>{methods}</md:KeyDescriptor>",
                escape(certificate)
            )
        };
        let methods = OFFERED.map(|uri| format!("<md:EncryptionMethod Algorithm=\"{uri}\"/>")).concat();
        let encryption = self.encryption.map(|certificate| key("encryption", certificate, &methods));
        let text = format!(
            "<md:EntityDescriptor xmlns:md=\"{METADATA}\" entityID=\"{}\"><md:SPSSODescriptor AuthnRequestsSigned=\"true\" \
             WantAssertionsSigned=\"true\" protocolSupportEnumeration=\"{PROTOCOL}\">{}{}{services}</md:SPSSODescriptor></md:EntityDescriptor>",
            escape(self.entity_id),
            key("signing", self.certificate, ""),
            encryption.unwrap_or_default(),
        );
        let element = Element::parse(text.as_bytes(), Comments::Refuse)?;
        canonical(&element, &Choice::whole()).map_err(|_| XmlError::TooLarge("octets when it is canonical"))
    }
}
