//! Connectors as documents and records. Owns that they are read anew for each login, so that a change acts at once (I42), and that their secrets are never
//! shown again.

use remoteler_core::{
    AuditKind, ConnectorChoice, ConnectorError, GithubSpec, Metadata, OidcSpec, OneOrMany, Resource, ResourceKind,
    check_connector_name,
};
use serde_json::json;

use crate::{
    failure::{ApiResult, bad_request, conflict, denied, not_found},
    records::key,
    service::Inner,
};

/// Most connectors of a cluster.
const MAX_CONNECTORS: usize = 50;

/// A connector that was checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Connector {
    Oidc { name: String, spec: Box<OidcSpec> },
    Github { name: String, spec: Box<GithubSpec> },
}

impl Connector {
    /// Of a document.
    pub(crate) fn parse(document: Resource) -> ApiResult<Self> {
        let Resource { kind, version, metadata, spec } = document;
        let kind = ResourceKind::parse(&kind).map_err(|cause| bad_request(cause.to_string()))?;
        let (kind_name, name) = (kind.as_str(), metadata.name);
        let refused = |cause: ConnectorError| {
            let name: String = name.chars().take(80).collect();
            bad_request(format!("{kind_name} {name:?}: {cause}"))
        };
        check_connector_name(&name).map_err(refused)?;
        if !kind.versions().contains(&version.as_str()) {
            let version: String = version.chars().take(40).collect();
            return Err(bad_request(format!("version {version:?} of kind {kind_name} is not read; v3 is")));
        }
        for (field, given) in [("labels", !metadata.labels.is_empty()), ("expires", metadata.expires.is_some())] {
            if given {
                return Err(bad_request(format!("metadata.{field} of {kind_name} {name} is refused: it has none")));
            }
        }
        let malformed =
            |cause: serde_json::Error| bad_request(format!("spec of {kind_name} {name} is refused: {cause}"));
        if kind == ResourceKind::Oidc {
            let spec: Box<OidcSpec> = serde_json::from_value(spec).map_err(malformed)?;
            spec.check(&name).map_err(refused)?;
            return Ok(Self::Oidc { name, spec });
        }
        if kind == ResourceKind::Github {
            let spec: Box<GithubSpec> = serde_json::from_value(spec).map_err(malformed)?;
            spec.check(&name).map_err(refused)?;
            return Ok(Self::Github { name, spec });
        }
        Err(bad_request(format!("{kind_name} is no kind of connector; oidc and github are")))
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Oidc { name, .. } | Self::Github { name, .. } => name,
        }
    }

    pub(crate) const fn kind(&self) -> ResourceKind {
        match self {
            Self::Oidc { .. } => ResourceKind::Oidc,
            Self::Github { .. } => ResourceKind::Github,
        }
    }

    pub(crate) fn is_disabled(&self) -> bool {
        match self {
            Self::Oidc { spec, .. } => spec.disabled,
            Self::Github { spec, .. } => spec.disabled,
        }
    }

    /// As the login page calls it.
    pub(crate) fn choice(&self) -> ConnectorChoice {
        let display = match self {
            Self::Oidc { spec, .. } => spec.display.clone(),
            Self::Github { spec, .. } => spec.display.clone(),
        };
        let (name, kind) = (self.name().to_owned(), self.kind());
        ConnectorChoice { display: display.unwrap_or_else(|| name.clone()), name, kind }
    }

    /// Where the provider sends a browser back to that reached us under `origin`: one of the URLs in the document, never one made of the request.
    pub(crate) fn redirect_url(&self, origin: &str) -> String {
        let urls: &OneOrMany = match self {
            Self::Oidc { spec, .. } => &spec.redirect_url,
            Self::Github { spec, .. } => &spec.redirect_url,
        };
        let here = urls.iter().find(|url| url.strip_prefix(origin).is_some_and(|path| path.starts_with('/')));
        here.or_else(|| urls.iter().next()).unwrap_or_default().to_owned()
    }

    /// As a document; its secret only for the store.
    pub(crate) fn document(&self, with_secret: bool) -> Resource {
        let (kind, name) = (self.kind(), self.name().to_owned());
        let mut spec = match self {
            Self::Oidc { spec, .. } => json!(spec),
            Self::Github { spec, .. } => json!(spec),
        };
        if let (false, Some(fields)) = (with_secret, spec.as_object_mut()) {
            fields.remove("client_secret");
        }
        let metadata = Metadata { name, description: None, labels: remoteler_core::Labels::new(), expires: None };
        Resource { kind: kind.as_str().into(), version: "v3".into(), metadata, spec }
    }
}

impl Inner {
    /// All connectors, in order of name.
    pub(crate) async fn connectors(&self) -> ApiResult<Vec<Connector>> {
        let stored = self.records.list::<Resource>(key::CONNECTORS).await?;
        stored.into_iter().map(|(_, document, _)| Connector::parse(document)).collect()
    }

    /// As documents, without secrets.
    pub(crate) async fn connector_documents(&self, kind: ResourceKind) -> ApiResult<Vec<Resource>> {
        let all = self.connectors().await?;
        Ok(all.iter().filter(|each| each.kind() == kind).map(|each| each.document(false)).collect())
    }

    pub(crate) async fn connector(&self, name: &str) -> ApiResult<Option<Connector>> {
        if check_connector_name(name).is_err() {
            return Ok(None);
        }
        let stored = self.records.read::<Resource>(&key::of(key::CONNECTORS, name)).await?;
        stored.map(Connector::parse).transpose()
    }

    /// One that somebody may log in by now.
    pub(crate) async fn usable_connector(&self, name: &str) -> ApiResult<Connector> {
        let shown: String = name.chars().filter(char::is_ascii_graphic).take(80).collect();
        let found = self.connector(name).await?;
        let found = found.ok_or_else(|| not_found(format!("there is no connector {shown} to log in by")))?;
        if found.is_disabled() {
            return Err(denied(format!("connector {shown} is disabled by an administrator")));
        }
        Ok(found)
    }

    /// With the secret that is stored, if it brings none.
    pub(super) async fn with_stored_secret(&self, mut connector: Connector) -> ApiResult<Connector> {
        let stored = self.connector(connector.name()).await?;
        match (&mut connector, stored) {
            (Connector::Oidc { spec, .. }, Some(Connector::Oidc { spec: stored, .. }))
                if spec.client_secret.is_none() =>
            {
                // Only for the provider that it was given for.
                if spec.issuer_url == stored.issuer_url && spec.client_id == stored.client_id {
                    spec.client_secret = stored.client_secret;
                }
            }
            (Connector::Github { spec, .. }, Some(Connector::Github { spec: stored, .. }))
                if spec.client_secret.is_none() =>
            {
                if spec.endpoint_url == stored.endpoint_url && spec.client_id == stored.client_id {
                    spec.client_secret = stored.client_secret;
                }
            }
            _ => {}
        }
        let has_secret = match &connector {
            Connector::Oidc { spec, .. } => spec.client_secret.is_some(),
            Connector::Github { spec, .. } => spec.client_secret.is_some(),
        };
        if !has_secret {
            let (kind, name) = (connector.kind().as_str(), connector.name());
            return Err(bad_request(format!("{kind} {name} has no client_secret, and none of this client is stored")));
        }
        Ok(connector)
    }

    /// Writes a connector; [`Inner::changes`] is held by the caller.
    pub(crate) async fn write_connector(&self, actor: String, document: Resource, replace: bool) -> ApiResult<()> {
        let connector = Connector::parse(document)?;
        let name = connector.name().to_owned();
        let all = self.connectors().await?;
        let known = all.iter().find(|each| each.name() == name);
        if let Some(known) = known.filter(|known| !replace || known.kind() != connector.kind()) {
            let kind = known.kind().as_str();
            return Err(conflict(format!(
                "{kind} {name} exists already; use tctl create -f to replace one of the same kind"
            )));
        }
        if known.is_none() && all.len() >= MAX_CONNECTORS {
            return Err(conflict(format!("there are {MAX_CONNECTORS} connectors, more is not possible")));
        }
        let connector = self.with_stored_secret(connector).await?;
        self.record(match connector {
            Connector::Oidc { .. } => AuditKind::OidcCreate { user: actor, name: name.clone() },
            Connector::Github { .. } => AuditKind::GithubCreate { user: actor, name: name.clone() },
        })
        .await?;
        self.records.write(&key::of(key::CONNECTORS, name), &connector.document(true), None).await?;
        Ok(())
    }

    /// Removes a connector; [`Inner::changes`] is held by the caller.
    pub(crate) async fn delete_connector(&self, actor: String, kind: ResourceKind, name: &str) -> ApiResult<()> {
        let found = self.connector(name).await?.filter(|found| found.kind() == kind);
        let Some(found) = found else {
            let name: String = name.chars().take(80).collect();
            return Err(not_found(format!("there is no {} {name}", kind.as_str())));
        };
        let name = name.to_owned();
        self.record(match found {
            Connector::Oidc { .. } => AuditKind::OidcDelete { user: actor, name: name.clone() },
            Connector::Github { .. } => AuditKind::GithubDelete { user: actor, name: name.clone() },
        })
        .await?;
        self.records.delete(&key::of(key::CONNECTORS, name)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_host_never_becomes_part_of_the_address_that_a_provider_sends_browsers_back_to() {
        // I40
        let document = json!({
            "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
            "spec": {
                "issuer_url": "https://idp.example.com", "client_id": "c", "client_secret": "s",
                "redirect_url": ["https://a.example.com/web/callback/idp", "https://b.example.com:3080/web/callback/idp"],
                "claims_to_roles": [{ "claim": "g", "value": "x", "roles": ["access"] }],
            },
        });
        let connector = Connector::parse(serde_json::from_value(document).unwrap()).unwrap();
        let (a, b) = ("https://a.example.com/web/callback/idp", "https://b.example.com:3080/web/callback/idp");
        assert_eq!(connector.redirect_url("https://b.example.com:3080"), b);
        for forged in
            ["https://evil.example", "", "https://", "https://a.example.com.evil.example", "https://b.example.com"]
        {
            assert_eq!(connector.redirect_url(forged), a, "{forged}");
        }
    }
}
