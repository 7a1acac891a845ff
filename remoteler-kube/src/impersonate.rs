//! Makes the API server act as the user, and only as the user. Owns the `Impersonate-*` headers and the type that says they are
//! there; the forwarder takes nothing else.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use remoteler_core::KubeAccess;
use tower::{Layer, Service, layer::layer_fn};

use crate::headers::{claims_identity, strip_request};

/// Why a user cannot be impersonated. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImpersonateError {
    /// A name that an HTTP header cannot carry (RFC 9110 section 5.5).
    #[error("the Kubernetes name {0:?} cannot be sent in a header; an administrator must change it in the role")]
    Unusable(String),
}

/// A request that carries exactly one `Impersonate-User` and the groups of a [`KubeAccess`], and no other claim of identity.
/// Only [`Impersonate`] makes one.
pub struct Impersonated<B>(Request<B>);

impl<B> Impersonated<B> {
    /// The request, to be looked at.
    #[must_use]
    pub const fn request(&self) -> &Request<B> {
        &self.0
    }

    /// The request, to be sent.
    #[must_use]
    pub fn into_request(self) -> Request<B> {
        self.0
    }
}

impl<B> fmt::Debug for Impersonated<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Impersonated").field(self.0.method()).field(self.0.uri()).finish()
    }
}

/// A layer that impersonates whom `access` names.
///
/// The API server treats a request without these headers as the service's own (it fails open), so a layer cannot be made without
/// a [`KubeAccess`] proof, and what lies below takes an [`Impersonated`] request only.
///
/// # Errors
/// [`ImpersonateError`] when a name cannot be a header's value: refused here, not per request.
pub fn impersonate<S>(
    access: &KubeAccess,
) -> Result<impl Layer<S, Service = Impersonate<S>> + Clone + use<S>, ImpersonateError> {
    let headers = Arc::new(headers_of(access)?);
    Ok(layer_fn(move |inner| Impersonate { inner, headers: headers.clone() }))
}

fn headers_of(access: &KubeAccess) -> Result<HeaderMap, ImpersonateError> {
    let mut headers = HeaderMap::new();
    headers.insert(USER, header_value(access.impersonate_user())?);
    for group in access.impersonate_groups() {
        headers.append(GROUP, header_value(group)?);
    }
    Ok(headers)
}

/// I57: visible ASCII, and blanks inside; core's proof promises that already, this is the last look before the wire.
fn header_value(name: &str) -> Result<HeaderValue, ImpersonateError> {
    let unusable = || ImpersonateError::Unusable(name.chars().take(80).collect());
    let visible = !name.is_empty() && name.trim() == name && name.bytes().all(|octet| matches!(octet, 0x20..=0x7e));
    if !visible {
        return Err(unusable());
    }
    HeaderValue::from_str(name).map_err(|_| unusable())
}

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");

/// See [`impersonate`].
#[derive(Clone, Debug)]
pub struct Impersonate<S> {
    inner: S,
    headers: Arc<HeaderMap>,
}

impl<S, B> Service<Request<B>> for Impersonate<S>
where
    S: Service<Impersonated<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        // The caller's own claims go first: whoever sends them, they are not trusted.
        strip_request(request.headers_mut());
        debug_assert!(!request.headers().keys().any(claims_identity));
        for (name, value) in self.headers.iter() {
            request.headers_mut().append(name.clone(), value.clone());
        }
        self.inner.call(Impersonated(request))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // I57
        #[test]
        fn a_name_that_is_sent_is_sent_as_it_is(name in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
            match header_value(&name) {
                Ok(value) => prop_assert_eq!(value.as_bytes(), name.as_bytes()),
                Err(ImpersonateError::Unusable(_)) => {
                    prop_assert!(name.is_empty() || name.trim() != name || !name.bytes().all(|octet| matches!(octet, 0x20..=0x7e)));
                }
            }
        }
    }

    // I57
    #[test]
    fn a_name_that_would_end_its_header_is_refused() {
        for name in ["", " ", "a\r\nImpersonate-Group: system:masters", "a\nb", "a\0b", "a\tb", "a\x7f", " a", "ä"] {
            assert!(header_value(name).is_err(), "{name:?}");
        }
        assert!(header_value("system:serviceaccount:kube-system:default").is_ok());
    }
}
