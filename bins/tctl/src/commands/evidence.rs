//! `tctl audit export` and `tctl audit verify`: the log with its proofs into a file, and the check of such a file without anybody to ask.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, bail};
use remoteler_core::{
    AuthApi, Timestamp,
    evidence::{Checkpoint, ExportQuery, ExportVerifier, NoteKey, Verdict, fetch_export},
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    cli::{ExportArgs, VerifyArgs},
    output::{Report, fields},
};

/// Longest line that is read, in octets: more than any that is written.
const MAX_LINE: u64 = 1024 * 1024;
/// Checkpoints of a witness that are compared: the newest.
const MAX_WITNESSED: usize = 10_000;

/// Writes an export.
pub(crate) async fn export(api: &dyn AuthApi, args: &ExportArgs, now: Timestamp) -> anyhow::Result<Report> {
    let (from, to) = super::span(args.from, args.to, now)?;
    let query = ExportQuery { from, to };
    let Some(path) = &args.out else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        fetch(api, query, &mut out, "standard output").await?;
        return Ok(Report::nothing());
    };
    let shown = path.display().to_string();
    // Not there yet, and readable by nobody else: it says who did what.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    if file.as_ref().is_err_and(|cause| cause.kind() == ErrorKind::AlreadyExists) {
        bail!("{shown} is there already; name another file");
    }
    let file = file.with_context(|| format!("{shown} cannot be made"))?;
    let mut out = BufWriter::new(file);
    let count = match fetch(api, query, &mut out, &shown).await {
        Ok(count) => count,
        Err(cause) => {
            // A part of an export would only look like a tampered one.
            let _ = std::fs::remove_file(path);
            return Err(cause);
        }
    };
    let file =
        out.into_inner().map_err(|cause| cause.into_error()).with_context(|| format!("{shown} cannot be written"))?;
    file.sync_all().with_context(|| format!("{shown} cannot be written"))?;
    Report::new(format!("{count} events were written to {shown}\n"), &json!({ "events": count, "file": shown }))
}

async fn fetch(api: &dyn AuthApi, query: ExportQuery, out: &mut impl Write, name: &str) -> anyhow::Result<u64> {
    let written = |cause: std::io::Error| anyhow::Error::new(cause).context(format!("{name} cannot be written"));
    let count = fetch_export::<anyhow::Error>(api, query, |line| writeln!(out, "{line}").map_err(written)).await?;
    out.flush().map_err(written)?;
    Ok(count)
}

/// Checks an export. What was tampered with is an error that names it.
pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<Report> {
    let keys = args.key.iter().map(|given| key(given)).collect::<anyhow::Result<Vec<_>>>()?;
    let witness = match &args.witness {
        Some(path) => witnessed(path, &keys)?,
        None => Vec::new(),
    };
    let verdict = if args.file == Path::new("-") {
        check(BufReader::new(std::io::stdin().lock()), ExportVerifier::new(keys, witness))
    } else {
        let shown = args.file.display();
        let file = File::open(&args.file).with_context(|| format!("{shown} cannot be read"))?;
        check(BufReader::new(file), ExportVerifier::new(keys, witness))
    };
    let verdict = verdict.with_context(|| format!("{} cannot be read", args.file.display()))?;
    if !verdict.is_whole() {
        bail!("{}", refusal(&verdict));
    }
    shown(&verdict)
}

/// The key itself, or that in a file.
fn key(given: &str) -> anyhow::Result<NoteKey> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let mut text = String::new();
    let file = File::open(given).with_context(|| format!("{given} is neither a key of an audit log nor a file"))?;
    file.take(4096).read_to_string(&mut text).with_context(|| format!("{given} cannot be read"))?;
    text.parse().with_context(|| given.to_owned())
}

/// A line of a witness's file.
#[derive(Deserialize)]
struct Witnessed {
    checkpoint: String,
}

/// The newest checkpoints of a witness. Its last line may be torn; anything else that is no checkpoint of this log is an error.
fn witnessed(path: &Path, keys: &[NoteKey]) -> anyhow::Result<Vec<Checkpoint>> {
    if keys.is_empty() {
        bail!("--witness needs --key: what a witness saw is signed too");
    }
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("{shown} cannot be read"))?;
    let mut found = std::collections::VecDeque::new();
    let mut number = 0_u64;
    let taken = lines(BufReader::new(file), |line, ended| {
        number += 1;
        let read = serde_json::from_str::<Witnessed>(line).map_err(anyhow::Error::new);
        match read.and_then(|read| Ok(Checkpoint::open(&read.checkpoint, keys)?)) {
            Ok(checkpoint) => found.push_back(checkpoint),
            Err(_) if !ended => {}
            Err(cause) => return Err(cause.context(format!("{shown}, line {number}"))),
        }
        if found.len() > MAX_WITNESSED {
            found.pop_front();
        }
        Ok(())
    });
    taken?;
    if found.is_empty() {
        bail!("{shown} holds no checkpoint, so it shows nothing; leave --witness out to check the export alone");
    }
    Ok(found.into())
}

fn check(file: impl BufRead, mut verifier: ExportVerifier) -> anyhow::Result<Verdict> {
    lines(file, |line, ended| {
        if ended {
            verifier.line(line);
        } else {
            // Cut in the middle of a line: it is not one that was written, even if it looks like it.
            verifier.line(&format!("{line}\u{fffd}"));
        }
        Ok(())
    })?;
    Ok(verifier.finish())
}

/// Reads lines of a bounded length; what is no text has replacement characters in it. Each comes with whether it has its end.
fn lines(mut file: impl BufRead, mut take: impl FnMut(&str, bool) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut file).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let ended = line.last() == Some(&b'\n');
        if ended {
            line.pop();
        }
        take(&String::from_utf8_lossy(&line), ended)?;
    }
}

fn refusal(verdict: &Verdict) -> String {
    let each = verdict.findings.iter().map(|found| {
        let place = match (found.event, found.line) {
            (Some(event), Some(line)) => format!("event {event} on line {line}: "),
            (Some(event), None) => format!("event {event}: "),
            (None, Some(line)) => format!("line {line}: "),
            (None, None) => String::new(),
        };
        format!("{place}{}", found.what)
    });
    let named: Vec<_> = each.collect();
    let more = verdict.found.saturating_sub(named.len() as u64);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let what = if verdict.origin.is_none() && verdict.proven == 0 {
        "this is no export of an audit log, or its beginning was changed"
    } else {
        "the export was tampered with"
    };
    format!("{what}: {}{more}", named.join("; "))
}

fn shown(verdict: &Verdict) -> anyhow::Result<Report> {
    let Verdict { origin, time, size, range, proven, removed, breaks, witnessed, unreached, own_key, .. } = verdict;
    let time = time.map(|time| time.to_string()).unwrap_or_default();
    let mut rows = vec![
        ("Log", origin.clone().unwrap_or_default()),
        ("Signed", time.clone()),
        ("Proven", format!("{proven} events, {} to {}, of {size}", range.0, range.1)),
    ];
    if *removed > 0 {
        rows.push(("Removed", format!("events 1 to {removed}, by retention")));
    }
    if witnessed + unreached > 0 {
        let reached = if *unreached > 0 { format!(", {unreached} are outside of this export") } else { String::new() };
        rows.push(("Witness", format!("{witnessed} checkpoints agree{reached}")));
    }
    rows.extend(breaks.iter().map(|line| ("Chain", line.clone())));
    if *own_key {
        let warning = "the key is that of the file itself: whoever made the file may have made the key; give --key";
        rows.push(("Key", warning.to_owned()));
    }
    let value = json!({
        "origin": origin, "signed": time, "size": size, "first": range.0, "last": range.1, "proven": proven, "removed": removed,
        "chain_breaks": breaks, "witnessed": witnessed, "witness_unreached": unreached, "own_key": own_key,
    });
    Report::new(fields(&rows), &value)
}

#[cfg(test)]
mod tests {
    use super::*;

    // I25
    #[test]
    fn a_file_that_ends_in_the_middle_of_a_line_or_is_no_text_is_no_export() {
        for file in [&b""[..], b"{\"audit_export\":1", b"\xff\xfe\n", b"\n\n", &[b'x'; 3_000_000]] {
            let verdict = check(file, ExportVerifier::new(Vec::new(), Vec::new())).unwrap();
            assert!(!verdict.is_whole());
            let said = refusal(&verdict);
            assert!(
                said.starts_with("this is no export of an audit log, or its beginning was changed: ")
                    && said.lines().count() == 1,
                "{said}"
            );
        }
    }

    #[test]
    fn a_witness_without_a_key_or_a_whole_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness.jsonl");
        std::fs::write(&path, "{\"checkpo").unwrap();
        assert!(witnessed(&path, &[]).is_err());
        let key: NoteKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
        // Whoever cuts the log and empties the witness's file is not helped.
        for emptied in ["{\"checkpo", ""] {
            std::fs::write(&path, emptied).unwrap();
            let refused = witnessed(&path, std::slice::from_ref(&key)).unwrap_err().to_string();
            assert!(refused.contains("holds no checkpoint"), "{refused}");
        }
        std::fs::write(&path, "{\"checkpoint\":\"x\"}\n").unwrap();
        let refused = format!("{:#}", witnessed(&path, &[key]).unwrap_err());
        assert!(refused.contains("line 1"), "{refused}");
    }
}
