//! Join tokens: 256 random bits or a given text, kept as a hash, for some kinds of services under some names, with labels, so many times,
//! until an end (I35). Owns their records.

use std::{collections::BTreeSet, time::Duration};

use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, HostId, JoinMethod, NewToken, NodeName, Secret, Timestamp, TokenCreated,
    TokenScope, TokenScopeError, TokenSummary, Verb,
};
use serde::{Deserialize, Serialize};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict, not_found},
    join::HostRecord,
    join_rules::JoinRule,
    records::key,
    secret_hash,
    service::Inner,
};

/// A token as stored, under its hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    #[serde(flatten)]
    pub(crate) scope: TokenScope,
    pub(crate) expires: Timestamp,
    /// How many hosts may join with it; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uses: Option<u32>,
    /// Those that have, of a token whose uses are counted. A host stands here once, so that one whose answer was lost may ask again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) used_by: BTreeSet<HostId>,
    /// The one host that may use it, to join again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host_id: Option<HostId>,
}

impl TokenRecord {
    fn uses_left(&self) -> Option<u32> {
        let used = u32::try_from(self.used_by.len()).unwrap_or(u32::MAX);
        self.uses.map(|uses| uses.saturating_sub(used))
    }

    /// Whether this host may join with it, as far as that is a matter of how often.
    pub(crate) fn is_open_to(&self, host: HostId) -> bool {
        self.used_by.contains(&host) || self.uses_left() != Some(0)
    }
}

const DEFAULT_TTL: u64 = 3600;
const MAX_TTL: u64 = 30 * 24 * 3600;
const MIN_VALUE: usize = 16;
const MAX_VALUE: usize = 256;
/// Most hosts whose number is kept to; who wants more wants no limit.
const MAX_USES: u32 = 1000;
/// Hex digits of a token's hash that name it.
const ID_LEN: usize = 12;

impl Inner {
    pub(crate) async fn create_token(&self, caller: &Caller, token: NewToken) -> ApiResult<TokenCreated> {
        let actor = self.admit(caller, "token", Verb::Create).await?;
        let NewToken { roles, ttl_seconds, value, uses, names, labels } = token;
        let scope = TokenScope { roles, names, labels };
        scope.check().map_err(|cause| refused(&cause))?;
        let ttl = ttl_seconds.unwrap_or(DEFAULT_TTL);
        if !(1..=MAX_TTL).contains(&ttl) {
            return Err(bad_request(format!("a token lives 1 second to 30 days, {ttl} seconds were asked for")));
        }
        if let Some(uses) = uses.filter(|uses| !(1..=MAX_USES).contains(uses)) {
            return Err(bad_request(format!(
                "a token lets in 1 to {MAX_USES} hosts, or any number without that limit; {uses} were asked for"
            )));
        }
        if let Some(value) = &value {
            let text = value.reveal();
            if !(MIN_VALUE..=MAX_VALUE).contains(&text.len()) || !text.bytes().all(|octet| octet.is_ascii_graphic()) {
                return Err(bad_request(format!(
                    "a token of your own has {MIN_VALUE} to {MAX_VALUE} printable characters without spaces"
                )));
            }
        }
        let expires = self.clock.now().plus(Duration::from_secs(ttl));
        let record = TokenRecord { scope, expires, uses, used_by: BTreeSet::new(), host_id: None };
        self.store_token(actor, value, record).await
    }

    /// A token for one host that is known, for its services and name, once. From its use on, other machines that show the host's
    /// certificates are refused.
    pub(crate) async fn create_rejoin_token(&self, caller: &Caller, node: &str) -> ApiResult<TokenCreated> {
        let actor = self.admit(caller, "token", Verb::Create).await?;
        let unknown = || {
            let node: String = node.chars().take(80).collect();
            not_found(format!("there is no host {node}; give its node name or its id, as tctl nodes ls shows them"))
        };
        let id = match node.parse::<HostId>() {
            Ok(id) => id,
            Err(_) => {
                let name = NodeName::new(node).map_err(|_| unknown())?;
                self.records.read::<HostId>(&key::of(key::NODE_OWNERS, &name)).await?.ok_or_else(unknown)?
            }
        };
        let host = self.records.read::<HostRecord>(&key::of(key::HOSTS, id)).await?.ok_or_else(unknown)?;
        let scope = TokenScope { roles: host.identity.roles, names: None, labels: remoteler_core::Labels::new() };
        // The host of the auth service itself joins nowhere.
        scope.check().map_err(|cause| refused(&cause))?;
        let expires = self.clock.now().plus(Duration::from_secs(DEFAULT_TTL));
        let record = TokenRecord { scope, expires, uses: Some(1), used_by: BTreeSet::new(), host_id: Some(id) };
        self.store_token(actor, None, record).await
    }

    async fn store_token(&self, actor: String, value: Option<Secret>, record: TokenRecord) -> ApiResult<TokenCreated> {
        let token = value.unwrap_or_else(|| secret_hash::draw(self.entropy.as_ref()));
        let trust = self.issuer.trust();
        let ca_pins = trust.host_pins().map_err(|cause| conflict(cause.to_string()))?;
        // The one pin is that of what servers show now, which in the midst of a rotation is not the authority that signs.
        let serving = trust.serving_only().host_pins().map_err(|cause| conflict(cause.to_string()))?;
        let ca_pin = serving.into_iter().next().unwrap_or_default();
        let hash = secret_hash::hash(&token);
        let TokenRecord { scope, expires, uses, host_id, .. } = record.clone();
        self.record(AuditKind::TokenCreate {
            user: actor,
            name: id_of(&hash),
            join_method: JoinMethod::Token.to_string(),
            roles: scope.roles.iter().map(ToString::to_string).collect(),
            expires: Some(expires),
            uses,
        })
        .await?;
        match self.records.create(&key::of(key::TOKENS, hash), &record, Some(expires)).await {
            Ok(_) => {}
            Err(cause) if cause.is_conflict() => {
                return Err(conflict("there is such a token already; remove it first"));
            }
            Err(cause) => return Err(cause.into()),
        }
        let proxy_addr = self.proxy_addr().await;
        Ok(TokenCreated { token, expires, scope, uses, host_id, ca_pin, ca_pins, proxy_addr })
    }

    pub(crate) async fn tokens(&self, caller: &Caller) -> ApiResult<Vec<TokenSummary>> {
        self.admit(caller, "token", Verb::List).await?;
        self.token_summaries().await
    }

    /// Those with a secret, then those without.
    pub(crate) async fn token_summaries(&self) -> ApiResult<Vec<TokenSummary>> {
        let tokens = self.records.list::<TokenRecord>(key::TOKENS).await?;
        let summary = |(hash, token, _): (String, TokenRecord, _)| TokenSummary {
            id: id_of(&hash),
            join_method: JoinMethod::Token,
            uses_left: token.uses_left(),
            scope: token.scope,
            expires: Some(token.expires),
            host_id: token.host_id,
            service_accounts: Vec::new(),
        };
        let mut all: Vec<_> = tokens.into_iter().map(summary).collect();
        all.extend(self.join_rules().await?.into_iter().map(JoinRule::summary));
        Ok(all)
    }

    pub(crate) async fn delete_token(&self, caller: &Caller, id_or_token: &Secret) -> ApiResult<()> {
        let actor = self.admit(caller, "token", Verb::Delete).await?;
        if let Some(name) = self.join_rule_named(id_or_token.reveal()).await? {
            self.record(AuditKind::TokenDelete { user: actor, name: name.clone() }).await?;
            self.records.delete(&key::of(key::JOIN_RULES, name)).await?;
            return Ok(());
        }
        let hash = secret_hash::hash(id_or_token);
        let id = id_or_token.reveal();
        let tokens = self.records.list::<TokenRecord>(key::TOKENS).await?;
        let mut named = tokens.into_iter().map(|(found, ..)| found).filter(|found| {
            *found == hash || (id.len() == ID_LEN && found.starts_with(id)) // an id is shorter than any token
        });
        let found = named.next().ok_or_else(|| not_found("there is no such token; tctl tokens ls lists them"))?;
        self.record(AuditKind::TokenDelete { user: actor, name: id_of(&found) }).await?;
        self.records.delete(&key::of(key::TOKENS, found)).await?;
        Ok(())
    }

    /// What may join with a token; `None` when it is wrong or over.
    pub(crate) async fn token(&self, token: &Secret) -> ApiResult<Option<TokenRecord>> {
        Ok(self.records.read(&key::of(key::TOKENS, secret_hash::hash(token))).await?)
    }
}

/// Why nobody joins any more with a token that is there.
pub(crate) fn used_up() -> ApiError {
    ApiError::new(ApiErrorKind::Denied, "the join token is used up; make a new one with tctl tokens add")
}

/// What names a token in lists and events.
pub(crate) fn id_of(hash: &str) -> String {
    hash.get(..ID_LEN).unwrap_or_default().to_owned()
}

pub(crate) fn refused(cause: &TokenScopeError) -> ApiError {
    let kind = if cause.is_malformed() { ApiErrorKind::BadRequest } else { ApiErrorKind::Denied };
    ApiError::new(kind, cause.to_string())
}
