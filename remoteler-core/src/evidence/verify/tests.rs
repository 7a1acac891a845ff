//! A log in memory, exported and tampered with in every way, on every line.

use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::evidence::{
    ChainHead, ExportRecord, ExportStart, ExportTile, ExportTombstone, consistency_path, inclusion_path, leaf_hash,
    record_line, sign_note, start_line, tile_line,
};

/// A log of which everything is in memory.
struct Log {
    pair: Ed25519KeyPair,
    key: NoteKey,
    texts: Vec<String>,
    heads: BTreeMap<String, ChainHead>,
}

impl Log {
    fn new(events: u64) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = NoteKey::new("remoteler.dev/audit/root", pair.public_key().as_ref()).unwrap();
        let mut log = Self { pair, key, texts: Vec::new(), heads: BTreeMap::new() };
        (0..events)
            .for_each(|number| log.write(if number % 3 == 0 { "auth" } else { "host" }, json!({ "event": "exec" })));
        log
    }

    fn write(&mut self, writer: &str, mut event: serde_json::Value) {
        let head = self.heads.entry(writer.into()).or_default();
        let link = head.next(writer);
        event["chain"] = serde_json::to_value(&link).unwrap();
        event["uid"] = self.texts.len().into();
        self.texts.push(event.to_string());
        *head = ChainHead::at(&link, self.texts.last().unwrap());
    }

    fn leaves(&self) -> Vec<TreeHash> {
        self.texts.iter().map(|text| leaf_hash(text.as_bytes())).collect()
    }

    fn checkpoint(&self, size: u64, range: Option<(u64, u64)>, removed: u64) -> Checkpoint {
        Checkpoint {
            origin: self.key.name().into(),
            size,
            root: root_of(&self.leaves()[..size as usize]),
            time: Timestamp::from_unix_seconds(1),
            writers: range.map(|_| {
                let digest = writers_digest(self.heads.iter().map(|(writer, head)| (writer.as_str(), *head)));
                (self.heads.len() as u64, digest)
            }),
            removed,
            range,
            removed_before: None,
        }
    }

    fn sign(&self, checkpoint: &Checkpoint) -> String {
        let sign = |octets: &[u8]| Ok::<_, ()>(self.pair.sign(octets).as_ref().to_vec());
        sign_note(&checkpoint.text(), &self.key, sign).unwrap()
    }

    fn export(&self, first: u64, last: u64, removed: u64) -> Vec<String> {
        let (leaves, size) = (self.leaves(), self.texts.len() as u64);
        let subtree = |begin: u64, end: u64| Ok::<_, ()>(root_of(&leaves[begin as usize..end as usize]));
        let tombstone = (removed > 0).then(|| ExportTombstone {
            checkpoint: self.sign(&self.checkpoint(removed, None, removed)),
            consistency: consistency_path(removed, size, subtree).unwrap(),
        });
        let checkpoint = self.sign(&self.checkpoint(size, Some((first, last)), removed));
        let mut lines = vec![start_line(&ExportStart { key: self.key.to_string(), checkpoint, tombstone })];
        for tile in tiles_of((first, last)).into_iter().flatten() {
            let (begin, end) = (tile * TILE, size.min((tile + 1) * TILE));
            let of_tiles = |from: u64, to: u64| subtree(from * TILE, size.min(to * TILE));
            let wanted = (begin + 1).max(first)..=end.min(last);
            let tile_of = ExportTile {
                hashes: leaves[begin as usize..end as usize].to_vec(),
                path: inclusion_path(tile, tiles_in(size), of_tiles).unwrap(),
                events: wanted.map(|seq| ExportRecord { seq, text: self.texts[seq as usize - 1].clone() }).collect(),
            };
            lines.push(tile_line(tile, &tile_of));
            lines.extend(tile_of.events.iter().map(record_line));
        }
        lines
    }

    fn check(&self, lines: &[String], witness: Vec<Checkpoint>) -> Verdict {
        check(vec![self.key.clone()], lines, witness)
    }
}

fn check(keys: Vec<NoteKey>, lines: &[String], witness: Vec<Checkpoint>) -> Verdict {
    let mut verifier = ExportVerifier::new(keys, witness);
    lines.iter().for_each(|line| verifier.line(line));
    verifier.finish()
}

fn first(verdict: &Verdict) -> String {
    let found = &verdict.findings[0];
    format!("{} {}: {}", found.line.unwrap_or(0), found.event.unwrap_or(0), found.what)
}

#[test]
fn a_whole_log_and_each_part_of_it_is_proven() {
    let log = Log::new(700);
    for (from, to) in [(1, 700), (1, 1), (257, 512), (300, 600), (600, 700), (700, 700), (701, 700)] {
        let verdict = log.check(&log.export(from, to, 0), vec![log.checkpoint(700, None, 0)]);
        assert!(verdict.is_whole(), "{from}..={to}: {:?}", verdict.findings);
        assert_eq!((verdict.proven, verdict.witnessed), (to + 1 - from, 1));
    }
    let empty = Log::new(0);
    assert!(empty.check(&empty.export(1, 0, 0), Vec::new()).is_whole());
}

// I75
#[test]
fn every_kind_of_tampering_with_every_line_is_found_and_named() {
    let log = Log::new(270);
    let lines = log.export(1, 270, 0);
    let seq_on = |line: usize| read_record(&lines[line]).map(|(seq, _)| seq);
    for at in 0..lines.len() {
        let seq = seq_on(at);
        // Changed.
        let mut changed = lines.clone();
        changed[at] = changed[at].replacen("exec", "exek", 1).replacen("hashes\":[\"", "hashes\":[\"A", 1);
        if at == 0 {
            changed[at] = changed[at].replacen("\\n270\\n", "\\n269\\n", 1);
        }
        let verdict = log.check(&changed, Vec::new());
        assert_eq!(verdict.findings[0].line, Some(at as u64 + 1), "line {at} was changed");
        if let Some(seq) = seq {
            assert_eq!((first(&verdict), verdict.found), (format!("{} {}: the event was changed", at + 1, seq), 1));
        }
        // Removed.
        let mut removed = lines.clone();
        removed.remove(at);
        let verdict = log.check(&removed, Vec::new());
        assert!(!verdict.is_whole(), "line {at} was removed");
        if let Some(seq) = seq {
            assert_eq!((first(&verdict), verdict.found), (format!("0 {seq}: the event was removed"), 1));
        }
        // Doubled.
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at].clone());
        let verdict = log.check(&doubled, Vec::new());
        assert!(!verdict.is_whole(), "line {at} was doubled");
        if let Some(seq) = seq {
            let expected = format!("{} {seq}: the event was inserted: it is there already", at + 2);
            assert_eq!((first(&verdict), verdict.found), (expected, 1));
        }
        // Another event inserted.
        if at > 1 {
            let mut inserted = lines.clone();
            inserted.insert(at, "{\"seq\":5,\"event\":{\"event\":\"exec\",\"uid\":9999}}".into());
            let verdict = log.check(&inserted, Vec::new());
            assert!(
                first(&verdict).starts_with(&format!("{} 5: the event was inserted", at + 1)),
                "{at}: {}",
                first(&verdict)
            );
        }
        // Swapped with the next.
        if at + 1 < lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            let verdict = log.check(&swapped, Vec::new());
            assert!(!verdict.is_whole(), "line {at} was swapped with the next");
            if let (Some(seq), Some(_)) = (seq, seq_on(at + 1)) {
                assert_eq!(first(&verdict), format!("{} {seq}: the event stands out of its order", at + 2));
            }
        }
        // The file ends here.
        let verdict = log.check(&lines[..at], Vec::new());
        assert!(!verdict.is_whole(), "cut at line {at}");
    }
    let renumbered: Vec<_> = lines.iter().map(|line| line.replacen("{\"seq\":5,", "{\"seq\":7,", 1)).collect();
    assert_eq!(first(&log.check(&renumbered, Vec::new())), "7 5: the event's number was changed to 7");
}

// I75
#[test]
fn an_octet_that_is_changed_anywhere_is_found() {
    let log = Log::new(3);
    let text = log.export(1, 3, 0).join("\n");
    for at in 0..text.len() {
        let mut octets = text.clone().into_bytes();
        octets[at] ^= 1;
        let Ok(changed) = String::from_utf8(octets) else { continue };
        let lines: Vec<String> = changed.split('\n').map(Into::into).collect();
        assert!(!log.check(&lines, Vec::new()).is_whole(), "octet {at}");
    }
}

// I75
#[test]
fn hashes_that_are_made_anew_for_a_changed_event_do_not_fit_the_signature() {
    let log = Log::new(600);
    let mut other = Log::new(0);
    other.texts = log.texts.clone();
    other.texts[299] = other.texts[299].replace("exec", "exek");
    let mut lines = other.export(1, 600, 0);
    lines[0] = log.export(1, 600, 0)[0].clone();
    let verdict = log.check(&lines, Vec::new());
    assert_eq!(
        first(&verdict),
        "2 0: the hashes of events 1 to 256 do not fit the checkpoint",
        "its path goes through the changed tile"
    );
    let named = |finding: &Finding| finding.what.starts_with("the hashes of events 257 to 512");
    assert!(verdict.findings.iter().any(named), "{:?}", verdict.findings);
    // A key of one's own signs anything, and is not believed.
    let (mut forged, pair) = (Log::new(600), Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap());
    forged.key = NoteKey::new(log.key.name(), pair.public_key().as_ref()).unwrap();
    forged.pair = pair;
    assert!(!log.check(&forged.export(1, 600, 0), Vec::new()).is_whole());
    let own = check(Vec::new(), &forged.export(1, 600, 0), Vec::new());
    assert!(own.is_whole() && own.own_key);
}

// I75
#[test]
fn a_log_whose_end_was_cut_off_or_that_was_written_anew_is_found_by_the_witness() {
    let log = Log::new(600);
    let mut cut = Log::new(0);
    cut.texts = log.texts[..500].to_vec();
    let lines = cut.export(2, 500, 0);
    assert!(log.check(&lines, vec![log.checkpoint(450, None, 0)]).is_whole());
    let verdict = log.check(&lines, vec![log.checkpoint(520, None, 0)]);
    assert!(first(&verdict).starts_with("0 501: the end was cut off: the witness saw 520 events"), "{verdict:?}");

    let mut anew = Log::new(0);
    anew.texts = log.texts.clone();
    anew.texts[3] = "{\"event\":\"exec\",\"uid\":\"other\"}".into();
    let verdict = anew.check(&anew.export(2, 600, 0), vec![log.checkpoint(300, None, 0), log.checkpoint(600, None, 0)]);
    assert_eq!((verdict.found, verdict.witnessed), (2, 0), "{:?}", verdict.findings);
    let verdict = anew.check(&anew.export(2, 500, 0), vec![log.checkpoint(590, None, 0)]);
    assert_eq!((verdict.found, verdict.unreached), (0, 1));
}

#[test]
fn what_retention_removed_is_stood_for_by_a_tombstone() {
    let log = Log::new(700);
    let lines = log.export(513, 700, 512);
    let verdict = log.check(&lines, Vec::new());
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
    assert_eq!((verdict.removed, verdict.proven), (512, 188));
    // I75
    let start: StartLine = serde_json::from_str(&lines[0]).unwrap();
    let mut without = lines.clone();
    without[0] = start_line(&ExportStart {
        key: start.start.key.clone(),
        checkpoint: start.start.checkpoint.clone(),
        tombstone: None,
    });
    assert!(first(&log.check(&without, Vec::new())).contains("tombstone of events 1 to 512"));
    let mut tombstone = start.start.tombstone.unwrap();
    tombstone.consistency.pop();
    let mut wrong = lines;
    wrong[0] = start_line(&ExportStart {
        key: start.start.key,
        checkpoint: start.start.checkpoint,
        tombstone: Some(tombstone),
    });
    assert!(first(&log.check(&wrong, Vec::new())).contains("tombstone is not that"));
}

// I75
#[test]
fn a_break_in_a_writers_chain_is_told_and_must_be_one_that_the_log_speaks_of() {
    let broken = |announced: bool| {
        let mut log = Log::new(30);
        if announced {
            log.write("auth", json!({ "event": "audit.chain_broken", "writer": "host", "breaks": 1 }));
        }
        log.heads.get_mut("host").unwrap().n += 5;
        log.write("host", json!({ "event": "exec" }));
        log
    };
    let log = broken(true);
    let verdict = log.check(&log.export(1, 32, 0), Vec::new());
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
    assert!(
        verdict.breaks[0].contains("event 32 does not continue the chain of host: its event 21 was expected, 26 came")
    );
    let log = broken(false);
    let verdict = log.check(&log.export(1, 31, 0), Vec::new());
    assert!(first(&verdict).starts_with("0 31: the event does not continue"), "{verdict:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    // I25
    #[test]
    fn lines_of_anybody_end_in_a_verdict(lines in prop::collection::vec(
        prop_oneof![
            ".{0,40}",
            Just("{\"seq\":1,\"event\":{}}".to_owned()),
            Just("{\"tile\":18446744073709551615,\"hashes\":[],\"path\":[]}".to_owned()),
        ], 0..12), begin in any::<bool>()) {
        let log = Log::new(5);
        let mut all = if begin { vec![log.export(1, 5, 0)[0].clone()] } else { Vec::new() };
        all.extend(lines);
        prop_assert!(!log.check(&all, Vec::new()).is_whole());
    }
}

/// The corpus of the fuzz target `audit_export` begins with these.
#[test]
fn the_corpus_of_the_fuzzer_has_exports_that_verify() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/audit_export");
    let log = Log::new(5);
    for (name, lines) in
        [("whole", log.export(1, 5, 0)), ("part", log.export(2, 3, 0)), ("nothing", log.export(6, 5, 0))]
    {
        let text = lines.join("\n") + "\n";
        if std::env::var_os("REMOTELER_UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), &text).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(dir.join(name)).unwrap(),
            text,
            "run the test again with REMOTELER_UPDATE_DOCS=1"
        );
    }
}
