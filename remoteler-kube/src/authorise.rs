//! The decision: roles against the Kubernetes cluster's labels and against what is asked of it, by core's one function. Hands its proof on.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use remoteler_core::{KubeAccess, PolicySource, authorize_kube_request};
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    body::Body,
    path::ApiPath,
    refusal::Refusal,
    request::kube_request,
    route::{Routed, Site},
};

/// A request that may be sent.
pub(crate) struct Authorised {
    /// The proof: who, and as whom.
    pub(crate) access: KubeAccess,
    /// Where to.
    pub(crate) site: Arc<Site>,
    /// What for.
    pub(crate) path: ApiPath,
    /// The request.
    pub(crate) request: Request<Body>,
}

/// Decides each request by the policy of that moment.
pub(crate) fn authorise<S>(policy: Arc<dyn PolicySource>) -> impl Layer<S, Service = Authorise<S>> + Clone {
    layer_fn(move |inner| Authorise { inner, policy: policy.clone() })
}

/// See [`authorise`].
#[derive(Clone)]
pub(crate) struct Authorise<S> {
    inner: S,
    policy: Arc<dyn PolicySource>,
}

impl<S> Service<Routed> for Authorise<S>
where
    S: Service<Authorised, Response = Response<Body>, Error = Refusal>,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Refusal>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, Routed { user, site, path, request }: Routed) -> Self::Future {
        let asked = kube_request(request.method(), &path);
        match authorize_kube_request(&user, &self.policy.policy(), &site.record, &asked) {
            Ok(access) => Either::Left(self.inner.call(Authorised { access, site, path, request })),
            Err(denied) => Either::Right(ready(Err(denied.into()))),
        }
    }
}
