//! The serial is not zero, which means "none" and cannot be revoked, and the nonce is long enough to make collisions useless.

use super::{Finding, SshDraft, SshRule, demand};

pub(super) const RULE: SshRule =
    SshRule { name: "ssh_serial", source: "OpenSSH PROTOCOL.certkeys and PROTOCOL.krl", check };

fn check(draft: &SshDraft<'_>) -> Finding {
    demand(draft.certificate.serial() != 0, || "serial 0".to_owned())?;
    let octets = draft.certificate.nonce().len();
    demand((16..=64).contains(&octets), || format!("a nonce of {octets} octets"))
}
