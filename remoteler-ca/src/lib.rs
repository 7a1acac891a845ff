//! The certificate authorities of a cluster: what goes into certificates, and the seam behind which the keys sign.
//!
//! Issuing has two steps, so that the audit event stands between them: a profile says what is wanted
//! ([`UserProfile::prepare`] checks all of it, draws the serials, builds the certificates and lints them), and the authority signs the very
//! octets that were prepared ([`Authority::issue_user`]), once. Nothing here decides who gets a certificate, stores anything or reads a clock.

mod audit_key;
mod authority;
mod krl;
mod lint;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod prepared;
mod profile;
mod purpose;
mod rotation;
mod rsa_key;
mod saml_decrypter;
mod saml_key;
mod seal;
mod sealed_record;
mod signer;
mod ssh_certificate;
mod stored;
mod suite;
mod tls_key;
mod token;
mod token_authority;
mod token_key;
mod x509_authority;
mod x509_leaf;
mod x509_revocation;

pub use audit_key::{AuditSigner, StoredAuditKey};
pub use authority::{Authority, CaError, IssuedHost, IssuedUser};
pub use krl::{Krl, KrlError, RevokeError};
pub use lint::LintError;
#[cfg(feature = "pkcs11")]
pub use pkcs11::{Pkcs11Config, Pkcs11Signer, Pkcs11Token, TokenChoice};
pub use prepared::{PreparedHost, PreparedSsh, PreparedUser, PreparedX509};
pub use profile::{
    AppProfile, DatabaseProfile, HostProfile, KubeProfile, MAX_USER_TTL, OpensshHostProfile, OpensshUserProfile,
    ProfileError, ServerProfile, SmartCardProfile, SshPermits, UserProfile,
};
pub use purpose::Purpose;
pub use rotation::{CONTACT, KeyMove, MAX_GRACE, MIN_GRACE, Rotation, RotationError, Step};
pub use rsa_key::OaepDigests;
pub use saml_decrypter::SamlDecrypter;
pub use saml_key::{SamlSigner, StoredSamlKey};
pub use seal::{KeyEncryptionKey, KeyRing, SealError, SealedKey};
pub use sealed_record::is_sealed_record;
pub use signer::{FileSigner, Signer, SignerAlgorithm, SignerError};
pub use stored::{StoredAuthority, StoredKey};
pub use suite::{Suite, UnknownSuite};
pub use tls_key::{TlsKeyError, TlsPublicKey};
pub use token::{ModuleAnswer, TokenError, TokenKey, TokenKeyId, TokenKeys};
pub use token_authority::KeyHomes;
pub use token_key::{StoredTokenKey, TokenClaims, TokenSigner};
pub use x509_revocation::{RevocationList, RevokedCertificate};
