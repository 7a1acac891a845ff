//! The address of a listener on this machine: the one parser of it.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// `http://127.0.0.1:PORT/PATH` or `http://[::1]:PORT/PATH`: the only places that a login's answer is redirected to (I40, RFC 8252 section 7.3).
/// It is parsed by being written again: what does not come out the same is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LoopbackUrl {
    addr: SocketAddr,
    path: String,
}

/// Not a place on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("logins answer to http://127.0.0.1:PORT/ or http://[::1]:PORT/ only")]
pub struct NotLoopback;

impl LoopbackUrl {
    /// The URL of a listener at `addr`; `path` is of letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// [`NotLoopback`]
    pub fn new(addr: SocketAddr, path: &str) -> Result<Self, NotLoopback> {
        format!("http://{addr}/{path}").parse()
    }

    /// Its path, without the slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for LoopbackUrl {
    type Err = NotLoopback;

    fn from_str(text: &str) -> Result<Self, NotLoopback> {
        let (authority, path) =
            text.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or(NotLoopback)?;
        let addr: SocketAddr = authority.parse().map_err(|_| NotLoopback)?;
        let here = match addr {
            SocketAddr::V4(addr) => addr.ip() == &std::net::Ipv4Addr::LOCALHOST,
            SocketAddr::V6(addr) => addr.ip() == &std::net::Ipv6Addr::LOCALHOST && addr.scope_id() == 0,
        };
        let plain = path.len() <= 64 && path.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
        let url = Self { addr, path: path.to_owned() };
        if here && plain && addr.port() != 0 && url.to_string() == text { Ok(url) } else { Err(NotLoopback) }
    }
}

impl fmt::Display for LoopbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}/{}", self.addr, self.path)
    }
}

impl TryFrom<String> for LoopbackUrl {
    type Error = NotLoopback;

    fn try_from(text: String) -> Result<Self, NotLoopback> {
        text.parse()
    }
}

impl From<LoopbackUrl> for String {
    fn from(url: LoopbackUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_answered_to() {
        // I40
        for right in ["http://127.0.0.1:1/", "http://127.0.0.1:65535/callback", "http://[::1]:8080/a-B_1"] {
            assert_eq!(right.parse::<LoopbackUrl>().unwrap().to_string(), right);
        }
        for wrong in [
            "https://127.0.0.1:1/",
            "http://127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:01/",
            "http://127.0.0.1:1",
            "http://127.0.0.2:1/",
            "http://127.1:1/",
            "http://0.0.0.0:1/",
            "http://localhost:1/",
            "http://user@127.0.0.1:1/",
            "http://127.0.0.1:1@evil.example/",
            "http://evil.example:1/",
            "http://127.0.0.1:1\\@evil.example/",
            "http:\\\\127.0.0.1:1/",
            "http:////127.0.0.1:1/",
            "http://127.0.0.1:1//evil.example",
            "http://127.0.0.1:1/a/b",
            "http://127.0.0.1:1/#f",
            "http://127.0.0.1:1/?q",
            "http://127.0.0.1:1/%0d",
            "http://127.0.0.1:1/\t",
            " http://127.0.0.1:1/",
            "HTTP://127.0.0.1:1/",
            "http://[::1%1]:1/",
            "http://[0:0:0:0:0:0:0:1]:1/",
            "http://[::ffff:127.0.0.1]:1/",
            "http://xn--127-0-0-1.example:1/",
            "http://127。0。0。1:1/",
            "javascript:alert(1)",
            "data:text/html,x",
            "",
        ] {
            assert_eq!(wrong.parse::<LoopbackUrl>(), Err(NotLoopback), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_for_a_loopback_address_leads_to_this_machine(text in "(http|https)://(127\\.0\\.0\\.1|\\[::1\\]|[a-z@\\\\.:\\[\\]0-9]{1,16})(:[0-9]{1,6})?[/\\\\?#@\t]{0,2}[a-z@:/.\\\\]{0,8}") {
            // I40
            if let Ok(url) = text.parse::<LoopbackUrl>() {
                let rest = text.strip_prefix("http://").unwrap();
                prop_assert!(rest.starts_with("127.0.0.1:") || rest.starts_with("[::1]:"), "{}", text);
                let uri: http_like::Parts = http_like::split(&text);
                prop_assert!(uri.authority.parse::<SocketAddr>().unwrap().ip().is_loopback());
                prop_assert_eq!(url.to_string(), text);
            }
        }
    }

    /// How a browser finds the authority: everything up to the first of `/ \ ? #`.
    mod http_like {
        pub(super) struct Parts<'a> {
            pub(super) authority: &'a str,
        }
        pub(super) fn split(text: &str) -> Parts<'_> {
            let rest = text.split_once("://").unwrap().1;
            Parts { authority: rest.split(['/', '\\', '?', '#']).next().unwrap() }
        }
    }
}
