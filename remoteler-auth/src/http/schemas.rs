//! JSON schemas of what travels. A test serialises a value of each type and compares: a field that is added to a type and not here,
//! or here and not there, fails it.

mod account;
mod apps;
mod evidence;
mod explain;
mod leases;
mod logins;
mod mfa;
mod policy;
mod session_mfa;
mod sign;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

/// All schemas by name.
pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add("ApiError", object(&[("kind", text()), ("message", text())], &[]));
    add("Ping", object(&[("cluster_name", text()), ("server_version", text()), ("server_time", time())], &[]));
    add("Size", integer());
    let sized = [("size", integer()), ("sha256", text()), ("clear_keys", boolean())];
    add("BackupStatus", object(&[("id", text())], &sized));
    add("CaSet", object(&[("ssh", list(text())), ("x509", list(text()))], &[]));
    add(
        "TrustBundle",
        object(
            &[("cluster", text()), ("user", to("CaSet")), ("host", to("CaSet"))],
            &[("rotation", to("RotationView")), ("tokens", list(to("Jwk"))), ("revoked", list(text()))],
        ),
    );
    let members = ["kty", "crv", "use", "alg", "kid", "x", "y"].map(|member| (member, text()));
    add("Jwk", object(&members, &[]));
    add(
        "LoginRequest",
        object(
            &[("user", text()), ("password", secret()), ("ssh_public_key", text()), ("tls_public_key", text())],
            &[("code", secret()), ("ttl_seconds", integer()), ("client_addr", text())],
        ),
    );
    add(
        "UserCerts",
        object(
            &[
                ("ssh_certificate", text()),
                ("tls_certificate", text()),
                ("expires", time()),
                ("roles", list(text())),
                ("logins", list(text())),
                ("trust", to("TrustBundle")),
            ],
            &[("logout_connector", text())],
        ),
    );
    add("SignUpRequest", object(&[("token", secret()), ("password", secret())], &[("code", secret())]));
    add("InviteQuery", object(&[("token", secret())], &[]));
    add(
        "JoinRequest",
        object(
            &[
                ("token", secret()),
                ("node_name", text()),
                ("roles", list(text())),
                ("ssh_public_key", text()),
                ("tls_public_key", text()),
            ],
            &[
                ("kube_clusters", list(text())),
                ("apps", list(text())),
                ("without_pin", boolean()),
                ("rejoin", to("RejoinProof")),
                ("service_account", secret()),
            ],
        ),
    );
    add("RejoinProof", object(&[("host_id", text()), ("signed_at", text()), ("signature", text())], &[]));
    add(
        "HostCerts",
        object(
            &[
                ("host_id", text()),
                ("cluster_name", text()),
                ("ssh_certificate", text()),
                ("tls_certificate", text()),
                ("trust", to("TrustBundle")),
            ],
            &[("tls_client_certificate", text())],
        ),
    );
    for name in ["NodeRecord", "KubeRecord"] {
        add(
            name,
            object(
                &[("host_id", text()), ("name", text()), ("version", text()), ("last_seen", time())],
                &[("labels", map(text())), ("addr", text()), ("heartbeat_seconds", integer())],
            ),
        );
    }
    add("ProxyRecord", object(&[("host_id", text()), ("public_addr", text()), ("last_seen", time())], &[]));
    add("ProxyAnnouncement", object(&[("public_addr", text())], &[]));
    add_audit(&mut all);
    add_administration(&mut all);
    add_rotation(&mut all);
    sign::add(&mut all);
    explain::add(&mut all);
    leases::add(&mut all);
    evidence::add(&mut all);
    add_revocation(&mut all);
    policy::add(&mut all);
    logins::add(&mut all);
    mfa::add(&mut all);
    account::add(&mut all);
    session_mfa::add(&mut all);
    apps::add(&mut all);
    all
}

fn add_rotation(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add(
        "RotationView",
        object(&[("generation", integer()), ("user", text()), ("host", text()), ("token", text())], &[]),
    );
    add("TrustAck", object(&[("generation", integer())], &[("instance", text()), ("heartbeat_seconds", integer())]));
    add("TrustAcked", object(&[], &[("renew", boolean()), ("longest_heartbeat_seconds", integer())]));
    add("RenewQuery", object(&[], &[("instance", text())]));
    add("RotationPlan", object(&[("mode", text())], &[("grace_seconds", integer())]));
    add(
        "RotateRequest",
        object(&[("kind", text()), ("phase", text()), ("plan", to("RotationPlan"))], &[("force", boolean())]),
    );
    add(
        "ServiceContact",
        object(
            &[
                ("host_id", text()),
                ("name", text()),
                ("roles", list(text())),
                ("generation", integer()),
                ("last_contact", time()),
            ],
            &[("heartbeat_seconds", integer())],
        ),
    );
    add(
        "RotationStatus",
        object(
            &[
                ("kind", text()),
                ("phase", text()),
                ("since", time()),
                ("plan", to("RotationPlan")),
                ("generation", integer()),
                ("waiting", list(to("ServiceContact"))),
                ("offline", list(to("ServiceContact"))),
                ("keys", list(to("KeyPlaces"))),
            ],
            &[],
        ),
    );
    add("KeyPlaces", object(&[("ssh", to("KeyPlace")), ("x509", to("KeyPlace"))], &[]));
    add("KeyPlace", object(&[("place", text())], &[("token", text())]));
}

fn add_revocation(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add(
        "NewRevocation",
        object(&[("target", text())], &[("reason", text()), ("comment", text()), ("ttl_seconds", integer())]),
    );
    add(
        "Revocation",
        object(
            &[("target", text()), ("reason", text()), ("revoked_by", text()), ("since", time())],
            &[("comment", text()), ("until", time())],
        ),
    );
    add(
        "RevocationList",
        object(
            &[
                ("name", text()),
                ("number", integer()),
                ("made", time()),
                ("next_update", time()),
                ("files", list(text())),
            ],
            &[],
        ),
    );
}

fn add_audit(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    let mut event = object(
        &[("event", text()), ("code", text()), ("time", time()), ("uid", text()), ("cluster_name", text())],
        &[],
    );
    if let Some(fields) = event.as_object_mut() {
        fields.insert("additionalProperties".into(), true.into());
        fields.insert("description".into(), "The fields of the event's kind stand beside these.".into());
    }
    add("AuditEvent", event);
    add(
        "EventQuery",
        object(
            &[],
            &[
                ("from", time()),
                ("to", time()),
                ("type", text()),
                ("user", text()),
                ("limit", integer()),
                ("target", text()),
                ("outcome", text()),
                ("before", text()),
            ],
        ),
    );
    add(
        "RecordingInfo",
        object(
            &[
                ("session_id", text()),
                ("user", text()),
                ("login", text()),
                ("node", text()),
                ("started", time()),
                ("size", integer()),
                ("complete", boolean()),
            ],
            &[],
        ),
    );
    add("ChunkQuery", object(&[("offset", integer())], &[("last", boolean())]));
    add("OffsetQuery", object(&[], &[("offset", integer())]));
}

fn add_administration(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    let traits = || map(list(text()));
    add("NewUser", object(&[("name", text()), ("roles", list(text()))], &[("traits", traits())]));
    add(
        "UserSummary",
        object(
            &[
                ("name", text()),
                ("roles", list(text())),
                ("traits", traits()),
                ("has_password", boolean()),
                ("created", time()),
            ],
            &[],
        ),
    );
    add("Invite", object(&[("user", text()), ("token", secret()), ("expires", time())], &[("proxy_addr", text())]));
    add("PasswordChange", object(&[("password", secret())], &[]));
    add_tokens(all);
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add("TokenRevocation", object(&[("id_or_token", secret())], &[]));
    add(
        "Metadata",
        object(&[("name", text())], &[("description", text()), ("labels", map(text())), ("expires", time())]),
    );
    add(
        "Resource",
        object(
            &[("kind", text()), ("version", text()), ("metadata", to("Metadata"))],
            &[("spec", json!({ "type": "object" }))],
        ),
    );
    add("ReplaceQuery", object(&[], &[("replace", boolean())]));
}

fn add_tokens(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    let scope = [("names", text()), ("labels", map(text()))];
    let with_scope = |more: &[(&'static str, Value)]| [scope.as_slice(), more].concat();
    add(
        "NewToken",
        object(
            &[("roles", list(text()))],
            &with_scope(&[("ttl_seconds", integer()), ("value", secret()), ("uses", integer())]),
        ),
    );
    add(
        "TokenCreated",
        object(
            &[("token", secret()), ("expires", time()), ("roles", list(text())), ("ca_pin", text())],
            &with_scope(&[("proxy_addr", text()), ("ca_pins", list(text())), ("uses", integer()), ("host_id", text())]),
        ),
    );
    add(
        "TokenSummary",
        object(
            &[("id", text()), ("roles", list(text()))],
            &with_scope(&[
                ("join_method", text()),
                ("expires", time()),
                ("uses_left", integer()),
                ("host_id", text()),
                ("service_accounts", list(text())),
            ]),
        ),
    );
    add("RejoinTokenRequest", object(&[("node", text())], &[]));
    add("ConnectorSecretsRequest", object(&[("kind", text())], &[("name", text())]));
}

fn object(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let fields = required.iter().chain(optional).map(|(name, schema)| ((*name).to_owned(), schema.clone()));
    let properties: Map<String, Value> = fields.collect();
    let required: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn secret() -> Value {
    json!({ "type": "string", "format": "password" })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn integer() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn map(values: Value) -> Value {
    json!({ "type": "object", "additionalProperties": values })
}

fn to(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
