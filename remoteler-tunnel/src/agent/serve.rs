//! The streams of one link at the agent: each goes to the service of its kind, if that is offered, or is refused (I29). Owns the
//! registration's stream: what the proxy says on it, and that it stays open.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::AgentConfig;
use crate::connection::{IncomingStream, Link, MuxStream};
use crate::dial::{DialHeader, read_message};
use crate::mux::error::Code;
use crate::notice::{MAX_NOTICE_LEN, Notice, ProxyAddress};

/// Serves what comes through one link, to its end.
pub(super) async fn serve_streams(config: Arc<AgentConfig>, link: Link, tasks: TaskTracker) {
    while let Some(incoming) = link.accept().await {
        serve_stream(&config, incoming, &tasks);
    }
}

/// Hears what the proxy says on the registration's stream. The registration holds as long as that is open: it is closed first when the
/// link shall end, so that the last of the others is the last of all.
pub(super) async fn hold_registration(
    link: Link,
    mut control: MuxStream,
    unregister: CancellationToken,
    learn: impl Fn(Vec<ProxyAddress>),
) {
    let hearing = async {
        while let Ok(octets) = read_message(&mut control, MAX_NOTICE_LEN).await {
            match Notice::from_json(&octets) {
                Ok(notice) => notice.proxies.into_iter().for_each(&learn),
                Err(cause) => tracing::debug!(%cause, "a notice of the proxy was passed over"),
            }
        }
        // A proxy of an earlier version says nothing.
        link.closed().await;
    };
    unregister.run_until_cancelled(hearing).await;
}

fn serve_stream(config: &AgentConfig, incoming: IncomingStream, tasks: &TaskTracker) {
    let header = match DialHeader::from_json(incoming.metadata()) {
        Ok(header) => header,
        Err(error) => return incoming.reject(Code::BadRequest, &error.to_string()),
    };
    let service = config.services.get(&header.target.kind).cloned();
    let Some(service) = service.filter(|_| config.offer.includes(&header.target, &config.host)) else {
        tracing::debug!(target = %header.target, "a stream was refused: this agent does not offer its target");
        return incoming.reject(Code::NotOffered, &format!("this agent does not offer {}", header.target));
    };
    if let Ok(stream) = incoming.accept() {
        tasks.spawn(async move { service.serve(Box::new(stream), header).await });
    }
}
