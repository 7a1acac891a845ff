//! Evidence that the audit log is whole: chains of its writers, a Merkle tree over all events in their order (RFC 6962), signed checkpoints,
//! and the file in which all of it leaves the house. Owns the algorithms and the formats; keeps nothing, reads no clock and no file, so that
//! whoever holds the public key can check without a server.

mod chain;
mod checkpoint;
mod export;
mod merkle;
mod note;
mod verify;

pub use chain::{ChainBreak, ChainHead, ChainLink, Chains, writers_digest};
pub use checkpoint::{Checkpoint, CheckpointError, audit_origin};
pub use export::{
    ExportQuery, ExportRecord, ExportStart, ExportTile, ExportTileQuery, ExportTombstone, fetch_export, record_line,
    start_line, tile_line,
};
pub use merkle::{
    Frontier, NoHash, TILE, TreeHash, consistency_path, inclusion_path, leaf_hash, left_of, node_hash, root_of, split,
    tiles_in, verify_consistency, verify_inclusion,
};
pub use note::{NoteError, NoteKey, open_note, sign_note};
pub use verify::{ExportVerifier, Finding, Verdict};
