//! Who writes a spool: gives events their place in the writer's chain, and remembers where that ends. Owns `chain.json`; writes no event.

use std::sync::Arc;

use remoteler_core::{
    AuditError, AuditEvent, AuditKind, Clock, ClusterName, HostId, OsEntropy, Timestamp,
    evidence::{ChainHead, ChainLink},
    random_uuid,
};

use serde::Deserialize;

use super::segments::Segments;
use crate::files::FileError;

/// Where the end of the chain is kept when no segment has it any more.
pub(super) const HEAD_FILE: &str = "chain.json";

/// A writer.
pub(super) struct Author {
    host: HostId,
    cluster: ClusterName,
    clock: Arc<dyn Clock>,
    head: ChainHead,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Linked {
    chain: Option<ChainLink>,
}

impl Author {
    /// The writer whose events are in `segments`, or were there.
    pub(super) fn new(
        host: HostId,
        cluster: ClusterName,
        clock: Arc<dyn Clock>,
        segments: &Segments,
    ) -> Result<Self, FileError> {
        let kept = segments.read_head()?.and_then(|text| serde_json::from_slice::<ChainHead>(&text).ok());
        let written = segments.last_line(|line| {
            let text = std::str::from_utf8(line).ok()?;
            let event: Linked = serde_json::from_str(text).ok()?;
            let link = event.chain.filter(|link| link.writer == host.to_string())?;
            Some(ChainHead::at(&link, text))
        })?;
        let head = [kept, written].into_iter().flatten().max_by_key(|head| head.n).unwrap_or_default();
        Ok(Self { host, cluster, clock, head })
    }

    /// The end of the chain.
    pub(super) const fn head(&self) -> ChainHead {
        self.head
    }

    /// Goes back to where the chain was: what came after it is not on disk.
    pub(super) const fn go_back(&mut self, head: ChainHead) {
        self.head = head;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The line of the next event, at most 64 KiB of text and a newline.
    pub(super) fn line(&mut self, mut event: AuditEvent) -> Result<Vec<u8>, AuditError> {
        let link = self.head.next(&self.host.to_string());
        event.chain = Some(link.clone());
        let mut text = event.to_text()?;
        self.head = ChainHead::at(&link, &text);
        text.push('\n');
        Ok(text.into_bytes())
    }

    /// That events are dropped, or were.
    pub(super) fn dropped(&self, count: Option<u64>, since: Timestamp) -> AuditEvent {
        let error = "the spool is full, and audit_spool.when_full says drop-and-say-so".to_owned();
        let kind = AuditKind::AuditDropped { server_id: self.host.to_string(), count, since, error };
        AuditEvent::new(kind, self.now(), random_uuid(&OsEntropy), self.cluster.clone())
    }
}
