//! What the front door says itself, and its cookies: their names, how they are set and how they are read. None of it reaches an app.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
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

/// A cookie's value; `None` when there is none, or more than one.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<Secret> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut found = pairs
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(named, _)| *named == name)
        .map(|(_, value)| value);
    let value = found.next()?;
    let plain = (1..=MAX_COOKIE).contains(&value.len())
        && value.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'));
    (plain && found.next().is_none()).then(|| Secret::new(value))
}

const MAX_COOKIE: usize = 128;

/// A `Set-Cookie` of ours. `seconds` of 0 takes it back.
pub(super) fn set_cookie(headers: &mut HeaderMap, name: &str, value: &str, seconds: u64) {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    if let Ok(mut text) = HeaderValue::try_from(text) {
        text.set_sensitive(true);
        headers.append(header::SET_COOKIE, text);
    }
}

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
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::COOKIE, HeaderValue::from_static(value));
            }
            cookie(&headers, SESSION_COOKIE).map(|value| value.reveal().to_owned())
        };
        assert_eq!(of(&["a=b; __Host-remoteler-app=secret", "c=d"]).as_deref(), Some("secret"));
        for bad in [
            &["__host-remoteler-app=secret"][..],
            &["__Host-remoteler-app=one; __Host-remoteler-app=two"],
            &["__Host-remoteler-app=one", "__Host-remoteler-app=one"],
            &["__Host-remoteler-app="],
            &["__Host-remoteler-app=a b"],
            &["__Host-remoteler-app-state=x"],
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
