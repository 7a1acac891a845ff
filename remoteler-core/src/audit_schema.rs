//! The JSON schema of all audit events, made of the types themselves: `docs/audit-events.schema.json` is what SIEM rules are written against. Owns the
//! comparison of that file with the types.

use std::{borrow::Cow, path::Path};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::{
    AuditEvent, AuditKind, ClusterName, KubeClusterName, Login, NodeName, RevocationTarget, RoleName, Timestamp,
    UserName, evidence::TreeHash,
};

macro_rules! as_text {
    ($($type:ty, $name:literal, $schema:tt;)*) => {
        $(impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

as_text! {
    Timestamp, "Timestamp", { "type": "string", "format": "date-time" };
    ClusterName, "ClusterName", { "type": "string" };
    KubeClusterName, "KubeClusterName", { "type": "string" };
    Login, "Login", { "type": "string" };
    NodeName, "NodeName", { "type": "string" };
    RevocationTarget, "RevocationTarget", { "type": "string" };
    RoleName, "RoleName", { "type": "string" };
    UserName, "UserName", { "type": "string" };
    TreeHash, "TreeHash", { "type": "string", "contentEncoding": "base64", "minLength": 44, "maxLength": 44 };
}

fn schema() -> Value {
    let mut schema = schemars::schema_for!(AuditEvent);
    schema.insert("title".into(), "Audit event".into());
    schema.to_value()
}

#[test]
fn the_schema_in_the_tree_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit-events.schema.json");
    let made = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("REMOTELER_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/audit-events.schema.json is not what the types say; run the test again with REMOTELER_UPDATE_DOCS=1"
    );
}

#[test]
fn every_kind_of_event_is_in_the_schema_with_words_about_each_of_its_fields() {
    let schema = schema();
    let variants = schema["oneOf"].as_array().unwrap();
    let named = |variant: &Value| variant["properties"]["event"]["const"].as_str().unwrap().to_owned();
    let names: Vec<_> = variants.iter().map(named).collect();
    assert_eq!(names, AuditKind::NAMES);
    for (variant, name) in variants.iter().zip(names) {
        assert!(variant["description"].is_string(), "{name}");
        for (field, of) in variant["properties"].as_object().unwrap() {
            assert!(field == "event" || of["description"].is_string(), "{name}: {field} says nothing of itself");
        }
    }
    for field in ["code", "time", "uid", "cluster_name"] {
        assert!(schema["required"].as_array().unwrap().contains(&field.into()), "{field}");
    }
}
