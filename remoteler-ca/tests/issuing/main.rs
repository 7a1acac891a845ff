//! What the authorities issue, seen by the verification functions of the workspace and by OpenSSH and OpenSSL.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod clients;
mod kinds;
mod profiles;
mod purposes;
mod revocation;
mod sealing;
mod sshd;
mod suites;
mod support;
