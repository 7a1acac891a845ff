//! The text of an audit event: bounded, and the same for everybody who writes it. Owns what is cut and how that is marked.

use serde_json::Value;

use crate::{AuditError, AuditEvent};

/// Longest text of an event, in octets.
const MAX_EVENT: usize = 64 * 1024;
/// Octets of a string and members of a list that are kept: of every event, then of one that is still too long.
const LIMITS: [(usize, usize); 3] = [(8 * 1024, 256), (1024, 64), (128, 16)];
/// Stands where something was cut off.
const MARK: &str = "…[truncated]";

/// The text of an event, and its JSON.
pub(crate) fn text_of(event: &AuditEvent) -> Result<(String, Value), AuditError> {
    let mut value = serde_json::to_value(event).map_err(|cause| AuditError(cause.to_string()))?;
    let mut text = String::new();
    for (octets, members) in LIMITS {
        cut(&mut value, octets, members);
        text = value.to_string();
        if text.len() <= MAX_EVENT {
            return Ok((text, value));
        }
    }
    Err(AuditError(format!(
        "event {} has {} octets when all of it is cut, {MAX_EVENT} are kept",
        event.name(),
        text.len()
    )))
}

/// Cuts what is too long, so that a second time nothing is.
fn cut(value: &mut Value, octets: usize, members: usize) {
    match value {
        Value::String(text) if text.len() > octets => {
            let end = (0..=octets - MARK.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push_str(MARK);
        }
        Value::Array(list) => {
            list.truncate(members);
            list.iter_mut().for_each(|each| cut(each, octets, members));
        }
        Value::Object(fields) => fields.values_mut().for_each(|each| cut(each, octets, members)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{AuditKind, ClusterName, Timestamp};

    fn event(kind: AuditKind) -> AuditEvent {
        AuditEvent::new(kind, Timestamp::from_unix_millis(7), Uuid::nil(), ClusterName::new("root").unwrap())
    }

    #[test]
    fn a_long_text_is_cut_with_a_mark_and_the_event_stays_one() {
        let user = "é".repeat(100_000);
        let text = event(AuditKind::UserDelete { user, name: "x".into() }).to_text().unwrap();
        assert!(text.len() < 9_000); // I76
        let AuditKind::UserDelete { user, name } = serde_json::from_str::<AuditEvent>(&text).unwrap().kind else {
            panic!("{text}")
        };
        assert!(user.ends_with("é…[truncated]") && name == "x");
    }

    #[test]
    fn many_long_texts_are_cut_until_the_event_fits() {
        let kind = AuditKind::UserCreate { user: "u".into(), name: "n".into(), roles: vec!["r".repeat(9000); 300] };
        let text = event(kind).to_text().unwrap();
        assert!(text.len() <= MAX_EVENT, "{}", text.len()); // I76
    }

    proptest! {
        #[test]
        fn what_was_written_and_read_is_written_the_same_again(
            user in "\\PC{0,40}", size in 0_usize..20_000, roles in 0_usize..400, long in 0_usize..3000,
        ) {
            let kind = AuditKind::UserCreate { user, name: "ü".repeat(size), roles: vec!["r".repeat(long); roles] };
            let text = event(kind).to_text().unwrap();
            prop_assert!(text.len() <= MAX_EVENT && !text.contains('\n'));
            let again = serde_json::from_str::<AuditEvent>(&text).unwrap();
            prop_assert_eq!(again.to_text().unwrap(), text);
        }
    }
}
