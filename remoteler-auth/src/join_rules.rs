//! Tokens without a secret: which pods may join, by the service account that an API server vouches for. Owns their records and the
//! judgement of a pod's token; asking the API server is [`TokenReviewer`]'s.

use async_trait::async_trait;
use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, JoinMethod, Resource, Secret, ServiceAccount, Timestamp, TokenSpec, TokenSummary,
};
use serde::{Deserialize, Serialize};

use crate::{
    failure::{ApiResult, bad_request, conflict, rate_limited, unauthenticated},
    records::key,
    service::Inner,
    tokens::refused,
};

/// Asks a Kubernetes API server whose token it is (TokenReview, `authentication.k8s.io/v1`).
///
/// Implementations bound what they wait for and read (I43): callers add no deadline. They tell whose token it is only if the server said
/// that it is authenticated and for `audience`. Dropping the future leaves nothing behind.
#[async_trait]
pub trait TokenReviewer: Send + Sync {
    /// The user whose token this is, as the API server calls it: `system:serviceaccount:NAMESPACE:NAME` for a service account.
    ///
    /// # Errors
    /// [`TokenReviewError`]; nobody may be let in then.
    async fn review(&self, token: &Secret, audience: &str) -> Result<String, TokenReviewError>;
}

/// Why it is not known whose a token is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenReviewError {
    /// The API server does not vouch for it.
    #[error("the API server does not vouch for the service account's token: {0}")]
    Refused(String),
    /// The API server was not asked, or did not answer.
    #[error("the API server was not asked about the service account's token: {0}")]
    Unavailable(String),
}

/// A rule as stored, under its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JoinRule {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    pub(crate) spec: TokenSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
}

/// Most service accounts of one rule.
const MAX_ALLOWED: usize = 100;
/// Longest name of a rule.
const MAX_NAME: usize = 63;
/// Longest service-account token that is asked about; the kubelet's have about 1.5 KiB.
const MAX_POD_TOKEN: usize = 16 * 1024;

impl JoinRule {
    pub(crate) fn summary(self) -> TokenSummary {
        let scope = self.spec.scope();
        let rules = self.spec.kubernetes.map(|rules| rules.allow).unwrap_or_default();
        TokenSummary {
            id: self.name,
            join_method: self.spec.join_method,
            scope,
            expires: self.expires,
            uses_left: None,
            host_id: None,
            service_accounts: rules.into_iter().map(|allow| allow.service_account).collect(),
        }
    }

    fn allows(&self, account: &ServiceAccount) -> bool {
        let rules = self.spec.kubernetes.iter().flat_map(|rules| &rules.allow);
        rules.into_iter().any(|allow| allow.service_account == *account)
    }
}

impl Inner {
    pub(crate) async fn join_rules(&self) -> ApiResult<Vec<JoinRule>> {
        Ok(self.records.list::<JoinRule>(key::JOIN_RULES).await?.into_iter().map(|(_, rule, _)| rule).collect())
    }

    /// The name itself, if there is such a rule. What is no name is looked up nowhere: it may be a secret.
    pub(crate) async fn join_rule_named(&self, name: &str) -> ApiResult<Option<String>> {
        if !is_name(name) {
            return Ok(None);
        }
        let rule = self.records.read::<JoinRule>(&key::of(key::JOIN_RULES, name)).await?;
        Ok(rule.map(|rule| rule.name))
    }

    /// Writes the document of a token without a secret. [`Inner::changes`] is held by the caller.
    pub(crate) async fn write_join_rule(&self, actor: String, document: Resource, replace: bool) -> ApiResult<()> {
        let rule = rule_of(document)?;
        if rule.expires.is_some_and(|expires| expires <= self.clock.now()) {
            return Err(bad_request(format!("metadata.expires of token {} is in the past", rule.name)));
        }
        let key = key::of(key::JOIN_RULES, &rule.name);
        if !replace && self.records.read::<JoinRule>(&key).await?.is_some() {
            return Err(conflict(format!("token {} is there already; replace it with tctl create -f", rule.name)));
        }
        self.record(AuditKind::TokenCreate {
            user: actor,
            name: rule.name.clone(),
            join_method: rule.spec.join_method.to_string(),
            roles: rule.spec.roles.iter().map(ToString::to_string).collect(),
            expires: rule.expires,
            uses: None,
        })
        .await?;
        Ok(self.records.write(&key, &rule, rule.expires).await?)
    }

    /// Whether a rule has this name; one that cannot be read has none.
    pub(crate) async fn is_join_rule(&self, name: &Secret) -> bool {
        let name = name.reveal();
        is_name(name) && matches!(self.records.read::<JoinRule>(&key::of(key::JOIN_RULES, name)).await, Ok(Some(_)))
    }

    /// The rule of this name and the account that a pod's token is of, if the rule allows it.
    ///
    /// # Errors
    /// Unauthenticated when the API server does not vouch for the token, or there is no such rule; denied when the rule is for others.
    pub(crate) async fn judge_pod(&self, rule: &Secret, token: &Secret) -> ApiResult<(JoinRule, ServiceAccount)> {
        let Some(reviewer) = &self.reviewer else {
            return Err(bad_request(
                "pods do not join here: the auth service knows no API server that would vouch for them; set \
                 auth_service.kubernetes_join",
            ));
        };
        if token.reveal().len() > MAX_POD_TOKEN {
            return Err(bad_request("the service account's token is too long for one"));
        }
        // One answer for rules that are not there and tokens that are not good: who has neither learns nothing of the rules.
        let name = rule.reveal();
        let found = match is_name(name) {
            true => self.records.read::<JoinRule>(&key::of(key::JOIN_RULES, name)).await?,
            false => None,
        };
        // Strangers cause this at will: only so many of them wait.
        let too_many = || rate_limited("too many pods join at once; try again in a few seconds");
        let _place = self.limits.reviews_waiting.try_acquire().map_err(|_| too_many())?;
        let _turn = self.limits.reviews.acquire().await.map_err(|_| too_many())?;
        let user = reviewer.review(token, self.cluster.as_str()).await.map_err(|cause| match cause {
            TokenReviewError::Refused(_) => unauthenticated(format!(
                "{cause}; its audience must be the cluster's name, {}, and the auth service must know the API server that issued it",
                self.cluster
            )),
            TokenReviewError::Unavailable(_) => {
                tracing::warn!(%cause, "a pod did not join");
                ApiError::new(ApiErrorKind::Unavailable, "the API server that vouches for pods did not answer; try again")
            }
        })?;
        let account = ServiceAccount::of_user(&user)
            .map_err(|_| unauthenticated("the token that was shown is of no service account"))?;
        match found.filter(|rule| rule.allows(&account)) {
            Some(rule) => Ok((rule, account)),
            None => Err(ApiError::new(
                ApiErrorKind::Denied,
                format!(
                    "no token of the method kubernetes that is called as was said lets service account {account} in"
                ),
            )),
        }
    }
}

fn rule_of(document: Resource) -> ApiResult<JoinRule> {
    let Resource { version, metadata, spec, .. } = document;
    if version != "v2" {
        let version: String = version.chars().take(40).collect();
        return Err(bad_request(format!("version {version:?} of kind token is not read; v2 is")));
    }
    let spec: TokenSpec =
        serde_json::from_value(spec).map_err(|cause| bad_request(format!("spec of the token is refused: {cause}")))?;
    if spec.join_method == JoinMethod::Token {
        return Err(bad_request(
            "a token with a secret is made by tctl tokens add, which shows the secret once: only its hash is kept, and no document \
             holds it; documents make tokens of join_method kubernetes",
        ));
    }
    let name = metadata.name;
    if !is_name(&name) {
        return Err(bad_request(format!(
            "the name of a token without a secret has 1 to {MAX_NAME} small letters, digits and hyphens"
        )));
    }
    if !metadata.labels.is_empty() {
        return Err(bad_request(format!(
            "metadata.labels of token {name} is refused; labels for hosts stand in spec.labels"
        )));
    }
    if spec.uses_left.is_some() {
        return Err(bad_request(format!(
            "spec.uses_left of token {name} is refused: uses are not counted without a secret"
        )));
    }
    spec.scope().check().map_err(|cause| refused(&cause))?;
    let allowed = spec.kubernetes.as_ref().map_or(0, |rules| rules.allow.len());
    if !(1..=MAX_ALLOWED).contains(&allowed) {
        return Err(bad_request(format!(
            "spec.kubernetes.allow of token {name} names {allowed} service accounts; 1 to {MAX_ALLOWED} are needed"
        )));
    }
    Ok(JoinRule { name, description: metadata.description, spec, expires: metadata.expires })
}

fn is_name(text: &str) -> bool {
    let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(fits)
}
