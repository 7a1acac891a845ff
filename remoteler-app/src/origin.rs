//! Whether a browser asks on behalf of the app's own pages, or of somebody else's (I52). Pure. A program that is no browser says nothing of it. From elsewhere one
//! comes to an app by going there in a window, and in no other way: not by a picture, a script, a frame or a form.

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
    /// It would see the codes of logins on their way, outlive the page that installed it and, at a port of this machine, the app itself.
    #[error("an app may not install a service worker")]
    Worker,
}

/// Who may leave out whose page asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nobody: cookies are what counts, and browsers say it.
    Refused,
    /// Programs: what counts is a certificate that no page has.
    Taken,
}

/// Looks at whose page asks. `authority` is the host, and port if there is one, at which the request came in.
///
/// # Errors
/// [`OriginError`]; the request must not be passed on.
pub fn check_origin(
    method: &Method,
    headers: &HeaderMap,
    authority: &str,
    silence: Silence,
) -> Result<(), OriginError> {
    if headers.contains_key("service-worker") {
        return Err(OriginError::Worker);
    }
    let upgrades = headers.contains_key(header::UPGRADE) || *method == Method::CONNECT;
    let goes_there = !upgrades
        && *method == Method::GET
        && is_said(headers, "sec-fetch-mode", "navigate")
        && is_said(headers, "sec-fetch-dest", "document");
    let mut said = false;
    for site in headers.get_all("sec-fetch-site") {
        said = true;
        if !matches!(site.as_bytes(), b"same-origin" | b"none") && !goes_there {
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
    if !upgrades && matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    match silence {
        // Browsers send it with every WebSocket (RFC 6455 section 4.1), whatever else they say.
        Silence::Refused if origins == 0 && (upgrades || !said) => Err(OriginError::Unsaid),
        Silence::Refused | Silence::Taken => Ok(()),
    }
}

/// Whether a header is there, once, with this value.
fn is_said(headers: &HeaderMap, name: &str, value: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.next().is_some_and(|said| said == value) && values.next().is_none()
}

/// Whether `origin` (RFC 6454 section 6.1) is the one of pages at `authority`: over TLS, but for ports of this machine, where `tsh` listens. A page without TLS under an
/// app's name is of whoever stands on the way.
pub(crate) fn is_origin_of(origin: &str, authority: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let bare = |text: &str| crate::headers::without_default_port(text, scheme).to_ascii_lowercase();
    let trusted = scheme == "https" || scheme == "http" && is_this_machine(authority);
    trusted && !host.is_empty() && bare(host) == bare(authority)
}

/// Whether an authority is a port of this machine, as `tsh proxy app` makes it.
pub(crate) fn is_this_machine(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => authority,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
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
        use OriginError::{Foreign, Unsaid, Worker};
        const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");
        const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
        const OWN: (&str, &str) = ("origin", "https://app.example.com:3080");
        const UPGRADE: (&str, &str) = ("upgrade", "websocket");
        for (method, fields, expected) in [
            (Method::GET, &[][..], Ok(())),
            (Method::OPTIONS, &[], Ok(())),
            (Method::GET, &[CROSS], Err(Foreign)),
            (Method::GET, &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")], Err(Foreign)),
            (Method::GET, &[CROSS, NAVIGATE, ("sec-fetch-dest", "document")], Ok(())),
            (Method::GET, &[CROSS, NAVIGATE, ("sec-fetch-dest", "iframe")], Err(Foreign)),
            (Method::GET, &[CROSS, NAVIGATE], Err(Foreign)),
            (Method::HEAD, &[CROSS, NAVIGATE, ("sec-fetch-dest", "document")], Err(Foreign)),
            (Method::POST, &[CROSS, NAVIGATE, ("sec-fetch-dest", "document")], Err(Foreign)),
            (Method::GET, &[UPGRADE, CROSS, NAVIGATE, ("sec-fetch-dest", "document"), OWN], Err(Foreign)),
            (Method::GET, &[("sec-fetch-site", "same-origin"), ("service-worker", "script")], Err(Worker)),
            (Method::GET, &[("origin", "https://evil.example")], Err(Foreign)),
            (Method::OPTIONS, &[("origin", "https://evil.example")], Err(Foreign)),
            (Method::GET, &[OWN], Ok(())),
            (Method::POST, &[("origin", "http://app.example.com:3080")], Err(Foreign)),
            (Method::GET, &[UPGRADE, ("origin", "http://app.example.com:3080")], Err(Foreign)),
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
        for own in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080"] {
            assert!(is_origin_of(&format!("http://{own}"), own), "{own}");
        }
        assert!(!is_origin_of("http://app.example.com", "app.example.com"), "whoever stands on the way wrote that");
        assert!(!is_origin_of("http://127.0.0.1.evil:80", "127.0.0.1.evil:80"));
        assert!(!is_origin_of("https://app.example.com:80", "app.example.com"));
        assert!(!is_origin_of("app.example.com", "app.example.com"));
    }
}
