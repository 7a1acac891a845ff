//! There are 1 to 256 principals, each well formed: an empty list means everybody (I4).

use remoteler_core::check_principal;

use super::{Finding, SshDraft, SshRule, demand};
use crate::profile::MAX_PRINCIPALS;

pub(super) const RULE: SshRule =
    SshRule { name: "ssh_principals", source: "OpenSSH PROTOCOL.certkeys; own policy", check };

fn check(draft: &SshDraft<'_>) -> Finding {
    let principals = draft.certificate.valid_principals();
    demand((1..=MAX_PRINCIPALS).contains(&principals.len()), || format!("{} principals", principals.len()))?;
    for (at, principal) in principals.iter().enumerate() {
        check_principal(principal).map_err(|cause| cause.to_string())?;
        demand(!principals.iter().take(at).any(|earlier| earlier == principal), || format!("{principal:?} twice"))?;
        // No program of ours and no OpenSSH reads a principal as a pattern, so one that looks like it is a misunderstanding.
        demand(!principal.contains(['*', '?', '!']), || format!("pattern {principal:?}"))?;
    }
    Ok(())
}
