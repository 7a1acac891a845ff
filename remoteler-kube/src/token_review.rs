//! Asking an API server whose service-account token it is: TokenReview, `authentication.k8s.io/v1`. Owns one fixed request in the service's
//! own name and the reading of its answer; what a client sends never comes here, so that it is no way around impersonation (I56).

use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use remoteler_core::{Secret, printable};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    body::full,
    credential::Credential,
    upstream::{Upstream, UpstreamError},
};

/// Why it is not known whose a token is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenReviewError {
    /// The API server does not vouch for the token.
    #[error("{0}")]
    Refused(String),
    /// The API server did not answer.
    #[error("the API server was not asked")]
    Upstream(#[from] UpstreamError),
    /// It answered something else.
    #[error("the API server at {address} answered with status {status}{hint}")]
    Status {
        /// Its `host:port`.
        address: String,
        /// HTTP status.
        status: u16,
        /// What to do about it.
        hint: &'static str,
    },
    /// Its answer is no TokenReview, or too long for one.
    #[error("the API server at {address} answered with no TokenReview: {reason}")]
    Answer {
        /// Its `host:port`.
        address: String,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

impl Upstream {
    /// The user whose token this is, if the API server says that it is authenticated, and for `audience`. At most 10 s and 64 KiB; a redirect
    /// is no answer (I43). The service's own credential needs the right to create `tokenreviews`.
    ///
    /// # Errors
    /// [`TokenReviewError`]
    pub async fn review_token(&self, token: &Secret, audience: &str) -> Result<String, TokenReviewError> {
        let reviewed = timeout(DEADLINE, self.ask_for_review(token, audience)).await;
        reviewed.unwrap_or_else(|_| {
            Err(UpstreamError::Timeout { what: format!("a TokenReview at {}", self.address()) }.into())
        })
    }

    async fn ask_for_review(&self, token: &Secret, audience: &str) -> Result<String, TokenReviewError> {
        let question = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token.reveal(), "audiences": [audience] },
        });
        let target = |source| UpstreamError::Target { address: self.address(), source };
        let path = Uri::builder().path_and_query(format!("{}{PATH}", self.base_path())).build().map_err(target)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, self.authority())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(full(question.to_string()))
            .map_err(target)?;
        if let Some(credential) = self.own_credential().await? {
            request.headers_mut().insert(header::AUTHORIZATION, credential);
        }
        let (sent, _connection) = self.dial().await?.send(request).await;
        let response = sent.map_err(|refused| self.broke_off(refused.into_error()))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED
            && let Credential::TokenFile(file) = self.credential().as_ref()
        {
            file.forget();
        }
        if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
            let hint = match status {
                StatusCode::UNAUTHORIZED => "; renew the credential in the kubeconfig",
                StatusCode::FORBIDDEN => "; bind its account to the ClusterRole system:auth-delegator",
                _ => "",
            };
            return Err(TokenReviewError::Status { address: self.address(), status: status.as_u16(), hint });
        }
        let malformed = |reason: String| TokenReviewError::Answer { address: self.address(), reason };
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|cause| malformed(cause.to_string()))?.to_bytes();
        // serde's words may quote the answer, which repeats the token.
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|cause| malformed(format!("it does not parse at column {}", cause.column())))?;
        judge(answer.status, audience)
    }

    async fn own_credential(&self) -> Result<Option<HeaderValue>, UpstreamError> {
        match self.credential().as_ref() {
            Credential::ClientCertificate => Ok(None),
            Credential::Token(value) => Ok(Some(value.clone())),
            Credential::TokenFile(file) => file.value().await.map(Some),
        }
    }
}

/// A server that does not know audiences leaves them out, and then the token is for the API server itself: that is nobody's word for us.
fn judge(status: Status, audience: &str) -> Result<String, TokenReviewError> {
    let Status { authenticated, user, audiences, error } = status;
    if !authenticated {
        let said: String = error.chars().take(MAX_REASON).collect();
        let said = if said.is_empty() { "it does not know it".to_owned() } else { printable(&said) };
        return Err(TokenReviewError::Refused(said));
    }
    if !audiences.iter().any(|one| one == audience) {
        return Err(TokenReviewError::Refused(format!("it is not for audience {audience}")));
    }
    if user.username.is_empty() {
        return Err(TokenReviewError::Refused("it is nobody's".into()));
    }
    Ok(user.username)
}

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const DEADLINE: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 64 * 1024;
/// Characters of what the API server says that are repeated.
const MAX_REASON: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: serde_json::Value) -> Result<String, String> {
        let Answer { status } = serde_json::from_value(json!({ "status": status })).unwrap();
        judge(status, "root.example.com").map_err(|cause| cause.to_string())
    }

    #[test]
    fn only_an_authenticated_user_with_our_audience_is_vouched_for() {
        let user = json!({ "username": "system:serviceaccount:a:b", "uid": "1", "groups": ["x"] });
        let good = json!({ "authenticated": true, "user": user, "audiences": ["x", "root.example.com"] });
        assert_eq!(judged(good).as_deref(), Ok("system:serviceaccount:a:b"));
        for bad in [
            json!({}),
            json!({ "authenticated": false, "user": user, "audiences": ["root.example.com"] }),
            json!({ "authenticated": true, "user": user }),
            json!({ "authenticated": true, "user": user, "audiences": ["root.example.com.evil"] }),
            json!({ "authenticated": true, "user": {}, "audiences": ["root.example.com"] }),
        ] {
            assert!(judged(bad.clone()).is_err(), "{bad}");
        }
        let said = judged(json!({ "error": "token \u{1b}[2J expired\nX" })).unwrap_err();
        assert!(said.contains("expired") && !said.contains('\n') && !said.contains('\u{1b}'), "{said}");
    }
}
