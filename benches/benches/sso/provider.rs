//! An identity provider of OpenID Connect for benches: signs with ES256, believes whoever comes, and says how long it took for each login, so that this can be
//! taken out. Whoever includes it brings requests to it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use remoteler_core::{Clock, OsEntropy, SystemClock, fill_random};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

/// A code that was given out.
struct Given {
    nonce: String,
    challenge: String,
    person: u32,
    took: Duration,
}

/// A provider that signs with ES256.
pub(crate) struct Provider {
    issuer: String,
    pair: EcdsaKeyPair,
    codes: Mutex<HashMap<String, Given>>,
}

impl Provider {
    pub(crate) fn new(issuer: String) -> anyhow::Result<Self> {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| anyhow!("no key can be made"))?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).map_err(|_| anyhow!("no key"))?;
        Ok(Self { issuer, pair, codes: Mutex::default() })
    }

    /// The browser's visit: a code, and what it brings back.
    pub(crate) fn authorize(&self, url: &str, person: u32) -> anyhow::Result<(String, [(String, String); 3])> {
        let begin = Instant::now();
        let query = url.split_once('?').context("a request has a query")?.1;
        let field = |name: &str| field(query, name).with_context(|| format!("{name} is missing"));
        let (nonce, challenge, state) = (field("nonce")?, field("code_challenge")?, field("state")?);
        let code = hex(&fill_random::<16>(&OsEntropy));
        let given = Given { nonce, challenge, person, took: begin.elapsed() };
        self.codes.lock().unwrap_or_else(PoisonError::into_inner).insert(code.clone(), given);
        let params = [("state", state), ("code", code.clone()), ("iss", self.issuer.clone())];
        Ok((code, params.map(|(name, value)| (name.to_owned(), value))))
    }

    /// How long it took for the login of this code, which is forgotten.
    pub(crate) fn time_for(&self, code: &str) -> Duration {
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
            "iss": self.issuer, "aud": "remoteler", "sub": format!("subject-{person}"), "nonce": nonce, "iat": now, "exp": now + 300,
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

    /// The answer to a request; `None` for what is refused.
    pub(crate) fn answer(&self, path: &str, body: &[u8]) -> Option<Value> {
        let issuer = &self.issuer;
        match path {
            "/.well-known/openid-configuration" => Some(json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/auth"),
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": format!("{issuer}/jwks"),
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
            "/token" => self.token(&String::from_utf8_lossy(body)),
            _ => None,
        }
    }
}

/// A field of a query or form whose values here need no escapes.
fn field(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Prints how long logins took besides the provider, whose `due` times were spread over `offered`.
pub(crate) fn print(name: &str, mut took: Vec<Duration>, offered: Duration, all: Duration) {
    took.sort();
    let at = |share: f64| {
        let last = took.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a small number"
        )]
        let place = (last as f64 * share).round() as usize;
        took.get(place).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let rate = took.len() as f64 / offered.as_secs_f64();
    println!(
        "{name}: {} logins in {:.1} s ({rate:.1} a second), ms besides the provider: median {:.1}, p90 {:.1}, p99 {:.1}, most {:.1}",
        took.len(),
        all.as_secs_f64(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
    );
}
