//! SAML against programs that others made: pysaml2 and samlify take our requests and answer them, and of each response, good or changed, xmlsec1 and
//! signxml say the same as we.

mod saml {
    mod differential;
    mod encryption;
    pub(crate) mod judges;
    mod providers;
}
