//! Runs a scenario in a child under `strace`: with a fault, or with everything written down.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{CHILD, CHILD_DIR};

/// No scenario takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// How it went.
pub(crate) struct Run {
    /// Numbers that were acknowledged.
    pub(crate) acks: Vec<usize>,
    /// Whether the fault came.
    pub(crate) injected: bool,
    /// What it said, for people.
    pub(crate) said: String,
}

fn child(scenario: &str, dir: &Path, strace: &[&str], log: &Path) -> (Vec<usize>, String) {
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(log).args(strace);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "a_child_does_what_it_is_told", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, scenario).env(CHILD_DIR, dir).env("RUST_BACKTRACE", "0");
    let output = log.with_extension("said");
    let file = std::fs::File::create(&output).unwrap();
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        // Nothing here may wait for ever, whatever fails: that would be a hang of the service.
        if Instant::now() > end {
            let _ = killpg(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL);
            let _ = child.wait();
            panic!("{scenario} {strace:?} hangs:\n{}", std::fs::read_to_string(&output).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    let said = String::from_utf8_lossy(&std::fs::read(&output).unwrap()).into_owned();
    let acks = said.lines().filter_map(|line| line.rsplit_once("ack ")?.1.parse().ok()).collect();
    (acks, said)
}

/// With a fault, if one is given.
pub(crate) fn run(scenario: &str, dir: &Path, calls: &[&str], inject: Option<&str>) -> Run {
    let log = dir.join("log");
    let trace = format!("trace={}", if calls.is_empty() { "fsync".to_owned() } else { calls.join(",") });
    let mut args = vec!["-s", "0", "-e", &trace];
    args.extend(inject.map(|inject| ["-e", inject]).into_iter().flatten());
    let (acks, said) = child(scenario, dir, &args, &log);
    let log = std::fs::read_to_string(&log).unwrap();
    Run { acks, injected: log.contains("(INJECTED)") || log.contains("killed by SIGKILL"), said }
}

/// Writes down every call that changes something on disk, with what was written.
pub(crate) fn record(scenario: &str, dir: &Path, log: &Path) -> Vec<usize> {
    let trace =
        "trace=openat,mkdir,mkdirat,write,pwrite64,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat";
    child(scenario, dir, &["-y", "-xx", "-s", "4000000", "-e", trace], log).0
}
