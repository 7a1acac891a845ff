//! Format 1: the state store's items with their revision counter, and the chained audit events.

use super::Migration;

pub(super) const MIGRATION: Migration = Migration {
    version: 1,
    name: "items and events",
    apply: |connection| connection.execute_batch(include_str!("0001_items_and_events.sql")),
};
