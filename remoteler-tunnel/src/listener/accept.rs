//! The accept loop of every listener. Owns the sockets until a handler has them, and the deadline until the peer is somebody.
//! Never awaits a peer in the loop, and never ends for an error of one connection (I30).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admission, Admissions};
use crate::wire::Wire;

/// A connection nobody has spoken on yet.
#[derive(Debug)]
pub struct Connection {
    /// A socket with `TCP_NODELAY` set, or what stands for one.
    pub stream: Wire,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Its place among the unauthenticated. The handler's future is dropped at the deadline, unless it has called
    /// [`Admission::authenticated`] by then.
    pub admission: Admission,
}

/// Where [`serve`] gets its connections and counts from.
#[derive(Debug)]
pub struct Serve {
    /// The listening socket.
    pub listener: TcpListener,
    /// The counts, shared with whoever shows them.
    pub admissions: Arc<Admissions>,
    /// Ends the loop; connections that were accepted go on.
    pub stop: CancellationToken,
    /// Holds the connections' tasks, for who wants to wait for them.
    pub connections: TaskTracker,
}

/// Accepts until told to stop. Each connection is handled in its own task, under the deadline of the admissions.
pub async fn serve<H, F>(serve: Serve, handle: H)
where
    H: Fn(Connection) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Serve { listener, admissions, stop, connections } = serve;
    let mut pause = SHORTEST_PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, source)) => {
                pause = SHORTEST_PAUSE;
                let Some(admission) = admissions.admit(source.ip()) else {
                    tracing::debug!(%source, "too many unauthenticated connections, one was turned away");
                    continue;
                };
                // Fails only when the peer has left.
                let _ = stream.set_nodelay(true);
                let deadline = Instant::now() + admissions.limits().deadline;
                let handled = handle(Connection { stream: stream.into(), source, admission: admission.clone() });
                connections.spawn(until_somebody(handled, admission, deadline));
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Mostly no file descriptors: what lives goes on, and ends some time.
                tracing::warn!(%error, "no connection can be accepted, trying again in {} ms", pause.as_millis());
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

/// Runs `handled` until its end, or until `deadline` if the peer is nobody then still.
pub async fn until_somebody(handled: impl Future<Output = ()>, admission: Admission, deadline: Instant) {
    let mut handled = std::pin::pin!(handled);
    tokio::select! {
        () = &mut handled => return,
        () = admission.wait() => {}
        () = tokio::time::sleep_until(deadline) => return,
    }
    handled.await;
}

/// Errors of a connection that was gone before it was accepted (`accept(2)`).
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
    )
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
