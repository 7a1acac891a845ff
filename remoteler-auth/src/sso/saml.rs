//! Login by SAML: connectors and logins around the engine of [`crate::saml`]. Owns the keys that sign requests, what identity providers published, and the two
//! steps in which an answer is taken: it is posted by another site, without our cookie (SameSite=Lax), and judged; then the browser comes
//! back to us with its cookie and a state of its own, and only the browser that began the login goes on (I36).

mod encryption;
mod keys;
mod published;

use std::collections::BTreeMap;

use http::Request;
use remoteler_ca::StoredSamlKey;
use remoteler_core::{BrowserView, ConnectorReport, SamlRequestBinding, SamlSpec, Secret, Timestamp};

use self::published::Known;
pub(super) use self::{
    keys::{KeyTurns, MadeKeys},
    published::Providers,
};
use super::{
    conclude::{Authenticated, LoginFault, Proven, ProviderIdentity},
    connectors::Connector,
    mapping,
    oidc::Away,
    records::{Asked, GONE, LoginRecord, PendingState, ProviderSecrets, Stage},
};
use crate::{
    blocking::blocking,
    failure::{ApiResult, denied, not_found},
    records::key,
    saml::{
        AuthnRequest, Binding, Expected, IdpMetadata, MetadataError, SamlClaims, ServiceProvider, SpMetadata, UseError,
        decode_form_field, use_once,
    },
    secret_hash,
    service::Inner,
};

/// The field of the form that an identity provider posts.
pub(super) const FIELD: &str = "SAMLResponse";
const UNUSABLE: &str = "the identity provider's metadata cannot be used; tell an administrator";

/// Reads what a document says of its identity provider, where that needs no question.
pub(super) fn check(spec: &SamlSpec) -> Result<(), String> {
    // As of no time: that metadata is over is said at a login.
    described(spec, Timestamp::default()).map(drop).map_err(|cause| cause.to_string())
}

/// The identity provider, if the document itself describes it.
fn described(spec: &SamlSpec, now: Timestamp) -> Result<Option<IdpMetadata>, MetadataError> {
    if let Some(text) = &spec.entity_descriptor {
        return IdpMetadata::parse(text.as_bytes(), now).map(Some);
    }
    match (&spec.issuer, &spec.sso, &spec.cert) {
        (Some(issuer), Some(sso), Some(certificates)) => {
            IdpMetadata::by_hand(issuer, sso, certificates.iter()).map(Some)
        }
        _ => Ok(None),
    }
}

/// Who an answer proved, once the browser is back.
pub(super) fn proven(pending: &PendingState) -> Result<Proven, LoginFault> {
    match &pending.secrets {
        ProviderSecrets::SamlProven { who, report } => Ok((who.clone(), report.as_ref().clone())),
        ProviderSecrets::Oidc { .. } | ProviderSecrets::Github { .. } | ProviderSecrets::Saml { .. } => {
            Err(LoginFault::said("the identity provider did not answer by a form, as SAML has it"))
        }
    }
}

impl Inner {
    /// What the identity provider needs to know of us. Anybody may: there is nothing secret in it.
    pub(super) async fn saml_metadata(&self, name: &str) -> ApiResult<BrowserView> {
        let found = self.connector(name).await?;
        let Some(Connector::Saml { name, spec }) = found else {
            return Err(not_found("there is no such connector of SAML"));
        };
        let signing = match self.records.read::<StoredSamlKey>(&key::of(key::SAML_KEYS, &name)).await? {
            Some(stored) => stored.certificate,
            None => self.saml_key(&name).await?.certificate().to_owned(),
        };
        let acs: Vec<String> = spec.acs.iter().map(str::to_owned).collect();
        let entity_id = spec.entity_id(&name);
        let encryption = self.saml_encryption_certificate(&name, &spec).await?;
        let encryption = encryption.as_deref();
        let metadata = SpMetadata { entity_id: &entity_id, acs: &acs, certificate: &signing, encryption };
        let document = metadata.document().map_err(|cause| not_found(cause.to_string()))?;
        Ok(BrowserView::SamlMetadata { document: String::from_utf8_lossy(&document).into_owned() })
    }

    /// The identity provider of a connector: as the document says, or as the URL in it does.
    async fn saml_idp(&self, spec: &SamlSpec) -> Result<IdpMetadata, LoginFault> {
        let now = self.clock.now();
        let described = described(spec, now).map_err(|cause| LoginFault::with(UNUSABLE, cause))?;
        let found = match (described, &spec.entity_descriptor_url) {
            (Some(found), _) => found,
            (None, Some(url)) => self.published(url, now).await?,
            (None, None) => return Err(LoginFault::said(UNUSABLE)),
        };
        if spec.issuer.as_ref().is_some_and(|issuer| *issuer != found.entity_id) {
            return Err(LoginFault::with(UNUSABLE, "it is of another entity than the connector's issuer"));
        }
        Ok(found)
    }

    /// Metadata from a URL, which the seam to providers asks (I43).
    async fn published(&self, url: &str, now: Timestamp) -> Result<IdpMetadata, LoginFault> {
        let known = self.sso.saml.of(url);
        let stale = match known.at(now) {
            Known::Fresh(metadata) => return Ok(metadata),
            Known::Silent(stale) => {
                return stale.ok_or_else(|| LoginFault::with(UNUSABLE, "its URL gave none a moment ago"));
            }
            Known::Old(stale) => stale,
        };
        match self.fetch_metadata(url, now).await {
            Ok(metadata) => {
                self.sso.saml.found(url, metadata.clone(), now);
                Ok(metadata)
            }
            Err(cause) => {
                self.sso.saml.failed(url, now);
                stale.ok_or(cause)
            }
        }
    }

    async fn fetch_metadata(&self, url: &str, now: Timestamp) -> Result<IdpMetadata, LoginFault> {
        let request = Request::get(url).body(Vec::new());
        let request = request.map_err(|_| LoginFault::with(UNUSABLE, "its URL is none"))?;
        let answer = self.ask_provider(request).await?;
        if !answer.status().is_success() {
            return Err(LoginFault::with(UNUSABLE, format!("status {}", answer.status())));
        }
        IdpMetadata::parse(answer.body(), now).map_err(|cause| LoginFault::with(UNUSABLE, cause))
    }

    /// What the answer of a provider must fit to; the request itself follows when its state is known.
    pub(super) fn send_to_saml(&self) -> Away {
        // An id begins with a letter or an underscore (XML Schema, NCName).
        let request = format!("_{}", secret_hash::draw(self.entropy.as_ref()).reveal());
        Away { url: String::new(), secrets: ProviderSecrets::Saml { request } }
    }

    /// Where the browser goes with the signed request: a URL, or a form that it posts.
    pub(super) async fn saml_request(
        &self,
        name: &str,
        spec: &SamlSpec,
        asked: &Asked,
        pending: &PendingState,
        state: &Secret,
    ) -> Result<BrowserView, LoginFault> {
        let ProviderSecrets::Saml { request: id } = &pending.secrets else {
            return Err(LoginFault::said("the connector was changed meanwhile; start again with tsh login"));
        };
        let idp = self.saml_idp(spec).await?;
        let Some((binding, destination)) = destination(spec, &idp) else {
            return Err(LoginFault::with(UNUSABLE, "it takes no requests by HTTP-Redirect or HTTP-POST over https"));
        };
        let signer = self.saml_key_for(name, asked).await.map_err(|cause| LoginFault::said(cause.message))?;
        let request = AuthnRequest {
            id,
            now: self.clock.now(),
            destination,
            acs: &pending.redirect_url,
            issuer: &spec.entity_id(name),
            force_authn: spec.force_authn,
        };
        let made = match binding {
            Binding::Redirect => request.redirect(state.reveal(), &signer).map(|to| BrowserView::Redirect { to }),
            Binding::Post => request.post(state.reveal(), &signer).map(|form| BrowserView::Submit {
                to: form.action,
                fields: BTreeMap::from([
                    ("SAMLRequest".to_owned(), form.saml_request),
                    ("RelayState".to_owned(), form.relay_state),
                ]),
            }),
        };
        made.map_err(|cause| LoginFault::said(cause.to_string()))
    }

    /// Judges what was posted. The state was taken with it; who is right gets another one, by which this browser comes back with its cookie: the login's own
    /// browser goes on from there, and no other, so that nobody ends another's login with an answer of their own, or their own with another's.
    pub(super) async fn saml_posted(
        &self,
        record: LoginRecord,
        pending: PendingState,
        params: &BTreeMap<String, String>,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        if record.browser.as_ref() != Some(&pending.browser) {
            return Err(self.refuse_stranger(&record, super::steps::OTHER_BROWSER, from).await?);
        }
        if !matches!(record.stage, Stage::Open) {
            return Err(denied(GONE));
        }
        let field = params.get(FIELD).map(String::as_str).unwrap_or_default();
        match self.saml_answer(&record, &pending, field).await {
            Ok((who, report)) => {
                let to = format!("/web/callback/{}?state=", pending.connector);
                let secrets = ProviderSecrets::SamlProven { who, report: Box::new(report) };
                let state = self.remember_state(&PendingState { secrets, ..pending }).await?;
                Ok(BrowserView::Redirect { to: to + state.reveal() })
            }
            Err(cause) => Err(self.login_failed(&pending.login, &pending.connector, cause).await?),
        }
    }

    /// Whom a response proves (I45 to I47).
    async fn saml_answer(
        &self,
        record: &LoginRecord,
        pending: &PendingState,
        field: &str,
    ) -> Result<Proven, LoginFault> {
        let connector = match &record.asked {
            Asked::Report(document) => Connector::parse(document.as_ref().clone()),
            Asked::Certificates { .. } | Asked::Account => self.usable_connector(&pending.connector).await,
        };
        let connector = connector.map_err(|cause| LoginFault::said(cause.message))?;
        let (Connector::Saml { name, spec }, ProviderSecrets::Saml { request }) = (&connector, &pending.secrets) else {
            return Err(LoginFault::said("the connector was changed meanwhile; start again with tsh login"));
        };
        let idp = self.saml_idp(spec).await?;
        let now = self.clock.now();
        let octets = decode_form_field(field).map_err(|cause| LoginFault::said(cause.to_string()))?;
        // The key is opened only for what may need it.
        let encrypted = octets.windows(ENCRYPTED.len()).any(|octets| octets == ENCRYPTED);
        let decrypter = match encrypted {
            true => self.lend_saml_decrypter(name, spec, &record.asked).await,
            false => Ok(None),
        };
        let decrypter = decrypter.map_err(|cause| LoginFault::said(cause.message))?;
        if encrypted && spec.encrypted_assertions && decrypter.is_none() {
            return Err(LoginFault::said(NO_KEY));
        }
        let us = ServiceProvider {
            acs: pending.redirect_url.clone(),
            audiences: vec![spec.audience.clone().unwrap_or_else(|| spec.entity_id(name))],
            issuer: idp.entity_id,
            keys: idp.keys,
            allow_unsolicited: false,
            decrypter,
        };
        let request = request.clone();
        // Up to 256 KiB of XML and a dozen signatures: some milliseconds, away from the threads that wait for sockets.
        let believed = blocking(move || us.accept(&octets, Expected { request: Some(&request), now })).await;
        let claims = believed.map_err(|cause| LoginFault::said(cause.to_string()))?;
        use_once(self.records.storage(), &claims, now).await.map_err(|cause| match cause {
            UseError::Refused(cause) => LoginFault::said(cause.to_string()),
            UseError::Storage(cause) => LoginFault::with("the login could not be kept; try again", cause),
        })?;
        let (who, report) = identity(name, spec, claims)?;
        Ok((who.under(&connector), report))
    }
}

/// The name of an encrypted assertion, which has no other spelling in XML.
const ENCRYPTED: &[u8] = b"EncryptedAssertion";
const NO_KEY: &str = "the SAML assertion is encrypted, and there is no key for it: a connector has one once it is written with encrypted_assertions: true, and tests are lent it for the same identity provider alone";

/// Where requests go, and how: as the connector prefers, where the identity provider has that.
fn destination<'a>(spec: &SamlSpec, idp: &'a IdpMetadata) -> Option<(Binding, &'a str)> {
    let order = match spec.preferred_request_binding {
        SamlRequestBinding::HttpRedirect => [Binding::Redirect, Binding::Post],
        SamlRequestBinding::HttpPost => [Binding::Post, Binding::Redirect],
    };
    let mut over_tls = idp.sso.iter().filter(|(_, url)| url.starts_with("https://"));
    if spec.sso.is_some() {
        // An address by hand has no binding of its own.
        return over_tls.next().map(|(_, url)| (order[0], url.as_str()));
    }
    let over_tls: Vec<_> = over_tls.collect();
    order.into_iter().find_map(|wanted| {
        let (_, url) = over_tls.iter().find(|(binding, _)| *binding == wanted)?;
        Some((wanted, url.as_str()))
    })
}

/// The account, its name, roles and traits, and the reasons.
fn identity(connector: &str, spec: &SamlSpec, said: SamlClaims) -> Result<Proven, LoginFault> {
    let claims = mapping::bounded(said.attributes);
    let (named_by, name) = match &spec.username_attribute {
        Some(attribute) => match claims.get(attribute).map(Vec::as_slice) {
            Some([one]) => (attribute.as_str(), one.clone()),
            _ => {
                let said =
                    format!("the identity provider gives no single attribute {attribute}, which is to name the user");
                return Err(LoginFault::said(said));
            }
        },
        None => ("NameID", said.name_id.value.clone()),
    };
    // A transient id is another one at each login, so that it is nobody's account (I39).
    let subject = match (said.name_id.is_transient(), &spec.username_attribute) {
        (false, _) => said.name_id.value,
        (true, Some(_)) => name.clone(),
        (true, None) => {
            return Err(LoginFault::said(
                "the identity provider gives a NameID that is another one at each login; have it send a persistent one, or set username_attribute",
            ));
        }
    };
    let username = mapping::username(named_by, &name)?;
    let (roles, mappings) = mapping::roles_of(&claims, &spec.mappings())?;
    let report = ConnectorReport {
        user: None,
        subject: Some(subject.clone()),
        claims: claims.clone(),
        mappings,
        roles: roles.iter().map(ToString::to_string).collect(),
        refused: None,
    };
    let who = ProviderIdentity {
        method: "saml".into(),
        connector: connector.to_owned(),
        issuer: said.issuer,
        subject,
        username,
        roles,
        traits: mapping::traits_of(&claims),
        terms: String::new(),
    };
    Ok((Authenticated::Provider(Box::new(who)), report))
}

#[cfg(test)]
mod tests;
