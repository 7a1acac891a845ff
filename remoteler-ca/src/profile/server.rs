//! A TLS server that is no host of the cluster, a database for one: for TLS servers of the names given. There is no identity of the cluster
//! in it, so it is no proxy, auth service or node to anybody.

use std::net::IpAddr;

use remoteler_core::{Entropy, Timestamp};

use super::{MAX_PRINCIPALS, ProfileError, Window, bad_name, check_dns_name, x509_serial};
use crate::{
    Authority, PreparedX509, Purpose, TlsPublicKey,
    x509_leaf::{AltName, Leaf},
};

/// An X.509 certificate wanted for a TLS server. Raw: nothing in it was checked.
#[derive(Clone, Debug)]
pub struct ServerProfile {
    /// DNS names; the left-most label may be `*`.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Key for TLS.
    pub tls_key: TlsPublicKey,
    /// When it ends; `None`: with the rotation of the authority.
    pub not_after: Option<Timestamp>,
}

impl ServerProfile {
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
        let Self { dns_names, addresses, tls_key, not_after } = self;
        let purpose = Purpose::Server;
        authority.check(purpose, None)?;
        let subject = match (dns_names.first(), addresses.first()) {
            (Some(name), _) => name.clone(),
            (None, Some(address)) => address.to_string(),
            (None, None) => return Err(bad_name("list of server names", "", "at least one name or address is needed")),
        };
        if dns_names.len() + addresses.len() > MAX_PRINCIPALS {
            return Err(bad_name("list of server names", &subject, "at most 256 are allowed"));
        }
        for name in &dns_names {
            check_dns_name(name)?;
        }
        let names = dns_names.into_iter().map(AltName::Dns).chain(addresses.into_iter().map(AltName::Ip));
        let leaf = Leaf {
            purpose,
            organizations: Vec::new(),
            // Long names stand among the alternative names only: a common name has 64 characters at the most (RFC 5280 appendix A.1).
            common_name: if subject.len() <= 64 { subject.clone() } else { "server".to_owned() },
            names: names.collect(),
            key: &tls_key,
            serial: x509_serial(entropy),
            window: Window::new(&subject, purpose, now, not_after)?,
            identity: None,
            crl: None,
            sid: None,
        };
        PreparedX509::new(authority, &subject, &leaf)
    }
}
