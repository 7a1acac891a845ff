//! Under which names a proxy shows its pages. A page under another name is somebody else's: a name that was pointed at us (DNS rebinding), or a forged
//! `Host`.

use std::{net::IpAddr, sync::Arc};

use axum::{Extension, extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, StatusCode, Uri, header::HOST, uri::Authority};

use super::{super::texts::ENGLISH, message};

/// The names of a proxy.
#[derive(Clone, Debug)]
pub struct WebNames {
    public: Option<Authority>,
    own: Arc<[String]>,
}

impl WebNames {
    /// Of a proxy with this public address, `host:port`. Without one: the names given, with any port. Addresses of the machine itself (`localhost`,
    /// loopback) always do, and without a public address every IP address: no name can be pointed there.
    pub fn new(public: Option<&str>, own: impl IntoIterator<Item = String>) -> Self {
        let own = own.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { public: public.and_then(|public| public.parse().ok()), own }
    }

    /// Whether pages are shown under this name.
    pub(crate) fn knows(&self, authority: &Authority) -> bool {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        match &self.public {
            Some(public) => {
                let port = |authority: &Authority| authority.port_u16().unwrap_or(443);
                public.host().eq_ignore_ascii_case(authority.host()) && port(public) == port(authority)
            }
            None => address.is_some() || self.own.contains(&host),
        }
    }
}

/// The name and port under which the client reached us: that of the request line, or of the one `Host` header.
pub(crate) fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut named = headers.get_all(HOST).iter();
    let in_header = match (named.next(), named.next()) {
        (Some(_), Some(_)) => return None,
        (first, _) => first,
    };
    let in_header = match in_header {
        Some(value) => Some(value.to_str().ok()?.parse::<Authority>().ok()?),
        None => None,
    };
    let found = match (uri.authority(), in_header) {
        (Some(line), Some(header)) if *line != header => return None,
        (Some(line), _) => line.clone(),
        (None, header) => header?,
    };
    (!found.as_str().contains('@') && found.as_str().len() <= 255).then_some(found)
}

/// Layer of all pages: refuses names that are not ours, and gives the one that is to the handlers.
pub(crate) async fn check_host(Extension(names): Extension<WebNames>, mut request: Request, next: Next) -> Response {
    match authority(request.uri(), request.headers()) {
        Some(authority) if names.knows(&authority) => {
            request.extensions_mut().insert(authority);
            next.run(request).await
        }
        _ => message(StatusCode::MISDIRECTED_REQUEST, ENGLISH.wrong_host_title, ENGLISH.wrong_host_text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(names: &WebNames, authority: &str) -> bool {
        names.knows(&authority.parse().unwrap())
    }

    #[test]
    fn a_proxy_is_known_by_its_public_address_and_on_its_own_machine() {
        let names = WebNames::new(Some("proxy.example.com:443"), []);
        for right in ["proxy.example.com", "PROXY.example.com:443", "localhost:3080", "127.0.0.1:3080", "[::1]:3080"] {
            assert!(knows(&names, right), "{right}");
        }
        for wrong in ["proxy.example.com:8443", "evil.example", "proxy.example.com.evil.example", "192.0.2.1"] {
            assert!(!knows(&names, wrong), "{wrong}");
        }
    }

    #[test]
    fn without_a_public_address_no_name_can_be_pointed_at_a_proxy() {
        let names = WebNames::new(None, ["Gate".to_owned()]);
        assert!(knows(&names, "192.0.2.1:3080") && knows(&names, "gate:3080"));
        assert!(!knows(&names, "evil.example:3080"));
    }

    #[test]
    fn two_names_in_one_request_are_none() {
        let headers = |values: &[&'static str]| -> HeaderMap {
            values.iter().map(|value| (HOST, http::HeaderValue::from_static(value))).collect()
        };
        let path = Uri::from_static("/web/");
        assert_eq!(authority(&path, &headers(&["a.example"])).unwrap(), "a.example");
        assert_eq!(authority(&path, &headers(&["a.example", "b.example"])), None);
        assert_eq!(authority(&path, &headers(&["u@a.example"])), None);
        assert_eq!(authority(&path, &headers(&[])), None);
        let line = Uri::from_static("https://a.example/web/");
        assert_eq!(authority(&line, &headers(&["b.example"])), None);
        assert_eq!(authority(&line, &headers(&[])).unwrap(), "a.example");
    }
}
