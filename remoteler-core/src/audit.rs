//! Audit events: typed, one JSON object each, named after Teleport's published event reference.
//! Owns their form, and nothing of where they go.

mod codes;
mod fields;
mod kinds;

pub use fields::{ConnectionFields, SessionFields};
pub use kinds::AuditKind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AuditError, ClusterName, Timestamp, audit_text, evidence::ChainLink};

/// One event. In JSON: `event`, `code`, `time`, `uid`, `cluster_name` and the fields of its kind, all on one level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditEvent {
    /// Kind and its fields.
    #[serde(flatten)]
    pub kind: AuditKind,
    /// Short stable code, for SIEM rules.
    pub code: String,
    /// When it happened, by the clock of the service that saw it.
    pub time: Timestamp,
    /// Unique; the store keeps one event for each.
    pub uid: Uuid,
    /// Cluster in which it happened.
    pub cluster_name: ClusterName,
    /// Its place in the chain of who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainLink>,
}

impl AuditEvent {
    /// Makes an event of `kind` that happened at `time`.
    #[must_use]
    pub fn new(kind: AuditKind, time: Timestamp, uid: Uuid, cluster_name: ClusterName) -> Self {
        let code = kind.code().to_owned();
        Self { kind, code, time, uid, cluster_name, chain: None }
    }

    /// The text that is kept, hashed and chained: JSON on one line, of at most 64 KiB. What is too long is cut, with a mark (I76); a text that is
    /// read and written again stays as it is.
    ///
    /// # Errors
    /// [`AuditError`] when the event does not fit however much is cut.
    pub fn to_text(&self) -> Result<String, AuditError> {
        audit_text::text_of(self).map(|(text, _)| text)
    }

    /// The same with the JSON of which it is made.
    ///
    /// # Errors
    /// As [`AuditEvent::to_text`].
    pub fn to_text_and_json(&self) -> Result<(String, serde_json::Value), AuditError> {
        audit_text::text_of(self)
    }

    /// The kind's name, as it stands under `event`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_and_reads_back() {
        let kind = AuditKind::SessionStart {
            session: SessionFields { sid: "s".into(), user: "ann".into(), ..SessionFields::default() },
            connection: ConnectionFields { remote: Some("[::1]:22".into()) },
            interactive: true,
            size: Some("80:25".into()),
            initial_command: Vec::new(),
            role: Some("dev".into()),
            with_mfa: None,
        };
        let event =
            AuditEvent::new(kind, Timestamp::from_unix_millis(1), Uuid::nil(), ClusterName::new("root").unwrap());
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["event"], "session.start");
        assert_eq!(json["code"], "T2000I");
        assert_eq!(json["user"], "ann");
        assert_eq!(json["addr.remote"], "[::1]:22");
        assert_eq!(json["time"], "1970-01-01T00:00:00.001Z");
        assert_eq!(serde_json::from_value::<AuditEvent>(json).unwrap(), event);
    }
}
