//! The auth service as its callers see it, in process and over HTTP.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails should panic where it is")]

mod audit;
mod backup;
mod browser_login;
mod copies;
mod evidence;
mod explain;
mod full_disk;
mod github_login;
mod http;
mod identity_provider;
mod identity_tokens;
mod inventory;
mod join;
mod locks;
mod login;
mod mortal;
mod pods;
mod policy_tests;
mod recordings;
mod rejoin;
mod renewal;
mod resources;
mod revocations;
mod rotation;
mod rotation_crashes;
mod sign;
mod support;
mod token;
mod token_scope;
mod users;
mod web;
mod write_crashes;
