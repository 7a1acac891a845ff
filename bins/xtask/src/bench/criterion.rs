//! Runs criterion's benches and reads what it measured from its files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::Value;

use super::figures::{Table, number, ratio};
use crate::{project::Project, step};

/// Runs all benches and adds a row for each.
pub(super) fn measure(project: &Project, quick: bool, table: &mut Table) -> anyhow::Result<()> {
    let results = project.target().join("criterion");
    // What an earlier run has left would be taken for a result of this one.
    let _ = fs::remove_dir_all(&results);
    let mut command = project.cargo(&["bench", "-p", "remoteler-benches", "--benches", "--", "--noplot"]);
    if quick {
        command.args(["--warm-up-time", "0.2", "--measurement-time", "0.5", "--sample-size", "10"]);
    }
    step::run(&mut command)?;
    for row in ROWS {
        let time = nanoseconds(&results, row.bench)?;
        let figure = row.unit.shown(time);
        let beside = match row.beside {
            Some(peer) => {
                let other = nanoseconds(&results, peer)?;
                format!("{} of {} ({})", row.unit.ratio(time, other), name(peer), row.unit.shown(other))
            }
            None => "-".into(),
        };
        table.row(&format!("{}, {}", name(row.bench), row.unit.name()), "in process", figure, beside);
    }
    Ok(())
}

/// One bench by the path of its results, and what it is held against.
struct Row {
    bench: &'static str,
    unit: Unit,
    beside: Option<&'static str>,
}

/// How a time for one iteration is shown.
#[derive(Clone, Copy)]
enum Unit {
    /// Microseconds each.
    Microseconds,
    /// MiB a second, of iterations that move so many MiB.
    MebibytesPerSecond(f64),
    /// A second, of iterations that do so many.
    PerSecond(f64),
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "µs",
            Self::MebibytesPerSecond(_) => "MiB/s",
            Self::PerSecond(_) => "a second",
        }
    }

    fn value(self, nanoseconds: f64) -> f64 {
        match self {
            Self::Microseconds => nanoseconds / 1e3,
            Self::MebibytesPerSecond(count) | Self::PerSecond(count) => count * 1e9 / nanoseconds,
        }
    }

    fn shown(self, nanoseconds: f64) -> String {
        number(self.value(nanoseconds))
    }

    fn ratio(self, own: f64, peer: f64) -> String {
        ratio(self.value(own), self.value(peer))
    }
}

/// Iterations of `streams` move 16 MiB.
const STREAM: Unit = Unit::MebibytesPerSecond(16.0);

const ROWS: &[Row] = &[
    Row { bench: "issue/issue_user_certificate", unit: Unit::Microseconds, beside: Some("issue/ring_both_signatures") },
    Row { bench: "issue/issue_host_certificate", unit: Unit::Microseconds, beside: Some("issue/ring_both_signatures") },
    Row {
        bench: "issue/issue_ssh_certificate",
        unit: Unit::Microseconds,
        beside: Some("issue/ring_ed25519_signature"),
    },
    Row { bench: "issue/issue_x509_certificate", unit: Unit::Microseconds, beside: Some("issue/ring_p256_signature") },
    Row {
        bench: "verify/verify_user_certificate",
        unit: Unit::Microseconds,
        beside: Some("verify/ring_ed25519_verify"),
    },
    Row { bench: "verify/verify_and_decide", unit: Unit::Microseconds, beside: Some("verify/ring_ed25519_verify") },
    Row { bench: "verify/decide_ssh_access", unit: Unit::Microseconds, beside: None },
    Row { bench: "login_storm/renew_1_at_once", unit: Unit::PerSecond(1.0), beside: Some("login_storm/durable_write") },
    Row { bench: "login_storm/renew_64_at_once", unit: Unit::PerSecond(64.0), beside: None },
    Row { bench: "login_storm/renew_256_at_once", unit: Unit::PerSecond(256.0), beside: None },
    Row { bench: "login_storm/login_1_at_once", unit: Unit::PerSecond(1.0), beside: None },
    Row { bench: "login_storm/login_8_at_once", unit: Unit::PerSecond(8.0), beside: None },
    Row { bench: "relay_throughput/64KiB", unit: STREAM, beside: Some("mux_throughput/connection_alone") },
    Row { bench: "mux_throughput/link", unit: STREAM, beside: Some("mux_throughput/yamux") },
    Row { bench: "mux/open_stream_and_echo", unit: Unit::Microseconds, beside: None },
    Row { bench: "kube_request/1_connections", unit: Unit::PerSecond(1.0), beside: None },
    Row { bench: "kube_request/8_connections", unit: Unit::PerSecond(8.0), beside: None },
];

fn name(bench: &str) -> &str {
    bench.strip_prefix("issue/").or_else(|| bench.strip_prefix("verify/")).unwrap_or(bench)
}

/// The median time of one iteration.
fn nanoseconds(results: &Path, bench: &str) -> anyhow::Result<f64> {
    let path: PathBuf = results.join(bench).join("new/estimates.json");
    let text = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let estimates: Value = serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let median = estimates.pointer("/median/point_estimate").and_then(Value::as_f64);
    median.with_context(|| format!("{} has no median", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_becomes_what_the_unit_says() {
        assert_eq!(Unit::Microseconds.shown(1500.0), "1.50");
        assert_eq!(STREAM.shown(16e6), "1000");
        assert_eq!(Unit::PerSecond(8.0).shown(1e6), "8000");
    }

    #[test]
    fn every_bench_that_a_row_names_exists() {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/benches");
        let source: String = ["certificates.rs", "logins.rs", "streams.rs", "kube.rs"]
            .iter()
            .map(|file| fs::read_to_string(benches.join(file)).unwrap())
            .collect();
        for bench in ROWS.iter().flat_map(|row| [Some(row.bench), row.beside]).flatten() {
            let (group, function) = bench.split_once('/').unwrap();
            assert!(source.contains(&format!("benchmark_group(\"{group}\")")), "{group}");
            let counted = function.ends_with("_connections") || function.ends_with("_at_once");
            assert!(counted || source.contains(&format!("bench_function(\"{function}\"")), "{function}");
        }
    }
}
