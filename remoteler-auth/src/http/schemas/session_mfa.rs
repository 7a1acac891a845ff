//! Schemas of second factors for single sessions.

use serde_json::{Map, Value, json};

use super::{object, secret, text, time, to};

pub(super) fn add(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    let one_of = |variants: &[(&str, &str)]| {
        let each = variants.iter().map(|(tag, schema)| object(&[(tag, to(schema))], &[]));
        json!({ "oneOf": each.collect::<Vec<_>>() })
    };
    let purpose = ("purpose", to("SessionPurpose"));
    add("SessionProofRequest", object(&[("session", text()), purpose], &[("code", secret())]));
    add("SessionPurpose", one_of(&[("ssh", "SshSession"), ("kubernetes", "KubernetesSession"), ("app", "AppSession")]));
    add("SshSession", object(&[("user", text()), ("login", text())], &[("remote", text())]));
    add("KubernetesSession", object(&[("kube_cluster", text()), ("tls_public_key", text())], &[]));
    add("AppSession", object(&[("app", text()), ("tls_public_key", text())], &[]));
    add("SessionProven", object(&[("proof", to("SessionProof"))], &[("tls_certificate", text())]));
    let target = ("target", to("SessionTarget"));
    add("SessionProof", object(&[("session", text()), ("user", text()), target, ("expires", time())], &[]));
    add(
        "SessionTarget",
        one_of(&[("node", "NodeTarget"), ("kube_cluster", "KubeClusterTarget"), ("app", "AppTarget")]),
    );
    add("NodeTarget", object(&[("host_id", text()), ("login", text())], &[]));
    add("KubeClusterTarget", object(&[("name", text())], &[]));
    add("AppTarget", object(&[("name", text())], &[]));
}

#[cfg(test)]
pub(super) mod tests {
    use remoteler_core::{
        Secret, SessionId, SessionProof, SessionProofRequest, SessionProven, SessionPurpose, SessionTarget, Timestamp,
    };
    use serde_json::Value;

    /// Schemas without fields of their own.
    pub(in super::super) const PLAIN: [&str; 2] = ["SessionPurpose", "SessionTarget"];

    /// Values with every optional field set, by schema.
    pub(in super::super) fn samples() -> Vec<(&'static str, Value)> {
        fn value(sample: impl serde::Serialize) -> Value {
            serde_json::to_value(sample).unwrap()
        }
        let host_id = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        let (user, login) = (|| "ann".parse().unwrap(), || "root".parse().unwrap());
        let ssh = value(SessionPurpose::Ssh { user: user(), login: login(), remote: Some("a".into()) });
        let purpose = SessionPurpose::Kubernetes { kube_cluster: "k".parse().unwrap(), tls_public_key: "k".into() };
        let kube = value(&purpose);
        let node = SessionTarget::Node { host_id, login: login() };
        let session = SessionId::from_uuid(Default::default());
        let proof = SessionProof::new(session, user(), node.clone(), Timestamp::default());
        let request = SessionProofRequest { session, purpose, code: Some(Secret::new("c")) };
        let cluster = value(SessionTarget::KubeCluster { name: "k".parse().unwrap() });
        let at_app = value(SessionPurpose::App { app: "a".parse().unwrap(), tls_public_key: "k".into() });
        let app = value(SessionTarget::App { name: "a".parse().unwrap() });
        vec![
            ("AppSession", at_app["app"].clone()),
            ("AppTarget", app["app"].clone()),
            ("SessionProofRequest", value(request)),
            ("SshSession", ssh["ssh"].clone()),
            ("KubernetesSession", kube["kubernetes"].clone()),
            ("SessionProven", value(SessionProven { proof: proof.clone(), tls_certificate: Some("c".into()) })),
            ("SessionProof", value(proof)),
            ("NodeTarget", value(node)["node"].clone()),
            ("KubeClusterTarget", cluster["kube_cluster"].clone()),
        ]
    }
}
