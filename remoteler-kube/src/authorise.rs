//! The decision: roles against the Kubernetes cluster's labels and against what is asked of it, by core's one function. Hands its proof on, and
//! with it the request's place among live work.

mod place;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either, Ready, ready},
};
use http::{Request, Response};
use remoteler_core::{ConnectionKind, KubeAccess, LiveGuard, LiveWork, Subject, Terms, authorize_kube_request};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use self::place::Place;
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
    let connection = Arc::new(Place::default());
    layer_fn(move |inner| Authorise { inner, live: live.clone(), connection: connection.clone() })
}

/// See [`authorise`].
#[derive(Clone)]
pub(crate) struct Authorise<S> {
    inner: S,
    live: Arc<LiveWork>,
    connection: Arc<Place>,
}

impl<S> Service<Routed> for Authorise<S>
where
    S: Service<Authorised, Response = Response<Body>, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = Either<S::Future, Either<BoxFuture<'static, Answer>, Ready<Answer>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, Routed { user, site, path, request }: Routed) -> Self::Future {
        let record = &site.record;
        let asked = kube_request(request.method(), &path);
        let policy = self.live.policy().policy();
        let access = match authorize_kube_request(&user, &policy, record, &asked) {
            Ok(access) => access,
            Err(denied) => return Either::Right(Either::Right(ready(Err(denied.into())))),
        };
        let (limit, mode) = (access.options().max_kubernetes_connections, policy.lock_mode(access.options()));
        let idle = access.options().client_idle_timeout.into_iter().chain(policy.settings.client_idle_timeout()).min();
        let kube_cluster = record.name.clone();
        let subject = Subject::user(&user).kube(record.name.clone()).at(None, Some(record.host_id));
        let begin = move |live: &Arc<LiveWork>, subject: Subject| {
            let live = live
                .enter(subject, Terms { idle, ends_with_certificate: true, ..Terms::default() })
                .map_err(Refusal::from)?;
            Ok(Authorised { access, site, path, request, live })
        };
        let Some(limit) = limit.filter(|_| !self.connection.is_held()) else {
            return match begin(&self.live, subject) {
                Ok(authorised) => Either::Left(self.inner.call(authorised)),
                Err(refusal) => Either::Right(Either::Right(ready(Err(refusal)))),
            };
        };
        // The first one on this connection: somebody else has to be asked whether there is room.
        let Self { inner, live, connection } = self.clone();
        let counted = async move {
            let terms = Terms { connection: Some((ConnectionKind::Kube, Some(limit))), ..Terms::default() };
            let enter = || live.enter_connection(subject.clone(), terms, mode);
            if let Err(reason) = connection.hold(enter).await {
                return Err(Refusal::no_room(kube_cluster, reason));
            }
            inner.oneshot(begin(&live, subject)?).await
        };
        Either::Right(Either::Left(counted.boxed()))
    }
}

type Answer = Result<Response<Body>, Refusal>;
