//! `tctl audit`: what happened.

use remoteler_core::{AuditEvent, AuthApi, EventOutcome, EventQuery, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use super::{Moment, span};
use crate::{
    cli::Outcome,
    output::{Report, Table},
};

/// Fields that every event has, and that have columns of their own or none.
const COMMON: &[&str] = &["event", "code", "time", "uid", "cluster_name", "user", "chain"];

/// The query that the flags describe, by a clock that shows `now`.
pub(crate) fn query(
    from: Option<Moment>,
    to: Option<Moment>,
    event: Option<&str>,
    user: Option<&str>,
    limit: u16,
    now: Timestamp,
) -> anyhow::Result<EventQuery> {
    let (from, to) = span(from, to, now)?;
    Ok(EventQuery {
        from,
        to,
        event: event.map(str::to_owned),
        user: user.map(str::to_owned),
        limit: Some(usize::from(limit)),
        ..EventQuery::default()
    })
}

/// The query, narrowed to a target, an outcome, and a page.
pub(crate) fn narrowed(
    query: EventQuery,
    target: Option<&str>,
    outcome: Option<Outcome>,
    before: Option<Uuid>,
) -> EventQuery {
    let outcome = outcome.map(|outcome| match outcome {
        Outcome::Success => EventOutcome::Success,
        Outcome::Failure => EventOutcome::Failure,
    });
    EventQuery { target: target.map(str::to_owned), outcome, before, ..query }
}

/// Lists events.
pub(crate) async fn list(api: &dyn AuthApi, query: EventQuery) -> anyhow::Result<Report> {
    let limit = query.limit;
    listed(&api.events(query).await?, limit)
}

fn listed(events: &[AuditEvent], limit: Option<usize>) -> anyhow::Result<Report> {
    let mut table = Table::new(["TIME", "EVENT", "CODE", "USER", "DETAILS"]);
    for event in events {
        let value = serde_json::to_value(event)?;
        let user = value.get("user").map(plain).unwrap_or_default();
        table.row([event.time.to_string(), event.name().to_owned(), event.code.clone(), user, details(&value)]);
    }
    let mut text = table.render();
    if let Some(first) = events.first().filter(|_| Some(events.len()) == limit) {
        text.push_str(&format!("\nThere may be older ones: --before {}\n", first.uid));
    }
    Report::new(text, &events)
}

/// The fields of the event's own kind, as `name=value`.
fn details(event: &Value) -> String {
    let fields = event.as_object().into_iter().flatten().filter(|(name, _)| !COMMON.contains(&name.as_str()));
    fields.map(|(name, value)| format!("{name}={}", plain(value))).collect::<Vec<_>>().join(" ")
}

/// A value without quotes where none are needed to see where it ends.
fn plain(value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.is_empty() && !text.contains([' ', '=', '"']) => text.to_owned(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use remoteler_core::AuditKind;

    use super::*;
    use crate::output::Format;

    // I72, I76
    #[test]
    fn an_event_is_one_line_whatever_a_stranger_typed_as_a_user_name() {
        let event = serde_json::from_value(serde_json::json!({
            "event": "user.login", "code": "T1000W", "time": "2026-03-01T12:00:00.000Z", "uid": "00000000-0000-0000-0000-000000000000",
            "cluster_name": "root", "user": "ann\n2026-03-01T12:00:01Z user.login root\u{1b}[2J", "method": "local", "success": false,
            "error": "wrong password",
        }));
        let event: AuditEvent = event.unwrap();
        assert!(matches!(event.kind, AuditKind::UserLogin { .. }));
        let text = listed(&[event], None).unwrap().render(Format::Text).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.contains("error=\"wrong password\" method=local success=false") && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn flags_become_a_query_by_the_clock_given() {
        let now = Timestamp::from_unix_seconds(7200);
        let wanted = query;
        let query = wanted(Some("1h".parse().unwrap()), None, Some("exec"), None, 5, now).unwrap();
        assert_eq!(query.from, Some(Timestamp::from_unix_seconds(3600)));
        assert_eq!((query.to, query.event.as_deref(), query.limit), (None, Some("exec"), Some(5)));
        let ago = |text: &str| Some(text.parse().unwrap());
        let refused = wanted(ago("1h"), ago("2h"), None, None, 5, now).unwrap_err();
        assert!(refused.to_string().contains("is not before --to"), "{refused}");
    }
}
