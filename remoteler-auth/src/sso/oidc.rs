//! Login by OpenID Connect: the request (authorization code with PKCE and nonce), and the judgement of everything that comes back (OpenID Connect Core section
//! 3.1, RFC 9207). Owns what providers published, for a while; opens no connection.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{Request, Response, header};
use remoteler_core::{ConnectorReport, DEFAULT_OIDC_SCOPES, OidcSpec, Secret, Timestamp};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    conclude::{Authenticated, LoginFault, Proven, ProviderIdentity, excerpt},
    jws::{JwsError, KeySet, Unique},
    mapping,
    records::{PendingState, ProviderSecrets},
    remembered::{Remembered, is_within},
};
use crate::{secret_hash, service::Inner};

/// Where a browser goes, `state` not yet added, and what the answer must fit to.
pub(super) struct Away {
    pub(super) url: String,
    pub(super) secrets: ProviderSecrets,
}

/// What a provider says of itself (OpenID Connect Discovery section 3).
#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    /// Where logins end (OpenID Connect RP-Initiated Logout 1.0 section 2.1).
    #[serde(default)]
    end_session_endpoint: Option<String>,
    #[serde(default)]
    response_types_supported: Vec<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// A provider as it was found last.
#[derive(Clone)]
struct Provider {
    metadata: Arc<Metadata>,
    keys: Arc<KeySet>,
    found: Timestamp,
    /// When its keys were fetched for a token whose key was unknown.
    rekeyed: Option<Timestamp>,
}

/// Providers by issuer, as found last.
#[derive(Default)]
pub(super) struct Providers(Remembered<Provider>);

/// So long what a provider published is believed without asking.
const FRESH: Duration = Duration::from_secs(300);
/// For a token whose key is unknown, keys are fetched again at most so often (I26).
const REKEY: Duration = Duration::from_secs(20);
/// How far clocks may differ.
const SKEW: i64 = 60;
/// How old a new token may be.
const MAX_TOKEN_AGE: i64 = 600;
/// Longest code of a provider.
const MAX_CODE: usize = 4096;
const AWAY: &str = "the identity provider did not answer as it should; try again, or tell an administrator";

impl Inner {
    /// Sends a request to a provider; anything but 200 is a fault.
    pub(super) async fn ask_provider(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, LoginFault> {
        let Some(fetcher) = &self.sso.config.fetcher else {
            return Err(LoginFault::said("this auth service asks no identity providers"));
        };
        let place = request.uri().host().unwrap_or_default().to_owned();
        let answer = fetcher.fetch(request).await;
        answer.map_err(|cause| LoginFault::with(AWAY, format!("{place}: {}", cause.0)))
    }

    async fn provider_json<T: for<'de> Deserialize<'de>>(
        &self,
        what: &str,
        request: Request<Vec<u8>>,
    ) -> Result<T, LoginFault> {
        let answer = self.ask_provider(request).await?;
        if !answer.status().is_success() {
            return Err(LoginFault::with(AWAY, format!("{what}: status {}", answer.status())));
        }
        // What does not parse is not repeated: tokens may be in it.
        serde_json::from_slice(answer.body())
            .map_err(|_| LoginFault::with(AWAY, format!("{what}: not the JSON it should be")))
    }

    async fn provider(&self, issuer: &str) -> Result<Provider, LoginFault> {
        let now = self.clock.now();
        let known = self.sso.providers.0.of(issuer);
        if let Some(known) = known.filter(|known| is_within(known.found, FRESH, now)) {
            return Ok(known);
        }
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let metadata: Metadata = self.provider_json("discovery", get(&url)?).await?;
        if metadata.issuer != issuer {
            return Err(LoginFault::with(AWAY, format!("its discovery says that it is {}", excerpt(&metadata.issuer))));
        }
        if !metadata.response_types_supported.iter().any(|kind| kind == "code") {
            return Err(LoginFault::with(AWAY, "it does not support the authorization code")); // I37
        }
        let endpoints = [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        for url in endpoints.into_iter().chain(&metadata.userinfo_endpoint) {
            https(url)?;
        }
        let keys = self.keys_of(&metadata).await?;
        let provider = Provider { metadata: Arc::new(metadata), keys: Arc::new(keys), found: now, rekeyed: None };
        self.sso.providers.0.keep(issuer, || provider.clone(), |known| *known = provider.clone());
        Ok(provider)
    }

    async fn keys_of(&self, metadata: &Metadata) -> Result<KeySet, LoginFault> {
        let answer = self.ask_provider(get(&metadata.jwks_uri)?).await?;
        if !answer.status().is_success() {
            return Err(LoginFault::with(AWAY, format!("its keys: status {}", answer.status())));
        }
        KeySet::parse(answer.body()).map_err(|cause| LoginFault::with(AWAY, cause))
    }

    /// The claims of a token; keys that are not known are asked for, now and then.
    async fn verified(&self, issuer: &str, provider: &Provider, token: &str) -> Result<Map<String, Value>, LoginFault> {
        let fault = |cause: JwsError| LoginFault::with("the identity provider's answer is not to be believed", cause);
        match provider.keys.verify(token) {
            Err(JwsError::NoKey) => {}
            other => return other.map_err(fault),
        }
        let now = self.clock.now();
        // Whoever comes first asks; the time is kept before the answer is there.
        let asked = self.sso.providers.0.look(issuer, |known| {
            let known = known.ok_or(JwsError::NoKey)?;
            if known.rekeyed.is_some_and(|last| is_within(last, REKEY, now)) {
                return known.keys.verify(token).map(Some);
            }
            known.rekeyed = Some(now);
            Ok(None)
        });
        if let Some(claims) = asked.map_err(fault)? {
            return Ok(claims);
        }
        let keys = Arc::new(self.keys_of(&provider.metadata).await?);
        self.sso.providers.0.look(issuer, |known| {
            if let Some(known) = known {
                known.keys = Arc::clone(&keys);
            }
        });
        keys.verify(token).map_err(fault)
    }

    /// The request that a browser takes to the provider.
    pub(super) async fn send_to_oidc(&self, spec: &OidcSpec, redirect_url: &str) -> Result<Away, LoginFault> {
        let provider = self.provider(&spec.issuer_url).await?;
        let (nonce, verifier) = (secret_hash::draw(self.entropy.as_ref()), secret_hash::draw(self.entropy.as_ref()));
        let scopes: Vec<&str> = match &spec.scope {
            Some(scopes) => scopes.iter().map(String::as_str).collect(),
            None => DEFAULT_OIDC_SCOPES.to_vec(),
        };
        let scope = std::iter::once("openid").chain(scopes.into_iter().filter(|scope| *scope != "openid"));
        let scope = scope.collect::<Vec<_>>().join(" ");
        let challenge = challenge(&verifier);
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", &spec.client_id),
            ("redirect_uri", redirect_url),
            ("scope", &scope),
            ("nonce", nonce.reveal()),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let max_age = spec.max_age_seconds().ok().flatten().map(|age| age.to_string());
        let optional = [("prompt", &spec.prompt), ("acr_values", &spec.acr_values), ("max_age", &max_age)];
        query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
        let url = with_query(&provider.metadata.authorization_endpoint, &query);
        Ok(Away { url, secrets: ProviderSecrets::Oidc { nonce, verifier } })
    }

    /// Where a login at the provider ends. It is told which client asks: with no token to show, it asks the person. `back` is where it sends the browser
    /// from there, an address that it knows beforehand, and the state that it brings along (OpenID Connect RP-Initiated Logout 1.0 section 2).
    pub(super) async fn end_of_oidc(
        &self,
        spec: &OidcSpec,
        back: Option<(String, Secret)>,
    ) -> Result<Option<String>, LoginFault> {
        let provider = self.provider(&spec.issuer_url).await?;
        let end = provider.metadata.end_session_endpoint.as_deref().filter(|url| https(url).is_ok());
        let mut asked = vec![("client_id", spec.client_id.as_str())];
        if let Some((url, state)) = &back {
            asked.extend([("post_logout_redirect_uri", url.as_str()), ("state", state.reveal())]);
        }
        Ok(end.map(|url| with_query(url, &asked)))
    }

    /// Whom the provider's answer proves (I37, I38).
    pub(super) async fn oidc_answer(
        &self,
        name: &str,
        spec: &OidcSpec,
        pending: &PendingState,
        params: &BTreeMap<String, String>,
    ) -> Result<Proven, LoginFault> {
        let ProviderSecrets::Oidc { nonce, verifier } = &pending.secrets else {
            return Err(LoginFault::said("the connector was changed meanwhile; start again with tsh login"));
        };
        let provider = self.provider(&spec.issuer_url).await?;
        let metadata = &provider.metadata;
        match params.get("iss") {
            Some(issuer) if *issuer != metadata.issuer => {
                return Err(LoginFault::said("the answer is of another identity provider than the one that was asked"));
            }
            None if metadata.authorization_response_iss_parameter_supported => {
                return Err(LoginFault::said("the answer does not say which identity provider it is of"));
            }
            _ => {}
        }
        if ["id_token", "access_token"].iter().any(|field| params.contains_key(*field)) {
            return Err(LoginFault::said("the identity provider answered by a flow that was not asked for"));
        }
        let code = params.get("code").filter(|code| !code.is_empty() && code.len() <= MAX_CODE);
        let code = code.ok_or_else(|| LoginFault::said("the identity provider's answer has no code"))?;
        let tokens = self.exchange_code(spec, metadata, code, verifier, &pending.redirect_url).await?;
        let claims = self.verified(&spec.issuer_url, &provider, &tokens.id_token).await?;
        let expected = Expected {
            issuer: &metadata.issuer,
            client: &spec.client_id,
            nonce: nonce.reveal(),
            acr: spec.acr_values.as_deref(),
            max_age: spec.max_age_seconds().ok().flatten(),
            now: self.clock.now().unix_seconds(),
        };
        let subject = check_claims(&claims, &expected)
            .map_err(|cause| LoginFault::with("the identity provider's answer is not to be believed", cause))?;
        let mut claims = claims;
        if spec.userinfo {
            self.add_userinfo(metadata, &tokens.access_token, &subject, &mut claims).await?;
        }
        let username = match spec.username_claim.as_deref() {
            None | Some("email") => mapping::username("email", &mapping::email(&claims, spec.allow_unverified_email)?)?,
            Some(claim) => match claims.get(claim) {
                Some(Value::String(text)) => mapping::username(claim, text)?,
                _ => {
                    return Err(LoginFault::said(format!(
                        "the identity provider gives no claim {claim}, which is to name the user"
                    )));
                }
            },
        };
        // Whatever names the user: an address that nobody vouches for gives no role and no account either (I39).
        if !spec.allow_unverified_email {
            mapping::drop_unverified_email(&mut claims);
        }
        let found = mapping::claims_of(&claims);
        let (roles, mappings) = mapping::roles_of(&found, &spec.claims_to_roles)?;
        let report = ConnectorReport {
            user: None,
            subject: Some(subject.clone()),
            claims: found.clone(),
            mappings,
            roles: roles.iter().map(ToString::to_string).collect(),
            refused: None,
        };
        let who = ProviderIdentity {
            method: "oidc".into(),
            connector: name.to_owned(),
            issuer: metadata.issuer.clone(),
            subject,
            username,
            roles,
            traits: mapping::traits_of(&found),
            terms: String::new(),
        };
        Ok((Authenticated::Provider(Box::new(who)), report))
    }

    async fn exchange_code(
        &self,
        spec: &OidcSpec,
        metadata: &Metadata,
        code: &str,
        verifier: &Secret,
        redirect_url: &str,
    ) -> Result<Tokens, LoginFault> {
        let secret = spec.client_secret.as_ref().map(Secret::reveal).unwrap_or_default();
        let methods = metadata.token_endpoint_auth_methods_supported.as_deref();
        let basic = methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"));
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_url),
            ("code_verifier", verifier.reveal()),
        ];
        let mut request = post(&metadata.token_endpoint)?;
        if basic {
            // RFC 6749 section 2.3.1: both are form-encoded before they are joined.
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encode(&spec.client_id), encode(secret));
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
        } else {
            form.extend([("client_id", spec.client_id.as_str()), ("client_secret", secret)]);
        }
        let tokens: Tokens = self.provider_json("the code's exchange", body(request, &form)?).await?;
        if !tokens.token_type.eq_ignore_ascii_case("bearer") {
            return Err(LoginFault::with(AWAY, "the code's exchange: an unknown type of token"));
        }
        Ok(tokens)
    }

    /// More claims; those of the signed token stay, and a userinfo of somebody else is refused (OpenID Connect Core section 5.3.2).
    async fn add_userinfo(
        &self,
        metadata: &Metadata,
        token: &Secret,
        subject: &str,
        claims: &mut Map<String, Value>,
    ) -> Result<(), LoginFault> {
        let url = metadata.userinfo_endpoint.as_deref();
        let url = url.ok_or_else(|| LoginFault::with(AWAY, "it has no userinfo"))?;
        let request = Request::get(https(url)?)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()))
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|_| LoginFault::with(AWAY, "its access token cannot be sent"))?;
        let Unique(more) = self.provider_json("userinfo", request).await?;
        if more.get("sub").and_then(Value::as_str) != Some(subject) {
            return Err(LoginFault::said("the identity provider's userinfo is of somebody else"));
        }
        mapping::add_claims(claims, more);
        Ok(())
    }
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Secret,
    token_type: String,
}

/// What an ID token must say.
struct Expected<'a> {
    issuer: &'a str,
    client: &'a str,
    nonce: &'a str,
    acr: Option<&'a str>,
    max_age: Option<u64>,
    now: i64,
}

/// The subject, if the token is for us, of now, and of this very request (OpenID Connect Core section 3.1.3.7). Each claim has its exact type (I38).
fn check_claims(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<String, &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let time = |name: &str| claims.get(name).and_then(Value::as_i64);
    if text("iss") != Some(expected.issuer) {
        return Err("iss is not the provider");
    }
    match claims.get("aud") {
        Some(Value::String(aud)) if aud == expected.client => {}
        Some(Value::Array(auds)) => {
            if auds.iter().any(|aud| !aud.is_string()) || !auds.iter().any(|aud| aud.as_str() == Some(expected.client))
            {
                return Err("aud is not us");
            }
            if auds.len() > 1 && text("azp") != Some(expected.client) {
                return Err("aud has others besides us, and azp is not us");
            }
        }
        _ => return Err("aud is not us"),
    }
    if claims.contains_key("azp") && text("azp") != Some(expected.client) {
        return Err("azp is not us");
    }
    match time("exp") {
        Some(end) if end > expected.now.saturating_sub(SKEW) => {}
        Some(_) => return Err("it has expired"),
        None => return Err("exp is no time"),
    }
    match time("iat") {
        Some(made) if made > expected.now.saturating_add(SKEW) => return Err("iat is in the future"),
        Some(made) if made < expected.now.saturating_sub(MAX_TOKEN_AGE) => return Err("iat is long ago"),
        Some(_) => {}
        None => return Err("iat is no time"),
    }
    if claims.contains_key("nbf") && time("nbf").is_none_or(|begin| begin > expected.now.saturating_add(SKEW)) {
        return Err("it is not valid yet");
    }
    if text("nonce") != Some(expected.nonce) {
        return Err("nonce is not that of the request");
    }
    if let Some(wanted) = expected.acr
        && !text("acr").is_some_and(|acr| wanted.split(' ').any(|wanted| wanted == acr))
    {
        return Err("acr is not what was asked for");
    }
    if let Some(max_age) = expected.max_age {
        let limit = expected.now.saturating_sub(i64::try_from(max_age).unwrap_or(i64::MAX)).saturating_sub(SKEW);
        match time("auth_time") {
            Some(at) if at > expected.now.saturating_add(SKEW) => return Err("auth_time is in the future"),
            Some(at) if at >= limit => {}
            Some(_) | None => return Err("the user proved who they are too long ago"),
        }
    }
    match text("sub") {
        Some(subject) if !subject.is_empty() && subject.len() <= 255 && !subject.chars().any(char::is_control) => {
            Ok(subject.to_owned())
        }
        _ => Err("sub is no subject"),
    }
}

/// PKCE's S256 (RFC 7636 section 4.2).
pub(super) fn challenge(verifier: &Secret) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.reveal().as_bytes()))
}

/// A URL with more in its query.
pub(super) fn with_query(url: &str, pairs: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{query}")
}

/// A URL that we go to or send to: `https`, and nothing in front of its host.
fn https(url: &str) -> Result<http::Uri, LoginFault> {
    let wrong = || LoginFault::with(AWAY, "it names an address that is no https URL");
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    let plain = uri.scheme_str() == Some("https") && !uri.authority().is_none_or(|all| all.as_str().contains('@'));
    if plain && !url.contains('#') { Ok(uri) } else { Err(wrong()) }
}

fn get(url: &str) -> Result<Request<Vec<u8>>, LoginFault> {
    let request = Request::get(https(url)?).header(header::ACCEPT, "application/json").body(Vec::new());
    request.map_err(|_| LoginFault::with(AWAY, "its address cannot be asked"))
}

pub(super) fn post(url: &str) -> Result<http::request::Builder, LoginFault> {
    Ok(Request::post(https(url)?)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded"))
}

pub(super) fn body(request: http::request::Builder, form: &[(&str, &str)]) -> Result<Request<Vec<u8>>, LoginFault> {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    request.body(form.into_bytes()).map_err(|_| LoginFault::with(AWAY, "the request cannot be written"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn expected() -> Expected<'static> {
        Expected { issuer: "https://idp", client: "us", nonce: "n", acr: None, max_age: None, now: NOW }
    }

    fn claims() -> Map<String, Value> {
        let good = json!({ "iss": "https://idp", "aud": "us", "sub": "s", "exp": NOW + 300, "iat": NOW, "nonce": "n" });
        good.as_object().unwrap().clone()
    }

    #[test]
    fn every_claim_that_is_wrong_missing_or_of_another_type_ends_the_login() {
        // I38
        assert_eq!(check_claims(&claims(), &expected()).as_deref(), Ok("s"));
        for (name, values) in [
            ("iss", vec![json!("https://idp/"), json!("https://evil"), json!(["https://idp"]), json!(null)]),
            (
                "aud",
                vec![
                    json!("them"),
                    json!([]),
                    json!(["them"]),
                    json!(["us", "them"]),
                    json!(["us", 1]),
                    json!({ "us": 1 }),
                ],
            ),
            ("azp", vec![json!("them"), json!(["us"]), json!(null)]),
            ("exp", vec![json!(NOW - 61), json!((NOW + 300).to_string()), json!(1.9e9), json!(null), json!(i64::MIN)]),
            ("iat", vec![json!(NOW + 61), json!(NOW - 601), json!(NOW.to_string()), json!(null)]),
            ("nbf", vec![json!(NOW + 61), json!("now"), json!(null)]),
            ("nonce", vec![json!("other"), json!(""), json!(["n"]), json!(null)]),
            ("sub", vec![json!(""), json!(7), json!("a\u{0}"), json!("x".repeat(256)), json!(null)]),
        ] {
            for value in values {
                let mut wrong = claims();
                wrong.insert(name.into(), value.clone());
                assert!(check_claims(&wrong, &expected()).is_err(), "{name} {value}");
            }
            let mut without = claims();
            if without.remove(name).is_some() {
                assert!(check_claims(&without, &expected()).is_err(), "without {name}");
            }
        }
        let mut several = claims();
        several.insert("aud".into(), json!(["us", "them"]));
        several.insert("azp".into(), json!("us"));
        assert!(check_claims(&several, &expected()).is_ok());
    }

    #[test]
    fn what_was_asked_of_the_proof_itself_must_be_vouched_for() {
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims.insert(name.into(), value);
            claims
        };
        let acr = Expected { acr: Some("silver gold"), ..expected() };
        assert!(check_claims(&claims(), &acr).is_err());
        assert!(check_claims(&with("acr", json!("bronze")), &acr).is_err());
        assert!(check_claims(&with("acr", json!("gold")), &acr).is_ok());
        let age = Expected { max_age: Some(3600), ..expected() };
        assert!(check_claims(&claims(), &age).is_err());
        assert!(check_claims(&with("auth_time", json!(NOW - 3700)), &age).is_err());
        assert!(check_claims(&with("auth_time", json!(NOW - 3600)), &age).is_ok());
        assert!(check_claims(&with("auth_time", json!(NOW + SKEW)), &age).is_ok());
        assert!(check_claims(&with("auth_time", json!(NOW + SKEW + 1)), &age).is_err());
    }

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        // I37
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn only_plain_https_addresses_are_gone_to() {
        // I43
        assert!(https("https://idp.example.com/auth?x=1").is_ok());
        for wrong in
            ["http://idp", "https://u:p@idp/", "javascript:alert(1)", "data:text/html,x", "//idp", "https://idp/#f", ""]
        {
            assert!(https(wrong).is_err(), "{wrong}");
        }
    }
}
