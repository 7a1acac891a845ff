//! Written again it has the same octets: lexical order, nothing twice, nothing that a reader passes over.

use super::{Finding, SshDraft, SshRule, demand};

pub(super) const RULE: SshRule = SshRule { name: "ssh_canonical", source: "OpenSSH PROTOCOL.certkeys", check };

fn check(draft: &SshDraft<'_>) -> Finding {
    let again = draft.certificate.to_bytes().map_err(|cause| cause.to_string())?;
    demand(again.starts_with(draft.octets), || "it reads back as something else".to_owned())
}
