//! The auth service as its callers see it, in process and over HTTP.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails should panic where it is")]

mod audit;
mod backup;
mod cluster_settings;
mod copies;
mod evidence;
mod explain;
mod full_disk;
mod http;
mod identity_tokens;
mod inventory;
mod join;
mod leases;
mod locks;
mod login;
mod mfa;
mod mortal;
mod pages;
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
