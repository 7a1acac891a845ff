//! What looking something up in a large audit log takes: the last hundred events, all of them or those of a type, a user, a target or an outcome, and a page in the
//! middle. And how fast events become durable when many come at once. `REMOTELER_BENCH_EVENTS` says how many events there are (200,000 when it does
//! not); they are filled in beforehand, which for ten million takes minutes and some ten gigabytes below the present directory.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput};
use futures::future::join_all;
use remoteler_auth::{AuditLog, Database, EventLog};
use remoteler_core::{AuditKind, AuditSink, ClusterName, EventOutcome, EventQuery, OsEntropy, SystemClock};
use tokio::runtime::Runtime;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Runtime::new().expect("threads can be started");
    let dir = tempfile::Builder::new().prefix("audit").tempdir_in(".").expect("the directory can be written");
    drop(Database::open(dir.path()).expect("a database can be made"));
    let events = std::env::var("REMOTELER_BENCH_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000);
    fill(&dir.path().join("auth.sqlite"), events);
    let log = EventLog::new(Arc::new(Database::open(dir.path()).expect("the database opens")));

    let text = |text: &str| Some(text.to_owned());
    let middle = format!("{:016}", events / 2);
    let middle = uuid_of(&middle);
    let queries = [
        ("all", EventQuery::default()),
        ("type", EventQuery { event: text("session.start"), ..EventQuery::default() }),
        ("user", EventQuery { user: text("user-77"), ..EventQuery::default() }),
        ("target", EventQuery { target: text("node-4711"), ..EventQuery::default() }),
        ("failures", EventQuery { outcome: Some(EventOutcome::Failure), ..EventQuery::default() }),
        ("type_of_user", EventQuery { event: text("session.start"), user: text("user-77"), ..EventQuery::default() }),
        ("page_in_the_middle", EventQuery { before: middle, ..EventQuery::default() }),
    ];
    let mut group = criterion.benchmark_group(format!("audit_ls_last_100_of_{events}"));
    group.sample_size(20);
    for (name, query) in queries {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(runtime.block_on(log.query(query.clone())).expect("events are found")));
        });
    }
    group.finish();

    let sink = AuditLog::new(
        log,
        Arc::new(SystemClock),
        Arc::new(OsEntropy),
        ClusterName::new("bench.example.com").expect("the constant is a cluster name"),
    );
    let mut group = criterion.benchmark_group("audit_record");
    for at_once in [1_u64, 256] {
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(format!("durable_{at_once}_at_once"), |bencher| {
            bencher.iter(|| {
                let events = (0..at_once).map(|_| sink.record(login()));
                for outcome in runtime.block_on(join_all(events)) {
                    outcome.expect("the event is kept");
                }
            });
        });
    }
    group.finish();
}

fn login() -> AuditKind {
    AuditKind::UserLogin {
        user: "ann".into(),
        method: "local".into(),
        success: true,
        error: None,
        connector: None,
        remote: None,
    }
}

fn uuid_of(text: &str) -> Option<uuid::Uuid> {
    uuid::Uuid::from_slice(text.as_bytes()).ok()
}

/// Events of 10,000 users on 10,000 nodes, one in a hundred a failure, written by SQLite itself: only their number and their indexes count here.
fn fill(database: &std::path::Path, events: i64) {
    let connection = rusqlite::Connection::open(database).expect("the database opens");
    connection.pragma_update(None, "synchronous", "OFF").expect("nothing here need survive");
    let mut from = 0_i64;
    while from < events {
        let to = events.min(from + 500_000);
        connection.execute(FILL, [from + 1, to]).expect("events can be written");
        from = to;
    }
}

const FILL: &str = "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
    INSERT INTO events (seq, uid, time, event, user, sid, target, failed, body, leaf)
    SELECT i, CAST(printf('%016d', i) AS BLOB), 1700000000000 + i * 3, iif(i % 3 = 0, 'session.start', 'exec'),
        'user-' || (i * 7919 % 10000), NULL, 'node-' || (i * 104729 % 10000), i % 100 = 0,
        printf('{\"cluster_name\":\"bench.example.com\",\"code\":\"T1004I\",\"event\":\"user.delete\",\"name\":\"%0200d\",\"time\":\"2026-03-01T12:00:00.000Z\",\"uid\":\"00000000-0000-0000-0000-%012d\",\"user\":\"ann\"}', i, i),
        zeroblob(32)
    FROM n";
