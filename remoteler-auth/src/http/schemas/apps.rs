//! Schemas of web applications and their sessions.

use serde_json::{Map, Value};

use super::{boolean, integer, list, map, object, secret, text, time};

pub(super) fn add(all: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add(
        "AppRecord",
        object(
            &[("host_id", text()), ("name", text()), ("version", text()), ("last_seen", time())],
            &[("public_addr", text()), ("labels", map(text())), ("addr", text()), ("heartbeat_seconds", integer())],
        ),
    );
    add("AppCodeRequest", object(&[("code", secret()), ("app", text())], &[("state", secret())]));
    add("AppSessionOpened", object(&[("secret", secret()), ("expires", time()), ("path", text())], &[]));
    add(
        "AppCertificateRequest",
        object(&[("secret", secret()), ("app", text())], &[("tls_public_key", text()), ("in_use", boolean())]),
    );
    add(
        "AppCertified",
        object(
            &[("session", text()), ("user", text()), ("expires", time())],
            &[("certificate", text()), ("certificate_expires", time())],
        ),
    );
    add("AppSessionsRequest", object(&[("sessions", list(text()))], &[]));
    add("AppSessionsEnded", object(&[("ended", list(text()))], &[]));
    add("AppTokenRequest", object(&[("app", text()), ("chain", list(text()))], &[]));
    add("AppToken", object(&[("token", secret()), ("expires", time())], &[]));
}

#[cfg(test)]
pub(super) mod tests {
    use remoteler_core::{
        AppCertificateRequest, AppCertified, AppCodeRequest, AppName, AppRecord, AppSessionOpened, AppSessionsEnded,
        AppSessionsRequest, AppToken, AppTokenRequest, HostId, Secret, SessionId, Timestamp,
    };
    use serde_json::Value;

    pub(in super::super) fn record() -> AppRecord {
        AppRecord {
            host_id: HostId::from_uuid(Default::default()),
            name: AppName::new("a").unwrap(),
            public_addr: Some("a.b".into()),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            version: "1".into(),
            addr: Some("a:1".into()),
            last_seen: Timestamp::default(),
            heartbeat: remoteler_core::Heartbeat::LONGEST,
        }
    }

    /// Values with every optional field set, by schema.
    pub(in super::super) fn samples() -> Vec<(&'static str, Value)> {
        fn value(sample: impl serde::Serialize) -> Value {
            serde_json::to_value(sample).unwrap()
        }
        let (app, secret, moment) = (record().name, || Secret::new("s"), Timestamp::default());
        let session = SessionId::from_uuid(Default::default());
        let certified = AppCertified {
            certificate: Some("c".into()),
            certificate_expires: Some(moment),
            session,
            user: "ann".parse().unwrap(),
            expires: moment,
        };
        let tls_public_key = Some("k".into());
        let asked = AppCertificateRequest { secret: secret(), app: app.clone(), tls_public_key, in_use: true };
        vec![
            ("AppRecord", value(record())),
            ("AppCodeRequest", value(AppCodeRequest { code: secret(), state: Some(secret()), app: app.clone() })),
            ("AppSessionOpened", value(AppSessionOpened { secret: secret(), expires: moment, path: "/".into() })),
            ("AppCertificateRequest", value(asked)),
            ("AppCertified", value(certified)),
            ("AppSessionsRequest", value(AppSessionsRequest { sessions: vec![session] })),
            ("AppSessionsEnded", value(AppSessionsEnded { ended: vec![session] })),
            ("AppTokenRequest", value(AppTokenRequest { app, chain: vec!["c".into()] })),
            ("AppToken", value(AppToken { token: secret(), expires: moment })),
        ]
    }
}
