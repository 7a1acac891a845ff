//! What one request of a browser is: a step of the way in, or one of a session, which goes to the app's service. In this order, and nothing goes there without a session
//! that was looked at within the last second, and stays there when that ends.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use hyper::{Request, Response, StatusCode, body::Incoming, header};
use remoteler_app::{Silence, check_origin};
use remoteler_core::{AppAddress, AuditKind, UserName, wire};
use remoteler_tunnel::Admission;
use tokio_util::sync::CancellationToken;

use super::{
    AppDoor, FrontApp,
    answer::{Body, SESSION_COOKIE, cookie, ignore, say},
    link::Links,
    pass_on::Unpassed,
    session::{NoSession, Session},
    way_in::{FAILED_PATH, OWN_PATHS},
};

/// One connection of a browser to one app.
pub(super) struct Visit {
    pub(super) door: Arc<AppDoor>,
    pub(super) app: FrontApp,
    pub(super) source: SocketAddr,
    pub(super) links: Links,
    pub(super) admission: Admission,
    /// Among those who have a session.
    pub(super) place: Mutex<Option<Admission>>,
    /// Cancelled when a session was shown.
    pub(super) somebody: CancellationToken,
    /// What follows an upgrade: HTTP/1.1 does that once for a connection.
    pub(super) relay: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Visit {
    pub(super) fn take_relay(&self) -> Option<BoxFuture<'static, ()>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let session = match self.admit(&request).await {
            Ok(session) => session,
            Err(said) => {
                ignore(request.into_body());
                return said;
            }
        };
        // A request that takes long, up or down, ends with its session.
        let mut ended = {
            let (door, session) = (self.door.clone(), session.clone());
            async move { door.sessions.ended(&session).await }.boxed()
        };
        let passed = tokio::select! {
            biased;
            cause = &mut ended => return self.turn_away(&cause),
            passed = self.pass_on(&session, request) => passed,
        };
        match passed {
            Ok(passed) => self.answered(session, passed, ended),
            Err(Unpassed::Malformed(said)) => say(StatusCode::BAD_REQUEST, said),
            // hyper calls the body that it is given the user's: it came from the browser.
            Err(Unpassed::Failed(cause)) if cause.downcast_ref().is_some_and(hyper::Error::is_user) => {
                say(StatusCode::BAD_REQUEST, "the request's body broke off")
            }
            Err(Unpassed::Failed(cause)) => {
                tracing::info!(app = %self.app.name, cause = crate::one_line(&cause), "an app's service did not answer");
                say(StatusCode::BAD_GATEWAY, "the app cannot be reached now; try again in a minute")
            }
        }
    }

    /// The session that a request is of and that may go to the app, or what is said here.
    async fn admit(&self, request: &Request<Incoming>) -> Result<Arc<Session>, Response<Body>> {
        // A browser uses one connection for several names if one certificate covers them; here it learns to make another (RFC 9110 section 15.5.20).
        if !is_addressed_to(request, &self.app.address) {
            return Err(say(StatusCode::MISDIRECTED_REQUEST, "this connection is for another host"));
        }
        let path = request.uri().path();
        if path == wire::APP_SESSION_PATH {
            return Err(self.come_back(request).await);
        }
        if path == FAILED_PATH {
            return Err(say(
                StatusCode::FORBIDDEN,
                "this way in has ended, was another browser's, or the cluster could not be asked; open the app again",
            ));
        }
        if path.starts_with(OWN_PATHS) {
            return Err(say(StatusCode::NOT_FOUND, "there is nothing here"));
        }
        let Some(secret) = cookie(request.headers(), SESSION_COOKIE) else { return Err(self.let_in(request)) };
        let own = self.app.address.to_string();
        // What pages of others make a browser ask for is not its user's doing.
        let of_own = check_origin(request.method(), request.headers(), &own, Silence::Refused);
        let found = self.door.sessions.find(&self.app.name, &secret, self.source.ip(), of_own.is_ok()).await;
        let session = match found {
            Ok(session) => session,
            Err(NoSession::Ended) => return Err(self.let_in(request)),
            Err(cause) => return Err(self.turn_away(&cause)),
        };
        if !self.has_place() {
            return Err(say(StatusCode::SERVICE_UNAVAILABLE, "too many connections; try again in a minute"));
        }
        if let Err(cause) = of_own {
            self.on_record(session.user(), &cause.to_string()).await;
            return Err(say(StatusCode::FORBIDDEN, &cause.to_string()));
        }
        Ok(session)
    }

    /// Why nothing is passed on, to a browser that showed a session. Of who may not, the auth service has it on record.
    fn turn_away(&self, cause: &NoSession) -> Response<Body> {
        match cause {
            NoSession::Ended => say(StatusCode::UNAUTHORIZED, "the session with this app has ended; open it again"),
            NoSession::Denied(said) => say(StatusCode::FORBIDDEN, said),
            NoSession::TooMany => say(StatusCode::TOO_MANY_REQUESTS, "too many wrong cookies; try again in a minute"),
            NoSession::Unknown(cause) => {
                tracing::debug!(app = %self.app.name, cause, "a browser's request was not passed on");
                say(StatusCode::SERVICE_UNAVAILABLE, "the cluster cannot be asked now; try again in a minute")
            }
        }
    }

    /// That somebody was refused here. The answer is the same whether it can be written; how much of it is kept, the log decides.
    pub(super) async fn on_record(&self, user: Option<UserName>, because: &str) {
        let error = format!("application {}: {because}", self.app.name);
        tracing::debug!(source = %self.source, error, "a browser was refused");
        let user = user.map(|user| user.to_string()).unwrap_or_default();
        let remote = Some(self.source.to_string());
        let event = AuditKind::AuthAttempt { user, service: "proxy".into(), login: None, error, remote };
        if let Err(cause) = self.door.audit.record(event).await {
            tracing::debug!(%cause, "a refused browser is not in the audit log");
        }
    }

    /// Whether there is room for this connection among those with a session; from then on it is no stranger's.
    fn has_place(&self) -> bool {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = self.door.places.admit(self.source.ip());
            if place.is_some() {
                self.admission.authenticated();
                self.somebody.cancel();
            }
        }
        place.is_some()
    }
}

/// Whether the request's one name is the app's. The port is what stands in front of the proxy, and of no meaning.
pub(super) fn is_addressed_to<B>(request: &Request<B>, address: &AppAddress) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let in_header = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => None,
        (Some(_), Some(_)) => return false,
    };
    let in_line = request.uri().authority().map(|authority| authority.as_str());
    let named = [in_header, in_line];
    let is_it = |text: &str| {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        host.eq_ignore_ascii_case(address.host()) && port.bytes().all(|digit| digit.is_ascii_digit())
    };
    named.iter().flatten().count() > 0 && named.iter().flatten().all(|text| is_it(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    // I52
    #[test]
    fn a_request_for_another_name_is_none_of_this_connection() {
        let address = AppAddress::parse("app.example.com:3080").unwrap();
        let ask = |uri: &str, hosts: &[&str]| {
            let mut request = Request::get(uri);
            for host in hosts {
                request = request.header("host", *host);
            }
            is_addressed_to(&request.body(()).unwrap(), &address)
        };
        assert!(ask("/", &["app.example.com:3080"]) && ask("/", &["App.Example.com"]));
        assert!(ask("https://app.example.com:3080/", &[]));
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["proxy.example.com:3080"]),
            ("/", &["app.example.com", "app.example.com"]),
            ("https://proxy.example.com/", &["app.example.com"]),
            ("/", &["app.example.com.evil.example"]),
            ("/", &["app.example.com:3080, evil.example"]),
        ] {
            assert!(!ask(uri, hosts), "{uri} {hosts:?}");
        }
    }
}
