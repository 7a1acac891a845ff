//! The auth service is away: what runs goes on, valid certificates work, logins say what is wrong, and afterwards every event is there once. Once for some seconds
//! (`REMOTELER_AWAY` says how many), and once for thirty minutes of a clock that is set forward under all programs, a minute at a time, wall clock and
//! monotonic clock alike (libfaketime): whatever decides by time has its time come.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use remoteler_tests::{Cluster, ClusterOptions, Edge, FakeClock, Proxy, User, eventually_within, need, run};

const SECONDS: Duration = Duration::from_secs(30);

/// A shell through the proxy that answers each line.
struct Shell {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

/// How time goes while the auth service is away.
enum Away {
    Seconds(u64),
    Minutes(u32, FakeClock),
}

impl Away {
    fn environment(&self) -> Vec<(String, String)> {
        match self {
            Self::Seconds(_) => Vec::new(),
            Self::Minutes(_, clock) => clock.environment(),
        }
    }
}

impl Shell {
    fn open(user: &User, host: &str, away: &Away) -> Self {
        let mut command = user.openssh("ssh");
        command.envs(away.environment()).args([
            "-o",
            "BatchMode=yes",
            host,
            "while read line; do echo \"<$line>\"; done",
        ]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn echoes(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
        assert_eq!(self.lines.next().unwrap().unwrap(), format!("<{word}>"));
    }

    fn close(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

fn reaches(user: &User, host: &str, away: &Away) -> Result<(), String> {
    let out = run(user.openssh("ssh").envs(away.environment()).args([
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=30",
        host,
        "echo up",
    ]));
    if out.text() == "up\n" { Ok(()) } else { Err(out.stderr) }
}

/// Uids of the `session.start` events of each session.
fn starts(cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in cluster.events("session.start") {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        found.entry(text("sid")).or_default().push(text("uid"));
    }
    found
}

// I75
#[test]
fn while_auth_is_away_sessions_go_on_and_afterwards_every_event_is_there_once() {
    let seconds = std::env::var("REMOTELER_AWAY").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    if need(&["ssh"]) {
        auth_is_away(&Away::Seconds(seconds));
    }
}

// I75
#[test]
fn thirty_minutes_without_auth_end_no_session_lose_no_event_and_shut_out_only_who_is_strict() {
    if need(&["ssh"])
        && let Some(clock) = FakeClock::new()
    {
        auth_is_away(&Away::Minutes(30, clock));
    }
}

fn auth_is_away(away: &Away) {
    let environment = away.environment();
    let options =
        ClusterOptions { roles: "auth".into(), environment: environment.clone(), ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with(options);
    let proxy = Proxy::join(&cluster, "proxy");
    let words: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut wrapper = vec!["env"];
    wrapper.extend(words.iter().map(String::as_str));
    let edge = Edge::launch(&cluster, "edge-1", proxy.address(), &[], &wrapper);
    edge.wait_connected();
    let strict = "kind: role\nversion: v7\nmetadata: { name: strict }\nspec: { options: { lock: strict } }\n";
    cluster.tctl_with_input(&["create"], strict).ok();
    let bob = User::create_at(&cluster, "bob", "access,strict", proxy.address());
    let ann = User::create_at(&cluster, "ann", "access", proxy.address());
    eventually_within(SECONDS, "the edge node is reached", || reaches(&ann, "edge-1", away));
    eventually_within(SECONDS, "bob reaches it, too", || reaches(&bob, "edge-1", away));
    // An attempt that was given up may have begun a session, too: what is told settles first.
    let (mut told, mut since) = (0, Instant::now());
    let before = eventually_within(2 * SECONDS, "the first session is told", || {
        let count = starts(&cluster).len();
        if count != told {
            (told, since) = (count, Instant::now());
        }
        if told > 0 && since.elapsed() > Duration::from_secs(3) { Ok(told) } else { Err(format!("{told} so far")) }
    });
    let mut shell = Shell::open(&ann, "edge-1", away);
    shell.echoes("before");

    let mut new = 1; // the shell
    // An attempt that did not get through may have begun a session as well.
    let mut tried_again = 0;
    cluster.kill_daemon();
    match away {
        Away::Seconds(seconds) => {
            let began = Instant::now();
            while new < 4 || began.elapsed() < Duration::from_secs(*seconds) {
                shell.echoes("meanwhile");
                reaches(&ann, "edge-1", away).unwrap(); // a valid certificate and a node that the proxy knows
                new += 1;
            }
        }
        Away::Minutes(minutes, clock) => {
            let mut shut_out_since = None;
            for minute in 1..=*minutes {
                clock.set(minute);
                // Programs look at the file once a second. For them a minute is gone then, in which they heard nothing of each other.
                std::thread::sleep(Duration::from_millis(1200));
                shell.echoes(&format!("minute {minute}"));
                let mut tries = 0;
                eventually_within(SECONDS, &format!("ann gets in in minute {minute}"), || {
                    tries += 1;
                    reaches(&ann, "edge-1", away)
                });
                new += 1;
                tried_again += tries - 1;
                // Whose locks must be known gets in for five minutes, and not after six.
                if minute > 6 || shut_out_since.is_some() {
                    let said = reaches(&bob, "edge-1", away).unwrap_err();
                    assert!(said.contains("lock"), "minute {minute}: {said}");
                    shut_out_since.get_or_insert(minute);
                } else if minute < 5 {
                    let mut tries = 0;
                    eventually_within(SECONDS, &format!("bob gets in in minute {minute}"), || {
                        tries += 1;
                        reaches(&bob, "edge-1", away)
                    });
                    new += 1;
                    tried_again += tries - 1;
                }
            }
            assert_eq!(shut_out_since, Some(7));
            eprintln!("{minutes} minutes: {new} sessions, {tried_again} of them after another try");
        }
    }
    ann.tsh(&["logout"]).ok(); // with a valid certificate nobody would be asked
    let asked = Instant::now();
    let refused = ann.login(&[]);
    assert_ne!(refused.code, Some(0));
    let said = refused.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(asked.elapsed() < SECONDS && said.contains("auth service does not answer"), "{said}: {}", refused.stderr);
    assert!(!said.contains(cluster.auth()), "where it is, is nobody's business out there: {said}");
    eprintln!("a login meanwhile, after {:?}: {said}", asked.elapsed());

    cluster.start_daemon();
    cluster.wait_ready();
    shell.echoes("after");
    shell.close();
    eventually_within(SECONDS, "a login works again", || {
        let out = ann.login_in(&environment, &[]);
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    eventually_within(2 * SECONDS, "bob gets in again", || reaches(&bob, "edge-1", away));
    new += 1;
    let found = eventually_within(2 * SECONDS, "what happened meanwhile is told", || {
        let found = starts(&cluster);
        if found.len() >= before + new { Ok(found) } else { Err(format!("{} of {}", found.len(), before + new)) }
    });
    assert!(
        (before + new..=before + new + tried_again + 1).contains(&found.len()),
        "{} of {new}: {found:?}",
        found.len()
    );
    assert!(found.values().all(|uids| uids.len() == 1), "an event is there twice: {found:?}");
    eventually_within(SECONDS, "every session has its one end", || {
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for event in cluster.events("session.end") {
            *ends.entry(event["sid"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        assert!(ends.values().all(|count| *count == 1), "{ends:?}");
        let all = found.keys().all(|sid| ends.contains_key(sid));
        if all { Ok(()) } else { Err(format!("{} of {}", ends.len(), found.len())) }
    });
    if let Away::Minutes(minutes, _) = away {
        // The clock that everything went by: events of one afternoon that took a minute.
        let mut times: Vec<i64> =
            cluster.events("session.start").iter().map(|event| seconds(event["time"].as_str().unwrap())).collect();
        times.sort_unstable();
        let took = times[times.len() - 1] - times[0];
        assert!(took >= i64::from(*minutes - 1) * 60, "the events are of {took} s");
    }
    cluster.assert_log_verifies();
    drop((edge, proxy));
}

/// `2026-03-01T12:00:00.000Z` in seconds since 1970.
fn seconds(time: &str) -> i64 {
    remoteler_core::Timestamp::parse(time).unwrap().unix_millis() / 1000
}
