//! Bounds on one request, beside those hyper is configured with (I62).

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use http::{HeaderMap, Method, Request, Response, header};
use tower::{Layer, Service, layer::layer_fn};

use crate::{authenticate::Authenticated, body::Body, refusal::Refusal};

/// Octets of path and query.
pub(crate) const MAX_URL: usize = 8 * 1024;
/// Octets of all header names and values; also what hyper buffers before it has seen a whole head.
pub(crate) const MAX_HEADER_OCTETS: usize = 64 * 1024;
/// Header fields.
pub(crate) const MAX_HEADERS: usize = 100;
/// Cookies.
const MAX_COOKIES: usize = 50;

/// Why a request is too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitError {
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
    /// A method that no API server has a verb for.
    #[error("method {0} is not one of the Kubernetes API")]
    Method(String),
}

/// Refuses what is larger than any honest request.
pub(crate) fn limit<S>() -> impl Layer<S, Service = Limit<S>> + Clone {
    layer_fn(|inner| Limit { inner })
}

/// See [`limit`].
#[derive(Clone)]
pub(crate) struct Limit<S> {
    inner: S,
}

impl<S> Service<Authenticated> for Limit<S>
where
    S: Service<Authenticated, Response = Response<Body>, Error = Refusal>,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Refusal>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, authenticated: Authenticated) -> Self::Future {
        match check(&authenticated.request) {
            Ok(()) => Either::Left(self.inner.call(authenticated)),
            Err(cause) => Either::Right(ready(Err(cause.into()))),
        }
    }
}

fn check<B>(request: &Request<B>) -> Result<(), LimitError> {
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    if !known.contains(request.method()) {
        return Err(LimitError::Method(request.method().as_str().chars().take(20).collect()));
    }
    let url = request.uri().path().len() + request.uri().query().map_or(0, |query| query.len() + 1);
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
    Ok(())
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
        let url = |octets: usize| Request::get(format!("/{}", "a".repeat(octets - 1))).body(()).unwrap();
        assert_eq!(check(&url(MAX_URL)), Ok(()));
        assert_eq!(check(&url(MAX_URL + 1)), Err(LimitError::Url(MAX_URL + 1)));

        let mut many = Request::get("/").body(()).unwrap();
        for _ in 0..=MAX_HEADERS {
            many.headers_mut().append("x-many", "1".parse().unwrap());
        }
        assert!(matches!(check(&many), Err(LimitError::Headers { fields: 101, .. })));

        let cookies = Request::get("/").header("cookie", "a=b;".repeat(60)).body(()).unwrap();
        assert!(matches!(check(&cookies), Err(LimitError::Cookies(_))));

        let connect = Request::builder().method("CONNECT").uri("/").body(()).unwrap();
        assert!(matches!(check(&connect), Err(LimitError::Method(_))));
    }
}
