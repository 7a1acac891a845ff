//! A program that reaches services of a cluster as a user. Owns nothing but how it is believed: each dial is a connection of its own.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy,
    client::legacy::connect::{Connected, Connection},
    rt::{TokioExecutor, TokioIo},
};
use remoteler_core::{ClusterName, SystemClock, TrustBundle};
use remoteler_tunnel::{BoxedStream, ClientTls, ServiceDialError, ServiceDialer, SharedTlsIdentity, Ways};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    identity_file::IdentityFile,
    store::{Store, StoreError, StoredLogin},
};

/// Reaches services as one user.
#[derive(Clone, Debug)]
pub struct Client {
    dialer: ServiceDialer,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody is logged in, or the login cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The identity file names no proxy.
    #[error("the identity file names no proxy; give its address")]
    NoProxy,
}

impl ClientError {
    /// Whether another attempt may succeed without anybody changing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store(StoreError::File(cause)) => cause.is_transient(),
            Self::Store(_) | Self::NoProxy => false,
        }
    }
}

impl Client {
    /// As the user whom `tls` shows, through the proxy at `proxy` (`host:port`), to services of `cluster`.
    #[must_use]
    pub fn new(proxy: &str, cluster: ClusterName, tls: ClientTls, ways: Ways) -> Self {
        Self { dialer: ServiceDialer::new(proxy, cluster, tls, ways) }
    }

    /// As whoever is logged in with `tsh login` in the home `store`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn logged_in(store: &Store) -> Result<Self, ClientError> {
        Ok(Self::of(&store.current_login()?))
    }

    /// By an identity file, through the proxy that it names.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn with_identity(file: IdentityFile) -> Result<Self, ClientError> {
        let proxy = file.proxy().cloned().ok_or(ClientError::NoProxy)?;
        Ok(Self::of(&file.into_login(proxy)))
    }

    fn of(login: &StoredLogin) -> Self {
        let proxy = login.profile.proxy.to_string();
        let trust: TrustBundle = login.trust.clone();
        let cluster = trust.cluster.clone();
        let tls = ClientTls {
            identity: Some(SharedTlsIdentity::new(login.tls.clone())),
            trust: Arc::new(trust),
            clock: Arc::new(SystemClock),
        };
        Self::new(&proxy, cluster, tls, Ways::default())
    }

    /// A byte stream to `service@host`.
    ///
    /// ```no_run
    /// use remoteler_client::{Store, sdk::Client};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # async fn user() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::logged_in(&Store::new("/home/ann/.tsh"))?;
    /// let mut greeting = String::new();
    /// client.dial("greeter@edge-1").await?.read_to_string(&mut greeting).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ServiceDialError`]; [`ServiceDialError::is_transient`] says whether trying again helps.
    pub async fn dial(&self, target: &str) -> Result<BoxedStream, ServiceDialError> {
        Ok(Box::new(self.dialer.dial(target).await?))
    }

    /// The same as a tower service of URIs, for hyper, tonic and whatever else takes a connector. Of `http://pg@edge-1/…` and
    /// `http://pg.edge-1/…` the service is `pg` and the host `edge-1`.
    #[must_use]
    pub fn connector(&self) -> ServiceConnector {
        ServiceConnector { client: self.clone() }
    }

    /// An HTTP client whose URIs name services.
    ///
    /// ```no_run
    /// # async fn status(client: remoteler_client::sdk::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let answer = client.http().get("http://web.edge-1/status".parse()?).await?;
    /// println!("{}", answer.status());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn http(&self) -> legacy::Client<ServiceConnector, Full<Bytes>> {
        legacy::Client::builder(TokioExecutor::new()).build(self.connector())
    }

    /// One request over HTTP, without a body.
    ///
    /// # Errors
    /// [`legacy::Error`], whose source says why the service was not reached.
    pub async fn get(&self, uri: Uri) -> Result<Response<Incoming>, legacy::Error> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        self.http().request(request).await
    }
}

/// Makes the connections of HTTP clients.
#[derive(Clone, Debug)]
pub struct ServiceConnector {
    client: Client,
}

/// A connection as hyper's pool takes it.
#[derive(Debug)]
pub struct PooledStream(BoxedStream);

impl tower_service::Service<Uri> for ServiceConnector {
    type Response = TokioIo<PooledStream>;
    type Error = ServiceDialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ServiceDialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ServiceDialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let client = self.client.clone();
        Box::pin(async move { Ok(TokioIo::new(PooledStream(client.dial(&service_of(&uri)).await?))) })
    }
}

fn service_of(uri: &Uri) -> String {
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let named = authority.rsplit_once(':').map_or(authority, |(named, _)| named);
    if named.contains('@') {
        return named.to_owned();
    }
    named.split_once('.').map_or_else(|| named.to_owned(), |(service, host)| format!("{service}@{host}"))
}

impl Connection for PooledStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for PooledStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for PooledStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_service_and_its_host() {
        for (uri, service) in [
            ("http://web@edge-1/a", "web@edge-1"),
            ("http://web.edge-1:80/a?b", "web@edge-1"),
            ("http://web.edge-1.lab/", "web@edge-1.lab"),
            ("http://web/", "web"),
        ] {
            assert_eq!(service_of(&uri.parse().unwrap()), service, "{uri}");
        }
    }
}
