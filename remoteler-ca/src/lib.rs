//! The certificate authorities of a cluster: what goes into certificates, and the seam behind which the keys sign.
//!
//! Issuing has two steps, so that the audit event stands between them: a profile says what is wanted
//! ([`UserProfile::prepare`] checks all of it and draws the serials), and the authority signs what was prepared
//! ([`Authority::issue_user`]), once. Nothing here decides who gets a certificate, stores anything or reads a clock.

mod authority;
mod profile;
mod rotation;
mod signer;
mod ssh_certificate;
mod tls_key;
mod x509_authority;
mod x509_leaf;

pub use authority::{Authority, CaError, IssuedHost, IssuedUser, StoredAuthority};
pub use profile::{HostProfile, MAX_USER_TTL, PreparedHost, PreparedUser, ProfileError, SshPermits, UserProfile};
pub use rotation::{CONTACT, KeyMove, MAX_GRACE, MIN_GRACE, Rotation, RotationError, Step};
pub use signer::{FileSigner, Signer, SignerAlgorithm, SignerError};
pub use tls_key::{TlsKeyError, TlsPublicKey};
