//! What `tsh` says first and reads last in a login through a browser.

use anyhow::ensure;
use remoteler_client::KeyPairs;
use remoteler_core::{AnswerKey, BeginLogin, UserCerts};

/// A person who wants certificates, from a machine that listens.
pub(crate) fn begin(key: &AnswerKey) -> anyhow::Result<BeginLogin> {
    let keys = KeyPairs::generate("bench")?;
    Ok(BeginLogin {
        connector: Some("idp".into()),
        redirect: Some("http://127.0.0.1:4711/callback".parse()?),
        ssh_public_key: keys.ssh_public.clone(),
        tls_public_key: keys.tls_public.clone(),
        answer_key: key.public(),
        ttl_seconds: None,
        host: "laptop".into(),
        client_addr: None,
    })
}

/// There are certificates in the answer that was opened.
pub(crate) fn received(opened: &[u8]) -> anyhow::Result<()> {
    let certs: UserCerts = serde_json::from_slice(opened)?;
    ensure!(!certs.ssh_certificate.is_empty(), "there are no certificates");
    Ok(())
}
