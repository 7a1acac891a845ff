//! The SSH server of a machine. Owns its connections, their number and their end; serves any byte stream, wherever it came from.
//! Never decides who a certificate stands for (`remoteler-core` does) and never runs user files in its own process.

mod agent;
mod agent_socket;
mod authorize;
mod config;
mod connection;
mod cut;
mod environment;
mod forward;
mod gate;
mod inflow;
mod outflow;
mod refusals;
mod remote;
mod report;
mod reverse;
mod second_factor;
mod session;
mod sftp_watch;
mod signal;
mod source_cap;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use remoteler_core::{AuditSink, Clock, Entropy, Labels, LiveWork, NodeRecord, SourceNet};
use ssh_key::{Certificate, PrivateKey};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{NodeConfig, NodeError, NodeLimits};
pub use second_factor::{SecondFactors, SessionProving};

use crate::node::{
    agent_socket::AgentSockets, connection::Connection, cut::CutStream, gate::Leave, refusals::Refusals,
    report::Reporter, source_cap::SourceCap,
};

/// One SSH server. Cheap to share; all methods may be called at any time.
pub struct Node {
    config: NodeConfig,
    /// Also says by which rules the node decides.
    live: Arc<LiveWork>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    reporter: Reporter,
    refusals: Refusals,
    agent_sockets: AgentSockets,
    second_factors: OnceLock<SecondFactors>,
    transport: RwLock<Arc<russh::server::Config>>,
    record: RwLock<Arc<NodeRecord>>,
    places: Semaphore,
    sources: SourceCap,
    sessions: AtomicUsize,
    session_ended: Notify,
    recording_finished: Arc<Notify>,
    tasks: TaskTracker,
    draining: CancellationToken,
    stopped: CancellationToken,
}

impl Node {
    /// Makes a node; it serves nothing until [`Node::listen`] or [`Node::serve_stream`] is called. It decides by the rules of `live`, and its
    /// connections are part of it.
    ///
    /// # Errors
    /// [`NodeError`] when key and certificate do not belong together, or recordings cannot be kept.
    pub fn new(
        config: NodeConfig,
        live: Arc<LiveWork>,
        audit: Arc<dyn AuditSink>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, NodeError> {
        let transport = config.transport(&config.host_key, &config.host_certificate)?;
        crate::recorder::prepare_dir(&config.recordings_dir)
            .map_err(|source| NodeError::RecordingsDir { dir: config.recordings_dir.clone(), source })?;
        let agent_sockets = AgentSockets::new(config.agent_sockets_dir.clone(), config.agent_notes_dir.clone());
        agent_sockets.sweep();
        let limits = config.limits;
        Ok(Arc::new(Self {
            live,
            reporter: Reporter::new(audit.clone(), &config.record),
            refusals: Refusals::new(audit),
            agent_sockets,
            second_factors: OnceLock::new(),
            clock,
            entropy,
            transport: RwLock::new(Arc::new(transport)),
            record: RwLock::new(Arc::new(config.record.clone())),
            places: Semaphore::new(limits.max_connections),
            sources: SourceCap::new(limits.max_unauthenticated, limits.max_unauthenticated_per_source),
            sessions: AtomicUsize::new(0),
            session_ended: Notify::new(),
            recording_finished: Arc::new(Notify::new()),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
            config,
        }))
    }

    /// Asks `second_factors` about the codes of users who need one for each session; without it they are refused. Counts once.
    pub fn ask_for_second_factors(&self, second_factors: SecondFactors) {
        let _set_before = self.second_factors.set(second_factors);
    }

    /// Presents another host key and certificate on connections that begin from now on.
    ///
    /// # Errors
    /// [`NodeError`] when they do not belong together; the old ones stay.
    pub fn replace_host_certificate(&self, key: &PrivateKey, certificate: &Certificate) -> Result<(), NodeError> {
        let transport = Arc::new(self.config.transport(key, certificate)?);
        *self.transport.write().unwrap_or_else(std::sync::PoisonError::into_inner) = transport;
        Ok(())
    }

    /// Decides by other labels from now on. Connections that are logged in keep what they were granted.
    pub fn replace_labels(&self, labels: Labels) {
        let mut record = self.record.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *record = Arc::new(NodeRecord { labels, ..NodeRecord::clone(&record) });
    }

    /// Name, id and labels as they are now.
    fn record(&self) -> Arc<NodeRecord> {
        self.record.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Shells, commands, file subsystems and forwarded connections running now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::SeqCst)
    }

    /// Notified each time a recording was closed and can be uploaded.
    #[must_use]
    pub fn recording_finished(&self) -> Arc<Notify> {
        self.recording_finished.clone()
    }

    /// Serves one SSH connection over `stream` until it ends. `client_addr` is the client's address as far as it is known, for the audit log
    /// and the session's environment.
    ///
    /// Returns at once when the node is full or draining.
    pub async fn serve_stream<S>(self: &Arc<Self>, stream: S, client_addr: Option<String>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.serve(stream, client_addr, None).await;
    }

    /// As [`Node::serve_stream`]; `own_addr` is where the client reached this node.
    async fn serve<S>(self: &Arc<Self>, stream: S, client_addr: Option<String>, own_addr: Option<SocketAddr>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _guard = self.tasks.token();
        if self.draining.is_cancelled() {
            return;
        }
        let Ok(_place) = self.places.try_acquire() else {
            tracing::warn!(limit = self.config.limits.max_connections, "node is full, a connection was refused");
            return;
        };
        let source = client_addr.as_deref().and_then(SourceNet::parse);
        let Some(waiting) = self.sources.enter(source) else {
            tracing::debug!(client = client_addr.as_deref(), "too many connections that did not log in yet");
            return;
        };
        self.converse(stream, (client_addr, own_addr), waiting).await;
    }

    async fn converse<S>(
        self: &Arc<Self>,
        stream: S,
        ends: (Option<String>, Option<SocketAddr>),
        waiting: source_cap::Place,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let ended = self.stopped.child_token();
        let _end = ended.clone().drop_guard();
        let cut = CancellationToken::new();
        let stream = CutStream::new(stream, cut.clone());
        let (gate, mut progress) = gate::gate(waiting);
        let connection = Connection::new(self.clone(), ends, gate, ended.clone());
        let transport = self.transport.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();

        let grace = tokio::time::sleep(self.config.limits.login_grace);
        tokio::pin!(grace);
        let running = tokio::select! {
            running = russh::server::run_stream(transport, stream, connection) => running,
            () = &mut grace => return,
            () = ended.cancelled() => return,
        };
        let mut running = match running {
            Ok(running) => running,
            Err(error) => return tracing::debug!(%error, "no SSH client"),
        };
        let handle = running.handle();
        let outcome = tokio::select! {
            outcome = &mut running => Some(outcome),
            leave = progress.must_leave(&mut grace) => match leave {
                Leave::Refused => None,
                // Its sessions say why and end; most clients hang up then. The others are told so, and not waited for.
                Leave::Ended(reason) => match tokio::time::timeout(SESSIONS_END, &mut running).await {
                    Ok(outcome) => Some(outcome),
                    Err(_) => {
                        let bye = handle.disconnect(russh::Disconnect::ByApplication, reason.to_string(), String::new());
                        let _sent = tokio::time::timeout(LAST_WORDS, bye).await;
                        let outcome = tokio::time::timeout(LAST_WORDS, &mut running).await;
                        cut.cancel();
                        outcome.ok()
                    }
                },
            },
            () = ended.cancelled() => {
                let bye = handle.disconnect(russh::Disconnect::ByApplication, "the node is stopping".into(), String::new());
                let _sent = tokio::time::timeout(FAREWELL, bye).await;
                None
            }
        };
        let outcome = match outcome {
            Some(outcome) => Some(outcome),
            // What was said last may still be on its way; a peer that never hangs up is cut off.
            None => tokio::time::timeout(FAREWELL, &mut running).await.ok(),
        };
        if let Some(Err(error)) = outcome {
            tracing::debug!(%error, "SSH connection ended");
        }
        cut.cancel();
    }

    /// Accepts connections until `shutdown`. Survives errors of `accept`, such as too many open files.
    pub async fn listen(self: &Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
                () = self.draining.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY not set");
                    }
                    let (node, own) = (self.clone(), stream.local_addr().ok());
                    tokio::spawn(async move { node.serve(stream, Some(peer.to_string()), own).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes no more connections, waits until no session runs or `deadline` has come, then ends what is left.
    pub async fn drain(&self, deadline: Instant) {
        self.draining.cancel();
        self.tasks.close();
        let quiet = async {
            loop {
                let ended = self.session_ended.notified();
                if self.sessions() == 0 {
                    break;
                }
                ended.await;
            }
        };
        if tokio::time::timeout_at(deadline, quiet).await.is_err() {
            tracing::warn!(sessions = self.sessions(), "sessions are cut off: the time to end is over");
        }
        // Clients that got their last words hang up by themselves; one that is told to leave may drop what it has not shown yet.
        let leaving = deadline.min(Instant::now() + FAREWELL);
        let _left = tokio::time::timeout_at(leaving, self.tasks.wait()).await;
        self.stopped.cancel();
        let _all_ended = tokio::time::timeout(FAREWELL * 2, self.tasks.wait()).await;
    }

    fn session_began(self: &Arc<Self>) -> SessionCount {
        self.sessions.fetch_add(1, Ordering::SeqCst);
        SessionCount { node: self.clone(), _task: self.tasks.token() }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.config.record.name).finish_non_exhaustive()
    }
}

/// Counts one session as long as it lives.
struct SessionCount {
    node: Arc<Node>,
    _task: tokio_util::task::task_tracker::TaskTrackerToken,
}

impl Drop for SessionCount {
    fn drop(&mut self) {
        self.node.sessions.fetch_sub(1, Ordering::SeqCst);
        self.node.session_ended.notify_waiters();
    }
}

/// How long a peer has for reading the last message and hanging up.
const FAREWELL: Duration = Duration::from_secs(3);
/// The same for a connection that was ended by the rules: its sessions first, then each message.
const SESSIONS_END: Duration = Duration::from_millis(800);
const LAST_WORDS: Duration = Duration::from_millis(300);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
