//! Schemas of certificates on an administrator's word: one for each purpose, and the choice among them.

use serde_json::{Map, Value, json};

use super::{boolean, integer, list, object, text, time, to};

/// The schema of each variant, and its tag.
const VARIANTS: [(&str, &str); 7] = [
    ("SignUser", "user"),
    ("SignOpensshUser", "openssh_user"),
    ("SignKubernetes", "kubernetes"),
    ("SignDatabase", "database"),
    ("SignSmartCard", "smart_card"),
    ("SignOpensshHost", "openssh_host"),
    ("SignServer", "server"),
];

pub(super) fn add(all: &mut Map<String, Value>) {
    let mapping: Map<String, Value> =
        VARIANTS.iter().map(|(name, tag)| ((*tag).to_owned(), format!("#/components/schemas/{name}").into())).collect();
    all.insert(
        "SignRequest".into(),
        json!({
            "oneOf": VARIANTS.map(|(name, _)| to(name)),
            "discriminator": { "propertyName": "purpose", "mapping": mapping },
        }),
    );
    for (name, tag) in VARIANTS {
        let (mut required, mut optional) =
            (vec![("purpose", json!({ "type": "string", "enum": [tag] }))], vec![("ttl_seconds", integer())]);
        match tag {
            "openssh_host" | "server" => required.push(("names", list(text()))),
            _ => required.push(("user", text())),
        }
        if matches!(tag, "user" | "openssh_user" | "openssh_host") {
            required.push(("ssh_public_key", text()));
        }
        if !matches!(tag, "openssh_user" | "openssh_host") {
            required.push(("tls_public_key", text()));
        }
        match tag {
            "kubernetes" => {
                required.push(("kube_cluster", text()));
                optional.push(("needs_proxy", boolean()));
            }
            "database" => optional.push(("database_user", text())),
            "smart_card" => {
                required.extend([("domain", text()), ("crl_url", text())]);
                optional.extend([("windows_user", text()), ("sid", text())]);
            }
            _ => {}
        }
        all.insert(name.into(), object(&required, &optional));
    }
    all.insert(
        "SignedCertificates".into(),
        object(
            &[("subject", text()), ("trust", to("TrustBundle"))],
            &[
                ("ssh_certificate", text()),
                ("tls_certificate", text()),
                ("expires", time()),
                ("roles", list(text())),
                ("logins", list(text())),
                ("proxy_addr", text()),
            ],
        ),
    );
}

#[cfg(test)]
pub(super) mod tests {
    use remoteler_core::{KubeClusterName, SignRequest, SignedCertificates, Timestamp, TrustBundle, UserName};

    use super::*;

    /// Values with every optional field set, by schema.
    pub(in super::super) fn samples(trust: &TrustBundle) -> Vec<(&'static str, Value)> {
        let user = || UserName::new("ann").unwrap();
        let key = || "k".to_owned();
        let (ttl_seconds, some) = (Some(1), |text: &str| Some(text.to_owned()));
        let requests = [
            SignRequest::User { user: user(), ssh_public_key: key(), tls_public_key: key(), ttl_seconds },
            SignRequest::OpensshUser { user: user(), ssh_public_key: key(), ttl_seconds },
            SignRequest::Kubernetes {
                user: user(),
                kube_cluster: KubeClusterName::new("k").unwrap(),
                tls_public_key: key(),
                ttl_seconds,
                needs_proxy: true,
            },
            SignRequest::Database { user: user(), database_user: some("d"), tls_public_key: key(), ttl_seconds },
            SignRequest::SmartCard {
                user: user(),
                windows_user: some("w"),
                domain: key(),
                sid: some("s"),
                crl_url: key(),
                tls_public_key: key(),
                ttl_seconds,
            },
            SignRequest::OpensshHost { names: vec![key()], ssh_public_key: key(), ttl_seconds },
            SignRequest::Server { names: vec![key()], tls_public_key: key(), ttl_seconds },
        ];
        let answer = SignedCertificates {
            ssh_certificate: some("c"),
            tls_certificate: some("c"),
            subject: key(),
            expires: Some(Timestamp::default()),
            roles: Default::default(),
            logins: vec![key()],
            trust: trust.clone(),
            proxy_addr: some("p:1"),
        };
        let answer = ("SignedCertificates", serde_json::to_value(answer).unwrap());
        let requests = VARIANTS.iter().zip(requests).map(|((name, tag), request)| {
            let value = serde_json::to_value(request).unwrap();
            assert_eq!(value["purpose"], *tag);
            (*name, value)
        });
        requests.chain([answer]).collect()
    }
}
