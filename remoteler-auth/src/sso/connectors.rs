//! Connectors as documents and records. Owns that they are read anew for each login, so that a change acts at once (I42), and that their secrets are
//! shown only where they are asked for by that name.

use remoteler_core::{
    AuditKind, ConnectorChoice, ConnectorError, GithubSpec, Metadata, OidcSpec, OneOrMany, Resource, ResourceKind,
    SamlSpec, Secret, check_connector_name,
};
use serde_json::json;

use super::{saml::MadeKeys, stored::StoredConnector};
use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict, denied, not_found},
    records::{Batch, key},
    secret_hash,
    service::Inner,
};

/// Most connectors of a cluster.
const MAX_CONNECTORS: usize = 50;
/// How often keys are made for a connector that others change meanwhile.
const ATTEMPTS: usize = 3;

/// A connector that was checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Connector {
    Oidc { name: String, spec: Box<OidcSpec> },
    Github { name: String, spec: Box<GithubSpec> },
    Saml { name: String, spec: Box<SamlSpec> },
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
            let known = kind.versions().join(" or ");
            return Err(bad_request(format!("version {version:?} of kind {kind_name} is not read; {known} is")));
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
        if kind == ResourceKind::Saml {
            let spec: Box<SamlSpec> = serde_json::from_value(spec).map_err(malformed)?;
            spec.check(&name).map_err(refused)?;
            super::saml::check(&spec).map_err(|reason| bad_request(format!("{kind_name} {name}: {reason}")))?;
            return Ok(Self::Saml { name, spec });
        }
        Err(bad_request(format!("{kind_name} is no kind of connector; oidc, github and saml are")))
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Oidc { name, .. } | Self::Github { name, .. } | Self::Saml { name, .. } => name,
        }
    }

    pub(crate) const fn kind(&self) -> ResourceKind {
        match self {
            Self::Oidc { .. } => ResourceKind::Oidc,
            Self::Github { .. } => ResourceKind::Github,
            Self::Saml { .. } => ResourceKind::Saml,
        }
    }

    pub(crate) fn is_disabled(&self) -> bool {
        match self {
            Self::Oidc { spec, .. } => spec.disabled,
            Self::Github { spec, .. } => spec.disabled,
            Self::Saml { spec, .. } => spec.disabled,
        }
    }

    /// As the login page calls it.
    pub(crate) fn choice(&self) -> ConnectorChoice {
        let display = match self {
            Self::Oidc { spec, .. } => spec.display.clone(),
            Self::Github { spec, .. } => spec.display.clone(),
            Self::Saml { spec, .. } => spec.display.clone(),
        };
        let (name, kind) = (self.name().to_owned(), self.kind());
        ConnectorChoice { display: display.unwrap_or_else(|| name.clone()), name, kind }
    }

    /// Where the provider sends a browser back to that reached us under `origin`: one of the URLs in the document, never one made of the request.
    pub(crate) fn redirect_url(&self, origin: &str) -> String {
        let urls: &OneOrMany = match self {
            Self::Oidc { spec, .. } => &spec.redirect_url,
            Self::Github { spec, .. } => &spec.redirect_url,
            Self::Saml { spec, .. } => &spec.acs,
        };
        url_at(urls, origin).or_else(|| urls.iter().next()).unwrap_or_default().to_owned()
    }

    /// What tells this connector from itself after a change.
    pub(crate) fn digest(&self) -> String {
        // Maps of JSON are ordered, so that the same connector is written alike.
        secret_hash::hash(&Secret::new(json!(self.document(true)).to_string()))
    }

    /// As a document; its secret only for the store.
    pub(crate) fn document(&self, with_secret: bool) -> Resource {
        let (kind, name) = (self.kind(), self.name().to_owned());
        let mut spec = match self {
            Self::Oidc { spec, .. } => json!(spec),
            Self::Github { spec, .. } => json!(spec),
            Self::Saml { spec, .. } => json!(spec),
        };
        if let (false, Some(fields)) = (with_secret, spec.as_object_mut()) {
            fields.remove("client_secret");
        }
        let metadata = Metadata { name, description: None, labels: remoteler_core::Labels::new(), expires: None };
        let version = kind.versions().last().copied().unwrap_or_default().to_owned();
        Resource { kind: kind.as_str().into(), version, metadata, spec }
    }
}

/// The one of these URLs that is at `origin`, in which browsers leave out the usual port.
pub(super) fn url_at<'a>(urls: &'a OneOrMany, origin: &str) -> Option<&'a str> {
    urls.iter().find(|url| {
        let path = url.strip_prefix(origin).map(|rest| rest.strip_prefix(":443").unwrap_or(rest));
        path.is_some_and(|path| path.starts_with('/'))
    })
}

impl Inner {
    /// As documents, without secrets: all of a kind, or the one of that name.
    pub(crate) async fn connector_documents(&self, kind: ResourceKind, name: Option<&str>) -> ApiResult<Vec<Resource>> {
        Ok(self.shown_connectors(kind, name).await?.iter().map(|each| each.document(false)).collect())
    }

    /// Those that an administrator asks for: all of a kind, or the one of that name. A list without those that this version cannot read would be taken
    /// for the whole, and be missed when it is needed, so that they are named in an error instead.
    pub(super) async fn shown_connectors(&self, kind: ResourceKind, name: Option<&str>) -> ApiResult<Vec<Connector>> {
        let stored = self.stored_connectors().await?.into_iter();
        let asked = stored.filter(|each| each.is_of(kind) && name.is_none_or(|name| each.name == name));
        let kind = kind.as_str();
        let (mut read, mut unread) = (Vec::new(), Vec::new());
        for StoredConnector { name, connector, .. } in asked {
            match connector {
                Ok(connector) => read.push(connector),
                Err(cause) => unread.push(format!("{kind}/{name} ({cause})")),
            }
        }
        if unread.is_empty() {
            return Ok(read);
        }
        let others: Vec<_> = read.iter().map(|each| format!("{kind}/{}", each.name())).collect();
        let others = match others.as_slice() {
            [] => String::new(),
            _ => format!("; get the others by name: {}", others.join(", ")),
        };
        let unread = unread.join(", ");
        let said = format!(
            "{unread} cannot be read by this version; replace with tctl create -f, or remove with tctl rm{others}"
        );
        Err(conflict(said))
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
        let stored = self.stored_connector(connector.name()).await?.and_then(|stored| stored.connector.ok());
        // Only for the provider that it was given for.
        match (&mut connector, stored) {
            (Connector::Oidc { spec, .. }, Some(Connector::Oidc { spec: stored, .. }))
                if spec.client_secret.is_none()
                    && spec.issuer_url == stored.issuer_url
                    && spec.client_id == stored.client_id =>
            {
                spec.client_secret = stored.client_secret;
            }
            (Connector::Github { spec, .. }, Some(Connector::Github { spec: stored, .. }))
                if spec.client_secret.is_none()
                    && spec.endpoint_url == stored.endpoint_url
                    && spec.client_id == stored.client_id =>
            {
                spec.client_secret = stored.client_secret;
            }
            _ => {}
        }
        let has_secret = match &connector {
            Connector::Oidc { spec, .. } => spec.client_secret.is_some(),
            Connector::Github { spec, .. } => spec.client_secret.is_some(),
            // Requests are signed instead, by a key that is made here.
            Connector::Saml { .. } => true,
        };
        if !has_secret {
            let (kind, name) = (connector.kind().as_str(), connector.name());
            return Err(bad_request(format!("{kind} {name} has no client_secret, and none of this client is stored")));
        }
        Ok(connector)
    }

    /// Writes a connector. Its keys are made before [`Inner::changes`] is taken, so that nobody waits for them but who writes it, and who may write it is asked
    /// once more after that: the rules may have changed while they were made.
    pub(crate) async fn put_connector(&self, caller: &Caller, document: Resource, replace: bool) -> ApiResult<()> {
        let connector = Connector::parse(document)?;
        self.check_place(&connector, replace).await?;
        for _ in 0..ATTEMPTS {
            let keys = self.make_saml_keys(&connector).await?;
            let _turn = self.changes.write().await;
            let actor = self.admit_put(caller, connector.kind(), replace).await?;
            if self.write_connector(&actor, connector.clone(), replace, &keys).await? {
                return Ok(());
            }
        }
        let name = connector.name();
        Err(conflict(format!("connector {name} is being changed by others all the while; try again")))
    }

    /// Whether a connector may be written under its name.
    async fn check_place(&self, connector: &Connector, replace: bool) -> ApiResult<()> {
        let name = connector.name();
        let all = self.stored_connectors().await?;
        let known = all.iter().find(|each| each.name == name);
        if let Some(known) = known.filter(|known| !replace || !known.is_of(connector.kind())) {
            let kind = known.kind();
            return Err(conflict(format!(
                "{kind} {name} exists already; use tctl create -f to replace one of the same kind"
            )));
        }
        if known.is_none() && all.len() >= MAX_CONNECTORS {
            return Err(conflict(format!("there are {MAX_CONNECTORS} connectors, more is not possible")));
        }
        Ok(())
    }

    /// Writes a connector with `keys` that were made for it; [`Inner::changes`] is held by the caller. Nothing is done, and `false` returned, if it needs
    /// others by now.
    pub(super) async fn write_connector(
        &self,
        actor: &str,
        connector: Connector,
        replace: bool,
        keys: &MadeKeys,
    ) -> ApiResult<bool> {
        self.check_place(&connector, replace).await?;
        let connector = self.with_stored_secret(connector).await?;
        let name = connector.name().to_owned();
        let batch = Batch::new().write(&key::of(key::CONNECTORS, &name), &connector.document(true), None)?;
        let Some(batch) = self.with_saml_keys(&connector, keys, batch).await? else { return Ok(false) };
        let user = actor.to_owned();
        self.record(match connector {
            Connector::Oidc { .. } => AuditKind::OidcCreate { user, name },
            Connector::Github { .. } => AuditKind::GithubCreate { user, name },
            Connector::Saml { .. } => AuditKind::SamlCreate { user, name },
        })
        .await?;
        self.records.commit(batch).await?;
        Ok(true)
    }

    /// Removes a connector; [`Inner::changes`] is held by the caller.
    pub(crate) async fn delete_connector(&self, actor: String, kind: ResourceKind, name: &str) -> ApiResult<()> {
        // As it is stored: one that is of no use can be removed as well.
        let found = self.stored_connector(name).await?.filter(|found| found.is_of(kind));
        let unknown = || {
            let name: String = name.chars().take(80).collect();
            not_found(format!("there is no {} {name}", kind.as_str()))
        };
        found.ok_or_else(unknown)?;
        let (user, name) = (actor, name.to_owned());
        let event = [
            (ResourceKind::Oidc, AuditKind::OidcDelete { user: user.clone(), name: name.clone() }),
            (ResourceKind::Github, AuditKind::GithubDelete { user: user.clone(), name: name.clone() }),
            (ResourceKind::Saml, AuditKind::SamlDelete { user, name: name.clone() }),
        ];
        let event = event.into_iter().find(|(known, _)| *known == kind).map(|(_, event)| event);
        self.record(event.ok_or_else(|| not_found(format!("{} is no kind of connector", kind.as_str())))?).await?;
        // With the keys that were made for it, also where SAML is not built in: the next of this name has its own.
        let gone = [key::CONNECTORS, key::SAML_KEYS, key::SAML_ENCRYPTION_KEYS];
        let gone = gone.into_iter().fold(Batch::new(), |gone, place| gone.delete(&key::of(place, &name)));
        Ok(self.records.commit(gone).await?)
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
                "redirect_url": [
                    "https://a.example.com/web/callback/idp", "https://b.example.com:3080/web/callback/idp",
                    "https://c.example.com:443/web/callback/idp",
                ],
                "claims_to_roles": [{ "claim": "g", "value": "x", "roles": ["access"] }],
            },
        });
        let connector = Connector::parse(serde_json::from_value(document).unwrap()).unwrap();
        let (a, b) = ("https://a.example.com/web/callback/idp", "https://b.example.com:3080/web/callback/idp");
        assert_eq!(connector.redirect_url("https://b.example.com:3080"), b);
        let Connector::Oidc { spec, .. } = &connector else { panic!("{connector:?}") };
        let urls = &spec.redirect_url;
        assert_eq!(url_at(urls, "https://c.example.com"), Some("https://c.example.com:443/web/callback/idp"));
        for forged in
            ["https://evil.example", "", "https://", "https://a.example.com.evil.example", "https://b.example.com"]
        {
            assert_eq!(connector.redirect_url(forged), a, "{forged}");
            assert_eq!(url_at(urls, forged), None, "{forged}");
        }
    }
}
