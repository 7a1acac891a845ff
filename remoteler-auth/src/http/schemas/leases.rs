//! Schemas of counted connections.

use serde_json::{Map, Value};

use super::{boolean, integer, list, object, text, to};

pub(super) fn add(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add("ConnectionLease", object(&[("id", text()), ("user", text()), ("kind", text())], &[]));
    add("LeaseRequest", object(&[("lease", to("ConnectionLease")), ("limit", integer())], &[]));
    add("LeaseAnswer", object(&[("granted", boolean()), ("open", integer())], &[]));
    let leases = || list(to("ConnectionLease"));
    add("LeaseReport", object(&[("held", leases()), ("released", leases())], &[]));
}

#[cfg(test)]
pub(super) mod tests {
    use remoteler_core::{ConnectionKind, ConnectionLease, LeaseAnswer, LeaseReport, LeaseRequest};
    use serde_json::Value;

    /// Values with every optional field set, by schema.
    pub(in super::super) fn samples() -> Vec<(&'static str, Value)> {
        fn value(sample: impl serde::Serialize) -> Value {
            serde_json::to_value(sample).unwrap()
        }
        let lease =
            || ConnectionLease { id: Default::default(), user: "ann".parse().unwrap(), kind: ConnectionKind::Kube };
        vec![
            ("ConnectionLease", value(lease())),
            ("LeaseRequest", value(LeaseRequest { lease: lease(), limit: 1 })),
            ("LeaseAnswer", value(LeaseAnswer { granted: true, open: 1 })),
            ("LeaseReport", value(LeaseReport { held: vec![lease()], released: vec![lease()] })),
        ]
    }
}
