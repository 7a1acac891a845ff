//! The clock and the ear of live work: looks at it when the rules change, and when its own time comes. Owns the waiting and the event of each end;
//! what ends is core's to decide.

use std::{sync::Arc, time::Duration};

use remoteler_core::{AuditKind, AuditSink, EndReason, LiveWork, Subject, with_causes};
use tokio::{task::JoinSet, time::sleep};

/// Ends what has to end, for as long as the future lives. One for each [`LiveWork`]; without it nothing ends by itself.
///
/// The event follows the end: a lock that cannot be written down is in force all the same.
pub async fn enforce(live: Arc<LiveWork>, audit: Arc<dyn AuditSink>) {
    let mut changes = live.policy().changes();
    let mut records = JoinSet::new();
    loop {
        changes.borrow_and_update();
        let looked = live.look();
        if !looked.ended.is_empty() {
            // Beside the next look, which must not wait for a disk.
            records.spawn(record(looked.ended, audit.clone()));
        }
        // Looked at again after a second at the latest: the clock may have been set.
        let due = async {
            match looked.next {
                Some(wait) => sleep(wait.clamp(SHORTEST, LONGEST)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(()) = changes.changed() => {}
            () = live.arrived() => {}
            () = due => {}
            Some(_) = records.join_next() => {}
        }
    }
}

async fn record(ended: Vec<(Subject, EndReason)>, audit: Arc<dyn AuditSink>) {
    for (subject, reason) in ended {
        let user = subject.user_name().map(ToString::to_string).unwrap_or_default();
        let (server_hostname, reason) = (subject.place(), reason.to_string());
        tracing::info!(user, place = server_hostname, reason, "live work was ended");
        let login = subject.login_name().map(ToString::to_string);
        let event = AuditKind::ClientDisconnect { user, login, server_hostname, reason };
        if let Err(cause) = audit.record(event).await {
            tracing::warn!(cause = with_causes(&cause), "the end of live work is not in the audit log");
        }
    }
}

const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);
