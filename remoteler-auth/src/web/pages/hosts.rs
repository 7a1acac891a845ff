//! Under which names a proxy shows its pages. A page under another name is somebody else's: a name that was pointed at us (DNS rebinding), or a forged
//! `Host`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Extension,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header::HOST, uri::Authority};
use remoteler_core::{BrowserAction, BrowserStep, PageRefusal};

use super::{
    super::{ApiForAddress, RemoteAddr, texts::ENGLISH},
    message,
};

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

/// Layer of all pages: refuses names that are not ours and frames of others, and gives the name to the handlers. What is refused here, and forms that
/// handlers found to be foreign, is on record.
pub(crate) async fn guard(
    State(api): State<ApiForAddress>,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Extension(names): Extension<WebNames>,
    mut request: Request,
    next: Next,
) -> Response {
    let answer = match authority(request.uri(), request.headers()) {
        Some(_) if is_framed(request.headers()) => {
            let mut answer = message(StatusCode::FORBIDDEN, ENGLISH.framed_title, ENGLISH.framed_text);
            answer.extensions_mut().insert(PageRefusal::Framed);
            answer
        }
        Some(authority) if names.knows(&authority) => {
            request.extensions_mut().insert(authority);
            next.run(request).await
        }
        _ => {
            let (title, text) = (ENGLISH.wrong_host_title, ENGLISH.wrong_host_text);
            let mut answer = message(StatusCode::MISDIRECTED_REQUEST, title, text);
            answer.extensions_mut().insert(PageRefusal::ForgedHost);
            answer
        }
    };
    if let Some(because) = answer.extensions().get::<PageRefusal>() {
        on_record(&api, addr, *because).await;
    }
    answer
}

/// Has it on record that a browser was refused. The answer is the same whether that succeeds: nothing was done.
pub(crate) async fn on_record(api: &ApiForAddress, addr: SocketAddr, because: PageRefusal) {
    let step = BrowserAction::Refused { because };
    let step = BrowserStep { step, browser: None, origin: String::new(), client_addr: Some(addr.to_string()) };
    // It answers with the refusal itself.
    let _ = api(addr).browser_step(step).await;
}

/// Whether a browser says that the page is for a frame. Its headers forbid that too; here it is seen (Fetch Metadata, `Sec-Fetch-Dest`).
fn is_framed(headers: &HeaderMap) -> bool {
    let frame = |value: &HeaderValue| {
        ["iframe", "frame", "embed", "object", "fencedframe"].iter().any(|frame| value.as_bytes() == frame.as_bytes())
    };
    headers.get_all("sec-fetch-dest").iter().any(frame)
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
