//! Whole logins by OpenID Connect against an auth service on a disk, at a steady rate that does not wait for them: begun by a client with keys of its own,
//! opened, proven at a provider in this process, confirmed, fetched. Prints how long they took besides the provider's own time, counted from when each
//! was due. `--bench` (as `cargo bench` says) takes 30 s at 50 a second; without it one second shows that it runs.

#[path = "sso/client.rs"]
mod client;
#[path = "sso/provider.rs"]
mod provider;

use std::{env, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::bail;
use async_trait::async_trait;
use http::{Request, Response};
use remoteler_auth::{AuthConfig, AuthService, Caller, FetchError, Fetcher, SsoConfig};
use remoteler_core::{AnswerKey, BrowserAction, BrowserStep, BrowserView, ClusterName, RedeemLogin, Secret};
use serde_json::json;
use tokio::{runtime::Runtime, task::JoinSet, time::sleep_until};

use self::provider::Provider;

const RATE: u32 = 50;
const SECONDS: u32 = 30;
/// People who log in, one after the other.
const PEOPLE: u32 = 500;
const ISSUER: &str = "https://idp.example.com";
const ORIGIN: &str = "https://proxy.example.com";

fn main() -> anyhow::Result<()> {
    let seconds = if env::args().any(|arg| arg == "--bench") { SECONDS } else { 1 };
    let dir = tempfile::Builder::new().prefix("sso-logins").tempdir_in(".")?;
    let provider = Arc::new(Provider::new(ISSUER.to_owned())?);
    Runtime::new()?.block_on(async {
        let cluster = ClusterName::new("bench.example.com")?;
        let mut config = AuthConfig::new(dir.path().join("data"), cluster);
        config.sso = SsoConfig { fetcher: Some(Arc::new(Answers(Arc::clone(&provider)))) };
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
        provider::print("sso_logins", took, offered, begin.elapsed());
        Ok(())
    })
}

/// One person's login; how long the provider took for it.
async fn log_in(service: &AuthService, provider: &Provider, person: u32) -> anyhow::Result<Duration> {
    let [_, a, b, c] = person.to_be_bytes();
    let api = service.as_caller(Caller::Anonymous { addr: SocketAddr::from(([10, a, b, c], 40_000)) });
    let key = AnswerKey::generate()?;
    let begun = api.begin_login(client::begin(&key)?).await?;
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
    client::received(&follow.open(&api.redeem_login(redeem).await?.sealed)?)?;
    Ok(provider.time_for(&code))
}

/// Answers in the process.
struct Answers(Arc<Provider>);

#[async_trait]
impl Fetcher for Answers {
    async fn fetch(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        let answer = self.0.answer(request.uri().path(), request.body());
        let body = answer.ok_or_else(|| FetchError("refused".into()))?;
        Ok(Response::new(body.to_string().into_bytes()))
    }
}
