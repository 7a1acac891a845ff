//! Why a response of an identity provider is not believed. Owns the sentences; none repeats what the response says, but for names that are configured.

use super::{cursor::ShapeError, encrypted::EncryptionError, signature::SignatureError, tree::XmlError};

/// Why nobody was logged in by a response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SamlError {
    /// The form field is not base64.
    #[error("the SAML response is not base64")]
    Base64,
    /// Not a document that is read.
    #[error("the SAML response is refused: {0}")]
    Xml(#[from] XmlError),
    /// Not in the form of SAML 2.0.
    #[error("the SAML response is refused: {0}")]
    Shape(#[from] ShapeError),
    /// Encrypted, and not in the one way that is taken.
    #[error("the SAML response is refused: {0}")]
    Encryption(#[from] EncryptionError),
    /// Neither the response nor its assertion is signed.
    #[error("neither the SAML response nor its assertion is signed; have the identity provider sign the assertion")]
    Unsigned,
    /// There is a signature that is not believed.
    #[error("the SAML response is refused: {0}")]
    Signature(#[from] SignatureError),
    /// The identity provider says no.
    #[error("the identity provider did not log the user in: {0}")]
    Status(Box<str>),
    /// For somebody else, or from somebody else.
    #[error(
        "the SAML response has another {what} than {expected:?}; compare the connector with the identity provider's settings"
    )]
    Mismatch {
        /// Which part of it.
        what: &'static str,
        /// What the connector has.
        expected: Box<str>,
    },
    /// Not the answer to the request of this login.
    #[error("the SAML response does not answer this login; start it again")]
    OtherRequest,
    /// Nobody asked, and the connector does not allow that.
    #[error("the SAML response answers no request, and the connector does not set allow_idp_initiated")]
    Unsolicited,
    /// It counts later, or no more.
    #[error("the SAML response {what} at this time; compare the clocks")]
    Time {
        /// What its times say.
        what: &'static str,
    },
    /// It was shown before.
    #[error("the SAML assertion was used before; start the login again")]
    Replayed,
    /// It does not say who it is about in a way that lasts.
    #[error("the SAML response names nobody: {0}")]
    Nobody(Box<str>),
}
