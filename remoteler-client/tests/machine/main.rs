//! What a user's or a device's machine does, against real services: TLS on loopback, ssh-agent, ssh, processes that are killed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, helpers included")]

mod agent;
mod clock;
mod cluster;
mod identity_file;
mod idle_agent;
mod join;
mod leases;
mod login;
mod policy;
mod rejoin;
mod remote;
mod service;
mod spool;
mod web;
