//! What is kept on disk, by force: a system call that fails, a process that is killed at one, power that goes between any two, with the last write torn. What was acknowledged is there
//! afterwards, and what was not is there whole or not at all.
//!
//! The programs under test are children of this one, run under `strace`, which makes the chosen call fail or kills the process at it. That reaches SQLite's calls as
//! well as our own, and the code is that which ships: no seam was put in for it.
//!
//! `REMOTELER_FAULTS=all` tries every call instead of some, and cuts the power at every point as well as at many that are drawn.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod power;
mod scenarios;
mod strace;

use std::path::Path;

use remoteler_tests::need;

use scenarios::{SCENARIOS, Scenario};

/// How the children are told what to do.
pub(crate) const CHILD: &str = "REMOTELER_FORCE_SCENARIO";
pub(crate) const CHILD_DIR: &str = "REMOTELER_FORCE_DIR";

/// Calls of which one fails, or at which the process dies.
const CALLS: [&str; 9] =
    ["write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "ftruncate", "unlink", "unlinkat"];

/// What happens at the call: an error once, from then on always, no room, or the end of the process.
const FAULTS: [(&str, &str); 4] =
    [("error=EIO", ""), ("error=EIO", "+"), ("error=ENOSPC", "+"), ("signal=SIGKILL", "")];

fn everything() -> bool {
    std::env::var_os("REMOTELER_FAULTS").is_some_and(|value| value == "all")
}

#[test]
fn a_child_does_what_it_is_told() {
    let (Some(name), Some(dir)) = (std::env::var_os(CHILD), std::env::var_os(CHILD_DIR)) else { return };
    let scenario = SCENARIOS.iter().find(|scenario| name == scenario.name).unwrap();
    (scenario.run)(Path::new(&dir));
}

/// A directory with what the scenario begins with.
fn prepared(scenario: &Scenario) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    (scenario.prepare)(dir.path());
    dir
}

fn copied(from: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                std::fs::create_dir(&target).unwrap();
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), &target).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy(from, dir.path());
    dir
}

/// Tries each of [`FAULTS`] at each call the scenario makes, or at some.
fn faults_at_every_call(name: &str) {
    if !need(&["strace"]) {
        return;
    }
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
    let first = prepared(scenario);
    let whole = copied(first.path());
    let acks = strace::run(scenario.name, whole.path(), &[], None).acks;
    assert_eq!(acks.len(), scenario.acks, "{name}: without a fault everything is acknowledged");
    (scenario.check)(whole.path(), &acks);
    let mut tried = 0;
    for call in CALLS {
        for (fault, from_then_on) in FAULTS {
            if fault.contains("ENOSPC") && !call.contains("write") {
                continue;
            }
            // A database makes hundreds of calls, and a login takes its time. Of their calls a different one is begun with at each fault, so that many are met.
            let step = match name {
                "database" if !everything() => 11,
                "login" | "kubeconfig" | "profile" if !everything() => 5,
                _ => 1,
            };
            let mut number = 1 + tried % step;
            loop {
                let dir = copied(first.path());
                let inject = format!("inject={call}:{fault}:when={number}{from_then_on}");
                let run = strace::run(scenario.name, dir.path(), &CALLS, Some(&inject));
                if !run.injected {
                    break;
                }
                tried += 1;
                std::panic::catch_unwind(|| (scenario.check)(dir.path(), &run.acks)).unwrap_or_else(|cause| {
                    eprintln!("{name}, {inject}, acknowledged {:?}:\n{}", run.acks, run.said);
                    std::panic::resume_unwind(cause)
                });
                number += step;
            }
        }
    }
    eprintln!("{name}: {tried} faults");
    assert!(tried > 5, "{name}: hardly a call was met: {tried}");
}

#[test]
fn a_database_keeps_what_it_acknowledged_whatever_call_fails() {
    faults_at_every_call("database"); // I75
}

#[test]
fn a_spool_keeps_what_it_acknowledged_whatever_call_fails() {
    faults_at_every_call("spool"); // I75
}

#[test]
fn a_recording_keeps_what_it_acknowledged_whatever_call_fails() {
    faults_at_every_call("recording"); // I77
}

#[test]
fn a_hosts_identity_is_the_old_or_the_new_one_whatever_call_fails() {
    faults_at_every_call("host"); // I67
}

#[test]
fn a_services_copy_of_the_rules_is_the_old_or_the_new_one_whatever_call_fails() {
    faults_at_every_call("policy"); // I67
}

#[test]
fn a_users_login_is_the_old_the_new_or_none_whatever_call_fails() {
    faults_at_every_call("login"); // I67
}

#[test]
fn a_kubeconfig_parses_and_loses_no_entry_whatever_call_fails() {
    faults_at_every_call("kubeconfig"); // I67
}

#[test]
fn a_profile_is_read_and_the_next_login_works_whatever_call_fails() {
    faults_at_every_call("profile"); // I67
}

#[test]
fn what_was_acknowledged_outlives_a_loss_of_power_between_any_two_calls() {
    if !need(&["strace"]) {
        return;
    }
    for scenario in SCENARIOS {
        let first = prepared(scenario);
        let run = copied(first.path());
        let log = run.path().join("log");
        let acks = strace::record(scenario.name, run.path(), &log);
        assert_eq!(acks.len(), scenario.acks, "{}", scenario.name);
        let cuts = if everything() { 1000 } else { 40 };
        power::cut(scenario, first.path(), run.path(), &log, (cuts, everything())); // I75
    }
}
