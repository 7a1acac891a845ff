//! Which headers of a request may reach the API server, and which of its answer may reach the client. Owns the lists; sets nothing
//! on its own account.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Why a request's headers contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// RFC 9112 section 3.2: exactly one.
    #[error("the request has {0} Host headers; exactly one is needed")]
    Host(usize),
    /// A request for an upgrade that carries content: where it ends and the new protocol begins would be guesswork.
    #[error("a request to upgrade the connection must not have a body")]
    UpgradeWithBody,
}

/// Removes from a request's headers everything that speaks of this connection or claims an identity (I55). `Host`, `Connection` and the
/// length are written anew by the forwarder.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| claims_identity(name)).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    strip_bearer_protocols(headers);
}

/// Removes from an answer's headers what speaks of the upstream connection.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    for name in [header::ALT_SVC, header::WWW_AUTHENTICATE] {
        headers.remove(name);
    }
}

/// Whether a header says who somebody is, or where they come from. An underscore counts as a hyphen: some servers fold the two.
pub(crate) fn claims_identity(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with("impersonate")
        || name.starts_with("x-remote-")
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-client-cert")
        || matches!(name.as_str(), "authorization" | "proxy-authorization" | "forwarded" | "x-real-ip" | "via")
}

/// Whether a request asks to be somebody else: `kubectl --as`.
pub(crate) fn asks_to_impersonate(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("impersonate"))
}

/// Tells the caller that what [`asks_to_impersonate`] was not passed on, in the form that kubectl prints (RFC 7234 section 5.5, code 299).
pub(crate) fn warn_of_impersonation(answer: &mut HeaderMap, user: &str) {
    let quoted: String =
        user.chars().flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])).collect();
    let text = format!(
        "299 - \"Impersonate-* headers (kubectl --as, --as-group, --as-uid) are not passed on; the request was made as {quoted}\""
    );
    // A name that was sent in a header fits into one.
    if let Ok(value) = HeaderValue::try_from(text) {
        answer.append(header::WARNING, value);
    }
}

/// RFC 9110 section 7.6.1: the fields `Connection` names, and those that never go further than one connection.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_tokens(headers).filter_map(|token| token.parse().ok()).collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
}

const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// The tokens of all `Connection` headers, in lower case.
pub(crate) fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|token| token.trim().to_ascii_lowercase())
}

/// API servers take a bearer token as a WebSocket sub-protocol (`base64url.bearer.authorization.k8s.io.<token>`): an `Authorization`
/// header in another place.
fn strip_bearer_protocols(headers: &mut HeaderMap) {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let is_bearer = |protocol: &str| protocol.to_ascii_lowercase().contains("bearer.authorization.k8s.io");
    let kept: Vec<String> = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty() && !is_bearer(protocol))
        .map(str::to_owned)
        .collect();
    if headers.remove(header::SEC_WEBSOCKET_PROTOCOL).is_some()
        && !kept.is_empty()
        && let Ok(value) = HeaderValue::try_from(kept.join(", "))
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
        }
        headers
    }

    // I55
    #[test]
    fn claims_of_identity_go_in_every_spelling() {
        let mut headers = map(&[
            ("Impersonate-User", "root"),
            ("impersonate-user", "root"),
            ("IMPERSONATE-GROUP", "system:masters"),
            ("Impersonate_User", "root"),
            ("Impersonate-Uid", "0"),
            ("Impersonate-Extra-Scopes", "all"),
            ("X-Remote-User", "root"),
            ("X_Remote_Group", "system:masters"),
            ("X-Remote-Extra-a", "b"),
            ("Authorization", "Bearer stolen"),
            ("Proxy-Authorization", "Basic stolen"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("Accept", "application/json"),
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, map(&[("accept", "application/json")]));
    }

    // I55
    #[test]
    fn what_connection_names_goes_and_connection_with_it() {
        let mut headers = map(&[
            ("Connection", "keep-alive, X-Secret"),
            ("Connection", "Authorization,Upgrade"),
            ("X-Secret", "1"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAA"),
            ("TE", "trailers"),
            ("Trailer", "Impersonate-User"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "4"),
            ("Host", "proxy"),
            ("Content-Type", "text/plain"),
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, map(&[("content-type", "text/plain")]));
    }

    #[test]
    fn a_bearer_token_among_websocket_protocols_goes_and_the_others_stay() {
        let mut headers = map(&[
            ("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.c3RvbGVu, v5.channel.k8s.io"),
            ("Sec-WebSocket-Protocol", "v4.channel.k8s.io,Base64URL.Bearer.authorization.k8s.io.x"),
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, map(&[("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io")]));

        let mut only = map(&[("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.c3RvbGVu")]);
        strip_request(&mut only);
        assert!(only.is_empty());
    }

    // I55
    #[test]
    fn who_asks_to_be_somebody_else_is_told_who_they_were() {
        assert!(asks_to_impersonate(&map(&[("Impersonate-User", "root")])));
        assert!(asks_to_impersonate(&map(&[("IMPERSONATE_EXTRA-a", "b")])));
        assert!(!asks_to_impersonate(&map(&[("Accept", "application/json"), ("X-Remote-User", "root")])));
        let mut answer = map(&[("Warning", "299 - \"deprecated\"")]);
        warn_of_impersonation(&mut answer, r#"a"n\n"#);
        let values: Vec<_> = answer.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values.len(), 2, "the API server's own stays");
        assert!(
            values[1].starts_with("299 - \"Impersonate-* headers") && values[1].ends_with(r#"was made as a\"n\\n""#),
            "{}",
            values[1]
        );
    }
}
