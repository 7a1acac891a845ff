//! The key that signs is the authority's; both keys are of the list and neither is a certificate (I2, I7); an authority does not certify itself.

use remoteler_core::check_ssh_key;

use super::{Finding, SshDraft, SshRule, demand};

pub(super) const RULE: SshRule = SshRule { name: "ssh_keys", source: "OpenSSH PROTOCOL.certkeys; own policy", check };

fn check(draft: &SshDraft<'_>) -> Finding {
    let (subject, signer) = (draft.certificate.public_key(), draft.certificate.signature_key());
    demand(signer == draft.authority, || "the key of another authority".to_owned())?;
    check_ssh_key(signer).map_err(|cause| cause.to_string())?;
    check_ssh_key(subject).map_err(|cause| cause.to_string())?;
    demand(subject != signer, || "the authority's own key as the subject's".to_owned())
}
