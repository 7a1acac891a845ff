//! Documents of connectors to identity providers, of kinds `oidc` and `github`. Owns their fields, checks and defaults; asks no provider.

use serde::{Deserialize, Serialize};

use crate::{OneOrMany, RoleName, Secret};

/// Why a connector cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ConnectorError {
    /// Field of `spec`.
    pub field: String,
    /// Why.
    pub reason: String,
}

impl ConnectorError {
    /// Of this field.
    #[must_use]
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// Gives roles to who has a claim of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimMapping {
    /// Name of the claim.
    pub claim: String,
    /// Exact text, a glob with `*`, or `^regex$`; what `*` and groups match is `$1`, `$2` and on in `roles`.
    pub value: String,
    /// Roles given.
    pub roles: Vec<String>,
}

/// Gives roles to the members of a team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamMapping {
    /// Slug of the organisation.
    pub organization: String,
    /// Slug of the team; `*` for any member of the organisation.
    pub team: String,
    /// Roles given.
    pub roles: Vec<String>,
}

/// `spec` of kind `oidc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSpec {
    /// `https` URL of the provider; its discovery document is below it.
    pub issuer_url: String,
    /// Our name there.
    pub client_id: String,
    /// What proves it. Never shown again; a document without it keeps the one that is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// `https://PROXY/web/callback/NAME`, one or several; the one of the proxy that the browser is at is used.
    pub redirect_url: OneOrMany,
    /// Scopes besides `openid`; default `profile` and `email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Vec<String>>,
    /// Which claims give which roles.
    pub claims_to_roles: Vec<ClaimMapping>,
    /// What the login page calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// `prompt` of the request, such as `login` or `select_account`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// `acr` that the provider must vouch for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr_values: Option<String>,
    /// How long ago the user may have proved who they are, such as `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
    /// Whether an address that the provider does not vouch for is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_unverified_email: bool,
    /// The claim that names the user; default `email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_claim: Option<String>,
    /// `https://PROXY/web/logout/NAME/done`, one or several, as they are registered at the provider: where it sends browsers after a logout there; absent:
    /// the logout ends on its own page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_logout_redirect_url: Option<OneOrMany>,
    /// Whether the provider's userinfo is asked for more claims.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub userinfo: bool,
    /// Refuses every login from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// `spec` of kind `github`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GithubSpec {
    /// Our name there.
    pub client_id: String,
    /// What proves it. Never shown again; a document without it keeps the one that is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// `https://PROXY/web/callback/NAME`.
    pub redirect_url: OneOrMany,
    /// Which teams give which roles.
    pub teams_to_roles: Vec<TeamMapping>,
    /// What the login page calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// Of GitHub Enterprise; default `https://github.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Of GitHub Enterprise; default `https://api.github.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_endpoint_url: Option<String>,
    /// Organisations of which nobody is let in unless they demand a second factor of their members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require_org_2fa: Vec<String>,
    /// Refuses every login from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// Scopes of which an OIDC request has none else by default.
pub const DEFAULT_OIDC_SCOPES: [&str; 2] = ["profile", "email"];
/// Most mappings of a connector.
const MAX_MAPPINGS: usize = 1000;
/// Longest text in one.
const MAX_TEXT: usize = 1024;

impl OidcSpec {
    /// Whether it can be used by connector `name`.
    ///
    /// # Errors
    /// [`ConnectorError`] names the field.
    pub fn check(&self, name: &str) -> Result<(), ConnectorError> {
        check_https("issuer_url", &self.issuer_url)?;
        if self.issuer_url.contains(['?', '#']) {
            return Err(ConnectorError::new("issuer_url", "an issuer has no query and no fragment"));
        }
        check_text("client_id", &self.client_id)?;
        check_redirects("redirect_url", name, &self.redirect_url)?;
        if let Some(urls) = &self.post_logout_redirect_url {
            check_addresses("post_logout_redirect_url", &format!("web/logout/{name}/done"), urls)?;
        }
        if self.claims_to_roles.is_empty() || self.claims_to_roles.len() > MAX_MAPPINGS {
            let reason = format!("1 to {MAX_MAPPINGS} mappings are needed: without one nobody gets a role");
            return Err(ConnectorError::new("claims_to_roles", reason));
        }
        for (at, mapping) in self.claims_to_roles.iter().enumerate() {
            let field = format!("claims_to_roles[{at}]");
            check_text(&format!("{field}.claim"), &mapping.claim)?;
            check_text(&format!("{field}.value"), &mapping.value)?;
            check_roles(&field, &mapping.roles, true)?;
            crate::CapturePattern::new(&mapping.value)
                .map_err(|cause| ConnectorError::new(format!("{field}.value"), cause.to_string()))?;
        }
        for scope in self.scope.iter().flatten() {
            // RFC 6749 section 3.3.
            if scope.is_empty() || !scope.bytes().all(|c| matches!(c, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
                return Err(ConnectorError::new("scope", format!("{scope:?} is no scope")));
            }
        }
        let optional = [
            ("prompt", &self.prompt),
            ("acr_values", &self.acr_values),
            ("username_claim", &self.username_claim),
            ("display", &self.display),
        ];
        for (field, text) in optional {
            text.as_ref().map_or(Ok(()), |text| check_text(field, text))?;
        }
        self.max_age_seconds().map(drop)
    }

    /// `max_age` in seconds.
    ///
    /// # Errors
    /// [`ConnectorError`]
    pub fn max_age_seconds(&self) -> Result<Option<u64>, ConnectorError> {
        let Some(text) = &self.max_age else { return Ok(None) };
        let age =
            crate::parse_duration(text).ok_or_else(|| ConnectorError::new("max_age", "no duration such as 1h"))?;
        Ok(Some(age.as_secs()))
    }
}

impl GithubSpec {
    /// Whether it can be used by connector `name`.
    ///
    /// # Errors
    /// [`ConnectorError`] names the field.
    pub fn check(&self, name: &str) -> Result<(), ConnectorError> {
        check_text("client_id", &self.client_id)?;
        check_redirects("redirect_url", name, &self.redirect_url)?;
        for (field, url) in [("endpoint_url", &self.endpoint_url), ("api_endpoint_url", &self.api_endpoint_url)] {
            url.as_ref().map_or(Ok(()), |url| check_https(field, url))?;
        }
        if self.endpoint_url.is_some() != self.api_endpoint_url.is_some() {
            let reason = "endpoint_url and api_endpoint_url are given both or neither";
            return Err(ConnectorError::new("api_endpoint_url", reason));
        }
        if self.teams_to_roles.is_empty() || self.teams_to_roles.len() > MAX_MAPPINGS {
            let reason = format!("1 to {MAX_MAPPINGS} mappings are needed: without one nobody gets a role");
            return Err(ConnectorError::new("teams_to_roles", reason));
        }
        for (at, mapping) in self.teams_to_roles.iter().enumerate() {
            let field = format!("teams_to_roles[{at}]");
            check_slug(&format!("{field}.organization"), &mapping.organization)?;
            if mapping.team != "*" {
                check_slug(&format!("{field}.team"), &mapping.team)?;
            }
            check_roles(&field, &mapping.roles, false)?;
        }
        self.require_org_2fa.iter().try_for_each(|org| check_slug("require_org_2fa", org))
    }
}

/// Slugs are letters, digits, `-`, `_` and `.`; no pattern, lest one match what nobody meant (I44).
fn check_slug(field: &str, text: &str) -> Result<(), ConnectorError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 100 || !text.bytes().all(plain) {
        return Err(ConnectorError::new(field, format!("{text:?} is no slug; it is the name in the page's address")));
    }
    Ok(())
}

pub(crate) fn check_text(field: &str, text: &str) -> Result<(), ConnectorError> {
    if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(ConnectorError::new(
            field,
            format!("1 to {MAX_TEXT} octets without control characters are needed"),
        ));
    }
    Ok(())
}

pub(crate) fn check_roles(field: &str, roles: &[String], captures: bool) -> Result<(), ConnectorError> {
    if roles.is_empty() {
        return Err(ConnectorError::new(format!("{field}.roles"), "a mapping gives at least one role"));
    }
    for role in roles.iter().filter(|role| !(captures && role.contains('$'))) {
        RoleName::new(role).map_err(|cause| ConnectorError::new(format!("{field}.roles"), cause.to_string()))?;
    }
    Ok(())
}

/// An `https` URL of a plain host, without user info, query or fragment.
fn check_https(field: &str, url: &str) -> Result<(), ConnectorError> {
    let wrong = || ConnectorError::new(field, format!("{url:?} is no https URL that can be used"));
    let rest = url.strip_prefix("https://").ok_or_else(wrong)?;
    let (authority, tail) = rest.split_once('/').unwrap_or((rest, ""));
    let host = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
    let tail_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'~' | b'/' | b'%');
    let plain = !authority.is_empty() && authority.bytes().all(host) && tail.bytes().all(tail_plain);
    if plain && url.len() <= MAX_TEXT { Ok(()) } else { Err(wrong()) }
}

pub(crate) fn check_redirects(field: &str, name: &str, urls: &OneOrMany) -> Result<(), ConnectorError> {
    // Each connector has a callback of its own, so that no provider's answer is taken for another's (I37).
    check_addresses(field, &format!("web/callback/{name}"), urls)
}

/// Addresses of this one page at proxies.
fn check_addresses(field: &str, page: &str, urls: &OneOrMany) -> Result<(), ConnectorError> {
    if urls.iter().next().is_none() {
        return Err(ConnectorError::new(field, "one is needed"));
    }
    for url in urls.iter() {
        check_https(field, url)?;
        let path = url.strip_prefix("https://").and_then(|rest| rest.split_once('/')).map(|(_, path)| path);
        if path != Some(page) {
            return Err(ConnectorError::new(field, format!("{url:?} does not end with /{page}")));
        }
    }
    Ok(())
}

/// A connector's name: it is part of an address.
///
/// # Errors
/// [`ConnectorError`]
pub fn check_connector_name(name: &str) -> Result<(), ConnectorError> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
    if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) || name == "local" {
        let reason = "1 to 63 small letters, digits, - and _ are needed, and local is none";
        return Err(ConnectorError::new("metadata.name", reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oidc() -> serde_json::Value {
        serde_json::json!({
            "issuer_url": "https://idp.example.com/realm",
            "client_id": "remoteler",
            "client_secret": "s",
            "redirect_url": "https://proxy.example.com/web/callback/idp",
            "claims_to_roles": [{ "claim": "groups", "value": "admin-*", "roles": ["$1"] }],
        })
    }

    #[test]
    fn a_connector_that_cannot_be_used_is_refused_by_the_name_of_its_field() {
        let spec: OidcSpec = serde_json::from_value(oidc()).unwrap();
        assert_eq!(spec.check("idp"), Ok(()));
        assert_eq!(spec.check("other").unwrap_err().field, "redirect_url"); // I37
        for (field, value) in [
            ("issuer_url", serde_json::json!("http://idp.example.com")), // I43, I54
            ("issuer_url", serde_json::json!("javascript:alert(1)")),
            ("issuer_url", serde_json::json!("https://u@idp.example.com")),
            ("issuer_url", serde_json::json!("https://idp.example.com/?x")),
            ("redirect_url", serde_json::json!("https://proxy.example.com/web/callback/idp#x")),
            ("post_logout_redirect_url", serde_json::json!("https://proxy.example.com/web/logout/other/done")),
            ("post_logout_redirect_url", serde_json::json!("http://proxy.example.com/web/logout/idp/done")),
            ("post_logout_redirect_url", serde_json::json!([])),
            ("client_id", serde_json::json!("")),
            ("claims_to_roles", serde_json::json!([])),
            ("claims_to_roles[0].value", serde_json::json!([{ "claim": "g", "value": "^($", "roles": ["a"] }])),
            ("claims_to_roles[0].roles", serde_json::json!([{ "claim": "g", "value": "x", "roles": [] }])),
            ("max_age", serde_json::json!("soon")),
            ("scope", serde_json::json!(["a b"])),
        ] {
            let mut wrong = oidc();
            wrong[field.split('[').next().unwrap()] = value;
            let spec: OidcSpec = serde_json::from_value(wrong).unwrap();
            assert_eq!(spec.check("idp").unwrap_err().field, field);
        }
    }

    #[test]
    fn teams_are_named_exactly() {
        // I44
        let spec = |organization: &str, team: &str| GithubSpec {
            client_id: "c".into(),
            client_secret: None,
            redirect_url: OneOrMany::One("https://p/web/callback/gh".into()),
            teams_to_roles: vec![TeamMapping {
                organization: organization.into(),
                team: team.into(),
                roles: vec!["access".into()],
            }],
            display: None,
            endpoint_url: None,
            api_endpoint_url: None,
            require_org_2fa: Vec::new(),
            disabled: false,
        };
        assert_eq!(spec("acme", "ops").check("gh"), Ok(()));
        assert_eq!(spec("acme", "*").check("gh"), Ok(()));
        for (organization, team) in [("ac*", "ops"), ("*", "ops"), ("acme", "o*"), ("acme", "../x"), ("", "ops")] {
            assert!(spec(organization, team).check("gh").is_err(), "{organization}/{team}");
        }
    }
}
