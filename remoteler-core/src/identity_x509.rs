//! The identity in an X.509 certificate: subject CN and O for people and other programs, one extension for us.

use x509_parser::{
    asn1_rs::{FromDer, Oid, ToDer, Utf8String},
    certificate::X509Certificate,
};

use crate::{Identity, IdentityError};

/// Object identifier of the extension: the random UUID `d270893a-1d1a-4c98-903e-aa507ccde798`, cut into seven numbers below the
/// arc that Microsoft keeps for such identifiers. Not below 2.25 (ITU-T X.667): a UUID there is one number of 128 bits, and Go, so
/// kubectl too, refuses a whole certificate over one number of more than 31 bits. Not critical: TLS stacks refuse critical extensions
/// they do not know.
pub const X509_IDENTITY_OID: [u64; 14] =
    [1, 2, 840, 113_556, 1, 8000, 2554, 53872, 35130, 7450, 19608, 36926, 11_161_724, 13_494_168];

/// What goes into a certificate for an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Naming {
    /// Subject CN: user name or host id.
    pub common_name: String,
    /// Subject O, one each: role names.
    pub organizations: Vec<String>,
    /// Value of the extension [`X509_IDENTITY_OID`]: DER of a UTF8String holding the serialised identity.
    pub extension: Vec<u8>,
}

/// Encodes `identity`.
#[must_use]
pub fn x509_naming(identity: &Identity) -> X509Naming {
    let organizations = match identity {
        Identity::User(user) => user.roles.iter().map(ToString::to_string).collect(),
        Identity::Host(host) => host.roles.iter().map(ToString::to_string).collect(),
        Identity::KubeUser(restricted) => restricted.user.roles.iter().map(ToString::to_string).collect(),
        Identity::AppUser(restricted) => restricted.user.roles.iter().map(ToString::to_string).collect(),
        Identity::ProvenUser(proven) => proven.user.roles.iter().map(ToString::to_string).collect(),
    };
    let text = identity.encode();
    let extension = Utf8String::new(&text).to_der_vec().expect("a UTF8String in memory always encodes");
    X509Naming { common_name: identity.subject(), organizations, extension }
}

/// Reads the identity out of a certificate. Says nothing about who signed it: [`crate::verify_x509_chain`] does.
///
/// # Errors
/// [`IdentityError`] when it is missing, malformed, or contradicts the subject CN.
pub fn x509_identity(certificate: &X509Certificate<'_>) -> Result<Identity, IdentityError> {
    let oid = Oid::from(&X509_IDENTITY_OID).map_err(|_| IdentityError::Missing)?;
    let extension = match certificate.get_extension_unique(&oid) {
        Ok(Some(extension)) => extension,
        Ok(None) => return Err(IdentityError::Missing),
        Err(_) => return Err(IdentityError::Malformed("the extension stands there twice".into())),
    };
    let (rest, text) =
        Utf8String::from_der(extension.value).map_err(|cause| IdentityError::Malformed(cause.to_string()))?;
    if !rest.is_empty() {
        return Err(IdentityError::Malformed("octets follow the extension's value".into()));
    }
    let identity = Identity::decode(text.as_ref())?;
    let inner = identity.subject();
    let mut names = certificate.subject().iter_common_name();
    let outer = names.next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    if outer != inner || names.next().is_some() {
        return Err(IdentityError::Mismatch { outer: outer.chars().take(80).collect(), inner });
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_object_identifier_fits_into_31_bits() {
        assert!(X509_IDENTITY_OID.iter().all(|arc| *arc < 1 << 31));
    }
}
