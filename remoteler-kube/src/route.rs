//! Which of this service's Kubernetes clusters a request is for: the one that the TLS server name and the path agree on (I13, I60).

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use http::{Request, Response, Version, header};
use remoteler_core::{ClusterName, KubeClusterName, KubeRecord, VerifiedUser};
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    authenticate::Authenticated,
    body::Body,
    headers::HeaderError,
    path::{ApiPath, KubePath},
    pool::Pool,
    refusal::Refusal,
    upstream::Upstream,
};

/// A Kubernetes cluster of this service.
pub(crate) struct Site {
    /// What it announces.
    pub(crate) record: KubeRecord,
    /// Its TLS server name.
    pub(crate) server_name: String,
    /// Its API server.
    pub(crate) upstream: Upstream,
    /// Idle connections to it.
    pub(crate) pool: Pool,
}

/// All of them.
pub(crate) struct Sites {
    /// The cluster they belong to.
    pub(crate) cluster: ClusterName,
    /// By name.
    pub(crate) by_name: BTreeMap<KubeClusterName, Arc<Site>>,
}

/// A request whose target is known.
pub(crate) struct Routed {
    /// Who.
    pub(crate) user: VerifiedUser,
    /// Where to.
    pub(crate) site: Arc<Site>,
    /// What for.
    pub(crate) path: ApiPath,
    /// The request; its own target is not looked at any more.
    pub(crate) request: Request<Body>,
}

/// Reads the target. `server_name` is what the client asked for in its ClientHello (RFC 6066 section 3).
pub(crate) fn route<S>(sites: Arc<Sites>, server_name: Option<Arc<str>>) -> impl Layer<S, Service = Route<S>> + Clone {
    layer_fn(move |inner| Route { inner, sites: sites.clone(), server_name: server_name.clone() })
}

/// See [`route`].
#[derive(Clone)]
pub(crate) struct Route<S> {
    inner: S,
    sites: Arc<Sites>,
    server_name: Option<Arc<str>>,
}

impl<S> Route<S> {
    fn target<B>(&self, request: &Request<B>) -> Result<(Arc<Site>, ApiPath), Refusal> {
        let hosts = request.headers().get_all(header::HOST).iter().count();
        let needed = usize::from(request.version() != Version::HTTP_2);
        if hosts > 1 || hosts < needed {
            return Err(HeaderError::Host(hosts).into());
        }
        let KubePath { cluster, kube_cluster, api } = KubePath::parse(request.uri(), request.version())?;
        if cluster != self.sites.cluster.as_str() {
            return Err(Refusal::UnknownCluster { asked: shortened(&format!("{cluster}/{kube_cluster}")) });
        }
        let name = KubeClusterName::new(&kube_cluster).ok();
        let Some(site) = name.and_then(|name| self.sites.by_name.get(&name)) else {
            return Err(Refusal::UnknownCluster { asked: shortened(&kube_cluster) });
        };
        if self.server_name.as_deref() != Some(site.server_name.as_str()) {
            return Err(Refusal::Misdirected { asked: shortened(&kube_cluster) });
        }
        Ok((site.clone(), api))
    }
}

impl<S> Service<Authenticated> for Route<S>
where
    S: Service<Routed, Response = Response<Body>, Error = Refusal>,
{
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Refusal>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, Authenticated { user, request }: Authenticated) -> Self::Future {
        match self.target(&request) {
            Ok((site, path)) => Either::Left(self.inner.call(Routed { user, site, path, request })),
            Err(refusal) => Either::Right(ready(Err(refusal))),
        }
    }
}

fn shortened(asked: &str) -> String {
    asked.chars().take(160).collect()
}
