//! Logins by SAML 2.0: this cluster as a service provider (SAML 2.0 Core, Bindings and Profiles, Web Browser SSO). Owns what a message of an identity
//! provider must be to be believed. Octets and the time go in, verified claims come out: nothing here opens a socket, reads a clock or keeps state.
//!
//! One parser reads every document (`tree`), one writer makes canonical octets (`c14n`), and claims are read only from octets whose digest was signed
//! (`signature`): a document that two programs could read in two ways is refused before anybody asks what it says.

mod algorithm;
mod c14n;
mod claims;
mod cursor;
mod encrypted;
mod error;
mod idp;
mod metadata;
mod names;
mod replay;
mod request;
mod response;
mod sign;
mod signature;
mod tree;

pub use claims::{NameId, SamlClaims};
pub use cursor::ShapeError;
pub use encrypted::EncryptionError;
pub use error::SamlError;
pub use idp::{IdpKey, IdpKeyError};
pub use metadata::{Binding, IdpMetadata, MetadataError, SpMetadata};
pub use replay::{UseError, use_once};
pub use request::{AuthnRequest, PostForm, RequestError};
pub use response::{Expected, ServiceProvider, decode_form_field};
pub use signature::SignatureError;
pub use tree::XmlError;

/// What a fuzzer does with an XML document. Whatever it is, the canonical form of what was read is read again, and is its own canonical form.
///
/// # Panics
/// Where that is not so.
#[doc(hidden)]
pub fn fuzz_xml(octets: &[u8]) {
    let Ok(document) = tree::Element::parse(octets, tree::Comments::Skip) else { return };
    encrypted::fuzz(&document);
    let Ok(canonical) = c14n::canonical(&document, &c14n::Choice::whole()) else { return };
    let Ok(again) = tree::Element::parse(&canonical, tree::Comments::Refuse) else {
        // The canonical form repeats declarations and may so grow beyond what is read.
        assert!(canonical.len() > tree::MAX_DOCUMENT, "what was written can be read again");
        return;
    };
    let twice = c14n::canonical(&again, &c14n::Choice::whole());
    assert_eq!(twice.ok(), Some(canonical), "the canonical form is its own canonical form");
}

#[cfg(test)]
pub(crate) mod tests;
