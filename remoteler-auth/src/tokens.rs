//! Join tokens: 256 random bits or a given text, kept as a hash, for some kinds of services, until an end (I35).

use std::{collections::BTreeSet, time::Duration};

use remoteler_core::{AuditKind, NewToken, Secret, SystemRole, Timestamp, TokenCreated, TokenSummary, Verb};
use serde::{Deserialize, Serialize};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict, not_found},
    records::key,
    secret_hash,
    service::Inner,
};

/// A token as stored, under its hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) roles: BTreeSet<SystemRole>,
    pub(crate) expires: Timestamp,
}

const DEFAULT_TTL: u64 = 3600;
const MAX_TTL: u64 = 30 * 24 * 3600;
const MIN_VALUE: usize = 16;
const MAX_VALUE: usize = 256;
/// Hex digits of a token's hash that name it.
const ID_LEN: usize = 12;

impl Inner {
    pub(crate) async fn create_token(&self, caller: &Caller, token: NewToken) -> ApiResult<TokenCreated> {
        let actor = self.admit(caller, "token", Verb::Create).await?;
        let NewToken { roles, ttl_seconds, value } = token;
        if roles.is_empty() {
            return Err(bad_request("a token is for at least one kind of service: node, kube or proxy"));
        }
        if roles.contains(&SystemRole::Auth) {
            return Err(bad_request("an auth service cannot join with a token; give node, kube or proxy"));
        }
        let ttl = ttl_seconds.unwrap_or(DEFAULT_TTL);
        if !(1..=MAX_TTL).contains(&ttl) {
            return Err(bad_request(format!("a token lives 1 second to 30 days, {ttl} seconds were asked for")));
        }
        if let Some(value) = &value {
            let text = value.reveal();
            if !(MIN_VALUE..=MAX_VALUE).contains(&text.len()) || !text.bytes().all(|octet| octet.is_ascii_graphic()) {
                return Err(bad_request(format!(
                    "a token of your own has {MIN_VALUE} to {MAX_VALUE} printable characters without spaces"
                )));
            }
        }
        let token = value.unwrap_or_else(|| secret_hash::draw(self.entropy.as_ref()));
        let expires = self.clock.now().plus(Duration::from_secs(ttl));
        let trust = self.issuer.trust();
        let ca_pins = trust.host_pins().map_err(|cause| conflict(cause.to_string()))?;
        // The one pin is that of what servers show now, which in the midst of a rotation is not the authority that signs.
        let serving = trust.serving_only().host_pins().map_err(|cause| conflict(cause.to_string()))?;
        let ca_pin = serving.into_iter().next().unwrap_or_default();
        self.record(AuditKind::TokenCreate {
            user: actor,
            roles: roles.iter().map(ToString::to_string).collect(),
            expires,
        })
        .await?;
        let record = TokenRecord { roles, expires };
        match self.records.create(&key::of(key::TOKENS, secret_hash::hash(&token)), &record, Some(expires)).await {
            Ok(_) => {}
            Err(cause) if cause.is_conflict() => {
                return Err(conflict("there is such a token already; remove it first"));
            }
            Err(cause) => return Err(cause.into()),
        }
        let proxy_addr = self.proxy_addr().await;
        Ok(TokenCreated { token, expires, roles: record.roles, ca_pin, ca_pins, proxy_addr })
    }

    pub(crate) async fn tokens(&self, caller: &Caller) -> ApiResult<Vec<TokenSummary>> {
        self.admit(caller, "token", Verb::List).await?;
        self.token_summaries().await
    }

    pub(crate) async fn token_summaries(&self) -> ApiResult<Vec<TokenSummary>> {
        let tokens = self.records.list::<TokenRecord>(key::TOKENS).await?;
        let summary = |(hash, token, _): (String, TokenRecord, _)| TokenSummary {
            id: hash.get(..ID_LEN).unwrap_or_default().to_owned(),
            roles: token.roles,
            expires: token.expires,
        };
        Ok(tokens.into_iter().map(summary).collect())
    }

    pub(crate) async fn delete_token(&self, caller: &Caller, id_or_token: &Secret) -> ApiResult<()> {
        let actor = self.admit(caller, "token", Verb::Delete).await?;
        let hash = secret_hash::hash(id_or_token);
        let id = id_or_token.reveal();
        let tokens = self.records.list::<TokenRecord>(key::TOKENS).await?;
        let mut named = tokens.into_iter().map(|(found, ..)| found).filter(|found| {
            *found == hash || (id.len() == ID_LEN && found.starts_with(id)) // an id is shorter than any token
        });
        let found = named.next().ok_or_else(|| not_found("there is no such token; tctl tokens ls lists them"))?;
        let name = found.get(..ID_LEN).unwrap_or_default().to_owned();
        self.record(AuditKind::TokenDelete { user: actor, name }).await?;
        self.records.delete(&key::of(key::TOKENS, found)).await?;
        Ok(())
    }

    /// What may join with a token; `None` when it is wrong or over.
    pub(crate) async fn token(&self, token: &Secret) -> ApiResult<Option<TokenRecord>> {
        Ok(self.records.read(&key::of(key::TOKENS, secret_hash::hash(token))).await?)
    }
}
