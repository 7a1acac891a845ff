//! A client of a database: the subject's common name is the database user, as PostgreSQL's `clientcert=verify-full` and MySQL's
//! `REQUIRE SUBJECT` compare it. There is no identity of the cluster in it, so our own listeners refuse it.

use remoteler_core::{Entropy, Timestamp, check_principal};

use super::{ProfileError, Window, bad_name, x509_serial};
use crate::{Authority, PreparedX509, Purpose, TlsPublicKey, x509_leaf::Leaf};

/// An X.509 certificate wanted for a database user. Raw: nothing in it was checked.
#[derive(Clone, Debug)]
pub struct DatabaseProfile {
    /// Name of the account in the database, 1 to 63 octets; from the stored user, never from the request alone (I9).
    pub database_user: String,
    /// Key for TLS.
    pub tls_key: TlsPublicKey,
    /// When it ends; rounded down to seconds.
    pub not_after: Timestamp,
}

/// PostgreSQL's longest name: `NAMEDATALEN` less the terminator. It also is X.509's bound for a common name, less one (RFC 5280 appendix A.1).
const MAX_NAME: usize = 63;

impl DatabaseProfile {
    /// Checks everything, draws the serial, builds and lints; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken.
    pub fn prepare(
        self,
        authority: &Authority,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<PreparedX509, ProfileError> {
        let Self { database_user, tls_key, not_after } = self;
        let purpose = Purpose::DatabaseClient;
        authority.check(purpose, None)?;
        if database_user.len() > MAX_NAME || check_principal(&database_user).is_err() {
            let rule =
                "1 to 63 octets without control characters, white space, commas and quotes, not beginning with '-'";
            return Err(bad_name("database user", &database_user, rule));
        }
        let leaf = Leaf {
            purpose,
            organizations: Vec::new(),
            common_name: database_user.clone(),
            names: Vec::new(),
            key: &tls_key,
            serial: x509_serial(entropy),
            window: Window::new(&database_user, purpose, now, not_after)?,
            identity: None,
            crl: None,
            sid: None,
        };
        PreparedX509::new(authority, &database_user, &leaf)
    }
}
