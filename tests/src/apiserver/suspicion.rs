//! The look at every request before it is served: the service's credential, exactly the expected impersonation, nothing else that
//! speaks of identity or of somebody's connection. Owns what counts as a violation.

use http::{HeaderMap, Request, StatusCode, header};

use super::{State, lock};

/// Whom requests must impersonate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The one user.
    pub user: String,
    /// All groups, sorted.
    pub groups: Vec<String>,
}

impl Expected {
    pub(super) fn new(user: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.sort();
        Self { user: user.into(), groups }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection it came on, counted from 0.
    pub connection: u64,
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers.
    pub headers: HeaderMap,
}

/// Whom the request acts as, or the status and complaint.
pub(super) fn check<B>(state: &State, connection: u64, request: &Request<B>) -> Result<Expected, (StatusCode, String)> {
    let headers = request.headers();
    lock(&state.seen).push(Seen {
        connection,
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: headers.clone(),
    });
    let complain = |code, complaint: String| {
        lock(&state.violations).push(format!("{} {}: {complaint}", request.method(), request.uri()));
        Err((code, complaint))
    };
    let wanted = format!("Bearer {}", lock(&state.token));
    if texts(headers, header::AUTHORIZATION.as_str()) != [wanted] {
        return complain(StatusCode::UNAUTHORIZED, "the credential is not the service's own".into());
    }
    let Some(expected) = lock(&state.expected).clone() else {
        return complain(StatusCode::FORBIDDEN, "the test expects nobody".into());
    };
    if texts(headers, "impersonate-user") != [expected.user.as_str()] {
        let found = texts(headers, "impersonate-user");
        return complain(StatusCode::FORBIDDEN, format!("Impersonate-User is {found:?}, not {:?}", expected.user));
    }
    let mut groups = texts(headers, "impersonate-group");
    groups.sort();
    if groups != expected.groups {
        return complain(StatusCode::FORBIDDEN, format!("Impersonate-Group is {groups:?}, not {:?}", expected.groups));
    }
    if let Some(name) = headers.keys().map(header::HeaderName::as_str).find(|name| is_foreign(name)) {
        return complain(StatusCode::FORBIDDEN, format!("header {name} must not be there"));
    }
    let connections = texts(headers, "connection");
    if connections.iter().any(|value| !value.eq_ignore_ascii_case("upgrade")) || connections.len() > 1 {
        return complain(StatusCode::FORBIDDEN, format!("Connection is {connections:?}"));
    }
    if request.uri().authority().is_some() || headers.get_all(header::HOST).iter().count() != 1 {
        return complain(StatusCode::BAD_REQUEST, "the target is not in origin form with one Host".into());
    }
    Ok(expected)
}

fn is_foreign(name: &str) -> bool {
    let folded = name.replace('_', "-");
    let ours = matches!(name, "impersonate-user" | "impersonate-group");
    (folded.starts_with("impersonate") && !ours)
        || folded.starts_with("x-remote")
        || folded.starts_with("x-forwarded")
        || matches!(folded.as_str(), "te" | "trailer" | "keep-alive" | "proxy-authorization" | "proxy-connection")
}

fn texts(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ApiServer;

    #[tokio::test]
    async fn a_request_that_is_not_exactly_as_expected_is_a_violation() {
        let api_server = ApiServer::start().await.unwrap();
        api_server.expect("ann", &["dev"]);
        let good = || {
            Request::get("/version")
                .header("host", "localhost")
                .header("authorization", "Bearer service-account-of-the-forwarder")
                .header("impersonate-user", "ann")
                .header("impersonate-group", "dev")
        };
        let judge = |request: http::request::Builder| check(&api_server.state, 0, &request.body(()).unwrap());
        assert!(judge(good()).is_ok());
        assert!(api_server.violations().is_empty());

        let wrong = [
            Request::get("/version").header("host", "localhost"),
            good().header("authorization", "Bearer service-account-of-the-forwarder"),
            good().header("impersonate-user", "ann"),
            good().header("impersonate-group", "system:masters"),
            good().header("impersonate-uid", "1"),
            good().header("impersonate_user", "root"),
            good().header("x-remote-user", "root"),
            good().header("connection", "keep-alive"),
            good().header("host", "elsewhere"),
        ];
        let count = wrong.len();
        for request in wrong {
            assert!(judge(request).is_err());
        }
        assert_eq!(api_server.violations().len(), count);
    }
}
