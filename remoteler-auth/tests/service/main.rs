//! The auth service as its callers see it, in process and over HTTP.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails should panic where it is")]

mod audit;
mod http;
mod identity_tokens;
mod inventory;
mod join;
mod locks;
mod login;
mod recordings;
mod rejoin;
mod resources;
mod revocations;
mod rotation;
mod rotation_crashes;
mod sign;
mod support;
mod token;
mod users;
mod web;
