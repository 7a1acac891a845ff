//! The audit log proves itself: exports verify with the public key alone, and whatever is done to the database is found and named.

use std::time::Duration;

use remoteler_core::{
    ApiError, ApiErrorKind, AuditEvent, AuditKind, Clock, EventOutcome, EventQuery, HostCerts, SessionFields,
    SystemRole, Timestamp,
    evidence::{ChainHead, Checkpoint, CheckpointError, ExportQuery, ExportVerifier, NoteKey, Verdict, fetch_export},
};
use uuid::Uuid;

use crate::support::{Cluster, kind};

#[derive(Debug)]
#[expect(dead_code, reason = "it is read in the message of the test that fails")]
struct Failed(String);

impl From<ApiError> for Failed {
    fn from(cause: ApiError) -> Self {
        Self(cause.to_string())
    }
}

impl From<CheckpointError> for Failed {
    fn from(cause: CheckpointError) -> Self {
        Self(cause.to_string())
    }
}

async fn export(cluster: &Cluster, query: ExportQuery) -> Vec<String> {
    let mut lines = Vec::new();
    let api = cluster.admin();
    let taken = fetch_export::<Failed>(&*api, query, |line| {
        lines.push(line.to_owned());
        Ok(())
    });
    taken.await.unwrap();
    lines
}

fn check(key: &NoteKey, lines: &[String], witness: Vec<Checkpoint>) -> Verdict {
    let mut verifier = ExportVerifier::new(vec![key.clone()], witness);
    lines.iter().for_each(|line| verifier.line(line));
    verifier.finish()
}

async fn key(cluster: &Cluster) -> NoteKey {
    cluster.admin().audit_checkpoint().await.unwrap().key.parse().unwrap()
}

/// Events of a host, chained as its spool chains them.
struct Writer {
    id: String,
    head: ChainHead,
}

impl Writer {
    fn new(certs: &HostCerts) -> Self {
        Self { id: certs.host_id.to_string(), head: ChainHead::default() }
    }

    fn event(&mut self, cluster: &Cluster) -> AuditEvent {
        let session = SessionFields {
            sid: Uuid::new_v4().to_string(),
            user: "ann".into(),
            login: "root".into(),
            server_id: self.id.clone(),
            server_hostname: "edge".into(),
        };
        let exec = AuditKind::Exec { session, command: "uptime".into(), exit_code: None, error: None };
        let mut event =
            AuditEvent::new(exec, cluster.clock.now(), Uuid::new_v4(), cluster.service.cluster_name().clone());
        let link = self.head.next(&self.id);
        event.chain = Some(link.clone());
        self.head = ChainHead::at(&link, &event.to_text().unwrap());
        event
    }
}

/// A cluster with 300 events and more, of the auth service and of a host, and a checkpoint over most of them.
async fn lived_in() -> (Cluster, HostCerts, Writer) {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let mut writer = Writer::new(&certs);
    let events: Vec<_> = (0..300).map(|_| writer.event(&cluster)).collect();
    for batch in events.chunks(100) {
        cluster.as_host(&certs).record_events(batch.to_vec()).await.unwrap();
    }
    cluster.service.sign_checkpoint().await.unwrap();
    (cluster, certs, writer)
}

#[tokio::test]
async fn an_export_of_everything_or_of_a_part_verifies_with_the_public_key_alone() {
    let (cluster, certs, mut writer) = lived_in().await;
    cluster.clock.advance(Duration::from_secs(60));
    cluster.as_host(&certs).record_events(vec![writer.event(&cluster)]).await.unwrap();
    let key = key(&cluster).await;
    let verdict = check(&key, &export(&cluster, ExportQuery::default()).await, Vec::new());
    assert!(verdict.is_whole(), "{:?}", verdict.findings); // I75
    assert!(verdict.size > 300 && verdict.proven == verdict.size && verdict.breaks.is_empty(), "{verdict:?}");
    let from = Some(cluster.clock.now());
    let verdict = check(&key, &export(&cluster, ExportQuery { from, to: None }).await, Vec::new());
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
    assert_eq!(verdict.proven, 1);
    let nothing = ExportQuery { from: None, to: Some(Timestamp::from_unix_seconds(1)) };
    let verdict = check(&key, &export(&cluster, nothing).await, Vec::new());
    assert!(verdict.is_whole() && verdict.proven == 0, "{verdict:?}");
    assert!(cluster.service.event_log().verify().await.unwrap() > 300);
}

// I75
#[tokio::test]
async fn whatever_is_done_to_the_rows_of_the_database_is_found_by_an_export_and_by_the_table_itself() {
    for (tampering, named) in [
        ("UPDATE events SET body = replace(body, 'uptime', 'rm -rf') WHERE seq = 100", "100: the event was changed"),
        ("DELETE FROM events WHERE seq = 100", "100: the event was removed"),
        (
            "UPDATE events SET seq = -1 WHERE seq = 100; UPDATE events SET seq = 100 WHERE seq = 101;
             UPDATE events SET seq = 101 WHERE seq = -1",
            "the hashes of events 1 to 256 do not fit",
        ),
        ("DELETE FROM events WHERE seq > 290", "291: the event was removed"),
        ("DELETE FROM events WHERE seq > 290; DELETE FROM audit_checkpoints", "291: the event was removed"),
        (
            "UPDATE events SET body = replace(body, 'uptime', 'rm -rf'), leaf = zeroblob(32) WHERE seq = 280",
            "280: the event was changed",
        ),
        ("DELETE FROM audit_tiles", "the hashes of events 257 to"),
        ("DELETE FROM events WHERE seq <= 256", "1: the event was removed"),
    ] {
        let (cluster, _, _) = lived_in().await;
        let key = key(&cluster).await;
        let database = rusqlite::Connection::open(cluster.dir.path().join("auth.sqlite")).unwrap();
        database.execute_batch(tampering).unwrap();
        let verdict = check(&key, &export(&cluster, ExportQuery::default()).await, Vec::new());
        let found: Vec<_> =
            verdict.findings.iter().map(|found| format!("{}: {}", found.event.unwrap_or(0), found.what)).collect();
        assert!(found.iter().any(|found| found.contains(named)), "{tampering}: {found:?}");
        assert!(cluster.service.event_log().verify().await.is_err() || tampering.contains("> 290"), "{tampering}");
        // The log goes on: nobody is locked out because somebody tampered with it.
        cluster.user("bob", &["access"], &[]).await;
    }
}

// I75
#[tokio::test]
async fn a_log_that_does_not_continue_its_checkpoint_is_signed_no_more() {
    let (cluster, _, _) = lived_in().await;
    let database = rusqlite::Connection::open(cluster.dir.path().join("auth.sqlite")).unwrap();
    database.execute_batch("DELETE FROM events WHERE seq > 290; DELETE FROM audit_checkpoints").unwrap();
    let refused = cluster.service.sign_checkpoint().await.unwrap_err().to_string();
    assert!(refused.contains("tampered with") && !refused.contains('\n'), "{refused}");
    assert_eq!(kind(cluster.admin().audit_checkpoint().await), ApiErrorKind::Conflict);
}

// I75
#[tokio::test]
async fn an_end_that_was_cut_off_while_nobody_ran_is_found_by_the_witness() {
    let (cluster, _, _) = lived_in().await;
    let key = key(&cluster).await;
    let note = cluster.service.sign_checkpoint().await.unwrap();
    let witness = Checkpoint::open(&note, std::slice::from_ref(&key)).unwrap();
    let database = rusqlite::Connection::open(cluster.dir.path().join("auth.sqlite")).unwrap();
    database.execute_batch("DELETE FROM events WHERE seq > 290; DELETE FROM audit_checkpoints").unwrap();
    drop(database);
    let Cluster { service, clock, dir } = cluster;
    drop(service);
    let cluster = Cluster::reopen(dir, clock).await;
    let lines = export(&cluster, ExportQuery::default()).await;
    let verdict = check(&key, &lines, vec![witness]);
    assert!(verdict.findings.iter().any(|found| found.what.starts_with("the end was cut off")), "{verdict:?}");
}

#[tokio::test]
async fn a_break_in_a_hosts_chain_is_said_by_an_event_and_loses_none() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let mut writer = Writer::new(&certs);
    let api = cluster.as_host(&certs);
    let events: Vec<_> = (0..6).map(|_| writer.event(&cluster)).collect();
    api.record_events(events[..2].to_vec()).await.unwrap();
    api.record_events(events[..3].to_vec()).await.unwrap();
    assert!(cluster.events("audit.chain_broken").await.is_empty(), "what comes again breaks nothing");
    api.record_events(events[4..].to_vec()).await.unwrap();
    let told = cluster.events("audit.chain_broken").await;
    let [AuditKind::AuditChainBroken { writer: of, expected, found, breaks }] = &[&told[0].kind] else {
        panic!("{told:?}")
    };
    assert_eq!((of.as_str(), *expected, *found, *breaks), (writer.id.as_str(), 4, 5, 1)); // I75
    assert_eq!(cluster.events("exec").await.len(), 5);
    let verdict = check(&key(&cluster).await, &export(&cluster, ExportQuery::default()).await, Vec::new());
    assert!(verdict.is_whole() && verdict.breaks.len() == 1, "{verdict:?}");

    let mut forged = writer.event(&cluster);
    forged.chain.as_mut().unwrap().writer = "auth".into();
    assert_eq!(kind(api.record_events(vec![forged]).await), ApiErrorKind::Denied); // I66
}

#[tokio::test]
async fn old_events_go_and_what_stands_for_them_proves_the_rest() {
    let (cluster, certs, mut writer) = lived_in().await;
    let key = key(&cluster).await;
    assert_eq!(cluster.service.remove_old_events(Duration::from_secs(3600)).await.unwrap(), 0);
    cluster.clock.advance(Duration::from_secs(7200));
    let events: Vec<_> = (0..300).map(|_| writer.event(&cluster)).collect();
    cluster.as_host(&certs).record_events(events).await.unwrap();
    let before = cluster.service.sign_checkpoint().await.unwrap();
    let before = Checkpoint::open(&before, std::slice::from_ref(&key)).unwrap();

    assert_eq!(cluster.service.remove_old_events(Duration::from_secs(3600)).await.unwrap(), 256);
    assert_eq!(cluster.service.remove_old_events(Duration::from_secs(3600)).await.unwrap(), 0);
    let [removal] = cluster.events("audit.remove").await.try_into().unwrap();
    assert!(matches!(removal.kind, AuditKind::AuditRemove { first: 1, last: 256, .. }), "{removal:?}");
    let lines = export(&cluster, ExportQuery::default()).await;
    let verdict = check(&key, &lines, vec![before]);
    assert!(verdict.is_whole(), "{:?}", verdict.findings); // I75
    assert_eq!((verdict.removed, verdict.range.0, verdict.witnessed), (256, 257, 1));
    assert!(cluster.service.event_log().verify().await.unwrap() > 600);
    // The log goes on after a restart, and is still the same one.
    let Cluster { service, clock, dir } = cluster;
    drop(service);
    let cluster = Cluster::reopen(dir, clock).await;
    let verdict = check(&key, &export(&cluster, ExportQuery::default()).await, Vec::new());
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
}

// I75
#[tokio::test]
async fn events_that_were_changed_are_not_removed_by_retention() {
    let (cluster, _, _) = lived_in().await;
    let database = rusqlite::Connection::open(cluster.dir.path().join("auth.sqlite")).unwrap();
    database.execute_batch("UPDATE events SET body = replace(body, 'uptime', 'true') WHERE seq = 100").unwrap();
    cluster.clock.advance(Duration::from_secs(7200));
    assert!(cluster.service.remove_old_events(Duration::from_secs(3600)).await.is_err());
    assert_eq!(cluster.events("exec").await.len(), 300);
}

#[tokio::test]
async fn the_log_is_read_page_by_page_and_by_target_and_outcome() {
    let (cluster, certs, mut writer) = lived_in().await;
    let api = cluster.admin();
    let page = |before| EventQuery { event: Some("exec".into()), limit: Some(70), before, ..EventQuery::default() };
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let events = api.events(page(before)).await.unwrap();
        seen.splice(0..0, events.iter().map(|event| event.uid));
        let Some(first) = events.first() else { break };
        before = Some(first.uid);
    }
    let all: Vec<_> = cluster.events("exec").await.iter().map(|event| event.uid).collect();
    assert_eq!(seen, all);
    assert_eq!(kind(api.events(page(Some(Uuid::nil()))).await), ApiErrorKind::NotFound);

    let mut failed = writer.event(&cluster);
    let AuditKind::Exec { error, .. } = &mut failed.kind else { panic!("not exec") };
    *error = Some("no such program".into());
    cluster.as_host(&certs).record_events(vec![failed]).await.unwrap();
    let count = async |target: Option<&str>, outcome| {
        let query = EventQuery { target: target.map(Into::into), outcome, limit: Some(1000), ..EventQuery::default() };
        cluster.admin().events(query).await.unwrap().len()
    };
    assert_eq!(count(Some("edge"), None).await, 302, "300 that worked, one that failed, and that it joined");
    assert_eq!(count(Some("edge"), Some(EventOutcome::Failure)).await, 1);
    assert_eq!(count(Some("edge"), Some(EventOutcome::Success)).await, 301);
    assert_eq!(count(Some("other"), None).await, 0);
}

#[tokio::test]
async fn only_auditors_get_exports_and_checkpoints() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["auditor"], &[]).await;
    cluster.user("bob", &["access"], &[]).await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    assert!(cluster.as_user("ann").await.start_export(ExportQuery::default()).await.is_ok());
    for other in [cluster.as_user("bob").await, cluster.as_host(&certs), cluster.anonymous()] {
        let (export, checkpoint) = (other.start_export(ExportQuery::default()).await, other.audit_checkpoint().await);
        assert!(matches!(kind(export), ApiErrorKind::Denied | ApiErrorKind::Unauthenticated)); // I66
        assert!(matches!(kind(checkpoint), ApiErrorKind::Denied | ApiErrorKind::Unauthenticated));
    }
}
