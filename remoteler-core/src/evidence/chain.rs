//! The chains of writers: the auth service and each host number their events without gaps, and each event holds the hash of the one
//! before. Owns what follows and what does not; keeps no events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TreeHash;

/// An event's place in the chain of who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChainLink {
    /// Who: a host's id, or `auth`.
    pub writer: String,
    /// Its number, from 1, without gaps.
    pub n: u64,
    /// SHA-256 of the text of the writer's event before; zeros for the first.
    pub prev: TreeHash,
}

/// The end of a writer's chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// Number of the last event; 0 before the first.
    pub n: u64,
    /// Hash of its text.
    pub hash: TreeHash,
}

impl ChainHead {
    /// The link of the next event of `writer`.
    #[must_use]
    pub fn next(&self, writer: &str) -> ChainLink {
        ChainLink { writer: writer.to_owned(), n: self.n.saturating_add(1), prev: self.hash }
    }

    /// Whether an event with this link comes next.
    #[must_use]
    pub fn is_followed_by(&self, link: &ChainLink) -> bool {
        self.n.checked_add(1) == Some(link.n) && link.prev == self.hash
    }

    /// The head when the event with this link has this text.
    #[must_use]
    pub fn at(link: &ChainLink, text: &str) -> Self {
        Self { n: link.n, hash: TreeHash::of(text.as_bytes()) }
    }
}

/// An event that does not continue its writer's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainBreak {
    /// Whose.
    pub writer: String,
    /// Number that should have come.
    pub expected: u64,
    /// Number that came.
    pub found: u64,
}

/// The heads of many chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    heads: BTreeMap<String, ChainHead>,
}

impl Chains {
    /// The heads by writer.
    #[must_use]
    pub const fn heads(&self) -> &BTreeMap<String, ChainHead> {
        &self.heads
    }

    /// The head of one writer.
    #[must_use]
    pub fn head(&self, writer: &str) -> Option<ChainHead> {
        self.heads.get(writer).copied()
    }

    /// Sets what is known of a writer.
    pub fn know(&mut self, writer: &str, head: ChainHead) {
        self.heads.insert(writer.to_owned(), head);
    }

    /// Goes on by one event, whose head is `after`. What does not follow is told, and goes on from there. Of a writer that is not known yet the
    /// first event counts as following if `first_may_be_any`.
    pub fn take(&mut self, link: &ChainLink, after: ChainHead, first_may_be_any: bool) -> Option<ChainBreak> {
        let known = self.heads.get(&link.writer).copied();
        let follows = match known {
            Some(head) => head.is_followed_by(link),
            None => first_may_be_any || ChainHead::default().is_followed_by(link),
        };
        self.heads.insert(link.writer.clone(), after);
        let expected = known.unwrap_or_default().n.saturating_add(1);
        (!follows).then(|| ChainBreak { writer: link.writer.clone(), expected, found: link.n })
    }
}

/// The hash over the heads of all chains: SHA-256 over a line `writer n hash` for each, in order of the writers' names.
#[must_use]
pub fn writers_digest<'a>(heads: impl IntoIterator<Item = (&'a str, ChainHead)>) -> TreeHash {
    let sorted: BTreeMap<_, _> = heads.into_iter().collect();
    let lines: String =
        sorted.into_iter().map(|(writer, head)| format!("{writer} {} {}\n", head.n, head.hash)).collect();
    TreeHash::of(lines.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_a_repetition_and_another_past_break_a_chain_and_it_goes_on() {
        let mut chains = Chains::default();
        let mut head = ChainHead::default();
        let mut links = Vec::new();
        for text in ["a", "b", "c", "d"] {
            let link = head.next("w");
            head = ChainHead::at(&link, text);
            links.push((link, head));
        }
        let mut take =
            |at: usize| chains.take(&links[at].0, links[at].1, false).map(|found| (found.expected, found.found));
        assert_eq!(take(0), None);
        assert_eq!(take(1), None);
        assert_eq!(take(3), Some((3, 4)), "a gap"); // I75
        assert_eq!(take(2), Some((5, 3)), "late");
        assert_eq!(take(3), None);
        let forged = (ChainLink { n: 5, ..links[0].0.clone() }, head);
        assert_eq!(chains.take(&forged.0, forged.1, false).map(|found| found.found), Some(5), "another past"); // I75
        assert!(chains.take(&head.next("x"), head, false).is_some(), "a writer begins at 1");
        assert!(chains.take(&head.next("y"), head, true).is_none());
    }
}
