//! Which headers may pass between a user and an app, in both directions, and what ours say (I53). Owns the lists and the rewriting of redirects. Pure: the
//! service stands between user and app with it, and the proxy does once more between browser and service.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

/// The JWT that tells the app who asks. Its keys are at the proxy, `/.well-known/jwks.json`.
pub const ASSERTION: HeaderName = HeaderName::from_static("remoteler-jwt-assertion");
/// What all our cookies begin with, in lower case. None of them reaches an app, and no app sets one.
const OWN_COOKIES: &[u8] = b"__host-remoteler";

/// What an app is told of a request, beside the request itself.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    /// Where the user's connection comes from, without a port.
    pub client: Option<&'a str>,
    /// The app's own name for users: `host` or `host:port`.
    pub public_addr: &'a str,
    /// Who asks, signed for this app.
    pub assertion: &'a HeaderValue,
}

/// Removes what speaks of this connection, what claims an identity or an origin, and our cookies; `Host` and the length are written anew by who sends it on.
pub fn strip_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    strip_own_cookies(headers);
}

/// Writes what we say, after [`strip_request`] has taken away what others said.
pub fn tell(headers: &mut HeaderMap, told: &Told<'_>) {
    headers.insert(ASSERTION, told.assertion.clone());
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    for (name, value) in [("x-forwarded-for", told.client), ("x-forwarded-host", Some(told.public_addr))] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
}

/// Says how long a request's body is where hyper would not: of GET and HEAD it sends no body whose length it does not know, and `strip_request` has taken away what
/// the client said of it.
pub fn keep_body<B: hyper::body::Body>(request: &mut Request<B>) {
    let unknown = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    if unknown && matches!(*request.method(), Method::GET | Method::HEAD) {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Removes from an answer what speaks of the connection to the app, and what an app may not say to a browser: cookies of ours, cookies for more than the app's own
/// `public_host`, and orders that count beyond its own origin.
pub fn strip_response(headers: &mut HeaderMap, public_host: &str) {
    strip_hop_by_hop(headers);
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    // Cookies of the whole registrable domain would go, ours and those of other apps among them.
    // Reports would name the addresses of others' answers under this name, codes of logins among them; of workers `check_origin` says why.
    for name in ["alt-svc", "clear-site-data", "nel", "report-to", "reporting-endpoints", "service-worker-allowed"] {
        headers.remove(name);
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(header::SET_COOKIE)
        .iter()
        .filter(|value| may_set(value.as_bytes(), public_host))
        .cloned()
        .collect();
    headers.remove(header::SET_COOKIE);
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}

/// Makes a redirect to the app's internal address one that stays at the app's own origin, under whatever name the user reached it.
pub fn keep_redirect_inside(headers: &mut HeaderMap, internal: &str) {
    let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let Some((before, after)) = location.split_once("//") else { return };
    let scheme = before.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "" | "http:" | "https:") {
        return;
    }
    let end = after.find(['/', '\\', '?', '#']).unwrap_or(after.len());
    let (authority, rest) = after.split_at(end);
    if !without_default_port(&authority.to_ascii_lowercase(), &scheme).eq_ignore_ascii_case(internal) {
        return;
    }
    // What begins with two slashes, or a slash and a backslash, would name another host.
    let inside = match rest.as_bytes() {
        [b'/', b'/' | b'\\', ..] => format!("/.{rest}"),
        [b'/', ..] => rest.to_owned(),
        [b'\\', ..] => return drop(headers.remove(header::LOCATION)),
        _ => format!("/{rest}"),
    };
    if let Ok(value) = HeaderValue::try_from(inside) {
        headers.insert(header::LOCATION, value);
    }
}

/// `authority` without the port that its scheme has anyway.
pub(crate) fn without_default_port<'a>(authority: &'a str, scheme: &str) -> &'a str {
    let port = match scheme.trim_end_matches(':') {
        "http" => ":80",
        "https" => ":443",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// The tokens of all `Connection` headers, in lower case.
pub(crate) fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|token| token.trim().to_ascii_lowercase())
}

/// Whether a header says who somebody is, or where they come from. An underscore counts as a hyphen: many servers fold the two.
fn is_claim(name: &HeaderName) -> bool {
    const PREFIXES: &[&str] = &[
        "x-forwarded-",
        "x-remote-",
        "x-webauth-",
        "x-auth-request-",
        "x-client-cert",
        "x-ssl-client-",
        "cf-access-",
        "oidc-claim-",
        "tailscale-",
        "teleport-",
        "x-amzn-oidc-",
        "x-authenticated-",
        "x-authentik-",
        "x-envoy-",
        "x-goog-authenticated-user-",
        "x-goog-iap-",
        "x-ms-client-principal",
        "x-original-",
        "x-pomerium-",
        "x-rewrite-",
        "x-vouch-",
    ];
    const NAMES: &[&str] = &[
        "forwarded",
        "via",
        "x-real-ip",
        "true-client-ip",
        "remote-user",
        "remote-groups",
        "remote-email",
        "remote-name",
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "client-ip",
        "fastly-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-forwarded",
        "x-originating-ip",
        "x-user",
    ];
    let folded = name.as_str().replace('_', "-");
    is_ours(name) || PREFIXES.iter().any(|prefix| folded.starts_with(prefix)) || NAMES.contains(&folded.as_str())
}

fn is_ours(name: &HeaderName) -> bool {
    let folded = name.as_str().replace('_', "-");
    folded.starts_with("remoteler-") || folded.starts_with("x-remoteler-")
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

/// One `Cookie` header is left, of what is not ours; HTTP/2 may bring several (RFC 9113 section 8.2.3).
fn strip_own_cookies(headers: &mut HeaderMap) {
    let kept: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|octet| *octet == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty() && !is_own_cookie(pair))
        .collect();
    let kept = (!kept.is_empty()).then(|| HeaderValue::from_bytes(&kept.join(&b"; "[..])));
    headers.remove(header::COOKIE);
    if let Some(Ok(value)) = kept {
        headers.insert(header::COOKIE, value);
    }
}

/// A cookie without a name is sent back as its value alone, so that `=__Host-…` is one of ours too.
fn is_own_cookie(pair: &[u8]) -> bool {
    let skipped = pair.iter().position(|octet| !matches!(octet, b'=' | b' ' | b'\t' | b'"')).unwrap_or(pair.len());
    let name = pair.get(skipped..).unwrap_or_default();
    name.get(..OWN_COOKIES.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_COOKIES))
}

/// Whether an app may set this cookie (RFC 6265 section 4.1).
fn may_set(cookie: &[u8], public_host: &str) -> bool {
    let mut parts = cookie.split(|octet| *octet == b';').map(<[u8]>::trim_ascii);
    if parts.next().is_none_or(is_own_cookie) {
        return false;
    }
    parts.all(|attribute| {
        let (name, value) = match attribute.iter().position(|octet| *octet == b'=') {
            Some(at) => attribute.split_at(at),
            None => return true,
        };
        if !name.trim_ascii().eq_ignore_ascii_case(b"domain") {
            return true;
        }
        let domain = value.get(1..).unwrap_or_default().trim_ascii();
        let domain = domain.strip_prefix(b".").unwrap_or(domain);
        domain.is_empty() || domain.eq_ignore_ascii_case(public_host.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
        }
        headers
    }

    // I53
    #[test]
    fn claims_of_identity_and_origin_go_in_every_spelling() {
        let mut headers = map(&[
            ("Remoteler-Jwt-Assertion", "forged"),
            ("remoteler_jwt_assertion", "forged"),
            ("REMOTELER-JWT_Assertion", "forged"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("X_Forwarded_Host", "evil"),
            ("Forwarded", "for=10.0.0.1"),
            ("X-Real_IP", "10.0.0.1"),
            ("X-WebAuth-User", "root"),
            ("Remote_User", "root"),
            ("X_Forwarded", "for=10.0.0.1"),
            ("X-Cluster-Client-IP", "10.0.0.1"),
            ("X_Original_URL", "/admin"),
            ("X-Rewrite-Url", "/admin"),
            ("X-User", "root"),
            ("X-MS-Client-Principal", "root"),
            ("X-Goog-Authenticated-User-Email", "root"),
            ("Tailscale_User_Login", "root"),
            ("OIDC_CLAIM_sub", "root"),
            ("Connection", "keep-alive, X-Hop, Cookie"),
            ("X-Hop", "1"),
            ("Cookie", "a=b"),
            ("Trailer", "Remoteler-Jwt-Assertion"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("Host", "app"),
            ("Authorization", "Bearer of-the-app"),
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, map(&[("authorization", "Bearer of-the-app")]));
    }

    #[test]
    fn a_body_of_unknown_length_is_sent_with_every_method() {
        use http_body_util::{BodyExt, Full, StreamBody};
        let unknown =
            || StreamBody::new(futures::stream::pending::<Result<hyper::body::Frame<bytes::Bytes>, hyper::Error>>());
        let sent = |method: Method| {
            let mut request = Request::builder().method(method).body(unknown()).unwrap();
            keep_body(&mut request);
            request.headers().get(header::TRANSFER_ENCODING).cloned()
        };
        assert_eq!(sent(Method::GET).unwrap(), "chunked");
        assert_eq!(sent(Method::POST), None, "hyper says it itself");
        for known in ["", "x"] {
            let mut request = Request::new(Full::<bytes::Bytes>::from(known).boxed());
            keep_body(&mut request);
            assert!(request.headers().is_empty(), "{known:?}");
        }
    }

    // I53
    #[test]
    fn our_cookies_go_and_the_apps_own_stay_in_one_header() {
        let mut headers = map(&[
            ("Cookie", "theme=dark; __Host-remoteler-app=secret;  __host-REMOTELER-app-state=s"),
            ("Cookie", "=__Host-remoteler-app=x; sid=1=2"),
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, map(&[("cookie", "theme=dark; sid=1=2")]));

        let mut only = map(&[("Cookie", "__Host-remoteler-app=secret")]);
        strip_request(&mut only);
        assert!(only.is_empty());
    }

    // I53
    #[test]
    fn an_app_sets_cookies_for_itself_only_and_none_of_ours() {
        let mut headers = map(&[
            ("Set-Cookie", "sid=1; Path=/; HttpOnly"),
            ("Set-Cookie", "own=1; Domain=.App.Example.com"),
            ("Set-Cookie", "wide=1; domain = example.com"),
            ("Set-Cookie", "__Host-remoteler-app=forged; Secure; Path=/"),
            ("Set-Cookie", "=__HOST-remoteler-app=forged"),
            ("Set-Cookie", "two=1; Domain=app.example.com; Domain=example.com"),
            ("Clear-Site-Data", "\"cookies\""),
            ("NEL", "{}"),
            ("Report-To", "{}"),
            ("Reporting-Endpoints", "a=\"/b\""),
            ("Service-Worker-Allowed", "/"),
            ("Remoteler-Jwt-Assertion", "echoed"),
            ("Connection", "close"),
        ]);
        strip_response(&mut headers, "app.example.com");
        let expected = [("set-cookie", "sid=1; Path=/; HttpOnly"), ("set-cookie", "own=1; Domain=.App.Example.com")];
        assert_eq!(headers, map(&expected));
    }

    // I40
    #[test]
    fn a_redirect_to_the_internal_address_stays_inside_and_others_go_where_they_say() {
        for (location, expected) in [
            ("http://127.0.0.1:3000/login?a=b#c", "/login?a=b#c"),
            ("HTTP://127.0.0.1:3000", "/"),
            ("https://127.0.0.1:3000?x", "/?x"),
            ("//127.0.0.1:3000/x", "/x"),
            ("http://127.0.0.1:3000//evil.example", "/.//evil.example"),
            ("http://127.0.0.1:3000/\\evil.example", "/./\\evil.example"),
            ("http://127.0.0.1:30001/x", "http://127.0.0.1:30001/x"),
            ("http://127.0.0.1:3000@evil.example/x", "http://127.0.0.1:3000@evil.example/x"),
            (
                "https://sso.example.com/authorize?to=http://127.0.0.1:3000/",
                "https://sso.example.com/authorize?to=http://127.0.0.1:3000/",
            ),
            ("/plain//path", "/plain//path"),
        ] {
            let mut headers = map(&[("location", location)]);
            keep_redirect_inside(&mut headers, "127.0.0.1:3000");
            assert_eq!(headers.get("location").unwrap(), expected, "{location}");
        }
        let mut headers = map(&[("location", "http://127.0.0.1:3000\\evil.example")]);
        keep_redirect_inside(&mut headers, "127.0.0.1:3000");
        assert!(headers.is_empty());
        let mut headers = map(&[("location", "http://grafana.lan:80/x")]);
        keep_redirect_inside(&mut headers, "grafana.lan");
        assert_eq!(headers, map(&[("location", "/x")]));
    }

    proptest! {
        // I53
        #[test]
        fn whatever_a_client_sends_what_we_say_is_said_once_and_no_secret_of_ours_passes(
            fields in proptest::collection::vec(
                ("(remoteler[-_]jwt[-_]assertion|x[-_]forwarded[-_](for|host|proto)|forwarded|cookie|connection|accept|x-[a-z]{1,8})",
                 "[ -~]{0,20}((__Host-remoteler-app=SECRET|__HOST-Remoteler-APP-state=SECRET|remoteler-jwt-assertion|close|x-forwarded-for)[;,]? ?)?[ -:<-~]{0,9}"),
                0..20),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
            }
            strip_request(&mut headers);
            let assertion = HeaderValue::from_static("ours");
            tell(&mut headers, &Told { client: Some("192.0.2.1"), public_addr: "app", assertion: &assertion });
            for (name, ours) in [("remoteler-jwt-assertion", "ours"), ("x-forwarded-for", "192.0.2.1"), ("x-forwarded-host", "app"), ("x-forwarded-proto", "https")] {
                let said: Vec<_> = headers.iter().filter(|(other, _)| other.as_str().replace('_', "-") == name).collect();
                prop_assert_eq!(said.len(), 1);
                prop_assert_eq!(said[0].1, ours);
            }
            let cookies = headers.get_all("cookie").iter().count();
            prop_assert!(cookies <= 1);
            if let Some(cookie) = headers.get("cookie") {
                let own = cookie.to_str().unwrap().split(';').any(|pair| {
                    pair.trim().trim_start_matches(['=', ' ', '"']).to_ascii_lowercase().starts_with("__host-remoteler")
                });
                prop_assert!(!own);
            }
        }
    }
}
