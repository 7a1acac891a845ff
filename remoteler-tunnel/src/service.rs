//! Named services of agents: byte streams that know who is calling. The user's TLS session ends at the agent, inside the tunnel: proxies
//! pass it on and see neither what is said nor who says it but by the outer session. Owns names and addresses of services.

mod dial;
mod door;

use std::fmt;
use std::str::FromStr;

use remoteler_core::{HostIdentity, NodeName};

use crate::dial::{TargetName, TargetNameError};

pub use dial::{ServiceDialError, ServiceDialer};
pub use door::{Caller, ListenError, ServiceConnection, ServiceListener, Services};

/// ALPN of the session between a user and a service.
pub const ALPN_SERVICE: &str = "remoteler-service";
/// First octet of an agent in that session: the caller is admitted, and the service's own octets follow. In TLS 1.3 a client's handshake is
/// done before its certificate is judged.
pub(crate) const ADMITTED: u8 = 0;

/// Name of a service at its agent: 1 to 63 of `a` to `z`, digits, `-`, `_` and `.`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Box<str>);

/// A text that names no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceNameError {
    /// The name of the service.
    #[error("a service's name has 1 to 63 of a to z, digits, -, _ and ., and begins with a letter or digit")]
    Service,
    /// What is behind the `@`.
    #[error("a service is dialled as SERVICE@HOST, with the host's name or id")]
    Host,
}

impl ServiceName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`ServiceNameError::Service`].
    pub fn new(name: &str) -> Result<Self, ServiceNameError> {
        let good = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"-_.".contains(&octet);
        let first = name.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
        let good = first && name.len() <= 63 && name.bytes().all(good);
        if good { Ok(Self(name.into())) } else { Err(ServiceNameError::Service) }
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a service is: `pg@edge-1`. The host's part is bound to its certificate (I28); services are its own affair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAddress {
    /// The service.
    pub service: ServiceName,
    /// Name or id of its host.
    pub host: Box<str>,
}

impl ServiceAddress {
    /// Whether this is meant.
    #[must_use]
    pub fn is_at(&self, host: &HostIdentity) -> bool {
        *self.host == *host.name.as_str() || *self.host == *host.id.to_string()
    }

    /// As it stands in a dial header.
    ///
    /// # Errors
    /// Never for an address that was parsed.
    pub fn target_name(&self) -> Result<TargetName, TargetNameError> {
        TargetName::new(self.to_string())
    }
}

impl FromStr for ServiceAddress {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, ServiceNameError> {
        let (service, host) = text.split_once('@').ok_or(ServiceNameError::Host)?;
        let service = ServiceName::new(service)?;
        // An id has the form of a name.
        NodeName::new(host).map_err(|_| ServiceNameError::Host)?;
        Ok(Self { service, host: host.into() })
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.service, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_service_at_a_host() {
        let address: ServiceAddress = "pg@edge-1".parse().unwrap();
        assert_eq!((address.service.as_str(), &*address.host), ("pg", "edge-1"));
        assert_eq!(address.to_string(), "pg@edge-1");
        for bad in ["", "pg", "@edge-1", "PG@edge-1", "p g@edge-1", "-pg@edge-1", "pg@", "pg@a b", "pg@a@b"] {
            assert!(bad.parse::<ServiceAddress>().is_err(), "{bad:?}");
        }
    }
}
