//! Whether a browser asks on behalf of the app's own pages, or of somebody else's (I52). Pure. A program that is no browser says nothing of it.

use http::{HeaderMap, Method, header};

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// A page of another origin sent it.
    #[error("a page of another site asked for it")]
    Foreign,
    /// A browser says whose page asks; this one did not.
    #[error("the request does not say which page asks for it")]
    Unsaid,
}

/// Who may leave out whose page asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nobody: cookies are what counts, and browsers say it.
    Refused,
    /// Programs: what counts is a certificate that no page has.
    Taken,
}

/// Looks at requests that change something, and at those that leave HTTP for a WebSocket. `authority` is the host, and port if there is one, at which the request came in.
///
/// # Errors
/// [`OriginError`]; the request must not be passed on.
pub fn check_origin(
    method: &Method,
    headers: &HeaderMap,
    authority: &str,
    silence: Silence,
) -> Result<(), OriginError> {
    let upgrades = headers.contains_key(header::UPGRADE) || *method == Method::CONNECT;
    if !upgrades && matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let mut said = false;
    for site in headers.get_all("sec-fetch-site") {
        said = true;
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return Err(OriginError::Foreign);
        }
    }
    let mut origins = 0;
    for origin in headers.get_all(header::ORIGIN) {
        origins += 1;
        if !origin.to_str().is_ok_and(|origin| is_origin_of(origin, authority)) {
            return Err(OriginError::Foreign);
        }
    }
    match silence {
        // Browsers send it with every WebSocket (RFC 6455 section 4.1), whatever else they say.
        Silence::Refused if origins == 0 && (upgrades || !said) => Err(OriginError::Unsaid),
        Silence::Refused | Silence::Taken => Ok(()),
    }
}

/// Whether `origin` (RFC 6454 section 6.1) is the one of pages at `authority`.
pub(crate) fn is_origin_of(origin: &str, authority: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let bare = |text: &str| crate::headers::without_default_port(text, scheme).to_ascii_lowercase();
    matches!(scheme, "http" | "https") && !host.is_empty() && bare(host) == bare(authority)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(method: Method, fields: &[(&'static str, &'static str)], silence: Silence) -> Result<(), OriginError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        check_origin(&method, &headers, "app.example.com:3080", silence)
    }

    // I52
    #[test]
    fn only_the_apps_own_pages_change_something_or_open_a_web_socket() {
        use OriginError::{Foreign, Unsaid};
        const OWN: (&str, &str) = ("origin", "https://app.example.com:3080");
        const UPGRADE: (&str, &str) = ("upgrade", "websocket");
        for (method, fields, expected) in [
            (Method::GET, &[][..], Ok(())),
            (Method::GET, &[("sec-fetch-site", "cross-site")], Ok(())),
            (Method::POST, &[OWN], Ok(())),
            (Method::POST, &[("sec-fetch-site", "same-origin")], Ok(())),
            (Method::POST, &[("sec-fetch-site", "same-site"), OWN], Err(Foreign)),
            (Method::POST, &[("origin", "https://other.example.com:3080")], Err(Foreign)),
            (Method::POST, &[("origin", "https://app.example.com")], Err(Foreign)),
            (Method::POST, &[("origin", "null")], Err(Foreign)),
            (Method::POST, &[OWN, ("origin", "https://evil.example")], Err(Foreign)),
            (Method::DELETE, &[], Err(Unsaid)),
            (Method::GET, &[UPGRADE, OWN], Ok(())),
            (Method::GET, &[UPGRADE], Err(Unsaid)),
            (Method::GET, &[UPGRADE, ("sec-fetch-site", "same-origin")], Err(Unsaid)),
            (Method::GET, &[UPGRADE, ("origin", "https://other.example.com:3080")], Err(Foreign)),
        ] {
            assert_eq!(check(method.clone(), fields, Silence::Refused), expected, "{method} {fields:?}");
            let of_programs = if expected == Err(Unsaid) { Ok(()) } else { expected };
            assert_eq!(check(method.clone(), fields, Silence::Taken), of_programs, "{method} {fields:?}");
        }
    }

    #[test]
    fn a_port_that_the_scheme_has_anyway_may_be_left_out() {
        assert!(is_origin_of("https://app.example.com", "App.example.com:443"));
        assert!(is_origin_of("http://localhost:8080", "localhost:8080"));
        assert!(!is_origin_of("https://app.example.com:80", "app.example.com"));
        assert!(!is_origin_of("app.example.com", "app.example.com"));
    }
}
