//! Doubles of identity providers, as a fetcher without a network: one that speaks OpenID Connect and signs what it is told to, and one that has the answers of
//! GitHub's API. And a browser, which takes the steps of a login.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, Response};
use remoteler_auth::{FetchError, Fetcher, SsoConfig};
use remoteler_core::{
    AnswerKey, ApiError, AuthApi, BeginLogin, BrowserAction, BrowserAnswer, BrowserStep, BrowserView, FollowKey,
    LoginBegun, LoginPoll, LoginProgress, OsEntropy, RedeemLogin, Secret, UserCerts, fill_random,
};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Map, Value, json};

use crate::support::{Cluster, begin_request};

pub(crate) const ISSUER: &str = "https://idp.example.com";
pub(crate) const ORIGIN: &str = "https://proxy.example.com";
/// A clock that a test's cluster has at its start, in Unix seconds.
pub(crate) const START: i64 = 1_772_366_400;

/// A key that signs tokens.
pub(crate) struct SigningKey {
    pub(crate) kid: &'static str,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    pub(crate) fn new(kid: &'static str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self { kid, pair: EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": x, "y": y })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// What the provider answers with.
pub(crate) struct Provider {
    pub(crate) key: SigningKey,
    /// Keys that it publishes besides.
    pub(crate) published: bool,
    /// Claims besides those of the protocol.
    pub(crate) claims: Value,
    /// Changes made to the ID token's claims; `null` takes one out.
    pub(crate) wrong: Map<String, Value>,
    pub(crate) header: Option<Value>,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) userinfo: Value,
    /// From the last request, as a browser brought it.
    nonce: String,
    challenge: String,
    /// Codes that were given out and not exchanged.
    codes: Vec<String>,
    /// Paths that were asked.
    pub(crate) asked: Vec<String>,
    pub(crate) down: bool,
    pub(crate) mangle: Option<Mangle>,
}

/// Changes a whole answer, its status and its text, by the path that was asked.
pub(crate) type Mangle = Box<dyn Fn(&str, &mut u16, &mut String) + Send>;

/// A provider that speaks OpenID Connect.
#[derive(Clone)]
pub(crate) struct Idp(pub(crate) Arc<Mutex<Provider>>);

impl Idp {
    pub(crate) fn new() -> Self {
        let claims = json!({ "email": "ann@example.com", "email_verified": true, "groups": ["ssh-users", "staff"] });
        Self(Arc::new(Mutex::new(Provider {
            key: SigningKey::new("first"),
            published: true,
            claims,
            wrong: Map::new(),
            header: None,
            metadata: Map::new(),
            userinfo: json!({ "sub": "subject-1" }),
            nonce: String::new(),
            challenge: String::new(),
            codes: Vec::new(),
            asked: Vec::new(),
            down: false,
            mangle: None,
        })))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Provider)) {
        change(&mut self.0.lock().unwrap());
    }

    pub(crate) fn asked(&self, path: &str) -> usize {
        self.0.lock().unwrap().asked.iter().filter(|asked| *asked == path).count()
    }

    /// What the provider does with a browser: it looks at the request and gives a code.
    pub(crate) fn authorize(&self, url: &str) -> BTreeMap<String, String> {
        let query = pairs(url.split_once('?').unwrap().1.as_bytes());
        assert!(url.starts_with("https://idp.example.com/auth?"), "{url}");
        // I37
        assert_eq!((query["response_type"].as_str(), query["code_challenge_method"].as_str()), ("code", "S256"));
        assert!(query["nonce"].len() >= 32 && query["state"].len() >= 32, "{query:?}");
        let code: [u8; 8] = fill_random(&OsEntropy);
        let code = format!("{code:02x?}").replace(['[', ']', ',', ' '], "");
        let mut provider = self.0.lock().unwrap();
        provider.nonce = query["nonce"].clone();
        provider.challenge = query["code_challenge"].clone();
        provider.codes.push(code.clone());
        [("state", query["state"].clone()), ("code", code), ("iss", ISSUER.to_owned())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }
}

impl Provider {
    fn answer(&mut self, path: &str, request: &Request<Vec<u8>>) -> (u16, Value) {
        match path {
            "/.well-known/openid-configuration" | "/other/.well-known/openid-configuration" => {
                let mut document = json!({
                    "issuer": ISSUER,
                    "authorization_endpoint": "https://idp.example.com/auth",
                    "token_endpoint": "https://idp.example.com/token",
                    "userinfo_endpoint": "https://idp.example.com/me",
                    "jwks_uri": "https://idp.example.com/jwks",
                    "response_types_supported": ["code"],
                    "authorization_response_iss_parameter_supported": true,
                });
                document.as_object_mut().unwrap().extend(self.metadata.clone());
                (200, document)
            }
            "/jwks" => (200, json!({ "keys": if self.published { vec![self.key.jwk()] } else { vec![] } })),
            "/token" => self.token(request),
            "/me" => (200, self.userinfo.clone()),
            _ => (404, json!({})),
        }
    }

    fn token(&mut self, request: &Request<Vec<u8>>) -> (u16, Value) {
        let form = pairs(request.body());
        let secret = request.headers()["authorization"].to_str().unwrap();
        let known = self.codes.iter().position(|code| *code == form["code"]);
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, form["code_verifier"].as_bytes()));
        let right = secret == "Basic cmVtb3RlbGVyOmNhbmFyeS1zZWNyZXQ=" && challenge == self.challenge;
        let Some(at) = known.filter(|_| right) else { return (400, json!({ "error": "invalid_grant" })) };
        self.codes.remove(at);
        let mut claims = json!({
            "iss": ISSUER, "aud": "remoteler", "sub": "subject-1", "nonce": self.nonce, "iat": START, "exp": START + 300,
        });
        let members = claims.as_object_mut().unwrap();
        members.extend(self.claims.as_object().unwrap().clone());
        for (name, value) in &self.wrong {
            if value.is_null() {
                members.remove(name)
            } else {
                members.insert(name.clone(), value.clone())
            };
        }
        let header = self.header.clone().unwrap_or_else(|| json!({ "alg": "ES256", "kid": self.key.kid }));
        let id_token = self.key.sign(&header, &claims);
        (200, json!({ "id_token": id_token, "access_token": "canary-access-token", "token_type": "Bearer" }))
    }
}

#[async_trait]
impl Fetcher for Idp {
    async fn fetch(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        let uri = request.uri();
        assert_eq!((uri.scheme_str(), uri.host()), (Some("https"), Some("idp.example.com")));
        let path = uri.path().to_owned();
        let mut provider = self.0.lock().unwrap();
        provider.asked.push(path.clone());
        if provider.down {
            return Err(FetchError("connection refused at 10.0.0.7".into()));
        }
        let (mut status, body) = provider.answer(&path, &request);
        let mut body = body.to_string();
        if let Some(mangle) = &provider.mangle {
            mangle(&path, &mut status, &mut body);
        }
        Ok(Response::builder().status(status).body(body.into_bytes()).unwrap())
    }
}

/// Answers by method and path with its query; each with the next page, if there is one.
pub(crate) struct GithubDouble(pub(crate) Mutex<BTreeMap<String, (Value, Option<String>)>>);

#[async_trait]
impl Fetcher for GithubDouble {
    async fn fetch(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        let path = request.uri().path_and_query().unwrap().as_str();
        if request.uri().host() == Some("github.com") {
            assert_eq!(path, "/login/oauth/access_token");
            let form = pairs(request.body());
            let right =
                form["client_secret"] == "canary-secret" && form["code"] == "c" && form.contains_key("code_verifier");
            let token = json!({ "access_token": "canary-access-token", "token_type": "bearer" });
            let body = if right { token } else { json!({ "error": "bad_verification_code" }) };
            return Ok(Response::new(body.to_string().into_bytes()));
        }
        assert_eq!(request.uri().host(), Some("api.github.com"));
        assert_eq!(request.headers()["authorization"], "Bearer canary-access-token");
        let mut response = Response::builder();
        let answers = self.0.lock().unwrap();
        let Some((body, next)) = answers.get(path) else {
            return Ok(response.status(404).body(b"{}".to_vec()).unwrap());
        };
        if let Some(next) = next {
            response = response.header("link", format!("<https://api.github.com{next}>; rel=\"next\""));
        }
        Ok(response.body(body.to_string().into_bytes()).unwrap())
    }
}

fn pairs(text: &[u8]) -> BTreeMap<String, String> {
    form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// A cluster that logs in by this provider.
pub(crate) async fn cluster_with(fetcher: Arc<dyn Fetcher>) -> Cluster {
    Cluster::with_sso(SsoConfig { fetcher: Some(fetcher) }).await
}

/// One login and its browser.
pub(crate) struct Attempt {
    pub(crate) api: Arc<dyn AuthApi>,
    pub(crate) begun: LoginBegun,
    key: Option<AnswerKey>,
    pub(crate) browser: Option<Secret>,
}

impl Attempt {
    /// Begins one; `loopback` whether its answer goes to a listener.
    pub(crate) async fn begin(
        api: Arc<dyn AuthApi>,
        connector: Option<&str>,
        loopback: bool,
    ) -> Result<Self, ApiError> {
        let key = AnswerKey::generate().unwrap();
        let request = BeginLogin {
            connector: connector.map(str::to_owned),
            redirect: loopback.then(|| "http://127.0.0.1:4711/callback".parse().unwrap()),
            ..begin_request(&key)
        };
        let begun = api.begin_login(request).await?;
        Ok(Self { api, begun, key: Some(key), browser: None })
    }

    pub(crate) fn of_test(api: Arc<dyn AuthApi>, begun: LoginBegun) -> Self {
        Self { api, begun, key: None, browser: None }
    }

    pub(crate) async fn step(&mut self, step: BrowserAction) -> Result<BrowserView, ApiError> {
        let step = BrowserStep { step, browser: self.browser.clone(), origin: ORIGIN.into(), client_addr: None };
        let BrowserAnswer { view, set_browser } = self.api.browser_step(step).await?;
        self.browser = set_browser.or(self.browser.take());
        Ok(view)
    }

    /// Opens the login's page; where the browser is sent to.
    pub(crate) async fn open(&mut self) -> Result<String, ApiError> {
        let id = self.begun.id.clone();
        let open = |connector| BrowserAction::Open { id: id.clone(), connector };
        let mut shown = self.step(open(None)).await?;
        // Beside the form of local users there is one connector to choose.
        if let BrowserView::Choose { connectors, local: Some(_), .. } = &shown
            && let [only] = connectors.as_slice()
        {
            shown = self.step(open(Some(only.name.clone()))).await?;
        }
        let BrowserView::Redirect { to } = shown else { panic!("{shown:?}") };
        Ok(to)
    }

    pub(crate) async fn come_back(
        &mut self,
        connector: &str,
        params: BTreeMap<String, String>,
    ) -> Result<BrowserView, ApiError> {
        self.step(BrowserAction::Callback { connector: connector.into(), params }).await
    }

    /// All the way to the page that asks for confirmation.
    pub(crate) async fn prove(&mut self, idp: &Idp) -> Result<BrowserView, ApiError> {
        let away = self.open().await?;
        self.come_back("idp", idp.authorize(&away)).await
    }

    pub(crate) async fn review(&mut self) -> Result<BrowserView, ApiError> {
        self.step(BrowserAction::Review { id: self.begun.id.clone() }).await
    }

    /// Looks at the page and decides.
    pub(crate) async fn decide(&mut self, approve: bool) -> Result<BrowserView, ApiError> {
        let BrowserView::Confirm { token, code, .. } = self.review().await? else { panic!() };
        assert_eq!(code, self.begun.code); // I41
        self.step(BrowserAction::Decide { id: self.begun.id.clone(), token, approve }).await
    }

    pub(crate) async fn poll(&self) -> Result<LoginProgress, ApiError> {
        self.api.poll_login(LoginPoll { id: self.begun.id.clone(), secret: self.begun.secret.clone() }).await
    }

    /// What the client makes of a sealed answer.
    pub(crate) fn open_answer(&mut self, answer: &str) -> (Secret, FollowKey) {
        let (grant, follow) = self.key.take().unwrap().open(&self.begun.id, answer).unwrap();
        (Secret::new(String::from_utf8(grant.to_vec()).unwrap()), follow)
    }

    pub(crate) async fn redeem(&self, grant: &Secret, follow: &FollowKey) -> Result<UserCerts, ApiError> {
        let request = RedeemLogin {
            id: self.begun.id.clone(),
            secret: self.begun.secret.clone(),
            grant: grant.clone(),
            client_addr: None,
        };
        let sealed = self.api.redeem_login(request).await?.sealed;
        Ok(serde_json::from_slice(&follow.open(&sealed).unwrap()).unwrap())
    }

    /// Confirms and fetches the certificates.
    pub(crate) async fn finish(&mut self) -> Result<UserCerts, ApiError> {
        let shown = self.decide(true).await?;
        let BrowserView::Deliver { answer, .. } = &shown else { panic!("{shown:?}") };
        let answer = answer.clone().unwrap();
        let (grant, follow) = self.open_answer(&answer);
        self.redeem(&grant, &follow).await
    }
}
