//! Only what is known: no critical options, permits for users alone, our identity where it belongs and nowhere else (I5).

use remoteler_core::SSH_IDENTITY_EXTENSION;
use ssh_key::certificate::CertType;

use super::{Finding, SshDraft, SshRule, demand};

pub(super) const RULE: SshRule =
    SshRule { name: "ssh_extensions", source: "OpenSSH PROTOCOL.certkeys; own policy", check };

fn check(draft: &SshDraft<'_>) -> Finding {
    if let Some((name, _)) = draft.certificate.critical_options().iter().next() {
        return Err(format!("critical option {name}"));
    }
    for (name, value) in draft.certificate.extensions().iter() {
        let allowed = match name.as_str() {
            "permit-agent-forwarding" | "permit-port-forwarding" | "permit-pty" => {
                value.is_empty() && draft.certificate.cert_type() == CertType::User
            }
            SSH_IDENTITY_EXTENSION => draft.purpose.has_identity(),
            _ => false,
        };
        demand(allowed, || format!("extension {name} for a {}", draft.purpose))?;
    }
    let identity = draft.certificate.extensions().contains_key(SSH_IDENTITY_EXTENSION);
    demand(identity == draft.purpose.has_identity(), || format!("no identity for a {}", draft.purpose))
}
