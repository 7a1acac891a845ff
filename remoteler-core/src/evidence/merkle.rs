//! The Merkle tree of RFC 6962 section 2.1 (and RFC 9162 section 2.1): hashes, paths, and the edge of a tree that grows. Owns the
//! algorithms; where hashes are kept is the caller's business.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Leaves whose hashes are kept and shown together. Complete tiles are the leaves of the tree above them, so that a tree of any size is
/// reached over few of them.
pub const TILE: u64 = 256;

/// A SHA-256 hash of a leaf, of a node or of an event. As text: base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreeHash([u8; 32]);

impl TreeHash {
    /// The hash of these octets as they are, without a prefix.
    #[must_use]
    pub fn of(octets: &[u8]) -> Self {
        hash(&[octets])
    }

    /// These octets.
    #[must_use]
    pub const fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// Its octets.
    #[must_use]
    pub const fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// From 32 octets, as a database gives them.
    #[must_use]
    pub fn from_slice(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self)
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no hash: 32 octets in base64 are expected")]
pub struct NoHash;

impl FromStr for TreeHash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let octets = STANDARD.decode(text).map_err(|_| NoHash)?;
        Self::from_slice(&octets).ok_or(NoHash)
    }
}

impl Serialize for TreeHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TreeHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn hash(parts: &[&[u8]]) -> TreeHash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut octets = [0; 32];
    octets.copy_from_slice(context.finish().as_ref());
    TreeHash(octets)
}

/// The hash of a leaf: SHA-256 over 0x00 and its octets.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> TreeHash {
    hash(&[&[0], leaf])
}

/// The hash of a node: SHA-256 over 0x01 and those of its children.
#[must_use]
pub fn node_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    hash(&[&[1], &left.0, &right.0])
}

/// Leaves in the left part of a tree of `size` leaves, at least 2: the largest power of two below `size`.
#[must_use]
pub const fn split(size: u64) -> u64 {
    1 << (63 - size.saturating_sub(1).leading_zeros())
}

/// Tiles that `size` leaves take, the last of which may be incomplete.
#[must_use]
pub const fn tiles_in(size: u64) -> u64 {
    size.div_ceil(TILE)
}

/// The root of a tree with these leaf hashes (MTH of RFC 6962). That of no leaves is the hash of nothing.
#[must_use]
pub fn root_of(leaves: &[TreeHash]) -> TreeHash {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}

/// The right edge of a tree: the roots of its complete parts, largest first. It grows leaf by leaf in memory of its logarithm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<TreeHash>,
}

impl Frontier {
    /// The edge of a tree of `size` leaves, whose complete parts have these roots. `None` when there are not as many as that size has.
    #[must_use]
    pub fn new(size: u64, peaks: Vec<TreeHash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// The complete parts of a tree of `size` leaves, as ranges of leaves, largest first.
    pub fn parts(size: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut begin = 0;
        (0..u64::BITS).rev().filter(move |bit| size >> bit & 1 == 1).map(move |bit| {
            let part = (begin, begin + (1 << bit));
            begin = part.1;
            part
        })
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete parts.
    #[must_use]
    pub fn peaks(&self) -> &[TreeHash] {
        &self.peaks
    }

    /// One more leaf.
    pub fn push(&mut self, leaf: TreeHash) {
        let mut merged = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                merged = node_hash(&left, &merged);
            }
        }
        self.peaks.push(merged);
        self.size += 1;
    }

    /// The root of the whole tree.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return hash(&[]) };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The path that shows leaf `index` (from 0) in a tree of `size` leaves (RFC 9162 section 2.1.3.1), lowest first. `subtree(begin, end)` gives
/// the root over these leaves.
///
/// # Errors
/// Those of `subtree`.
pub fn inclusion_path<E>(
    index: u64,
    size: u64,
    mut subtree: impl FnMut(u64, u64) -> Result<TreeHash, E>,
) -> Result<Vec<TreeHash>, E> {
    let (mut begin, mut end) = (0, size);
    let mut path = Vec::new();
    while end.saturating_sub(begin) > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            path.push(subtree(middle, end)?);
            end = middle;
        } else {
            path.push(subtree(begin, middle)?);
            begin = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` shows that `leaf` is number `index` of the `size` leaves under `root` (RFC 9162 section 2.1.3.2).
#[must_use]
pub fn verify_inclusion(index: u64, size: u64, leaf: &TreeHash, path: &[TreeHash], root: &TreeHash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut found) = (index, size - 1, *leaf);
    for step in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            found = node_hash(step, &found);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            found = node_hash(&found, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && found == *root
}

/// The roots of the complete parts left of leaf `index`, largest first, as they stand in a path that [`verify_inclusion`] believed.
#[must_use]
pub fn left_of(index: u64, size: u64, path: &[TreeHash]) -> Vec<TreeHash> {
    let (mut at, mut last) = (index, size.saturating_sub(1));
    let mut left = Vec::new();
    for step in path {
        if at & 1 == 1 || at == last {
            left.push(*step);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        }
        at >>= 1;
        last >>= 1;
    }
    left.reverse();
    left
}

/// The path that shows that a tree of `size` leaves begins with the one of `old` leaves (RFC 9162 section 2.1.4.1); empty for 0 and for `size`.
///
/// # Errors
/// Those of `subtree`.
pub fn consistency_path<E>(
    old: u64,
    size: u64,
    mut subtree: impl FnMut(u64, u64) -> Result<TreeHash, E>,
) -> Result<Vec<TreeHash>, E> {
    if old == 0 || old >= size {
        return Ok(Vec::new());
    }
    let (mut begin, mut end, mut whole) = (0, size, true);
    let mut path = Vec::new();
    while old != end {
        let middle = begin + split(end - begin);
        if old <= middle {
            path.push(subtree(middle, end)?);
            end = middle;
        } else {
            path.push(subtree(begin, middle)?);
            begin = middle;
            whole = false;
        }
    }
    if !whole {
        path.push(subtree(begin, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` shows that the tree under `root` begins with the one under `old_root` (RFC 9162 section 2.1.4.2).
#[must_use]
pub fn verify_consistency(old: u64, old_root: &TreeHash, size: u64, root: &TreeHash, path: &[TreeHash]) -> bool {
    if old > size || old == 0 {
        return old == 0 && path.is_empty() && *old_root == hash(&[]);
    }
    if old == size {
        return path.is_empty() && old_root == root;
    }
    let mut path = path.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { path.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old - 1, size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut before, mut now) = (*first, *first);
    for step in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            before = node_hash(step, &before);
            now = node_hash(step, &now);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            now = node_hash(&now, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && before == *old_root && now == *root
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// MTH as RFC 6962 section 2.1 writes it.
    fn naive(leaves: &[TreeHash]) -> TreeHash {
        match leaves {
            [] => TreeHash::of(&[]),
            [one] => *one,
            more => {
                let (left, right) = more.split_at(split(more.len() as u64) as usize);
                node_hash(&naive(left), &naive(right))
            }
        }
    }

    /// PATH as RFC 6962 section 2.1.1 writes it.
    fn naive_path(index: usize, leaves: &[TreeHash]) -> Vec<TreeHash> {
        if leaves.len() <= 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
        let (mut path, other) = if index < left.len() {
            (naive_path(index, left), naive(right))
        } else {
            (naive_path(index - left.len(), right), naive(left))
        };
        path.push(other);
        path
    }

    /// SUBPROOF as RFC 6962 section 2.1.2 writes it.
    fn naive_consistency(old: usize, leaves: &[TreeHash], whole: bool) -> Vec<TreeHash> {
        if old == leaves.len() {
            return if whole { Vec::new() } else { vec![naive(leaves)] };
        }
        let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
        let (mut path, other) = if old <= left.len() {
            (naive_consistency(old, left, whole), naive(right))
        } else {
            (naive_consistency(old - left.len(), right, false), naive(left))
        };
        path.push(other);
        path
    }

    fn leaves(count: usize) -> Vec<TreeHash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn hash_of(text: &str) -> TreeHash {
        TreeHash::from_slice(&hex(text)).unwrap()
    }

    fn published() -> Vec<TreeHash> {
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .map(|leaf| leaf_hash(&hex(leaf)))
            .to_vec()
    }

    /// The vectors of the certificate-transparency reference implementation (`merkle_tree_test.cc`).
    #[test]
    fn roots_and_paths_are_those_that_are_published_for_rfc_6962() {
        assert_eq!(root_of(&[]), hash_of("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves = published();
        for (count, root) in (1..).zip(roots) {
            assert_eq!(root_of(&leaves[..count]), hash_of(root), "{count} leaves");
        }
        let subtree = |begin: u64, end: u64| Ok::<_, ()>(naive(&leaves[begin as usize..end as usize]));
        let path = inclusion_path(5, 8, subtree).unwrap();
        let expected = [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(path, expected.map(hash_of));
        let path = consistency_path(6, 8, subtree).unwrap();
        let expected = [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(path, expected.map(hash_of));
    }

    #[test]
    fn every_path_of_every_small_tree_is_that_of_the_rfc_and_proves_only_what_it_shows() {
        for size in 1..=40_usize {
            let leaves = leaves(size);
            let root = naive(&leaves);
            let subtree = |begin: u64, end: u64| Ok::<_, ()>(naive(&leaves[begin as usize..end as usize]));
            for index in 0..size {
                let path = inclusion_path(index as u64, size as u64, subtree).unwrap();
                assert_eq!(path, naive_path(index, &leaves));
                for (other, leaf) in leaves.iter().enumerate() {
                    let shown = verify_inclusion(index as u64, size as u64, leaf, &path, &root);
                    assert_eq!(shown, other == index, "{other} as {index} of {size}");
                }
                assert!(!verify_inclusion(size as u64, size as u64, &leaves[index], &path, &root));
            }
            for old in 0..=size {
                let path = consistency_path(old as u64, size as u64, subtree).unwrap();
                if old > 0 {
                    assert_eq!(path, naive_consistency(old, &leaves, true));
                }
                let before = naive(&leaves[..old]);
                assert!(verify_consistency(old as u64, &before, size as u64, &root, &path), "{old} of {size}");
                assert!(!verify_consistency(old as u64, &leaf_hash(b"else"), size as u64, &root, &path));
                if old > 0 {
                    assert!(!verify_consistency(old as u64, &before, size as u64, &leaf_hash(b"else"), &path));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn an_edge_that_grew_has_the_root_of_the_whole_tree(before in 0_usize..600, more in 0_usize..600) {
            let leaves = leaves(before + more);
            let peaks = Frontier::parts(before as u64).map(|(begin, end)| naive(&leaves[begin as usize..end as usize]));
            let mut frontier = Frontier::new(before as u64, peaks.collect()).unwrap();
            prop_assert_eq!(frontier.root(), naive(&leaves[..before]));
            leaves[before..].iter().for_each(|leaf| frontier.push(*leaf));
            prop_assert_eq!(frontier.root(), naive(&leaves));
            prop_assert_eq!(frontier.size(), leaves.len() as u64);
        }

        #[test]
        fn a_tree_of_tiles_is_the_tree_of_their_leaves(size in 1_usize..3000, at in any::<prop::sample::Index>()) {
            let leaves = leaves(size);
            let tiles: Vec<_> = leaves.chunks(TILE as usize).map(naive).collect();
            prop_assert_eq!(root_of(&tiles), naive(&leaves));
            let tile = at.index(tiles.len());
            let subtree = |begin: u64, end: u64| Ok::<_, ()>(naive(&tiles[begin as usize..end as usize]));
            let path = inclusion_path(tile as u64, tiles.len() as u64, subtree).unwrap();
            prop_assert!(verify_inclusion(tile as u64, tiles.len() as u64, &tiles[tile], &path, &naive(&leaves)));
        }

        #[test]
        fn a_path_tells_the_edge_of_the_tree_before_its_leaf(size in 1_usize..500, at in any::<prop::sample::Index>()) {
            let leaves = leaves(size);
            let index = at.index(size);
            let subtree = |begin: u64, end: u64| Ok::<_, ()>(naive(&leaves[begin as usize..end as usize]));
            let path = inclusion_path(index as u64, size as u64, subtree).unwrap();
            let before = Frontier::new(index as u64, left_of(index as u64, size as u64, &path)).unwrap();
            prop_assert_eq!(before.root(), naive(&leaves[..index]));
        }

        #[test]
        fn a_changed_path_shows_nothing(size in 2_usize..200, at in any::<prop::sample::Index>(), step in any::<prop::sample::Index>(), bit in 0_usize..256) {
            let leaves = leaves(size);
            let index = at.index(size) as u64;
            let subtree = |begin: u64, end: u64| Ok::<_, ()>(naive(&leaves[begin as usize..end as usize]));
            let mut path = inclusion_path(index, size as u64, subtree).unwrap();
            let step = step.index(path.len());
            path[step].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify_inclusion(index, size as u64, &leaves[index as usize], &path, &naive(&leaves)));
        }
    }
}
