//! Schemas of second factors.

use serde_json::{Map, Value};

use super::{list, object, secret, text, time, to};

pub(super) fn add(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add("Factor", object(&[("name", text()), ("kind", text()), ("added", time())], &[("last_used", time())]));
    add("OfferedTotp", object(&[("secret", text()), ("uri", text())], &[]));
    add("FreshProof", object(&[], &[("password", secret()), ("code", secret())]));
    add("NewFactor", object(&[("name", text()), ("code", secret())], &[]));
    add("FactorRemoval", object(&[("name", text()), ("proof", to("FreshProof"))], &[]));
    add("FactorAdded", object(&[], &[("recovery_codes", list(text()))]));
    add("Invited", object(&[("user", text()), ("second_factor", text())], &[("totp", to("OfferedTotp"))]));
    add("SignedUp", object(&[("user", text())], &[("recovery_codes", list(text()))]));
}

#[cfg(test)]
pub(super) mod tests {
    use remoteler_core::{
        Factor, FactorAdded, FactorKind, FactorRemoval, FreshProof, Invited, NewFactor, OfferedTotp, SecondFactor,
        Secret, SignedUp, Timestamp, UserName,
    };
    use serde_json::Value;

    /// Values with every optional field set, by schema.
    pub(in crate::http::schemas) fn samples() -> Vec<(&'static str, Value)> {
        let value = |value: Result<Value, serde_json::Error>| value.unwrap();
        let secret = || Secret::new("s");
        let now = Timestamp::default();
        let factor = Factor { name: "phone".into(), kind: FactorKind::Totp, added: now, last_used: Some(now) };
        let totp = OfferedTotp { secret: secret(), uri: secret() };
        let proof = FreshProof { password: Some(secret()), code: Some(secret()) };
        let user = UserName::new("ann").unwrap();
        let invited = Invited { user: user.clone(), second_factor: SecondFactor::On, totp: Some(totp.clone()) };
        let signed_up = SignedUp { user, recovery_codes: vec![secret()] };
        vec![
            ("Factor", value(serde_json::to_value(factor))),
            ("OfferedTotp", value(serde_json::to_value(totp))),
            ("FreshProof", value(serde_json::to_value(&proof))),
            ("NewFactor", value(serde_json::to_value(NewFactor { name: "phone".into(), code: secret() }))),
            ("FactorRemoval", value(serde_json::to_value(FactorRemoval { name: "phone".into(), proof }))),
            ("FactorAdded", value(serde_json::to_value(FactorAdded { recovery_codes: vec![secret()] }))),
            ("Invited", value(serde_json::to_value(invited))),
            ("SignedUp", value(serde_json::to_value(signed_up))),
        ]
    }
}
