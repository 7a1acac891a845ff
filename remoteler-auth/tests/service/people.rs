//! Many people go through the pages at once, each from link to logout, while every step of theirs is meddled with by a seed. What must hold: no answer is a failure
//! of ours, nobody is in who did not earn it, and nothing of all that is kept. `REMOTELER_PAGES` says how many people, `REMOTELER_SEED` which run.

mod browser;
mod mischief;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::Router;
use http::{Method, StatusCode};
use remoteler_auth::{Caller, WebNames, web_router};
use remoteler_core::{
    AnswerKey, AuditKind, BeginLogin, Clock, LoginBegun, LoginPoll, LoginProgress, RedeemLogin, Resource, SealedCerts,
    Secret, UserCerts, UserName, wire,
};
use serde_json::json;
use tokio::sync::{Mutex, Semaphore};

use self::{
    browser::{Answer, Ask, Browser, Form, HOST, SESSION},
    mischief::{Dice, WITH_FORMS, WITH_PAGES},
};
use crate::{
    identity_provider::{ISSUER, Idp, cluster_with},
    mfa::app,
    support::{Cluster, begin_request, new_user},
};

const PASSWORD: &str = "vier tote ziegen im mai";
const LISTENER: &str = "http://127.0.0.1:4711/callback";
/// So many go through the pages at once.
const AT_ONCE: usize = 4;
/// Every so many people log in at the identity provider.
const AT_PROVIDER: u64 = 4;

/// What all of them share.
struct World {
    cluster: Cluster,
    router: Router,
    idp: Idp,
    /// The provider's double speaks with one browser at a time.
    at_idp: Mutex<()>,
}

struct Person {
    world: Arc<World>,
    name: String,
    browser: Browser,
    /// The cookie of somebody else.
    stranger: (String, String),
    dice: Dice,
    /// Secret of the authenticator app; who logs in at the provider has none.
    app: Option<Secret>,
    /// Seconds from now of which the next code is: each counts once, and near its time.
    code_at: i64,
}

/// What stands in front of the pages under way: where a login goes when it was proven.
#[derive(Clone, Copy)]
enum Towards<'a> {
    Confirm(&'a LoginBegun),
    Account,
}

impl Towards<'_> {
    fn is_reached(self, answer: &Answer) -> bool {
        match self {
            Self::Confirm(begun) => answer.location == wire::path(wire::WEB_LOGIN_CONFIRM, &begun.id),
            Self::Account => answer.set.get(SESSION).is_some_and(|session| !session.is_empty()),
        }
    }
}

impl Person {
    async fn new(world: Arc<World>, number: u64, seed: u64) -> Self {
        let [.., a, b, c] = number.to_be_bytes();
        let addr = SocketAddr::from(([10, a, b, c], 40_000));
        let mut other = Browser::new(&world.router, SocketAddr::from(([192, 0, 2, 77], 1)));
        other.send(other.get(wire::WEB_DEVICE)).await;
        let stranger = other.cookies.pop_first().unwrap();
        let at_provider = number.is_multiple_of(AT_PROVIDER);
        let name = if at_provider { format!("p{number}@example.com") } else { format!("person-{number}") };
        let browser = Browser::new(&world.router, addr);
        let dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let mut person = Self { world, name, browser, stranger, dice, app: None, code_at: -30 };
        if !at_provider {
            person.sign_up().await;
        }
        person
    }

    /// Looks at a page, after others tried to have it otherwise.
    async fn look(&mut self, path: &str) -> Answer {
        let honest = self.browser.get(path);
        self.meddle(&honest, WITH_PAGES, 1, |answer| answer.status == StatusCode::OK).await;
        self.browser.send(honest).await
    }

    /// Sends a request that does something once: after others tried it in wrong ways, sometimes twice at the same time, and then once more.
    async fn act(&mut self, honest: Ask, is_done: impl Fn(&Answer) -> bool) -> Answer {
        let with = if honest.method == Method::GET { WITH_PAGES } else { WITH_FORMS };
        self.meddle(&honest, with, 3, &is_done).await;
        let mut answers = if self.dice.roll(3) == 0 {
            let (one, other) = tokio::join!(self.browser.try_out(honest.clone()), self.browser.try_out(honest.clone()));
            vec![one, other]
        } else {
            vec![self.browser.try_out(honest.clone()).await]
        };
        let said: Vec<_> = answers.iter().map(|answer| (answer.status, answer.text.clone())).collect();
        let Some(at) = answers.iter().position(&is_done) else { panic!("{}: {honest:?}: {said:?}", self.name) };
        let done = answers.remove(at);
        self.browser.keep(&done);
        answers.push(self.browser.try_out(honest.clone()).await);
        assert!(!answers.iter().any(is_done), "{}: twice: {honest:?}: {said:?}", self.name);
        done
    }

    async fn meddle(
        &mut self,
        honest: &Ask,
        with: &[mischief::Mischief],
        count: usize,
        is_done: impl Fn(&Answer) -> bool,
    ) {
        for mischief in self.dice.draw(with, count) {
            let Some(meddled) = mischief.done_to(honest, &self.stranger) else { continue };
            let answer = self.browser.try_out(meddled).await;
            let shown = &honest.path;
            assert!(!is_done(&answer), "{}: {mischief:?} at {shown}: {}", self.name, answer.text);
            let session = answer.set.get(SESSION).filter(|session| !session.is_empty());
            assert!(session.is_none() && !answer.text.contains("answer="), "{mischief:?} at {shown}: {answer:?}");
            assert_ne!(answer.status, StatusCode::SEE_OTHER, "{mischief:?} at {shown}");
        }
    }

    /// From the link to an account with an authenticator.
    async fn sign_up(&mut self) {
        let invite =
            self.world.cluster.admin().create_user(new_user(&self.name, &["access"], &["root"])).await.unwrap();
        let path = wire::path(wire::WEB_INVITE, invite.token.reveal());
        let page = self.look(&path).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let secret = page.text.split("<code class=\"block\">").nth(1).unwrap().split('<').next().unwrap();
        self.app = Some(Secret::new(secret.replace(' ', "")));
        let code = self.code();
        let typed = [("password", PASSWORD), ("again", PASSWORD), ("code", code.as_str())];
        let form = self.browser.fill(&Form::of(&page, &path, &path), &typed);
        let done = self.act(form, |answer| answer.text.contains("class=\"codes\"")).await;
        assert!(done.text.contains(&format!("--user={}<", self.name)), "{}", done.text);
    }

    /// What the app shows; another one each time.
    fn code(&mut self) -> String {
        let Some(secret) = &self.app else { return String::new() };
        let now = self.world.cluster.clock.now().unix_seconds();
        let at = remoteler_core::Timestamp::from_unix_seconds(now + self.code_at);
        self.code_at += 30;
        app(secret, at).reveal().to_owned()
    }

    /// Proves who they are, from the page of a login onwards.
    async fn prove(&mut self, login: &str, towards: Towards<'_>) -> Answer {
        let page = self.look(login).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        if self.app.is_none() {
            return self.prove_at_provider(login, towards).await;
        }
        let code = self.code();
        let name = self.name.clone();
        let typed = [("user", name.as_str()), ("password", PASSWORD), ("code", code.as_str())];
        let form = Form::of(&page, login, &format!("{login}/local"));
        self.act(self.browser.fill(&form, &typed), |answer| towards.is_reached(answer)).await
    }

    async fn prove_at_provider(&mut self, login: &str, towards: Towards<'_>) -> Answer {
        let world = Arc::clone(&self.world);
        let _turn = world.at_idp.lock().await;
        let claims = json!({ "email": self.name, "email_verified": true, "groups": ["staff"] });
        let subject = json!({ "sub": self.name });
        world.idp.change(|provider| {
            provider.claims = claims;
            provider.wrong = subject.as_object().unwrap().clone();
        });
        if self.dice.roll(2) == 0 {
            // Somebody got hold of the answer and is first. It is of no use to them, and then to nobody.
            let stolen = self.away(login).await;
            let mut by_other = stolen.clone();
            by_other.cookies.insert(self.stranger.0.clone(), self.stranger.1.clone());
            for late in [by_other, stolen] {
                let answer = self.browser.try_out(late).await;
                assert!(answer.status == StatusCode::FORBIDDEN && !towards.is_reached(&answer), "{answer:?}");
            }
        }
        let honest = self.away(login).await;
        // To the callback of another connector, or from another browser, it would be taken.
        for (part, wrong) in [("state=", "state=0"), ("state=", "stat="), ("&state=", "&state=x&state=")] {
            let meddled = Ask { path: honest.path.replacen(part, wrong, 1), ..honest.clone() };
            let answer = self.browser.try_out(meddled).await;
            assert!(answer.status.is_client_error() && !towards.is_reached(&answer), "{part}: {answer:?}");
        }
        self.act(honest, |answer| towards.is_reached(answer)).await
    }

    /// To the provider; the request with which it sends the browser back.
    async fn away(&mut self, login: &str) -> Ask {
        let sent = self.browser.send(self.browser.get(&format!("{login}?connector=idp"))).await;
        assert!(sent.location.starts_with("https://idp.example.com/auth?"), "{sent:?}");
        let params = self.world.idp.authorize(&sent.location);
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&params).finish();
        self.browser.get(&format!("/web/callback/idp?{query}"))
    }

    /// A call of `tsh`, which has no cookies.
    async fn call(&self, path: &str, body: String) -> Answer {
        let headers = vec![("content-type", wire::JSON.to_owned())];
        let (method, cookies) = (Method::POST, BTreeMap::new());
        self.browser.try_out(Ask { method, headers, cookies, body: Some(body), ..self.browser.get(path) }).await
    }

    /// `tsh login`: certificates of their own, and of nobody else.
    async fn log_in(&mut self) {
        let key = AnswerKey::generate().unwrap();
        let begin = BeginLogin { redirect: Some(LISTENER.parse().unwrap()), ..begin_request(&key) };
        let mut foreign = json!(begin);
        foreign["redirect"] = json!("https://evil.example/callback");
        assert_eq!(self.call(wire::WEB_LOGINS, foreign.to_string()).await.status, StatusCode::BAD_REQUEST); // I40
        let begun = self.call(wire::WEB_LOGINS, json!(begin).to_string()).await;
        let begun: LoginBegun = serde_json::from_str(&begun.text).unwrap();
        let login = wire::path(wire::WEB_LOGIN_PAGE, &begun.id);
        self.prove(&login, Towards::Confirm(&begun)).await;
        let poll = json!(LoginPoll { id: begun.id.clone(), secret: begun.secret.clone() }).to_string();
        let polled = self.call(wire::WEB_LOGIN_POLL, poll).await;
        let progress: LoginProgress = serde_json::from_str(&polled.text).unwrap();
        assert_eq!(progress, LoginProgress::Pending, "nobody confirmed it");

        let confirm = wire::path(wire::WEB_LOGIN_CONFIRM, &begun.id);
        let page = self.look(&confirm).await;
        assert!(page.text.contains(&begun.code) && page.text.contains(&self.name), "{}", page.text); // I41
        let form = self.browser.fill(&Form::of(&page, &confirm, &confirm), &[("decision", "approve")]);
        let to = format!("url={LISTENER}?answer=");
        let done = self.act(form, |answer| answer.text.contains(&to)).await;
        let answer = done.text.split(&to).nth(1).unwrap().split('"').next().unwrap();
        let (grant, follow) = key.open(&begun.id, answer).unwrap();
        let grant = Secret::new(std::str::from_utf8(&grant).unwrap());
        let redeem = |grant: &Secret| {
            let (id, secret, grant) = (begun.id.clone(), begun.secret.clone(), grant.clone());
            json!(RedeemLogin { id, secret, grant, client_addr: None }).to_string()
        };
        let guessed = self.call(wire::WEB_LOGIN_REDEEM, redeem(&Secret::new("0".repeat(64)))).await;
        assert!(guessed.status.is_client_error(), "{guessed:?}");
        let sealed = self.call(wire::WEB_LOGIN_REDEEM, redeem(&grant)).await;
        let sealed: SealedCerts = serde_json::from_str(&sealed.text).unwrap();
        let certs: UserCerts = serde_json::from_slice(&follow.open(&sealed.sealed).unwrap()).unwrap();
        let user = self.world.cluster.verify(&certs.tls_certificate).user().unwrap();
        assert_eq!(user.identity().user, UserName::new(&self.name).unwrap());
        let again = self.call(wire::WEB_LOGIN_REDEEM, redeem(&grant)).await;
        assert!(again.status.is_client_error(), "{again:?}");
        assert_eq!(self.look(wire::WEB_LOGIN_DONE).await.status, StatusCode::OK);
    }

    /// Into the account page and out of it.
    async fn visit_account(&mut self) {
        let gate = self.look(wire::WEB_ACCOUNT).await;
        let path = format!("{}/login", wire::WEB_ACCOUNT);
        let form = self.browser.fill(&Form::of(&gate, wire::WEB_ACCOUNT, &path), &[]);
        let leads_on = |answer: &Answer| answer.text.contains("url=/web/login/");
        self.meddle(&form, WITH_FORMS, 3, leads_on).await;
        let onward = self.browser.send(form).await;
        let login = onward.text.split("url=").nth(1).unwrap().split('"').next().unwrap().to_owned();
        self.prove(&login, Towards::Account).await;
        let page = self.look(wire::WEB_ACCOUNT).await;
        let shown = [format!("You are {}.", self.name), format!("You are {}, ", self.name)];
        assert!(shown.iter().any(|shown| page.text.contains(shown)), "{}", page.text);
        // The cookie of the session alone is not the browser: a form of it is not taken from elsewhere (I52).
        let logout = format!("{}/logout", wire::WEB_ACCOUNT);
        let form = self.browser.fill(&Form::of(&page, wire::WEB_ACCOUNT, &logout), &[]);
        let ends = |answer: &Answer| answer.set.get(SESSION).is_some_and(String::is_empty);
        let session = self.browser.cookies[SESSION].clone();
        self.meddle(&form, WITH_FORMS, 3, ends).await;
        assert!(self.look(wire::WEB_ACCOUNT).await.text.contains("You are "), "others ended the session");
        assert!(ends(&self.browser.send(form).await) && !self.browser.cookies.contains_key(SESSION));
        self.browser.cookies.insert(SESSION.into(), session);
        assert!(!self.look(wire::WEB_ACCOUNT).await.text.contains("You are "), "a session that ended counts");
    }
}

fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

async fn world() -> World {
    let idp = Idp::new();
    let cluster = cluster_with(Arc::new(idp.clone())).await;
    let preference = json!({
        "kind": "cluster_auth_preference", "version": "v2", "metadata": { "name": "cluster-auth-preference" },
        "spec": { "second_factor": "otp" },
    });
    let connector = json!({
        "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
        "spec": {
            "issuer_url": ISSUER, "client_id": "remoteler", "client_secret": "canary-secret",
            "redirect_url": format!("https://{HOST}/web/callback/idp"),
            "claims_to_roles": [{ "claim": "groups", "value": "staff", "roles": ["access"] }],
        },
    });
    for document in [preference, connector] {
        let document: Resource = serde_json::from_value(document).unwrap();
        cluster.admin().put_resource(document, false).await.unwrap();
    }
    let service = cluster.service.clone();
    let names = WebNames::new(Some("proxy.example.com:443"), []);
    let router = web_router(Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr })), names);
    World { cluster, router, idp, at_idp: Mutex::default() }
}

/// How many records there are of each kind.
fn kept(cluster: &Cluster) -> BTreeMap<String, usize> {
    let store = rusqlite::Connection::open(cluster.dir.path().join("auth.sqlite")).unwrap();
    let mut keys = store.prepare("SELECT key FROM items").unwrap();
    let mut counts = BTreeMap::new();
    for key in keys.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        let kind = key.unwrap().split('/').next().unwrap().to_owned();
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

// I36 I50 I52 I54
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_get_through_the_pages_whatever_is_done_to_each_step_and_nobody_else_does() {
    let (people, seed) = (number("REMOTELER_PAGES", 8), number("REMOTELER_SEED", 5));
    eprintln!("REMOTELER_PAGES={people} REMOTELER_SEED={seed}");
    let world = Arc::new(world().await);
    let (before, places) = (kept(&world.cluster), Arc::new(Semaphore::new(AT_ONCE)));
    let mut under_way = tokio::task::JoinSet::new();
    for number in 0..people {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let world = Arc::clone(&world);
        under_way.spawn(async move {
            let _place = place;
            let mut person = Person::new(world, number, seed).await;
            person.log_in().await;
            person.visit_account().await;
            person.name
        });
    }
    let names = under_way.join_all().await;

    // Two logins of each were earned, and there were no others.
    let mut logins = BTreeMap::<String, usize>::new();
    for name in &names {
        logins.insert(name.clone(), 0);
    }
    for event in world.cluster.events("user.login").await {
        let AuditKind::UserLogin { user, success, .. } = event.kind else { panic!("{event:?}") };
        if success {
            *logins.get_mut(&user).unwrap() += 1;
        }
    }
    assert!(logins.values().all(|count| *count == 2), "{logins:?}");
    let users = world.cluster.admin().users().await.unwrap();
    assert_eq!(users.len(), names.len());

    // What they left behind is what an account is made of.
    let left = kept(&world.cluster);
    assert_eq!(left.get("web-sessions"), None, "everybody logged out: {left:?}");
    world.cluster.clock.advance(std::time::Duration::from_secs(2 * 24 * 3600));
    // What has ended goes with one of the next 64 changes.
    let role = json!({ "kind": "role", "version": "v7", "metadata": { "name": "later" }, "spec": {} });
    let role: Resource = serde_json::from_value(role).unwrap();
    for _ in 0..64 {
        world.cluster.admin().put_resource(role.clone(), true).await.unwrap();
    }
    let mut left = kept(&world.cluster);
    left.retain(|kind, count| {
        *count = count.saturating_sub(before.get(kind).copied().unwrap_or_default());
        *count > 0
    });
    let local = names.iter().filter(|name| !name.contains('@')).count();
    let accounts = [("users", names.len()), ("factors", local), ("sso-accounts", names.len() - local), ("roles", 1)];
    let accounts = accounts.into_iter().filter(|(_, count)| *count > 0).map(|(kind, count)| (kind.to_owned(), count));
    assert_eq!(left, accounts.collect());
}
