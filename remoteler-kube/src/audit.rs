//! What goes to the audit log: `kube.request` before a request is sent, `auth` for one that is refused. A request whose event is
//! not taken is not sent.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::Response;
use remoteler_core::{AuditKind, AuditSink, ConnectionFields, ConnectionKind};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use crate::{
    authenticate::{Authenticated, record_attempt},
    authorise::Authorised,
    body::Body,
    refusal::Refusal,
};

/// Octets of path and query that an event keeps.
const MAX_PATH: usize = 8 * 1024;

/// Records each request, then lets it pass.
pub(crate) fn audit<S>(sink: Arc<dyn AuditSink>, remote: Option<String>) -> impl Layer<S, Service = Audit<S>> + Clone {
    layer_fn(move |inner| Audit { inner, sink: sink.clone(), remote: remote.clone() })
}

/// See [`audit`].
#[derive(Clone)]
pub(crate) struct Audit<S> {
    inner: S,
    sink: Arc<dyn AuditSink>,
    remote: Option<String>,
}

impl<S> Service<Authorised> for Audit<S>
where
    S: Service<Authorised, Response = Response<Body>, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Response<Body>, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, authorised: Authorised) -> Self::Future {
        let Self { inner, sink, remote } = self.clone();
        async move {
            let access = &authorised.access;
            let event = AuditKind::KubeRequest {
                user: access.user().identity().user.to_string(),
                kubernetes_cluster: access.kube_cluster().to_string(),
                kubernetes_user: access.impersonate_user().to_owned(),
                kubernetes_groups: access.impersonate_groups().to_vec(),
                verb: authorised.request.method().to_string(),
                request_path: authorised.path.to_string().chars().take(MAX_PATH).collect(),
                response_code: None,
                connection: ConnectionFields { remote },
                with_mfa: access.with_mfa().map(|session| session.to_string()),
            };
            sink.record(event).await?;
            inner.oneshot(authorised).await
        }
        .boxed()
    }
}

/// Records what the layers below refuse.
pub(crate) fn audit_refusals<S>(
    sink: Arc<dyn AuditSink>,
    remote: Option<String>,
) -> impl Layer<S, Service = AuditRefusals<S>> + Clone {
    layer_fn(move |inner| AuditRefusals { inner, sink: sink.clone(), remote: remote.clone() })
}

/// See [`audit_refusals`].
#[derive(Clone)]
pub(crate) struct AuditRefusals<S> {
    inner: S,
    sink: Arc<dyn AuditSink>,
    remote: Option<String>,
}

impl<S> Service<Authenticated> for AuditRefusals<S>
where
    S: Service<Authenticated, Response = Response<Body>, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Response<Body>, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, authenticated: Authenticated) -> Self::Future {
        let Self { inner, sink, remote } = self.clone();
        async move {
            let user = authenticated.user.identity().user.clone();
            let asked = format!("{} {}", authenticated.request.method(), authenticated.request.uri().path());
            let answer = inner.oneshot(authenticated).await;
            if let Err(refusal) = &answer
                && refusal.is_decision()
            {
                let asked: String = asked.chars().take(MAX_PATH).collect();
                let (user, error) = (user.to_string(), format!("{asked}: {refusal}"));
                if let Refusal::NoRoom { kube_cluster, limit, .. } = refusal {
                    let server_hostname = kube_cluster.to_string();
                    record_rejected(sink.as_ref(), user, server_hostname, *limit, error, remote).await;
                } else {
                    record_attempt(sink.as_ref(), user, error, remote).await;
                }
            }
            answer
        }
        .boxed()
    }
}

/// Records one for which the user's roles have no room.
async fn record_rejected(
    sink: &dyn AuditSink,
    user: String,
    server_hostname: String,
    maximum: Option<u32>,
    error: String,
    remote: Option<String>,
) {
    let option = ConnectionKind::Kube.option();
    let reason = match maximum {
        Some(_) => format!("{option} limit reached"),
        None => format!("{option} could not be counted"),
    };
    let service = "kube".into();
    let event =
        AuditKind::SessionRejected { user, login: None, service, server_hostname, reason, maximum, error, remote };
    if let Err(cause) = sink.record(event).await {
        tracing::warn!(%cause, "a refused connection is missing from the audit log");
    }
}
