//! The events of one tile, against the hashes of its leaves. Owns how an event is named that was changed, removed, inserted or moved.

use std::{collections::HashMap, ops::RangeInclusive};

use serde::Deserialize;

use super::Verdict;
use crate::evidence::{ChainHead, ChainLink, TreeHash, leaf_hash};

/// Lines of a tile that fit none of its hashes and are remembered until its end.
const MAX_ODD: usize = 1024;

/// An event that is as it was kept.
#[derive(Clone, Debug)]
pub(super) struct ProvenEvent {
    pub(super) seq: u64,
    pub(super) link: Option<(ChainLink, ChainHead)>,
    /// Whose chain it says is about to break, and how often.
    pub(super) announces: Option<(String, u64)>,
}

/// What the check reads of an event.
#[derive(Deserialize)]
struct Read {
    event: String,
    #[serde(default)]
    chain: Option<ChainLink>,
    #[serde(default)]
    writer: Option<String>,
    #[serde(default)]
    breaks: Option<u64>,
}

#[derive(Debug)]
pub(super) struct OpenTile {
    /// Number of the first leaf's event.
    first: u64,
    places: HashMap<TreeHash, usize>,
    seen: Vec<Option<ProvenEvent>>,
    /// Events that the export has of this tile.
    expected: RangeInclusive<u64>,
    /// Whether the hashes are proven.
    proven: bool,
    /// Place after that of the last event.
    next: usize,
    /// Lines with events that fit no hash: line, number that it says.
    odd: Vec<(u64, u64)>,
}

impl OpenTile {
    pub(super) fn new(first: u64, hashes: Vec<TreeHash>, expected: RangeInclusive<u64>, proven: bool) -> Self {
        let seen = vec![None; hashes.len()];
        let places = hashes.into_iter().enumerate().map(|(place, hash)| (hash, place)).collect();
        Self { first, places, seen, expected, proven, next: 0, odd: Vec::new() }
    }

    /// An event on this line, which says to be number `says`.
    pub(super) fn take(&mut self, line: u64, says: u64, text: &str, verdict: &mut Verdict) {
        let Some(place) = self.places.get(&leaf_hash(text.as_bytes())).copied() else {
            if self.odd.len() < MAX_ODD {
                self.odd.push((line, says));
            } else {
                verdict.find(Some(line), Some(says), "the event was inserted: it fits no hash");
            }
            return;
        };
        let seq = self.first + place as u64;
        let Some(seen) = self.seen.get_mut(place) else { return };
        if seen.is_some() {
            return verdict.find(Some(line), Some(seq), "the event was inserted: it is there already");
        }
        let read: Option<Read> = serde_json::from_str(text).ok();
        let (link, announces) = match read {
            None => (None, None),
            Some(Read { event, chain, writer, breaks }) => {
                let announces = (event == "audit.chain_broken").then(|| Some((writer?, breaks?))).flatten();
                (chain.map(|link| (link.clone(), ChainHead::at(&link, text))), announces)
            }
        };
        *seen = Some(ProvenEvent { seq, link, announces });
        if !self.expected.contains(&seq) {
            verdict.find(Some(line), Some(seq), "the event was inserted: it is outside of what was exported");
        } else if place < self.next {
            verdict.find(Some(line), Some(seq), "the event stands out of its order");
        }
        self.next = self.next.max(place + 1);
        if says != seq {
            verdict.find(Some(line), Some(seq), format!("the event's number was changed to {says}"));
        }
    }

    /// The events that are as they were, in their order. The others are named.
    pub(super) fn close(self, verdict: &mut Verdict) -> Vec<ProvenEvent> {
        let Self { first, seen, expected, proven, odd, .. } = self;
        let mut missing: Vec<u64> = (first..)
            .zip(&seen)
            .filter(|(seq, event)| event.is_none() && expected.contains(seq))
            .map(|(seq, _)| seq)
            .collect();
        for (line, says) in odd {
            if let Ok(place) = missing.binary_search(&says) {
                missing.remove(place);
                verdict.find(Some(line), Some(says), "the event was changed");
            } else {
                verdict.find(Some(line), Some(says), "the event was inserted: it fits no hash");
            }
        }
        for seq in missing {
            verdict.find(None, Some(seq), "the event was removed");
        }
        if !proven {
            return Vec::new();
        }
        let events: Vec<_> = seen.into_iter().flatten().filter(|event| expected.contains(&event.seq)).collect();
        verdict.proven += events.len() as u64;
        events
    }
}
