//! Bounds on one request, beside those hyper is configured with (I62).

use http::{HeaderMap, HeaderValue, Method, Request, Version, header};

/// Octets of path and query.
const MAX_URL: usize = 8 * 1024;
/// Octets of all header names and values; also what hyper buffers before it has seen a whole head.
pub(super) const MAX_HEADER_OCTETS: usize = 64 * 1024;
/// Header fields.
pub(super) const MAX_HEADERS: usize = 100;
/// Cookies in all headers of that name.
const MAX_COOKIES: usize = 50;

/// Why a request is not one that is passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LimitError {
    /// Path and query.
    #[error("path and query have {0} octets; at most {MAX_URL} are taken")]
    Url(usize),
    /// Header fields.
    #[error(
        "the request has {fields} header fields of {octets} octets; at most {MAX_HEADERS} of {MAX_HEADER_OCTETS} are taken"
    )]
    Headers {
        /// How many.
        fields: usize,
        /// How large.
        octets: usize,
    },
    /// Cookies.
    #[error("the request has {0} cookies; at most {MAX_COOKIES} are taken")]
    Cookies(usize),
    /// Of proxies: it has no path.
    #[error("a request to an app has a path")]
    NoPath,
    /// RFC 9112 section 3.2, RFC 9113 section 8.3.1: exactly one, and beside an authority none that is not the same.
    #[error("the request names {0} hosts; exactly one is needed")]
    Host(usize),
}

/// Refuses what is larger than any honest request, and what could be read in two ways.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), LimitError> {
    if *request.method() == Method::CONNECT || !request.uri().path().starts_with('/') {
        return Err(LimitError::NoPath);
    }
    let url = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if url > MAX_URL {
        return Err(LimitError::Url(url));
    }
    let (fields, octets) = size(request.headers());
    if fields > MAX_HEADERS || octets > MAX_HEADER_OCTETS {
        return Err(LimitError::Headers { fields, octets });
    }
    let cookies = request.headers().get_all(header::COOKIE).iter();
    let cookies = cookies.map(|value| value.as_bytes().split(|octet| *octet == b';').count()).sum();
    if cookies > MAX_COOKIES {
        return Err(LimitError::Cookies(cookies));
    }
    let named = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let same = |host: &HeaderValue| named.is_none_or(|named| named.eq_ignore_ascii_case(host.as_bytes()));
    let others = request.headers().get_all(header::HOST).iter().filter(|host| !same(host)).count();
    if others > 0 {
        return Err(LimitError::Host(others + 1));
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || hosts == 0 && request.version() != Version::HTTP_2 {
        return Err(LimitError::Host(hosts));
    }
    Ok(())
}

/// Where the request is addressed to, as the client wrote it.
pub(super) fn authority<B>(request: &Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(header::HOST)?.to_str().ok(),
    }
}

fn size(headers: &HeaderMap) -> (usize, usize) {
    headers
        .iter()
        .fold((0, 0), |(fields, octets), (name, value)| (fields + 1, octets + name.as_str().len() + value.len() + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    // I62
    #[test]
    fn a_request_beyond_a_limit_is_refused_and_one_at_it_is_not() {
        let url =
            |octets: usize| Request::get(format!("/{}", "a".repeat(octets - 1))).header("host", "a").body(()).unwrap();
        assert_eq!(check(&url(MAX_URL)), Ok(()));
        assert_eq!(check(&url(MAX_URL + 1)), Err(LimitError::Url(MAX_URL + 1)));
        let mut many = url(1);
        for _ in 0..MAX_HEADERS {
            many.headers_mut().append("x-many", "1".parse().unwrap());
        }
        assert!(matches!(check(&many), Err(LimitError::Headers { fields: 101, .. })));
        let cookies = |count: usize| {
            let all = vec!["a=b"; count].join("; ");
            check(&Request::get("/").header("host", "a").header("cookie", all).body(()).unwrap())
        };
        assert_eq!((cookies(50), cookies(51)), (Ok(()), Err(LimitError::Cookies(51))));
        assert_eq!(check(&Request::get("/").body(()).unwrap()), Err(LimitError::Host(0)));
        let absolute = |host: &str| Request::get("https://a:1/").header("host", host).body(()).unwrap();
        assert_eq!((check(&absolute("A:1")), check(&absolute("b"))), (Ok(()), Err(LimitError::Host(2))));
        let connect = Request::builder().method("CONNECT").uri("a:1").header("host", "a").body(()).unwrap();
        assert_eq!(check(&connect), Err(LimitError::NoPath));
    }
}
