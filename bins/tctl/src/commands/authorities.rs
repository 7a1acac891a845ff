//! `tctl auth`: the public parts of the cluster's authorities.

use anyhow::Context;
use remoteler_client::pem_certificates;
use remoteler_core::{AuthApi, CaKind, CaSet, JwkSet, KeyPlace, KeyPlaces, RotationStatus, TrustBundle, spki_pin};
use serde::Serialize;
use serde_json::json;

use super::{host_pattern::HostPattern, rotation};
use crate::{
    cli::ExportKind,
    output::{Report, fields},
};

/// Prints an authority in the form that other programs read.
pub(crate) async fn export(api: &dyn AuthApi, kind: ExportKind, hosts: &[HostPattern]) -> anyhow::Result<Report> {
    let trust = api.trust_bundle().await?;
    let text = match kind {
        ExportKind::Audit => api.audit_checkpoint().await?.key + "\n",
        ExportKind::User | ExportKind::Host | ExportKind::TlsUser | ExportKind::TlsHost | ExportKind::Token => {
            exported(&trust, kind, hosts)?
        }
    };
    let value = json!({ "cluster_name": trust.cluster, "type": type_name(kind), "export": text });
    Report::new(text, &value)
}

const fn type_name(kind: ExportKind) -> &'static str {
    match kind {
        ExportKind::User => "user",
        ExportKind::Host => "host",
        ExportKind::TlsUser => "tls-user",
        ExportKind::TlsHost => "tls-host",
        ExportKind::Token => "token",
        ExportKind::Audit => "audit",
    }
}

fn exported(trust: &TrustBundle, kind: ExportKind, hosts: &[HostPattern]) -> anyhow::Result<String> {
    match kind {
        ExportKind::User => lines(&trust.user, |key| format!("{key} user-ca@{}\n", trust.cluster)),
        // Only hosts of this cluster and those that are named: a line for `*` would let it sign for every host of the world (I71).
        ExportKind::Host => {
            let mut names = vec![format!("*.{}", trust.cluster)];
            names.extend(hosts.iter().map(ToString::to_string));
            let names = names.join(",");
            lines(&trust.host, |key| format!("@cert-authority {names} {key} host-ca@{}\n", trust.cluster))
        }
        ExportKind::TlsUser => Ok(pem_certificates(&trust.user.x509)),
        ExportKind::TlsHost => Ok(pem_certificates(&trust.host.x509)),
        ExportKind::Audit => anyhow::bail!("the audit log's key is no part of the trust bundle"),
        ExportKind::Token => Ok(serde_json::to_string_pretty(&JwkSet { keys: trust.tokens.clone() })? + "\n"),
    }
}

/// A line for each SSH key, made of its algorithm and key in OpenSSH's form.
fn lines(authority: &CaSet, line: impl Fn(&str) -> String) -> anyhow::Result<String> {
    let mut text = String::new();
    for key in &authority.ssh {
        let key = key.to_openssh().context("a key of the authority has no OpenSSH form")?;
        let words: Vec<_> = key.split(' ').take(2).collect();
        text.push_str(&line(&words.join(" ")));
    }
    Ok(text)
}

/// One authority, as `auth status` shows it.
#[derive(Debug, Serialize)]
struct Authority {
    #[serde(rename = "type")]
    kind: &'static str,
    /// `SHA256:…` of each SSH key, as `ssh-keygen -l` prints it; the active one first.
    ssh_fingerprints: Vec<String>,
    /// `sha256:…` of each X.509 certificate's public key; the active one first.
    tls_pins: Vec<String>,
}

/// Shows both authorities, and the pins that joining hosts are given.
pub(crate) async fn status(api: &dyn AuthApi) -> anyhow::Result<Report> {
    let audit = match api.audit_checkpoint().await {
        Ok(start) => start.key,
        Err(cause) => format!("not signed: {cause}"),
    };
    shown(&api.trust_bundle().await?, &api.rotations().await?, &audit)
}

fn shown(trust: &TrustBundle, rotations: &[RotationStatus], audit: &str) -> anyhow::Result<Report> {
    let pins = trust.host_pins()?;
    let authorities = [authority(trust, CaKind::User)?, authority(trust, CaKind::Host)?];
    let mut text = fields(&[("Cluster", trust.cluster.to_string()), ("CA pin", pins.join(", "))]);
    for each in &authorities {
        text.push_str(&format!("\nAuthority of {}s\n", each.kind));
        let places =
            rotations.iter().filter(|status| status.kind.as_str() == each.kind).flat_map(|status| &status.keys);
        let places: Vec<_> = places.map(keys_lie).collect();
        text.push_str(&fields(&[
            ("  SSH", each.ssh_fingerprints.join(", ")),
            ("  X.509", each.tls_pins.join(", ")),
            ("  Keys", places.join(", then ")),
        ]));
    }
    let token_keys: Vec<_> = trust.tokens.iter().map(|key| key.key_id().to_owned()).collect();
    text.push_str(&format!("\nIdentity tokens\n{}", fields(&[("  Keys", token_keys.join(", "))])));
    text.push_str(&format!("\nAudit log\n{}", fields(&[("  Key", audit.to_owned())])));
    text.push('\n');
    text.push_str(&rotation::shown(rotations));
    let value = json!({
        "cluster_name": trust.cluster,
        "ca_pins": pins,
        "authorities": authorities,
        "token_keys": token_keys,
        "audit_key": audit,
        "rotations": rotations,
    });
    Report::new(text, &value)
}

/// Where a pair of private keys lies.
fn keys_lie(places: &KeyPlaces) -> String {
    let lies = |place: &KeyPlace| match place {
        KeyPlace::File => "in the database, not sealed".to_owned(),
        KeyPlace::Sealed => "in the database, sealed".to_owned(),
        KeyPlace::Token { token } => format!("in token {token}"),
        other => format!("{other:?}"),
    };
    let KeyPlaces { ssh, x509 } = places;
    if ssh == x509 { lies(ssh) } else { format!("SSH {}, X.509 {}", lies(ssh), lies(x509)) }
}

fn authority(trust: &TrustBundle, kind: CaKind) -> anyhow::Result<Authority> {
    let set = trust.authority(kind);
    let ssh_fingerprints = set.ssh.iter().map(|key| key.fingerprint(Default::default()).to_string()).collect();
    let tls_pins = set.x509.iter().map(|der| spki_pin(der)).collect::<Result<_, _>>()?;
    Ok(Authority { kind: kind.as_str(), ssh_fingerprints, tls_pins })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn trust() -> TrustBundle {
        let set = json!({ "ssh": [format!("{KEY} somebody@somewhere")], "x509": [] });
        serde_json::from_value(json!({ "cluster": "root.example.com", "user": set, "host": set })).unwrap()
    }

    #[test]
    fn users_authority_is_what_trusted_user_ca_keys_reads() {
        assert_eq!(exported(&trust(), ExportKind::User, &[]).unwrap(), format!("{KEY} user-ca@root.example.com\n"));
    }

    // I71
    #[test]
    fn hosts_authority_is_believed_for_hosts_of_its_cluster_only() {
        let line = exported(&trust(), ExportKind::Host, &[]).unwrap();
        assert_eq!(line, format!("@cert-authority *.root.example.com {KEY} host-ca@root.example.com\n"));
        let named = ["db.example.org".parse().unwrap(), "192.0.2.7".parse().unwrap()];
        let line = exported(&trust(), ExportKind::Host, &named).unwrap();
        assert!(line.starts_with("@cert-authority *.root.example.com,db.example.org,192.0.2.7 ssh-"), "{line}");
    }
}
