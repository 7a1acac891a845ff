//! Documents of connectors of kind `saml`. Owns their fields, checks and defaults; reads no XML and no certificate.

use serde::{Deserialize, Serialize};

use crate::{
    ClaimMapping, ConnectorError, OneOrMany,
    connector::{check_redirects, check_roles, check_text},
};

/// Gives roles to who has an attribute of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeMapping {
    /// `Name` of the attribute.
    pub name: String,
    /// Exact text, a glob with `*`, or `^regex$`; what `*` and groups match is `$1`, `$2` and on in `roles`.
    pub value: String,
    /// Roles given.
    pub roles: Vec<String>,
}

/// `spec` of kind `saml`. What the identity provider is comes from one of three places: its metadata as a text, its metadata from a URL, or `issuer`, `sso`
/// and `cert`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamlSpec {
    /// `https://PROXY/web/callback/NAME`, one or several: where responses are posted. The one of the proxy that the browser is at is used.
    pub acs: OneOrMany,
    /// Which attributes give which roles.
    pub attributes_to_roles: Vec<AttributeMapping>,
    /// What the login page calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// Metadata of the identity provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_descriptor: Option<String>,
    /// Where that is; asked for again every five minutes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_descriptor_url: Option<String>,
    /// Entity id of the identity provider; beside metadata it must be the one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Where requests go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sso: Option<String>,
    /// Its certificates: PEM, one or several while it changes its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<OneOrMany>,
    /// Under which name assertions are for us; default: our entity id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Our entity id; default: where our metadata is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_provider_issuer: Option<String>,
    /// The attribute that names the user; default: the `NameID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_attribute: Option<String>,
    /// Whether the user is to prove anew who they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_authn: bool,
    /// Whether assertions may be encrypted: a key for that is made, and stands in our metadata.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted_assertions: bool,
    /// How requests are rather sent, where the identity provider takes both; `sso` says of itself nothing, and is gone to in this way.
    #[serde(default, skip_serializing_if = "SamlRequestBinding::is_redirect")]
    pub preferred_request_binding: SamlRequestBinding,
    /// Whether the identity provider may begin a login. It cannot: each begins with the keys of a client.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_idp_initiated: bool,
    /// Refuses every login from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// How a request reaches the identity provider (SAML 2.0 Bindings sections 3.4 and 3.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SamlRequestBinding {
    /// In a URL.
    #[default]
    HttpRedirect,
    /// In a form.
    HttpPost,
}

impl SamlRequestBinding {
    fn is_redirect(&self) -> bool {
        *self == Self::HttpRedirect
    }
}

/// Largest metadata in a document, in octets.
const MAX_METADATA: usize = 256 * 1024;
/// Most mappings.
const MAX_MAPPINGS: usize = 1000;
/// Longest URL.
const MAX_URL: usize = 1024;

impl SamlSpec {
    /// Whether it can be used by connector `name`.
    ///
    /// # Errors
    /// [`ConnectorError`] names the field.
    pub fn check(&self, name: &str) -> Result<(), ConnectorError> {
        check_redirects("acs", name, &self.acs)?;
        if self.attributes_to_roles.is_empty() || self.attributes_to_roles.len() > MAX_MAPPINGS {
            let reason = format!("1 to {MAX_MAPPINGS} mappings are needed: without one nobody gets a role");
            return Err(ConnectorError::new("attributes_to_roles", reason));
        }
        for (at, mapping) in self.attributes_to_roles.iter().enumerate() {
            let field = format!("attributes_to_roles[{at}]");
            check_text(&format!("{field}.name"), &mapping.name)?;
            check_text(&format!("{field}.value"), &mapping.value)?;
            check_roles(&field, &mapping.roles, true)?;
            crate::CapturePattern::new(&mapping.value)
                .map_err(|cause| ConnectorError::new(format!("{field}.value"), cause.to_string()))?;
        }
        let optional = [
            ("display", &self.display),
            ("issuer", &self.issuer),
            ("audience", &self.audience),
            ("service_provider_issuer", &self.service_provider_issuer),
            ("username_attribute", &self.username_attribute),
        ];
        for (field, text) in optional {
            text.as_ref().map_or(Ok(()), |text| check_text(field, text))?;
        }
        self.check_provider()?;
        if self.allow_idp_initiated {
            let reason = "every login begins with tsh, for its keys are what is certified; take it out";
            return Err(ConnectorError::new("allow_idp_initiated", reason));
        }
        Ok(())
    }

    /// That the identity provider is described, and in one way.
    fn check_provider(&self) -> Result<(), ConnectorError> {
        for (field, url) in [("entity_descriptor_url", &self.entity_descriptor_url), ("sso", &self.sso)] {
            url.as_ref().map_or(Ok(()), |url| check_url(field, url))?;
        }
        if self.entity_descriptor.as_ref().is_some_and(|text| text.is_empty() || text.len() > MAX_METADATA) {
            let reason = format!("1 to {MAX_METADATA} octets are needed");
            return Err(ConnectorError::new("entity_descriptor", reason));
        }
        let by_hand = [self.sso.is_some(), self.cert.is_some()];
        match (&self.entity_descriptor, &self.entity_descriptor_url, by_hand) {
            (Some(_), None, [false, false]) | (None, Some(_), [false, false]) => Ok(()),
            (None, None, [true, true]) if self.issuer.is_some() => Ok(()),
            _ => {
                let reason = "one of entity_descriptor, entity_descriptor_url, or issuer with sso and cert is needed, and no second one";
                Err(ConnectorError::new("entity_descriptor", reason))
            }
        }
    }

    /// Our entity id at this connector `name`: as configured, or where our metadata is.
    #[must_use]
    pub fn entity_id(&self, name: &str) -> String {
        let first = self.acs.iter().next().unwrap_or_default();
        let origin = first.strip_suffix(&format!("/web/callback/{name}")).unwrap_or(first);
        self.service_provider_issuer.clone().unwrap_or_else(|| format!("{origin}/web/saml/{name}/metadata"))
    }

    /// The mappings, by the words of other connectors.
    #[must_use]
    pub fn mappings(&self) -> Vec<ClaimMapping> {
        let mapping = |AttributeMapping { name, value, roles }: &AttributeMapping| ClaimMapping {
            claim: name.clone(),
            value: value.clone(),
            roles: roles.clone(),
        };
        self.attributes_to_roles.iter().map(mapping).collect()
    }
}

/// An `https` URL without user info or fragment; those of identity providers have queries.
fn check_url(field: &str, url: &str) -> Result<(), ConnectorError> {
    let wrong = || ConnectorError::new(field, format!("{url:?} is no https URL that can be used"));
    let rest = url.strip_prefix("https://").ok_or_else(wrong)?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
    let plain = |c: u8| {
        c.is_ascii_graphic() && !matches!(c, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    let right = !authority.is_empty() && authority.bytes().all(host) && rest.bytes().all(plain) && url.len() <= MAX_URL;
    if right { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saml() -> serde_json::Value {
        serde_json::json!({
            "acs": "https://proxy.example.com/web/callback/corp",
            "entity_descriptor_url": "https://idp.example.com/metadata?tenant=1",
            "attributes_to_roles": [{ "name": "groups", "value": "admin-*", "roles": ["$1"] }],
        })
    }

    #[test]
    fn a_connector_that_cannot_be_used_is_refused_by_the_name_of_its_field() {
        let spec: SamlSpec = serde_json::from_value(saml()).unwrap();
        assert_eq!(spec.check("corp"), Ok(()));
        assert_eq!(spec.entity_id("corp"), "https://proxy.example.com/web/saml/corp/metadata");
        assert_eq!(spec.check("other").unwrap_err().field, "acs");
        for (field, value, named) in [
            ("acs", serde_json::json!("http://proxy.example.com/web/callback/corp"), "acs"), // I54
            ("acs", serde_json::json!([]), "acs"),
            ("entity_descriptor_url", serde_json::json!("http://idp.example.com/"), "entity_descriptor_url"), // I43
            ("entity_descriptor_url", serde_json::json!("https://u@idp.example.com/"), "entity_descriptor_url"),
            ("entity_descriptor_url", serde_json::json!("javascript:alert(1)"), "entity_descriptor_url"),
            ("entity_descriptor_url", serde_json::json!(null), "entity_descriptor"),
            ("entity_descriptor", serde_json::json!("<x/>"), "entity_descriptor"),
            ("sso", serde_json::json!("https://idp.example.com/sso"), "entity_descriptor"),
            ("attributes_to_roles", serde_json::json!([]), "attributes_to_roles"),
            (
                "attributes_to_roles",
                serde_json::json!([{ "name": "g", "value": "^($", "roles": ["a"] }]),
                "attributes_to_roles[0].value",
            ),
            (
                "attributes_to_roles",
                serde_json::json!([{ "name": "g", "value": "x", "roles": [] }]),
                "attributes_to_roles[0].roles",
            ),
            ("allow_idp_initiated", serde_json::json!(true), "allow_idp_initiated"), // I46
            ("username_attribute", serde_json::json!(""), "username_attribute"),
        ] {
            let mut wrong = saml();
            wrong[field] = value;
            let spec: SamlSpec = serde_json::from_value(wrong).unwrap();
            assert_eq!(spec.check("corp").unwrap_err().field, named);
        }
    }

    #[test]
    fn a_provider_may_be_described_by_hand() {
        let mut by_hand = saml();
        by_hand["entity_descriptor_url"] = serde_json::json!(null);
        by_hand["issuer"] = serde_json::json!("urn:idp");
        by_hand["sso"] = serde_json::json!("https://idp.example.com/sso?x=1");
        let without: SamlSpec = serde_json::from_value(by_hand.clone()).unwrap();
        assert_eq!(without.check("corp").unwrap_err().field, "entity_descriptor");
        by_hand["cert"] = serde_json::json!(["one", "other"]);
        let spec: SamlSpec = serde_json::from_value(by_hand).unwrap();
        assert_eq!(spec.check("corp"), Ok(()));
    }
}
