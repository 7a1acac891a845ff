//! What the service itself shows to the API server: a bearer token, or a client certificate that lives in the TLS configuration.
//! The token is lent to impersonated requests only, after everything else is in place (I56).

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, header};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use crate::{
    body::Body,
    impersonate::Impersonated,
    upstream::{Upstream, UpstreamError},
};

/// How long a token read from a file is used; the kubelet replaces projected tokens well before their end.
const TOKEN_FILE_AGE: Duration = Duration::from_secs(30);

/// How the service proves who it is.
pub(crate) enum Credential {
    /// In the TLS handshake; nothing is added to requests.
    ClientCertificate,
    /// A token that does not change.
    Token(HeaderValue),
    /// A token in a file that somebody replaces.
    TokenFile(TokenFile),
}

/// A token file and what was last read from it.
pub(crate) struct TokenFile {
    path: PathBuf,
    last: Mutex<Option<(Instant, HeaderValue)>>,
}

impl TokenFile {
    /// Reads nothing yet.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::new(None) }
    }

    /// The file.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Makes the next request read the file again.
    pub(crate) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The header, from the file as it is now or was a moment ago.
    pub(crate) async fn value(&self) -> Result<HeaderValue, UpstreamError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read_at, value)) = last
            && read_at.elapsed() < TOKEN_FILE_AGE
        {
            return Ok(value);
        }
        let token = tokio::fs::read_to_string(&self.path)
            .await
            .map_err(|source| UpstreamError::TokenFile { path: self.path.clone(), source })?;
        let value = bearer(token.trim()).ok_or_else(|| UpstreamError::Token { path: self.path.clone() })?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), value.clone()));
        Ok(value)
    }
}

/// The `Authorization` header for a token, if it can be one.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    if token.is_empty() || !token.bytes().all(|octet| octet.is_ascii_graphic()) {
        return None;
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A request that is ready to go: the user's headers and the service's credential. Only [`LendCredential`] makes one.
pub(crate) struct Credentialed(Request<Body>);

impl Credentialed {
    /// The request, to be sent.
    pub(crate) fn into_request(self) -> Request<Body> {
        self.0
    }
}

/// Adds the service's credential.
pub(crate) fn lend_credential<S>(upstream: Upstream) -> impl Layer<S, Service = LendCredential<S>> + Clone {
    layer_fn(move |inner| LendCredential { inner, credential: upstream.credential() })
}

/// See [`lend_credential`].
#[derive(Clone)]
pub(crate) struct LendCredential<S> {
    inner: S,
    credential: Arc<Credential>,
}

impl<S> Service<Impersonated<Body>> for LendCredential<S>
where
    S: Service<Credentialed, Error = UpstreamError> + Clone + Send + 'static,
    S::Response: Send,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = UpstreamError;
    type Future = BoxFuture<'static, Result<S::Response, UpstreamError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Impersonated<Body>) -> Self::Future {
        let Self { inner, credential } = self.clone();
        async move {
            let value = match credential.as_ref() {
                Credential::ClientCertificate => None,
                Credential::Token(value) => Some(value.clone()),
                Credential::TokenFile(file) => Some(file.value().await?),
            };
            let mut request = request.into_request();
            if let Some(value) = value {
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
            inner.oneshot(Credentialed(request)).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_token_file_is_read_again_once_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let file = TokenFile::new(path.clone());
        assert_eq!(file.value().await.unwrap(), "Bearer one");

        std::fs::write(&path, "two").unwrap();
        assert_eq!(file.value().await.unwrap(), "Bearer one");
        file.forget();
        assert_eq!(file.value().await.unwrap(), "Bearer two");
    }

    #[tokio::test]
    async fn a_file_without_a_usable_token_is_an_error_and_no_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for content in ["", " \n", "a b", "a\r\nImpersonate-User: root"] {
            std::fs::write(&path, content).unwrap();
            assert!(TokenFile::new(path.clone()).value().await.is_err(), "{content:?}");
        }
    }
}
