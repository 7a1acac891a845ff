//! It fits into what OpenSSH reads: a packet, and an agent's message, hold 256 KiB.

use super::{Finding, SshDraft, SshRule, demand};

pub(super) const RULE: SshRule = SshRule { name: "ssh_size", source: "OpenSSH PROTOCOL and packet.c", check };

fn check(draft: &SshDraft<'_>) -> Finding {
    demand(draft.octets.len() <= MAX_OCTETS, || format!("{} octets", draft.octets.len()))
}

/// Our identity alone may have 32 KiB; with it go keys of 8192 bits and 256 principals of 256 octets.
const MAX_OCTETS: usize = 160 * 1024;
