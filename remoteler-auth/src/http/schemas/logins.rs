//! Schemas of logins through browsers.

use serde_json::{Map, Value, json};

use super::{integer, list, map, object, secret, text, time, to};

/// What has one of several shapes, by a tag: name, tag, and the variants with their fields.
const CHOICES: [(&str, &str); 4] =
    [("LoginProgress", "state"), ("BrowserAction", "action"), ("BrowserView", "view"), ("AccountWish", "wish")];

/// Names and schemas of fields.
pub(super) type Fields = Vec<(&'static str, Value)>;
/// A variant of a choice: its schema, its tag, the fields that it needs, and those that it may have.
pub(super) type Variant = (&'static str, &'static str, Fields, Fields);

fn variants(choice: &str) -> Vec<Variant> {
    match choice {
        "LoginProgress" => vec![
            ("LoginPending", "pending", vec![], vec![]),
            ("LoginSlowDown", "slow_down", vec![], vec![]),
            ("LoginReady", "ready", vec![("answer", text())], vec![]),
            ("LoginRefused", "refused", vec![("reason", text())], vec![]),
            ("LoginTested", "tested", vec![("report", to("ConnectorReport"))], vec![]),
        ],
        "BrowserAction" => vec![
            ("BrowserOpen", "open", vec![("id", text())], vec![("connector", text())]),
            (
                "BrowserPassword",
                "password",
                vec![("id", text()), ("token", secret()), ("user", text()), ("password", secret())],
                vec![("code", secret())],
            ),
            ("BrowserEnterCode", "enter_code", vec![("code", text())], vec![]),
            ("BrowserCallback", "callback", vec![("connector", text()), ("params", map(text()))], vec![]),
            ("BrowserReview", "review", vec![("id", text())], vec![]),
            ("BrowserSamlMetadata", "saml_metadata", vec![("connector", text())], vec![]),
            ("BrowserRefused", "refused", vec![("because", text())], vec![]),
            ("BrowserLogout", "logout", vec![("connector", text())], vec![]),
            (
                "BrowserDecide",
                "decide",
                vec![("id", text()), ("token", secret()), ("approve", super::boolean())],
                vec![],
            ),
            (
                "BrowserKey",
                "key",
                vec![("id", text()), ("token", secret())],
                vec![("answer", secret()), ("code", secret())],
            ),
            ("BrowserOfferKey", "offer_key", vec![("invite", secret())], vec![]),
            (
                "BrowserSignUpByKey",
                "sign_up_by_key",
                vec![("invite", secret()), ("password", secret()), ("token", secret()), ("answer", secret())],
                vec![],
            ),
            (
                "BrowserAccount",
                "account",
                vec![("wish", to("AccountWish"))],
                vec![("session", secret()), ("agent", text())],
            ),
            (
                "BrowserLaunchApp",
                "launch_app",
                vec![("app", text()), ("state", text()), ("path", text())],
                vec![("session", secret()), ("code", secret()), ("token", secret()), ("answer", secret())],
            ),
            ("BrowserOpenSession", "open_session", vec![("id", text())], vec![]),
            (
                "BrowserTouchSession",
                "touch_session",
                vec![("id", text()), ("token", secret()), ("answer", secret())],
                vec![],
            ),
        ],
        "AccountWish" => super::account::wishes(),
        _ => vec![
            ("ViewRedirect", "redirect", vec![("to", text())], vec![]),
            (
                "ViewChoose",
                "choose",
                vec![("id", text()), ("connectors", list(to("ConnectorChoice"))), ("account", super::boolean())],
                vec![("local", to("LocalChoice"))],
            ),
            (
                "ViewConfirm",
                "confirm",
                vec![
                    ("id", text()),
                    ("user", text()),
                    ("host", text()),
                    ("address", text()),
                    ("code", text()),
                    ("token", secret()),
                ],
                vec![],
            ),
            ("ViewSamlMetadata", "saml_metadata", vec![("document", text())], vec![]),
            ("ViewDeliver", "deliver", vec![("redirect", text())], vec![("answer", text())]),
            ("ViewFinished", "finished", vec![("success", super::boolean()), ("message", text())], vec![]),
            (
                "ViewTouch",
                "touch",
                vec![("id", text()), ("token", secret()), ("options", text()), ("code", super::boolean())],
                vec![("error", text())],
            ),
            ("ViewKeyOffer", "key_offer", vec![("token", secret()), ("options", text())], vec![]),
            ("ViewNothing", "nothing", vec![], vec![]),
            ("ViewSignedUp", "signed_up", vec![("user", text())], vec![("recovery_codes", list(text()))]),
            ("ViewSessionBegun", "session_begun", vec![("session", secret())], vec![]),
            ("ViewNoSession", "no_session", vec![], vec![]),
            ("ViewAccount", "account", super::account::required(), super::account::optional()),
            ("ViewTotpOffer", "totp_offer", vec![("secret", text()), ("uri", text())], vec![]),
            ("ViewCodes", "codes", vec![], vec![("recovery_codes", list(text()))]),
            ("ViewSubmit", "submit", vec![("to", text()), ("fields", map(text()))], vec![]),
            ("ViewAppLaunched", "app_launched", vec![("origin", text()), ("code", secret())], vec![]),
            (
                "ViewAppFactor",
                "app_factor",
                vec![("app", text()), ("origin", text()), ("user", text()), ("codes", super::boolean())],
                vec![("token", secret()), ("options", text()), ("error", text())],
            ),
            (
                "ViewSessionTouch",
                "session_touch",
                vec![
                    ("id", text()),
                    ("user", text()),
                    ("place", text()),
                    ("code", text()),
                    ("token", secret()),
                    ("options", text()),
                ],
                vec![("login", text()), ("address", text()), ("error", text())],
            ),
        ],
    }
}

pub(super) fn add(all: &mut Map<String, Value>) {
    for (choice, tag) in CHOICES {
        let variants = variants(choice);
        let mapping: Map<String, Value> = variants
            .iter()
            .map(|(name, value, ..)| ((*value).to_owned(), format!("#/components/schemas/{name}").into()))
            .collect();
        let one_of: Vec<Value> = variants.iter().map(|(name, ..)| to(name)).collect();
        let discriminator = json!({ "propertyName": tag, "mapping": mapping });
        all.insert(choice.into(), json!({ "oneOf": one_of, "discriminator": discriminator }));
        for (name, value, mut required, optional) in variants {
            required.push((tag, json!({ "type": "string", "enum": [value] })));
            all.insert(name.into(), object(&required, &optional));
        }
    }
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add(
        "LoginMethods",
        object(&[("kind", text()), ("connectors", list(to("ConnectorChoice")))], &[("default_connector", text())]),
    );
    add(
        "LocalChoice",
        object(&[("token", secret()), ("user", text()), ("code", super::boolean())], &[("error", text())]),
    );
    add("ConnectorChoice", object(&[("name", text()), ("kind", text()), ("display", text())], &[]));
    add(
        "BeginLogin",
        object(
            &[("ssh_public_key", text()), ("tls_public_key", text()), ("answer_key", text()), ("host", text())],
            &[("connector", text()), ("redirect", text()), ("ttl_seconds", integer()), ("client_addr", text())],
        ),
    );
    add(
        "LoginBegun",
        object(
            &[
                ("id", text()),
                ("secret", secret()),
                ("code", text()),
                ("expires", time()),
                ("interval_seconds", integer()),
            ],
            &[],
        ),
    );
    add("LoginPoll", object(&[("id", text()), ("secret", secret())], &[]));
    add(
        "RedeemLogin",
        object(&[("id", text()), ("secret", secret()), ("grant", secret())], &[("client_addr", text())]),
    );
    add("SealedCerts", object(&[("sealed", text())], &[]));
    add(
        "BrowserStep",
        object(&[("step", to("BrowserAction")), ("origin", text())], &[("browser", secret()), ("client_addr", text())]),
    );
    add("BrowserAnswer", object(&[("view", to("BrowserView"))], &[("set_browser", secret())]));
    add(
        "ConnectorReport",
        object(
            &[("claims", map(list(text()))), ("mappings", list(to("MappingOutcome"))), ("roles", list(text()))],
            &[("user", text()), ("subject", text()), ("refused", text())],
        ),
    );
    add("MappingOutcome", object(&[("mapping", text()), ("roles", list(text()))], &[("matched", text())]));
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use remoteler_core::{
        BeginLogin, BrowserAction, BrowserAnswer, BrowserStep, BrowserView, ConnectorChoice, ConnectorReport,
        LocalChoice, LoginBegun, LoginMethods, LoginPoll, LoginProgress, LoopbackUrl, MappingOutcome, PageRefusal,
        RedeemLogin, ResourceKind, SealedCerts, Secret, Timestamp, UserName,
    };
    use serde::Serialize;
    use serde_json::Value;

    /// Schemas that are choices among others, whose samples stand under the names of those.
    pub(in crate::http::schemas) const PLAIN: [&str; 4] =
        ["LoginProgress", "BrowserAction", "BrowserView", "AccountWish"];

    fn value<T: Serialize>(value: T) -> Value {
        serde_json::to_value(value).unwrap()
    }

    /// Values with every optional field set, by schema.
    pub(in crate::http::schemas) fn samples() -> Vec<(&'static str, Value)> {
        let some = || Some("x".to_owned());
        let text = || "x".to_owned();
        let secret = || Secret::new("s");
        let loopback: LoopbackUrl = "http://127.0.0.1:1/a".parse().unwrap();
        let choice = || ConnectorChoice { name: text(), kind: ResourceKind::Oidc, display: text() };
        let outcome = || MappingOutcome { mapping: text(), matched: some(), roles: vec![text()] };
        let report = || ConnectorReport {
            user: some(),
            subject: some(),
            claims: BTreeMap::from([(text(), vec![text()])]),
            mappings: vec![outcome()],
            roles: vec![text()],
            refused: some(),
        };
        let local = || LocalChoice { token: secret(), user: text(), code: true, error: some() };
        let view = || BrowserView::Redirect { to: text() };
        vec![
            ("LoginPending", value(LoginProgress::Pending)),
            ("LoginSlowDown", value(LoginProgress::SlowDown)),
            ("LoginReady", value(LoginProgress::Ready { answer: text() })),
            ("LoginRefused", value(LoginProgress::Refused { reason: text() })),
            ("LoginTested", value(LoginProgress::Tested { report: report() })),
            ("BrowserOpen", value(BrowserAction::Open { id: text(), connector: some() })),
            (
                "BrowserPassword",
                value(BrowserAction::Password {
                    id: text(),
                    token: secret(),
                    user: text(),
                    password: secret(),
                    code: Some(secret()),
                }),
            ),
            ("LocalChoice", value(local())),
            ("BrowserEnterCode", value(BrowserAction::EnterCode { code: text() })),
            ("BrowserCallback", value(BrowserAction::Callback { connector: text(), params: BTreeMap::new() })),
            ("BrowserReview", value(BrowserAction::Review { id: text() })),
            ("BrowserSamlMetadata", value(BrowserAction::SamlMetadata { connector: text() })),
            ("BrowserLogout", value(BrowserAction::Logout { connector: text() })),
            ("BrowserRefused", value(BrowserAction::Refused { because: PageRefusal::Framed })),
            ("BrowserDecide", value(BrowserAction::Decide { id: text(), token: secret(), approve: true })),
            ("ViewRedirect", value(view())),
            (
                "ViewChoose",
                value(BrowserView::Choose {
                    id: text(),
                    connectors: vec![choice()],
                    local: Some(local()),
                    account: true,
                }),
            ),
            (
                "ViewConfirm",
                value(BrowserView::Confirm {
                    id: text(),
                    user: UserName::new("ann").unwrap(),
                    host: text(),
                    address: text(),
                    code: text(),
                    token: secret(),
                }),
            ),
            ("ViewSamlMetadata", value(BrowserView::SamlMetadata { document: text() })),
            ("ViewDeliver", value(BrowserView::Deliver { redirect: loopback.clone(), answer: some() })),
            ("ViewFinished", value(BrowserView::Finished { success: true, message: text() })),
            (
                "BrowserLaunchApp",
                value(BrowserAction::LaunchApp {
                    app: text(),
                    state: text(),
                    path: text(),
                    session: Some(secret()),
                    code: Some(secret()),
                    token: Some(secret()),
                    answer: Some(secret()),
                }),
            ),
            ("ViewAppLaunched", value(BrowserView::AppLaunched { origin: text(), code: secret() })),
            (
                "ViewAppFactor",
                value(BrowserView::AppFactor {
                    app: text(),
                    origin: text(),
                    user: UserName::new("ann").unwrap(),
                    codes: true,
                    token: Some(secret()),
                    options: some(),
                    error: some(),
                }),
            ),
            ("BrowserOpenSession", value(BrowserAction::OpenSession { id: text() })),
            (
                "BrowserTouchSession",
                value(BrowserAction::TouchSession { id: text(), token: secret(), answer: secret() }),
            ),
            (
                "ViewSessionTouch",
                value(BrowserView::SessionTouch {
                    id: text(),
                    user: UserName::new("ann").unwrap(),
                    place: text(),
                    login: some(),
                    address: some(),
                    code: text(),
                    token: secret(),
                    options: text(),
                    error: some(),
                }),
            ),
            ("ViewSubmit", value(BrowserView::Submit { to: text(), fields: BTreeMap::from([(text(), text())]) })),
            (
                "LoginMethods",
                value(LoginMethods { kind: text(), default_connector: some(), connectors: vec![choice()] }),
            ),
            ("ConnectorChoice", value(choice())),
            (
                "BeginLogin",
                value(BeginLogin {
                    connector: some(),
                    redirect: Some(loopback),
                    ssh_public_key: text(),
                    tls_public_key: text(),
                    answer_key: text(),
                    ttl_seconds: Some(1),
                    host: text(),
                    client_addr: some(),
                }),
            ),
            (
                "LoginBegun",
                value(LoginBegun {
                    id: text(),
                    secret: secret(),
                    code: text(),
                    expires: Timestamp::default(),
                    interval_seconds: 1,
                }),
            ),
            ("LoginPoll", value(LoginPoll { id: text(), secret: secret() })),
            ("RedeemLogin", value(RedeemLogin { id: text(), secret: secret(), grant: secret(), client_addr: some() })),
            ("SealedCerts", value(SealedCerts { sealed: text() })),
            (
                "BrowserStep",
                value(BrowserStep {
                    step: BrowserAction::Review { id: text() },
                    browser: Some(secret()),
                    origin: text(),
                    client_addr: some(),
                }),
            ),
            ("BrowserAnswer", value(BrowserAnswer { view: view(), set_browser: Some(secret()) })),
            ("ConnectorReport", value(report())),
            ("MappingOutcome", value(outcome())),
        ]
    }
}
