//! hyper over a service of an agent: any tower service of HTTP requests, with no open port, that knows who is calling. Owns the connections
//! while it serves.

use std::error::Error;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use remoteler_tunnel::{Caller, ServiceConnection, ServiceListener};
use tokio::task::JoinSet;
use tower_service::Service;

/// Who is calling: what services find as `request.extensions().get::<HttpCaller>()`.
#[derive(Clone, Debug)]
pub struct HttpCaller(pub Arc<Caller>);

/// Serves HTTP/1 and HTTP/2 by clones of `service`, until the agent is gone and the last connection has ended. A connection that breaks, or
/// on which `service` fails, ends alone.
///
/// # Cancel safety
/// Dropped, it cuts the connections that it serves.
pub async fn serve_http<S, B>(mut listener: ServiceListener, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            connection = listener.accept() => match connection {
                Some(connection) => drop(connections.spawn(serve_connection(connection, service.clone()))),
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn serve_connection<S, B>(connection: ServiceConnection, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (caller, service) = (HttpCaller(connection.peer().clone()), TowerToHyperService::new(service));
    let known = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        service.call(request)
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()); // for headers that do not come
    server.http2().timer(TokioTimer::new());
    // How it ended is the caller's to know.
    let _ = server.serve_connection_with_upgrades(TokioIo::new(connection), known).await;
}
