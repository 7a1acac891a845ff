//! The type is that of the purpose (I1), and there is a key id, which servers log.

use ssh_key::certificate::CertType;

use super::{Finding, SshDraft, SshRule, demand};
use crate::Purpose;

pub(super) const RULE: SshRule = SshRule { name: "ssh_type", source: "OpenSSH PROTOCOL.certkeys", check };

fn check(draft: &SshDraft<'_>) -> Finding {
    let expected = match draft.purpose {
        Purpose::User | Purpose::OpensshUser => CertType::User,
        Purpose::Host | Purpose::OpensshHost => CertType::Host,
        Purpose::KubeClient | Purpose::AppClient | Purpose::DatabaseClient | Purpose::SmartCard | Purpose::Server => {
            return Err(format!("an SSH certificate for a {}", draft.purpose));
        }
    };
    demand(draft.certificate.cert_type() == expected, || format!("the wrong type for a {}", draft.purpose))?;
    let key_id = draft.certificate.key_id();
    let clean = (1..=256).contains(&key_id.len()) && !key_id.chars().any(char::is_control);
    demand(clean, || "a key id that is empty, too long or unprintable".to_owned())
}
