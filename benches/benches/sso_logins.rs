//! Whole logins by OpenID Connect against an auth service on a disk, at a steady rate that does not wait for them: begun by a client with keys of its own,
//! opened, proven at a provider in this process, confirmed, fetched. Prints how long they took besides the provider's own time, counted from when each
//! was due. `--bench` (as `cargo bench` says) takes 30 s at 50 a second; without it one second shows that it runs.

use std::{
    collections::HashMap,
    env,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, Response};
use remoteler_auth::{AuthConfig, AuthService, Caller, FetchError, Fetcher, SsoConfig};
use remoteler_client::KeyPairs;
use remoteler_core::{
    AnswerKey, BeginLogin, BrowserAction, BrowserStep, BrowserView, Clock, ClusterName, OsEntropy, RedeemLogin, Secret,
    SystemClock, UserCerts, fill_random,
};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinSet, time::sleep_until};

const RATE: u32 = 50;
const SECONDS: u32 = 30;
/// People who log in, one after the other.
const PEOPLE: u32 = 500;
const ISSUER: &str = "https://idp.example.com";
const ORIGIN: &str = "https://proxy.example.com";

fn main() -> anyhow::Result<()> {
    let seconds = if env::args().any(|arg| arg == "--bench") { SECONDS } else { 1 };
    let dir = tempfile::Builder::new().prefix("sso-logins").tempdir_in(".")?;
    let provider = Arc::new(Provider::new()?);
    Runtime::new()?.block_on(async {
        let cluster = ClusterName::new("bench.example.com")?;
        let mut config = AuthConfig::new(dir.path().join("data"), cluster);
        config.sso = SsoConfig { fetcher: Some(Arc::clone(&provider) as Arc<dyn Fetcher>) };
        let service = Arc::new(AuthService::open(config).await?);
        let connector = json!({
            "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
            "spec": {
                "issuer_url": ISSUER, "client_id": "remoteler", "client_secret": "s",
                "redirect_url": format!("{ORIGIN}/web/callback/idp"),
                "claims_to_roles": [{ "claim": "groups", "value": "ssh-*", "roles": ["access"] }],
            },
        });
        service.as_caller(Caller::LocalAdmin).put_resource(serde_json::from_value(connector)?, false).await?;
        // What the provider publishes is asked for once.
        log_in(&service, &provider, 0).await?;

        let begin = tokio::time::Instant::now();
        let mut running = JoinSet::new();
        for number in 0..RATE * seconds {
            let due = begin + Duration::from_secs(1) * number / RATE;
            sleep_until(due).await;
            let (service, provider) = (Arc::clone(&service), Arc::clone(&provider));
            running.spawn(async move {
                let besides = log_in(&service, &provider, number % PEOPLE).await?;
                anyhow::Ok(due.elapsed().saturating_sub(besides))
            });
        }
        let offered = begin.elapsed();
        let mut took = Vec::new();
        while let Some(one) = running.join_next().await {
            took.push(one??);
        }
        took.sort();
        let at = |share: f64| {
            let last = took.len() - 1;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a small number")]
            let place = (last as f64 * share).round() as usize;
            took.get(place).copied().unwrap_or_default().as_secs_f64() * 1000.0
        };
        println!(
            "sso_logins: {} logins in {:.1} s ({:.1} a second), ms besides the provider: median {:.1}, p90 {:.1}, p99 {:.1}, most {:.1}",
            took.len(),
            begin.elapsed().as_secs_f64(),
            f64::from(RATE * seconds) / offered.as_secs_f64(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
        );
        Ok(())
    })
}

/// One person's login; how long the provider took for it.
async fn log_in(service: &AuthService, provider: &Provider, person: u32) -> anyhow::Result<Duration> {
    let [_, a, b, c] = person.to_be_bytes();
    let api = service.as_caller(Caller::Anonymous { addr: SocketAddr::from(([10, a, b, c], 40_000)) });
    let (keys, key) = (KeyPairs::generate("bench")?, AnswerKey::generate()?);
    let begin = BeginLogin {
        connector: Some("idp".into()),
        redirect: Some("http://127.0.0.1:4711/callback".parse()?),
        ssh_public_key: keys.ssh_public.clone(),
        tls_public_key: keys.tls_public.clone(),
        answer_key: key.public(),
        ttl_seconds: None,
        host: "laptop".into(),
        client_addr: None,
    };
    let begun = api.begin_login(begin).await?;
    let step = |step, browser: Option<Secret>| BrowserStep { step, browser, origin: ORIGIN.into(), client_addr: None };
    let id = || begun.id.clone();
    let opened = api.browser_step(step(BrowserAction::Open { id: id(), connector: None }, None)).await?;
    let browser = opened.set_browser;
    let BrowserView::Redirect { to } = opened.view else { bail!("the browser is not sent away") };
    let (code, params) = provider.authorize(&to, person)?;
    let back = BrowserAction::Callback { connector: "idp".into(), params: params.into() };
    api.browser_step(step(back, browser.clone())).await?;
    let shown = api.browser_step(step(BrowserAction::Review { id: id() }, browser.clone())).await?.view;
    let BrowserView::Confirm { token, .. } = shown else { bail!("nothing is to be confirmed") };
    let decide = BrowserAction::Decide { id: id(), token, approve: true };
    let shown = api.browser_step(step(decide, browser)).await?.view;
    let BrowserView::Deliver { answer: Some(answer), .. } = shown else { bail!("there is no answer") };
    let (grant, follow) = key.open(&begun.id, &answer)?;
    let grant = Secret::new(std::str::from_utf8(&grant)?);
    let redeem = RedeemLogin { id: id(), secret: begun.secret.clone(), grant, client_addr: None };
    let certs: UserCerts = serde_json::from_slice(&follow.open(&api.redeem_login(redeem).await?.sealed)?)?;
    ensure!(!certs.ssh_certificate.is_empty(), "there are certificates");
    Ok(provider.time_for(&code))
}

/// A code that was given out.
struct Given {
    nonce: String,
    challenge: String,
    person: u32,
    took: Duration,
}

/// A provider that signs with ES256.
struct Provider {
    pair: EcdsaKeyPair,
    codes: Mutex<HashMap<String, Given>>,
}

impl Provider {
    fn new() -> anyhow::Result<Self> {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| anyhow!("no key can be made"))?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).map_err(|_| anyhow!("no key"))?;
        Ok(Self { pair, codes: Mutex::default() })
    }

    /// The browser's visit: a code, and what it brings back.
    fn authorize(&self, url: &str, person: u32) -> anyhow::Result<(String, [(String, String); 3])> {
        let begin = Instant::now();
        let query = url.split_once('?').context("a request has a query")?.1;
        let field = |name: &str| field(query, name).with_context(|| format!("{name} is missing"));
        let (nonce, challenge, state) = (field("nonce")?, field("code_challenge")?, field("state")?);
        let code = hex(&fill_random::<16>(&OsEntropy));
        let given = Given { nonce, challenge, person, took: begin.elapsed() };
        self.codes.lock().unwrap_or_else(PoisonError::into_inner).insert(code.clone(), given);
        let params = [("state", state), ("code", code.clone()), ("iss", ISSUER.to_owned())];
        Ok((code, params.map(|(name, value)| (name.to_owned(), value))))
    }

    fn time_for(&self, code: &str) -> Duration {
        let given = self.codes.lock().unwrap_or_else(PoisonError::into_inner).remove(code);
        given.map(|given| given.took).unwrap_or_default()
    }

    fn token(&self, body: &str) -> Option<Value> {
        let begin = Instant::now();
        let (code, verifier) = (field(body, "code")?, field(body, "code_verifier")?);
        let (nonce, person) = {
            let codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
            let given = codes.get(&code)?;
            if given.challenge != URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())) {
                return None;
            }
            (given.nonce.clone(), given.person)
        };
        let now = SystemClock.now().unix_seconds();
        let claims = json!({
            "iss": ISSUER, "aud": "remoteler", "sub": format!("subject-{person}"), "nonce": nonce, "iat": now, "exp": now + 300,
            "email": format!("person{person}@example.com"), "email_verified": true, "groups": ["ssh-users", "staff"],
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({ "alg": "ES256", "kid": "k" })), encode(&claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        let id_token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        if let Some(given) = self.codes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&code) {
            given.took += begin.elapsed();
        }
        Some(json!({ "id_token": id_token, "access_token": "t", "token_type": "Bearer" }))
    }
}

#[async_trait]
impl Fetcher for Provider {
    async fn fetch(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        let answer = match request.uri().path() {
            "/.well-known/openid-configuration" => Some(json!({
                "issuer": ISSUER,
                "authorization_endpoint": format!("{ISSUER}/auth"),
                "token_endpoint": format!("{ISSUER}/token"),
                "jwks_uri": format!("{ISSUER}/jwks"),
                "response_types_supported": ["code"],
                "authorization_response_iss_parameter_supported": true,
            })),
            "/jwks" => {
                let point = self.pair.public_key().as_ref();
                let part = |range| point.get(range).map(|octets| URL_SAFE_NO_PAD.encode(octets));
                let (x, y) = (part(1..33), part(33..65));
                Some(
                    json!({ "keys": [{ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k", "x": x, "y": y }] }),
                )
            }
            "/token" => self.token(&String::from_utf8_lossy(request.body())),
            _ => None,
        };
        let body = answer.ok_or_else(|| FetchError("refused".into()))?;
        Ok(Response::new(body.to_string().into_bytes()))
    }
}

/// A field of a query or form whose values here need no escapes.
fn field(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
