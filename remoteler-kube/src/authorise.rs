//! The decision: roles against the Kubernetes cluster's labels and against what is asked of it, by core's one function. Hands its proof on, and
//! with it the request's place among live work.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use remoteler_core::{ConnectionKind, KubeAccess, LiveGuard, LiveWork, Subject, Terms, authorize_kube_request};
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
    /// Its place among live work, to be held until the answer has ended.
    pub(crate) live: LiveGuard,
}

/// Decides each request by the policy of that moment.
pub(crate) fn authorise<S>(live: Arc<LiveWork>) -> impl Layer<S, Service = Authorise<S>> + Clone {
    let connection = Arc::new(Mutex::new(None));
    layer_fn(move |inner| Authorise { inner, live: live.clone(), connection: connection.clone() })
}

/// See [`authorise`].
#[derive(Clone)]
pub(crate) struct Authorise<S> {
    inner: S,
    live: Arc<LiveWork>,
    /// The connection's place among those of its user, from the first request that was allowed on. A request that finds no place is refused, and
    /// the next one looks again.
    connection: Arc<Mutex<Option<LiveGuard>>>,
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
        let record = &site.record;
        let asked = kube_request(request.method(), &path);
        let allowed = authorize_kube_request(&user, &self.live.policy().policy(), record, &asked);
        let allowed = allowed.map_err(Refusal::from);
        let allowed = allowed.and_then(|access| {
            let subject = Subject::user(&user).kube(record.name.clone()).at(None, Some(record.host_id));
            let limit = access.options().max_kubernetes_connections;
            if limit.is_some() {
                let mut place = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
                // One that was ended by the rules is none any more, though the connection stands.
                if place.as_ref().is_none_or(|place| place.reason().is_some()) {
                    let terms = Terms { connection: Some((ConnectionKind::Kube, limit)), ..Terms::default() };
                    *place = Some(self.live.enter(subject.clone(), terms)?);
                }
            }
            Ok((access, self.live.enter(subject, Terms::default())?))
        });
        match allowed {
            Ok((access, live)) => Either::Left(self.inner.call(Authorised { access, site, path, request, live })),
            Err(refusal) => Either::Right(ready(Err(refusal))),
        }
    }
}
