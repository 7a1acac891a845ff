//! The way of a browser into an app: to the proxy's login, and back with a one-time code, which becomes the session's cookie. Owns what ties the two ends to one
//! browser, and where it may lead.

use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use remoteler_core::{ApiErrorKind, AppCodeRequest, Secret, app_state_hash, fill_random, wire};
use tokio::time::Instant;

use super::{
    answer::{Body, SESSION_COOKIE, STATE_COOKIE, cookie, is_secret, redirect, say, set_cookie},
    request::Visit,
};

/// How long a browser may take from wanting to come in to coming back with a code.
const STATE_LIFE: u64 = 600;
/// Path and query that are remembered while somebody logs in.
const MAX_PATH: usize = 2 * 1024;
/// Ours at every app.
pub(super) const OWN_PATHS: &str = "/.remoteler/";
/// Where a way in ends that failed.
pub(super) const FAILED_PATH: &str = "/.remoteler/failed";

impl Visit {
    /// Sends who has no session to the proxy, and remembers that it was this browser.
    pub(super) fn let_in(&self, request: &Request<Incoming>) -> Response<Body> {
        let headers = request.headers();
        let goes_there = headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
            && headers.get("sec-fetch-dest").is_none_or(|dest| dest == "document")
            && !headers.contains_key(header::UPGRADE)
            && matches!(*request.method(), Method::GET | Method::HEAD);
        if !goes_there {
            return say(
                StatusCode::UNAUTHORIZED,
                "there is no session with this app; open it in a browser window to log in",
            );
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let path = if is_inside(path) { path } else { "/" };
        // The same one for all windows of a browser, so that the second does not undo the first.
        let state = cookie(headers, STATE_COOKIE).unwrap_or_else(|| {
            let random: [u8; 32] = fill_random(&*self.door.entropy);
            Secret::new(random.iter().map(|octet| format!("{octet:02x}")).collect::<String>())
        });
        let (origin, launch) = (&self.door.proxy_origin, wire::path(wire::WEB_LAUNCH, self.app.name.as_str()));
        let (hash, path) = (app_state_hash(&state), wire::segment(path));
        let mut answer = redirect(StatusCode::FOUND, &format!("{origin}{launch}?state={hash}&path={path}"));
        set_cookie(answer.headers_mut(), STATE_COOKIE, state.reveal(), STATE_LIFE);
        answer
    }

    /// The browser comes back with the one-time code. Whatever fails leads to a path without one: no page of the app finds in a history a code that still counts.
    pub(super) async fn come_back(&self, request: &Request<Incoming>) -> Response<Body> {
        if *request.method() != Method::GET {
            return say(StatusCode::METHOD_NOT_ALLOWED, "a browser comes here by GET");
        }
        let failed = || redirect(StatusCode::SEE_OTHER, FAILED_PATH);
        let code = request.uri().query().and_then(|query| query.strip_prefix("code=")).filter(|code| is_secret(code));
        let Some(code) = code else { return failed() };
        let Some(guess) = self.door.codes.take(self.source.ip(), Instant::now()) else { return failed() };
        // Also without a state the code is taken, and so burnt: whose page led here with it must not have it afterwards.
        let state = cookie(request.headers(), STATE_COOKIE);
        let request = AppCodeRequest { code: Secret::new(code), state, app: self.app.name.clone() };
        match self.door.api.redeem_app_code(request).await {
            Ok(opened) => {
                guess.give_back();
                // Said by the auth service; looked at here all the same (I40).
                let path = if is_inside(&opened.path) { opened.path.as_str() } else { "/" };
                let mut answer = redirect(StatusCode::SEE_OTHER, path);
                let seconds = opened.expires.since(self.door.tls.clock.now()).as_secs();
                set_cookie(answer.headers_mut(), SESSION_COOKIE, opened.secret.reveal(), seconds);
                set_cookie(answer.headers_mut(), STATE_COOKIE, "", 0);
                answer
            }
            Err(cause) if matches!(cause.kind, ApiErrorKind::Unavailable | ApiErrorKind::Internal) => {
                guess.give_back();
                tracing::debug!(%cause, "a code was not redeemed");
                failed()
            }
            // Whose code it was is on record there, if it was anybody's; here, who brought it.
            Err(cause) => {
                self.on_record(None, &format!("a code was refused: {cause}")).await;
                failed()
            }
        }
    }
}

/// Whether a path stays at the origin that it is looked up at (I40): one `/` and no second one, no backslash, which browsers read as one, and nothing that
/// they drop.
fn is_inside(path: &str) -> bool {
    path.len() <= MAX_PATH
        && path.starts_with('/')
        && !path.starts_with("//")
        && !path.starts_with(OWN_PATHS)
        && path.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    // I40
    #[test]
    fn a_path_to_go_on_to_stays_at_the_app() {
        for good in ["/", "/a/b?c=d&e=https://x", "/%2f/"] {
            assert!(is_inside(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example/",
            "/a b",
            "/a\nb",
            "/.remoteler/session?code=x",
        ] {
            assert!(!is_inside(bad), "{bad:?}");
        }
        assert!(!is_inside(&format!("/{}", "a".repeat(MAX_PATH))));
    }
}
