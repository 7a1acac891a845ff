//! It ends after it begins; a user's end is within the limit (I6).

use super::{Finding, SshDraft, SshRule, demand};
use crate::{MAX_USER_TTL, profile::BACKDATED};

pub(super) const RULE: SshRule =
    SshRule { name: "ssh_validity", source: "OpenSSH PROTOCOL.certkeys; own policy", check };

fn check(draft: &SshDraft<'_>) -> Finding {
    let (after, before) = (draft.certificate.valid_after(), draft.certificate.valid_before());
    demand(after < before, || format!("from {after} until {before}"))?;
    let short = before - after <= (MAX_USER_TTL + BACKDATED).as_secs();
    demand(short || draft.purpose.may_last_for_ever(), || format!("until {before} is too long for a {}", draft.purpose))
}
