//! The foot of the stack: one request becomes the user's at the API server. Puts together, for this request's proof, the layers that
//! impersonate, lend the service's credential, and forward.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::Response;
use remoteler_core::Clock;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::{
    authorise::Authorised,
    body::Body,
    credential::lend_credential,
    forward::Forward,
    headers::{asks_to_impersonate, warn_of_impersonation},
    impersonate::impersonate,
    refusal::Refusal,
    relay::{RelaySlot, cut_at},
    upgrade::UpgradeRequest,
};

/// Serves authorised requests of one connection.
#[derive(Clone)]
pub(crate) struct ActAs {
    relay: RelaySlot,
    clock: Arc<dyn Clock>,
}

impl ActAs {
    /// `relay` takes what a successful upgrade leaves to be done.
    pub(crate) const fn new(relay: RelaySlot, clock: Arc<dyn Clock>) -> Self {
        Self { relay, clock }
    }
}

impl Service<Authorised> for ActAs {
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Response<Body>, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, authorised: Authorised) -> Self::Future {
        let ActAs { relay, clock } = self.clone();
        async move {
            let Authorised { access, site, path, mut request, live } = authorised;
            let (signal, live) = (live.signal(), Arc::new(live));
            // Read before the stripping below takes them away, as it does `Connection` and `Upgrade`.
            let asked_for_another = asks_to_impersonate(request.headers());
            let upgrade = Arc::new(Mutex::new(UpgradeRequest::take(&mut request)?));
            let is_watch = path.query().is_some_and(asks_to_watch);
            let deadline = cut_at(clock.now(), access.user().login_expires());
            let stack = ServiceBuilder::new()
                .layer(impersonate(&access)?)
                .layer(lend_credential(site.upstream.clone()))
                .service(Forward {
                    site: site.clone(),
                    path,
                    upgrade,
                    relay,
                    deadline,
                    key: (&access).into(),
                    live,
                    is_watch,
                });
            let answered = tokio::select! {
                answered = stack.oneshot(request) => answered,
                reason = signal.ended() => return Err(reason.into()),
            };
            let answered = answered.map_err(|source| {
                tracing::warn!(kube_cluster = %site.record.name, %source, "no answer from the API server");
                Refusal::Upstream { kube_cluster: site.record.name.clone(), source }
            });
            let mut answer = answered?;
            if asked_for_another {
                warn_of_impersonation(answer.headers_mut(), access.impersonate_user());
            }
            Ok(answer)
        }
        .boxed()
    }
}

/// `watch=true` or `watch=1`, as clients of API servers write it.
fn asks_to_watch(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch"))
}
