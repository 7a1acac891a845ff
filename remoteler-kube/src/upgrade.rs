//! Requests that ask to leave HTTP: exec, attach, port-forward, over SPDY/3.1 or WebSocket (RFC 9110 section 7.8). Owns which protocols
//! may be asked for, and when an answer really is the switch that was asked for.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{body::Body as _, upgrade::OnUpgrade};

use crate::{
    body::{Body, empty},
    headers::{HeaderError, connection_tokens},
};

/// A protocol that API servers switch to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Spdy,
    WebSocket,
}

impl Protocol {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::UPGRADE).iter();
        let (value, None) = (values.next()?.to_str().ok()?.trim(), values.next()) else {
            return None;
        };
        if value.eq_ignore_ascii_case("SPDY/3.1") {
            Some(Self::Spdy)
        } else if value.eq_ignore_ascii_case("websocket") {
            Some(Self::WebSocket)
        } else {
            None
        }
    }

    const fn header(self) -> HeaderValue {
        match self {
            Self::Spdy => HeaderValue::from_static("SPDY/3.1"),
            Self::WebSocket => HeaderValue::from_static("websocket"),
        }
    }
}

/// That a request asks for an upgrade, and our end of the connection to be upgraded.
pub(crate) struct UpgradeRequest {
    protocol: Protocol,
    client: OnUpgrade,
}

impl UpgradeRequest {
    /// Takes the wish out of `request`. `None` for an ordinary request; an upgrade to anything else than SPDY/3.1 and WebSocket is
    /// treated as RFC 9110 allows: not heard.
    ///
    /// # Errors
    /// [`HeaderError::UpgradeWithBody`]
    pub(crate) fn take(request: &mut Request<Body>) -> Result<Option<Self>, HeaderError> {
        let wanted = request.version() == Version::HTTP_11
            && connection_tokens(request.headers()).any(|token| token == "upgrade");
        let Some(protocol) = wanted.then(|| Protocol::of(request.headers())).flatten() else {
            return Ok(None);
        };
        if !request.body().is_end_stream() {
            return Err(HeaderError::UpgradeWithBody);
        }
        *request.body_mut() = empty();
        Ok(Some(Self { protocol, client: hyper::upgrade::on(request) }))
    }

    /// Writes `Connection` and `Upgrade` anew.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.protocol.header());
    }

    /// Whether `response` switches to what was asked for, and to nothing else.
    pub(crate) fn is_answered_by<B>(&self, response: &Response<B>) -> bool {
        response.status() == StatusCode::SWITCHING_PROTOCOLS && Protocol::of(response.headers()) == Some(self.protocol)
    }

    /// Whether frames will follow that have borders.
    pub(crate) fn is_web_socket(&self) -> bool {
        self.protocol == Protocol::WebSocket
    }

    /// Our end of the client's connection.
    pub(crate) fn into_client(self) -> OnUpgrade {
        self.client
    }
}
