//! Whole logins by SAML in one process: a client, two browsers, and an identity provider that signs whatever it is told.

mod keys;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_core::{
    AnswerKey, ApiError, ApiErrorKind, AuthApi, BeginLogin, BrowserAction, BrowserAnswer, BrowserStep, BrowserView,
    Clock, ClusterName, EventQuery, LoginBegun, LoginPoll, LoginProgress, ManualClock, OsEntropy, RedeemLogin,
    Resource, SamlSpec, Secret, UserCerts,
};
use serde_json::{Value, json};

use super::{destination, identity};
use crate::{
    AuthConfig, AuthService, Caller,
    saml::{
        Binding, IdpMetadata, NameId,
        tests::{
            maker::{ACS, Maker, NOW, REQUEST, parse, template, write},
            sealing::{USUAL, around, encrypted},
        },
    },
};

const CALLBACK: &str = "https://proxy.example.com/web/callback/corp";
const ORIGIN: &str = "https://proxy.example.com";

struct World {
    service: AuthService,
    maker: Maker,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

/// A login that a browser has taken to the identity provider.
struct Away {
    begun: LoginBegun,
    key: AnswerKey,
    browser: Secret,
    request: String,
    state: String,
}

fn document(spec: Value) -> Resource {
    serde_json::from_value(json!({ "kind": "saml", "version": "v2", "metadata": { "name": "corp" }, "spec": spec }))
        .unwrap()
}

fn spec(maker: &Maker) -> Value {
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", maker.certificate);
    json!({
        "acs": CALLBACK,
        "issuer": "https://idp.example.com/saml",
        "sso": "https://idp.example.com/sso?tenant=1",
        "cert": pem,
        "attributes_to_roles": [{ "name": "groups", "value": "dev", "roles": ["access"] }],
    })
}

impl World {
    async fn new() -> Self {
        let world = Self::without_connector().await;
        world.admin().put_resource(document(spec(&world.maker)), false).await.unwrap();
        world
    }

    async fn without_connector() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(NOW));
        let config = AuthConfig {
            clock: Arc::<ManualClock>::clone(&clock),
            ..AuthConfig::new(dir.path(), ClusterName::new("root").unwrap())
        };
        let service = AuthService::open(config).await.unwrap();
        Self { service, maker: Maker::new(), clock, _dir: dir }
    }

    fn admin(&self) -> Arc<dyn AuthApi> {
        self.service.as_caller(Caller::LocalAdmin)
    }

    fn anybody(&self) -> Arc<dyn AuthApi> {
        self.service.as_caller(Caller::Anonymous { addr: SocketAddr::from(([192, 0, 2, 1], 40_000)) })
    }

    async fn step(&self, step: BrowserAction, browser: Option<&Secret>) -> Result<BrowserView, ApiError> {
        let step = BrowserStep { step, browser: browser.cloned(), origin: ORIGIN.into(), client_addr: None };
        self.anybody().browser_step(step).await.map(|answer| answer.view)
    }

    /// Begins a login and opens it in a browser.
    async fn opened(&self) -> (LoginBegun, BrowserAnswer, AnswerKey) {
        let key = AnswerKey::generate().unwrap();
        let octets: [u8; 32] = remoteler_core::fill_random(&OsEntropy);
        let ssh = ssh_key::public::KeyData::Ed25519(ssh_key::public::Ed25519PublicKey(octets));
        let begin = BeginLogin {
            connector: Some("corp".into()),
            redirect: None,
            ssh_public_key: ssh_key::PublicKey::from(ssh).to_openssh().unwrap(),
            tls_public_key: rcgen::KeyPair::generate().unwrap().public_key_pem(),
            answer_key: key.public(),
            ttl_seconds: None,
            host: "laptop".into(),
            client_addr: None,
        };
        let begun = self.anybody().begin_login(begin).await.unwrap();
        let open = BrowserAction::Open { id: begun.id.clone(), connector: None };
        let step = BrowserStep { step: open, browser: None, origin: ORIGIN.into(), client_addr: None };
        let answer = self.anybody().browser_step(step).await.unwrap();
        (begun, answer, key)
    }

    /// The same, and the browser is sent to the identity provider.
    async fn away(&self) -> Away {
        let (begun, answer, key) = self.opened().await;
        Self::sent(begun, answer, key)
    }

    /// The same for a test of a connector that is not written.
    async fn tested(&self, spec: Value) -> Away {
        let begun = self.admin().test_connector(document(spec)).await.unwrap();
        let open = BrowserAction::Open { id: begun.id.clone(), connector: None };
        let step = BrowserStep { step: open, browser: None, origin: ORIGIN.into(), client_addr: None };
        let answer = self.anybody().browser_step(step).await.unwrap();
        Self::sent(begun, answer, AnswerKey::generate().unwrap())
    }

    fn sent(begun: LoginBegun, answer: BrowserAnswer, key: AnswerKey) -> Away {
        let BrowserView::Redirect { to } = answer.view else { panic!("{:?}", answer.view) };
        let query = to.strip_prefix("https://idp.example.com/sso?tenant=1&").unwrap();
        let fields: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let octets = STANDARD.decode(&fields["SAMLRequest"]).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::DeflateDecoder::new(&*octets), &mut text).unwrap();
        let request = parse(&text);
        assert_eq!(request.attribute("AssertionConsumerServiceURL"), Some(CALLBACK));
        let request = request.attribute("ID").unwrap().to_owned();
        let browser = answer.set_browser.unwrap();
        Away { begun, key, browser, request, state: fields["RelayState"].clone() }
    }

    fn answer(&self, name: &str, request: &str) -> String {
        let text = template(name).replace(ACS, CALLBACK).replace(REQUEST, request);
        STANDARD.encode(write(&self.maker.signed(&text, &["_assertion"])))
    }

    async fn post(&self, response: &str, state: &str) -> Result<BrowserView, ApiError> {
        let fields = [("SAMLResponse", response), ("state", state)];
        let params = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        self.step(BrowserAction::Callback { connector: "corp".into(), params }, None).await
    }

    /// Follows where a posted answer leads, with a browser's cookie.
    async fn follow(&self, view: BrowserView, browser: Option<&Secret>) -> Result<BrowserView, ApiError> {
        let BrowserView::Redirect { to } = view else { panic!("{view:?}") };
        let state = to.strip_prefix("/web/callback/corp?state=").unwrap();
        let params = BTreeMap::from([("state".to_owned(), state.to_owned())]);
        self.step(BrowserAction::Callback { connector: "corp".into(), params }, browser).await
    }

    async fn progress(&self, away: &Away) -> LoginProgress {
        let poll = LoginPoll { id: away.begun.id.clone(), secret: away.begun.secret.clone() };
        self.anybody().poll_login(poll).await.unwrap()
    }

    async fn audited(&self) -> String {
        let page = self.admin().events(EventQuery::default()).await.unwrap();
        serde_json::to_string(&page).unwrap()
    }
}

fn denied(outcome: Result<BrowserView, ApiError>) -> String {
    let cause = outcome.expect_err("it is refused");
    assert_eq!(cause.kind, ApiErrorKind::Denied, "{}", cause.message);
    cause.message
}

// I36 I46
#[tokio::test]
async fn a_login_by_saml_ends_in_certificates_with_the_roles_of_its_attributes() {
    let world = World::new().await;
    let away = world.away().await;
    let posted = world.post(&world.answer("Ann@example.com", &away.request), &away.state).await.unwrap();
    let next = world.follow(posted, Some(&away.browser)).await.unwrap();
    assert_eq!(next, BrowserView::Redirect { to: format!("/web/login/{}/confirm", away.begun.id) });
    let id = || away.begun.id.clone();
    let shown = world.step(BrowserAction::Review { id: id() }, Some(&away.browser)).await.unwrap();
    let BrowserView::Confirm { user, code, token, .. } = shown else { panic!("{shown:?}") };
    assert_eq!((user.as_str(), code.as_str()), ("ann@example.com", away.begun.code.as_str()));
    world.step(BrowserAction::Decide { id: id(), token, approve: true }, Some(&away.browser)).await.unwrap();
    let LoginProgress::Ready { answer } = world.progress(&away).await else { panic!("it is confirmed") };
    let (grant, follow) = away.key.open(&away.begun.id, &answer).unwrap();
    let grant = Secret::new(std::str::from_utf8(&grant).unwrap());
    let redeem = RedeemLogin { id: id(), secret: away.begun.secret.clone(), grant, client_addr: None };
    let sealed = world.anybody().redeem_login(redeem).await.unwrap();
    let certs: UserCerts = serde_json::from_slice(&follow.open(&sealed.sealed).unwrap()).unwrap();
    assert_eq!(certs.roles.iter().map(ToString::to_string).collect::<Vec<_>>(), ["access"]);
    let audited = world.audited().await;
    assert!(audited.contains("\"method\":\"saml\"") && audited.contains("saml.created"), "{audited}");
    assert!(!audited.contains(&away.state) && !audited.contains(&away.request), "no state is in the audit log");
}

// I36
#[tokio::test]
async fn an_answer_counts_for_the_browser_that_began_the_login_and_no_other() {
    let world = World::new().await;
    // Somebody sends the victim's browser to the identity provider with a request of their own login, and waits.
    let mallory = world.away().await;
    let posted = world.post(&world.answer("victim@example.com", &mallory.request), &mallory.state).await.unwrap();
    // The victim's browser has no cookie of that login, or one of another.
    let victim = world.away().await;
    assert!(denied(world.follow(posted.clone(), Some(&victim.browser)).await).contains("another browser"));
    // It was taken with that: who waits gets nothing by it either.
    assert!(denied(world.follow(posted, Some(&mallory.browser)).await).contains("was used already"));
    let review = BrowserAction::Review { id: mallory.begun.id.clone() };
    assert!(world.step(review, Some(&mallory.browser)).await.is_err());
    assert_eq!(world.progress(&mallory).await, LoginProgress::Pending);
    let without = world.away().await;
    let posted = world.post(&world.answer("ann@example.com", &without.request), &without.state).await;
    // Another assertion of the same id is the same assertion.
    assert!(denied(posted).contains("used before"));
    assert!(world.audited().await.contains("another browser"));
}

// I46
#[tokio::test]
async fn an_answer_is_taken_once_and_for_the_request_that_it_answers() {
    let world = World::new().await;
    let (one, other) = (world.away().await, world.away().await);
    // The answer to one login shown for another.
    let answer = world.answer("ann@example.com", &one.request);
    let said = denied(world.post(&answer, &other.state).await);
    assert!(said.contains("does not answer this login"), "{said}");
    let LoginProgress::Refused { reason } = world.progress(&other).await else { panic!("it is over") };
    assert_eq!(reason, said);
    // In its place it is right, once.
    world.post(&answer, &one.state).await.unwrap();
    assert!(denied(world.post(&answer, &one.state).await).contains("was used already"));
    for state in ["", "x", &"a".repeat(200)] {
        assert!(denied(world.post(&answer, state).await).contains("was used already"));
    }
    // What is no answer by a form is none.
    let third = world.away().await;
    let params = BTreeMap::from([("state".to_owned(), third.state.clone())]);
    let by_url = BrowserAction::Callback { connector: "corp".into(), params };
    assert!(denied(world.step(by_url, Some(&third.browser)).await).contains("by a form"));
}

// I36 I46
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_post_one_answer_at_once_one_is_taken() {
    let world = Arc::new(World::new().await);
    let away = world.away().await;
    let answer = world.answer("ann@example.com", &away.request);
    let mut posts = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (world, answer, state) = (Arc::clone(&world), answer.clone(), away.state.clone());
        posts.spawn(async move { world.post(&answer, &state).await });
    }
    let (taken, refused): (Vec<_>, Vec<_>) = posts.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((taken.len(), refused.len()), (1, 15));
    for cause in refused {
        assert!(denied(cause).contains("was used already"));
    }
    // Nor does it lead on twice, in the right browser.
    let posted = taken.into_iter().next().unwrap().unwrap();
    let mut followed = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (world, posted, browser) = (Arc::clone(&world), posted.clone(), away.browser.clone());
        followed.spawn(async move { world.follow(posted, Some(&browser)).await });
    }
    let led = followed.join_all().await.into_iter().filter(Result::is_ok).count();
    assert_eq!(led, 1);
}

// I42 I45
#[tokio::test]
async fn a_connector_that_was_changed_or_disabled_counts_at_once() {
    let world = World::new().await;
    let away = world.away().await;
    let answer = world.answer("ann@example.com", &away.request);
    let mut changed = spec(&world.maker);
    changed["disabled"] = json!(true);
    world.admin().put_resource(document(changed), true).await.unwrap();
    assert!(denied(world.post(&answer, &away.state).await).contains("disabled"));
    // Another key of the provider: what the old one signed is not believed.
    world.admin().put_resource(document(spec(&Maker::new())), true).await.unwrap();
    let away = world.away().await;
    let answer = world.answer("ann@example.com", &away.request);
    assert!(denied(world.post(&answer, &away.state).await).contains("none of the 1 keys"));
    // Too late.
    let away = world.away().await;
    world.clock.advance(std::time::Duration::from_secs(601));
    assert!(denied(world.post("x", &away.state).await).contains("too late"));
}

#[tokio::test]
async fn a_document_that_describes_no_provider_is_refused_and_metadata_shows_our_key() {
    let world = World::new().await;
    let metadata = || async {
        let view = world.step(BrowserAction::SamlMetadata { connector: "corp".into() }, None).await.unwrap();
        let BrowserView::SamlMetadata { document } = view else { panic!("{view:?}") };
        document
    };
    let shown = metadata().await;
    assert!(shown.contains(CALLBACK) && shown.contains("X509Certificate"), "{shown}");
    assert_eq!(metadata().await, shown, "the key stays");
    let missing = world.step(BrowserAction::SamlMetadata { connector: "other".into() }, None).await;
    assert_eq!(missing.unwrap_err().kind, ApiErrorKind::NotFound);
    for (field, value, said) in [
        ("cert", json!("none"), "certificate does not parse"),
        ("cert", json!([]), "no certificate"),
        ("acs", json!("https://proxy.example.com/elsewhere"), "acs"),
        ("allow_idp_initiated", json!(true), "allow_idp_initiated"),
        ("signing_key_pair", json!({}), "signing_key_pair"),
    ] {
        let mut wrong = spec(&world.maker);
        wrong[field] = value;
        let cause = world.admin().put_resource(document(wrong), true).await.unwrap_err();
        assert!(cause.message.contains(said), "{}", cause.message);
    }
    let mut described = spec(&world.maker);
    for field in ["sso", "cert", "issuer"] {
        described.as_object_mut().unwrap().remove(field);
    }
    described["entity_descriptor"] = json!("<!DOCTYPE x><x/>");
    let cause = world.admin().put_resource(document(described), true).await.unwrap_err();
    assert!(cause.message.contains("a document type"), "{}", cause.message);
}

// I45 I46
#[tokio::test]
async fn a_connector_that_takes_encrypted_assertions_shows_a_key_and_believes_what_its_signed_responses_hold() {
    let world = World::new().await;
    let metadata = || async {
        let view = world.step(BrowserAction::SamlMetadata { connector: "corp".into() }, None).await.unwrap();
        let BrowserView::SamlMetadata { document } = view else { panic!("{view:?}") };
        document
    };
    let certificate = |metadata: &str| -> String {
        let key = metadata.split("use=\"encryption\"").nth(1).unwrap_or_else(|| panic!("{metadata}"));
        key.split("X509Certificate>").nth(1).unwrap().trim_end_matches("</ds:").to_owned()
    };
    // As a connector that was made before there was a key.
    assert!(!metadata().await.contains("use=\"encryption\""));
    let mut encrypting = spec(&world.maker);
    encrypting["encrypted_assertions"] = json!(true);
    world.admin().put_resource(document(encrypting.clone()), true).await.unwrap();
    let shown = metadata().await;
    assert_eq!(metadata().await, shown, "the key stays");
    let key = certificate(&shown);

    let answer_of = |maker: &Maker, key: &str, request: &str, signed: bool| {
        let text = template("ann@example.com").replace(ACS, CALLBACK).replace(REQUEST, request);
        let plain = parse(&text).elements().last().map(write).unwrap();
        let mut response = around(&text, &encrypted(key, &plain, USUAL));
        if signed {
            maker.sign(&mut response, "_response");
        }
        STANDARD.encode(write(&response))
    };
    let answer = |key: &str, request: &str, signed: bool| answer_of(&world.maker, key, request, signed);
    let away = world.away().await;
    let said = denied(world.post(&answer(&key, &away.request, false), &away.state).await);
    assert!(said.contains("sign the response"), "{said}");
    let away = world.away().await;
    let posted = world.post(&answer(&key, &away.request, true), &away.state).await.unwrap();
    let next = world.follow(posted, Some(&away.browser)).await.unwrap();
    assert_eq!(next, BrowserView::Redirect { to: format!("/web/login/{}/confirm", away.begun.id) });
    // It counts once, as one in the clear does.
    let again = world.away().await;
    assert!(denied(world.post(&answer(&key, &again.request, true), &again.state).await).contains("used before"));

    // A test brings a document of its own, and with it whose signatures count: the key works for the connector's identity provider alone.
    let stranger = Maker::new();
    let mut foreign = spec(&stranger);
    foreign["encrypted_assertions"] = json!(true);
    let test = world.tested(foreign).await;
    let said = denied(world.post(&answer_of(&stranger, &key, &test.request, true), &test.state).await);
    assert!(said.contains("there is no key for it"), "{said}");
    let test = world.tested(encrypting.clone()).await;
    let said = denied(world.post(&answer(&key, &test.request, true), &test.state).await);
    assert!(said.contains("used before"), "it was opened: {said}");

    // Turned off it is refused with what to do, and on again it is the same key; the connector takes its key with it.
    world.admin().put_resource(document(spec(&world.maker)), true).await.unwrap();
    let away = world.away().await;
    let said = denied(world.post(&answer(&key, &away.request, true), &away.state).await);
    assert!(said.contains("encrypted_assertions: true"), "{said}");
    world.admin().put_resource(document(encrypting.clone()), true).await.unwrap();
    assert_eq!(certificate(&metadata().await), key);
    // Another identity provider has another key, and so has another connector of the same name.
    let mut moved = encrypting.clone();
    moved["issuer"] = json!("https://other.example.com/saml");
    world.admin().put_resource(document(moved), true).await.unwrap();
    let key_of_other = certificate(&metadata().await);
    assert_ne!(key_of_other, key);
    world.admin().put_resource(document(encrypting.clone()), true).await.unwrap();
    assert!(![&key, &key_of_other].contains(&&certificate(&metadata().await)));
    let key = certificate(&metadata().await);
    world.admin().delete_resource(remoteler_core::ResourceKind::Saml, "corp".into()).await.unwrap();
    world.admin().put_resource(document(encrypting), false).await.unwrap();
    let fresh = certificate(&metadata().await);
    assert_ne!(fresh, key);
    let away = world.away().await;
    let said = denied(world.post(&answer(&key, &away.request, true), &away.state).await);
    assert!(said.contains("does not open with the key"), "{said}");
    let audited = world.audited().await;
    for said in ["sign the response", "used before", "encrypted_assertions: true", "does not open with the key"] {
        assert!(audited.contains(said), "{said}: {audited}");
    }
}

#[tokio::test]
async fn a_request_goes_by_the_binding_that_the_connector_prefers_and_the_provider_has() {
    let world = World::new().await;
    let mut posting = spec(&world.maker);
    posting["preferred_request_binding"] = json!("http-post");
    world.admin().put_resource(document(posting), true).await.unwrap();
    let view = world.opened().await.1.view;
    let BrowserView::Submit { to, fields } = view else { panic!("{view:?}") };
    assert_eq!(to, "https://idp.example.com/sso?tenant=1");
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["RelayState", "SAMLRequest"]);
    let request = String::from_utf8(STANDARD.decode(&fields["SAMLRequest"]).unwrap()).unwrap();
    let request = parse(&request);
    assert_eq!(request.attribute("Destination"), Some(to.as_str()));
    assert!(
        request.elements().any(|child| child.is("http://www.w3.org/2000/09/xmldsig#", "Signature")),
        "it is signed"
    );

    let idp = |sso: &[(Binding, &str)]| IdpMetadata {
        entity_id: "idp".into(),
        keys: Vec::new(),
        sso: sso.iter().map(|(binding, url)| (*binding, (*url).to_owned())).collect(),
        valid_until: None,
    };
    let spec = |wanted: &str| -> SamlSpec {
        let document = json!({
            "acs": CALLBACK, "entity_descriptor_url": "https://idp.example.com/m", "attributes_to_roles": [],
            "preferred_request_binding": wanted,
        });
        serde_json::from_value(document).unwrap()
    };
    let (get, post) = ((Binding::Redirect, "https://idp/get"), (Binding::Post, "https://idp/post"));
    for (wanted, has, taken) in [
        ("http-redirect", &[post, get][..], Some(get)),
        ("http-post", &[get, post], Some(post)),
        ("http-redirect", &[post], Some(post)),
        ("http-post", &[get], Some(get)),
        ("http-redirect", &[(Binding::Redirect, "http://idp/get"), post], Some(post)),
        ("http-redirect", &[(Binding::Redirect, "http://idp/get")], None),
    ] {
        assert_eq!(destination(&spec(wanted), &idp(has)), taken, "{wanted} {has:?}");
    }
}

// I39
#[test]
fn a_name_that_is_another_one_at_each_login_is_nobodys_account() {
    let maker = Maker::new();
    let mut said = maker.accept(&maker.response()).unwrap();
    let mut spec: SamlSpec = serde_json::from_value(spec(&maker)).unwrap();
    let (who, report) = identity("corp", &spec, said.clone()).unwrap();
    assert_eq!(who.username().as_str(), "ann@example.com");
    assert_eq!((report.subject.as_deref(), report.roles), (Some("ann@example.com"), vec!["access".to_owned()]));

    said.name_id = NameId {
        value: "_8f2a".into(),
        format: Some("urn:oasis:names:tc:SAML:2.0:nameid-format:transient".into()),
        name_qualifier: None,
        sp_name_qualifier: None,
    };
    assert!(identity("corp", &spec, said.clone()).unwrap_err().said.contains("persistent"));
    spec.username_attribute = Some("mail".into());
    assert!(identity("corp", &spec, said.clone()).unwrap_err().said.contains("attribute mail"));
    said.attributes.insert("mail".into(), vec!["ann@example.com".into(), "root@example.com".into()]);
    assert!(identity("corp", &spec, said.clone()).unwrap_err().said.contains("no single attribute"));
    said.attributes.insert("mail".into(), vec!["Ann@example.com".into()]);
    let (_, report) = identity("corp", &spec, said.clone()).unwrap();
    assert_eq!(report.subject.as_deref(), Some("Ann@example.com"));
    said.attributes.insert("mail".into(), vec!["änn@example.com".into()]);
    assert!(identity("corp", &spec, said).is_err());
}
