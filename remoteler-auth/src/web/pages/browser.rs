//! Which browser it is, before anybody has logged in: a cookie with a secret of its own, to which logins and forms are bound (I50, I52). Owns the
//! cookie's form; keeps nothing.

use axum::response::Response;
use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
    uri::Authority,
};
use remoteler_core::{Entropy, Secret};

use crate::{
    form_token::{form_token, is_form_token},
    secret_hash,
};

/// A browser that holds our cookie.
#[derive(Clone)]
pub(crate) struct Browser {
    secret: Secret,
}

/// Name of the cookie. `__Host-`: only we set it, for this host alone, over TLS.
const COOKIE_NAME: &str = "__Host-remoteler-browser";
/// Most cookies that are looked at (I62).
const MAX_COOKIES: usize = 50;

impl Browser {
    /// The browser that sent these headers, if it has one cookie of ours.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::with(&Secret::new(cookie(headers, COOKIE_NAME)?))
    }

    /// A browser that was never here.
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        Self { secret: secret_hash::draw(entropy) }
    }

    /// The browser of this secret, if it has the form of one.
    pub(crate) fn with(secret: &Secret) -> Option<Self> {
        secret_hash::is_drawn(secret.reveal()).then(|| Self { secret: secret.clone() })
    }

    /// What the auth service knows it by.
    pub(crate) fn secret(&self) -> Secret {
        self.secret.clone()
    }

    /// The token that a form of this browser carries in its field `csrf`; `form` names what it does, and to what.
    pub(crate) fn form_token(&self, form: &str) -> String {
        form_token(&self.secret, form).reveal().to_owned()
    }

    /// Whether a form that came back is one of this browser's.
    pub(crate) fn sent(&self, form: &str, token: &Secret) -> bool {
        is_form_token(&self.secret, form, token)
    }

    /// `answer`, with the cookie. A day is longer than any login takes.
    pub(crate) fn keep(&self, answer: Response) -> Response {
        set_cookie(answer, COOKIE_NAME, self.secret.reveal(), 24 * 3600)
    }
}

/// `answer`, with a cookie that only this host gets back, over TLS, unseen by scripts; sent along when another site leads here, as a provider's answer does,
/// but not with another site's forms.
pub(crate) fn set_cookie(mut answer: Response, name: &str, value: &str, max_age: u64) -> Response {
    let cookie = format!("{name}={value}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax");
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
        cookie.set_sensitive(true);
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    answer
}

/// The value of a cookie that was sent once. Sent twice, one of them is not ours. Others stand beside it in whatever octets pages of hosts below ours have set.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|octet| *octet == b';'));
    let pairs = pairs.take(MAX_COOKIES).map(<[u8]>::trim_ascii);
    let mut found = pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    match (found.next(), found.next()) {
        (Some(value), None) => std::str::from_utf8(value).ok(),
        _ => None,
    }
}

/// Whether a browser says that a page of ours sent the request (I52). What says nothing of it is no browser; its form token still has to be right.
pub(crate) fn from_own_page(headers: &HeaderMap, authority: &Authority) -> bool {
    let values = |name: &str| -> Vec<&str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("unreadable")).collect()
    };
    let own_site = match values("sec-fetch-site").as_slice() {
        [] => true,
        [site] => matches!(*site, "same-origin" | "none"),
        _ => false,
    };
    let own_origin = match values("origin").as_slice() {
        [] => true,
        [origin] => origin.eq_ignore_ascii_case(&format!("https://{authority}")),
        _ => false,
    };
    own_site && own_origin
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use remoteler_core::OsEntropy;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        pairs.collect()
    }

    #[test]
    fn the_cookie_is_for_this_host_over_tls_alone_and_no_script_reads_it() {
        let browser = Browser::new(&OsEntropy);
        let answer = browser.keep(().into_response());
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap().to_owned();
        for part in ["__Host-remoteler-browser=", "; Secure", "; HttpOnly", "; SameSite=", "; Path=/;"] {
            assert!(cookie.contains(part), "{cookie}"); // I50
        }
        assert!(!cookie.contains("Domain"));
        let sent = cookie.split(';').next().unwrap();
        let again = Browser::of(&headers(&[("cookie", sent)])).unwrap();
        assert!(again.sent("x", &Secret::new(browser.form_token("x"))));
        assert_eq!(sent.split_once('=').unwrap().1.len(), 64);
    }

    #[test]
    fn a_second_cookie_of_the_name_counts_as_none() {
        let one = "a".repeat(64);
        let pair = format!("__Host-remoteler-browser={one}");
        assert!(Browser::of(&headers(&[("cookie", &format!("x=1; {pair}"))])).is_some());
        let beside = HeaderValue::from_bytes(format!("name=J\u{f6}rg; {pair}; x=\u{fc}").as_bytes()).unwrap();
        assert!(Browser::of(&HeaderMap::from_iter([(COOKIE, beside)])).is_some(), "others' octets shut nobody out");
        assert!(Browser::of(&headers(&[("cookie", &format!("{pair}; {pair}"))])).is_none());
        assert!(Browser::of(&headers(&[("cookie", "__Host-remoteler-browser=short")])).is_none());
        assert!(Browser::of(&headers(&[("cookie", &format!("x{pair}"))])).is_none());
        assert!(Browser::with(&Secret::new(format!("{one}; Domain=x"))).is_none());
    }

    #[test]
    fn another_site_is_told_from_ours() {
        let own: Authority = "p.example:3080".parse().unwrap();
        for right in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("origin", "https://p.example:3080"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(from_own_page(&headers(right), &own), "{right:?}");
        }
        for wrong in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "https://p.example")],
            &[("origin", "http://p.example:3080")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!from_own_page(&headers(wrong), &own), "{wrong:?}"); // I52
        }
    }
}
