//! Idle connections to an API server, kept for the next request of the same certificate. No connection ever serves two identities
//! (I53), none that was upgraded comes back, and their number and age are bounded.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::SendRequest},
};
use remoteler_core::{ClusterName, KubeAccess, UserName};
use tokio_util::task::AbortOnDropHandle;

use crate::body::Body;

/// Whose connection it is: the certificate, and whom it acts as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    cluster: ClusterName,
    user: UserName,
    serial: String,
    impersonate_user: String,
    impersonate_groups: Vec<String>,
}

impl From<&KubeAccess> for PoolKey {
    fn from(access: &KubeAccess) -> Self {
        let identity = access.user().identity();
        Self {
            cluster: identity.cluster.clone(),
            user: identity.user.clone(),
            serial: access.user().serial().to_owned(),
            impersonate_user: access.impersonate_user().to_owned(),
            impersonate_groups: access.impersonate_groups().to_vec(),
        }
    }
}

/// A connection and the task that drives it.
pub(crate) struct Connection {
    /// Takes requests.
    pub(crate) sender: SendRequest<Body>,
    /// Ends with this value.
    pub(crate) driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// The answer, or the request where nothing of it was sent; and the connection unless it has ended. Waits as long as the API server does.
    ///
    /// A request that is handed over at the moment in which the connection ends may stay where nobody takes it, for as long as the sender lives
    /// (hyper, issue 4122). Without a sender hyper gives it back.
    pub(crate) async fn send(mut self, request: Request<Body>) -> (Sent, Option<Self>) {
        let mut answer = pin!(self.sender.try_send_request(request));
        tokio::select! {
            biased;
            sent = &mut answer => (sent, Some(self)),
            _ = &mut self.driver => {
                drop(self);
                (answer.await, None)
            }
        }
    }
}

pub(crate) type Sent = Result<Response<Incoming>, TrySendError<Request<Body>>>;

/// See the module.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    by_key: HashMap<PoolKey, Vec<(Instant, Connection)>>,
    count: usize,
}

/// Connections of one identity.
const MAX_PER_KEY: usize = 16;
/// Connections of all.
const MAX_IDLE: usize = 512;
/// API servers close idle connections after 90 s or more.
const MAX_AGE: Duration = Duration::from_secs(60);

impl Pool {
    /// A connection for `key` that was usable a moment ago, newest first.
    pub(crate) fn take(&self, key: &PoolKey) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.by_key.get_mut(key)?;
        let mut taken = 0;
        let mut found = None;
        while let Some((since, connection)) = list.pop() {
            taken += 1;
            if since.elapsed() < MAX_AGE && !connection.sender.is_closed() {
                found = Some(connection);
                break;
            }
        }
        if list.is_empty() {
            idle.by_key.remove(key);
        }
        idle.count -= taken;
        found
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn give(&self, key: PoolKey, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.count >= MAX_IDLE {
            idle.purge();
        }
        if idle.count >= MAX_IDLE {
            return;
        }
        let list = idle.by_key.entry(key).or_default();
        if list.len() < MAX_PER_KEY {
            list.push((Instant::now(), connection));
            idle.count += 1;
        }
    }
}

impl Idle {
    fn purge(&mut self) {
        self.by_key.retain(|_, list| {
            list.retain(|(since, connection)| since.elapsed() < MAX_AGE && !connection.sender.is_closed());
            !list.is_empty()
        });
        self.count = self.by_key.values().map(Vec::len).sum();
    }
}
