//! Schemas of the audit log's evidence.

use serde_json::{Map, Value};

use super::{integer, list, object, text, time, to};

pub(super) fn add(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add("ExportQuery", object(&[], &[("from", time()), ("to", time())]));
    add("ExportStart", object(&[("key", text()), ("checkpoint", text())], &[("tombstone", to("ExportTombstone"))]));
    add("ExportTombstone", object(&[("checkpoint", text()), ("consistency", list(text()))], &[]));
    add("ExportTileQuery", object(&[("size", integer()), ("tile", integer()), ("from", integer())], &[]));
    add(
        "ExportTile",
        object(&[("hashes", list(text())), ("path", list(text())), ("events", list(to("ExportRecord")))], &[]),
    );
    add("ExportRecord", object(&[("seq", integer()), ("text", text())], &[]));
}

#[cfg(test)]
pub(super) mod tests {
    use remoteler_core::{
        Timestamp,
        evidence::{ExportQuery, ExportRecord, ExportStart, ExportTile, ExportTileQuery, ExportTombstone, TreeHash},
    };

    use super::*;

    fn value(value: impl serde::Serialize) -> Value {
        serde_json::to_value(value).unwrap()
    }

    /// Values with every optional field set, by schema.
    pub(in super::super) fn samples(now: Timestamp) -> Vec<(&'static str, Value)> {
        let tombstone = || ExportTombstone { checkpoint: "c".into(), consistency: vec![TreeHash::default()] };
        let record = || ExportRecord { seq: 1, text: "t".into() };
        vec![
            ("ExportQuery", value(ExportQuery { from: Some(now), to: Some(now) })),
            (
                "ExportStart",
                value(ExportStart { key: "k".into(), checkpoint: "c".into(), tombstone: Some(tombstone()) }),
            ),
            ("ExportTombstone", value(tombstone())),
            ("ExportTileQuery", value(ExportTileQuery { size: 1, tile: 0, from: 1 })),
            (
                "ExportTile",
                value(ExportTile {
                    hashes: vec![TreeHash::default()],
                    path: vec![TreeHash::default()],
                    events: vec![record()],
                }),
            ),
            ("ExportRecord", value(record())),
        ]
    }
}
