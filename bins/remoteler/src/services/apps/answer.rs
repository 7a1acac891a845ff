//! What the front door says itself, and its cookies: their names, how they are set and how they are read. None of it reaches an app.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{self, HeaderName, HeaderValue},
};
use remoteler_core::Secret;

/// Whatever ended a body early.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The one body type of the front door.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The session with an app.
pub(super) const SESSION_COOKIE: &str = "__Host-remoteler-app";
/// That it was this browser that wanted to come in.
pub(super) const STATE_COOKIE: &str = "__Host-remoteler-app-state";

/// The value of a cookie of ours; `None` when there is none, or more than one, or it has not the form of our secrets. Others stand beside it in whatever octets apps and
/// their pages have set.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<Secret> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|octet| *octet == b';'));
    let mut found = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    let value = std::str::from_utf8(found.next()?).ok().filter(|value| is_secret(value))?;
    found.next().is_none().then(|| Secret::new(value))
}

/// Whether a text has the form of the secrets that a browser is given here: 256 bits in hex.
pub(super) fn is_secret(text: &str) -> bool {
    text.len() == SECRET_DIGITS && text.bytes().all(|octet| octet.is_ascii_hexdigit())
}

const SECRET_DIGITS: usize = 64;

/// A `Set-Cookie` of ours. `seconds` of 0 takes it back.
pub(super) fn set_cookie(headers: &mut HeaderMap, name: &str, value: &str, seconds: u64) {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    if let Ok(mut text) = HeaderValue::try_from(text) {
        text.set_sensitive(true);
        headers.append(header::SET_COOKIE, text);
    }
}

/// Reads and forgets the body of a request that is answered here: over HTTP/2 stock curl takes a stream that is given up for one without an answer. Not all of one
/// that is large or slow.
pub(super) fn ignore(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(IGNORED_FOR, async move {
        let mut left = MAX_IGNORED;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(less) => left = less,
                None => break,
            }
        }
    }));
}

/// For so long, and so many octets.
const IGNORED_FOR: Duration = Duration::from_secs(2);
const MAX_IGNORED: usize = 64 * 1024;

/// A sentence.
pub(super) fn say(code: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("{text}\n"))).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    ours(headers);
    response
}

/// A redirect that is remembered nowhere, and of which the next page learns nothing.
pub(super) fn redirect(code: StatusCode, to: &str) -> Response<Body> {
    let mut response = say(code, "");
    match HeaderValue::try_from(to) {
        Ok(to) => {
            response.headers_mut().insert(header::LOCATION, to);
            response
        }
        Err(_) => say(StatusCode::BAD_REQUEST, "the address cannot be written"),
    }
}

fn ours(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        // Whoever opened the window sees no more of it, and so not the code in its address.
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // I50
    #[test]
    fn a_cookie_counts_under_its_exact_name_and_once() {
        let secret = "5a".repeat(32);
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = value.replace("SECRET", &secret);
                headers.append(header::COOKIE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            cookie(&headers, SESSION_COOKIE).map(|value| value.reveal().to_owned())
        };
        for good in [
            &["a=b; __Host-remoteler-app=SECRET", "c=d"][..],
            // What pages of apps beside this one set for all of them shuts nobody out.
            &["name=J\u{f6}rg; __Host-remoteler-app=SECRET; x=\u{fc}"],
        ] {
            assert_eq!(of(good).as_deref(), Some(secret.as_str()), "{good:?}");
        }
        for bad in [
            &["__host-remoteler-app=SECRET"][..],
            &["__Host-remoteler-app=SECRET; __Host-remoteler-app=SECRET"],
            &["__Host-remoteler-app=SECRET", "__Host-remoteler-app=x"],
            &["__Host-remoteler-app="],
            &["__Host-remoteler-app=SECRETa"],
            &["__Host-remoteler-app=x"],
            &["__Host-remoteler-app-state=SECRET"],
            &["__Host-remoteler-app=\u{f6}"],
            &[],
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    // I50
    #[test]
    fn what_is_set_is_for_this_host_alone_and_no_script() {
        let mut headers = HeaderMap::new();
        set_cookie(&mut headers, SESSION_COOKIE, "v", 60);
        let set = headers.get(header::SET_COOKIE).unwrap();
        assert!(set.is_sensitive());
        assert_eq!(set, "__Host-remoteler-app=v; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60");
    }
}
