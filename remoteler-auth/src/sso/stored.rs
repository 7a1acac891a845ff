//! Connectors as they lie in the store. Owns that each is read by itself: one that this version cannot read, as a newer one may have written it, is in the way
//! of no other, and can be named, replaced and removed all the same. Writes none.

use std::sync::PoisonError;

use remoteler_core::{Resource, ResourceKind, check_connector_name};
use serde::Deserialize;

use super::connectors::Connector;
use crate::{
    failure::{ApiResult, bad_request},
    records::{key, parse},
    service::Inner,
};

/// A connector that is stored, whether it can be used or not.
#[derive(Debug)]
pub(super) struct StoredConnector {
    /// By its key, whatever the document says.
    pub(super) name: String,
    /// As the document says, if that much can be read.
    kind: Option<String>,
    /// What it says, or why that cannot be read.
    pub(super) connector: ApiResult<Connector>,
}

/// What is read of a document whose other fields are not known.
#[derive(Deserialize)]
struct OfKind {
    kind: String,
}

impl StoredConnector {
    fn read(name: String, value: &[u8]) -> Self {
        let place = key::of(key::CONNECTORS, &name);
        let kind = parse::<OfKind>(&place, value).ok().map(|of| of.kind);
        let document = parse::<Resource>(&place, value).map_err(|cause| bad_request(cause.to_string()));
        let connector = document.and_then(|document| {
            if document.metadata.name != name {
                return Err(bad_request(format!("record {place} holds a document of another name")));
            }
            Connector::parse(document)
        });
        Self { name, kind, connector }
    }

    /// Whether it is of that kind, or may be: who asks for what cannot be told finds it under each.
    pub(super) fn is_of(&self, kind: ResourceKind) -> bool {
        self.kind.as_deref().is_none_or(|said| said == kind.as_str())
    }

    /// Its kind as the document says.
    pub(super) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("connector")
    }

    /// What it says, if it can be used for logins by SAML.
    #[cfg(feature = "saml")]
    pub(super) fn into_saml(self) -> Option<Box<remoteler_core::SamlSpec>> {
        match self.connector {
            Ok(Connector::Saml { spec, .. }) => Some(spec),
            Ok(Connector::Oidc { .. } | Connector::Github { .. }) | Err(_) => None,
        }
    }
}

impl Inner {
    /// All that are stored, in order of name.
    pub(super) async fn stored_connectors(&self) -> ApiResult<Vec<StoredConnector>> {
        let items = self.records.items(key::CONNECTORS).await?.into_iter();
        let name = |place: &str| place.strip_prefix(key::CONNECTORS).unwrap_or_default().to_owned();
        Ok(items.map(|item| StoredConnector::read(name(&item.key), &item.value)).collect())
    }

    /// The one of that name.
    pub(super) async fn stored_connector(&self, name: &str) -> ApiResult<Option<StoredConnector>> {
        if check_connector_name(name).is_err() {
            return Ok(None);
        }
        let found = self.records.item(&key::of(key::CONNECTORS, name)).await?;
        Ok(found.map(|item| StoredConnector::read(name.to_owned(), &item.value)))
    }

    /// All connectors, in order of name. One that this version cannot read is left out, so that the others go on.
    pub(crate) async fn connectors(&self) -> ApiResult<Vec<Connector>> {
        let read = |stored: StoredConnector| match stored.connector {
            Ok(connector) => Some(connector),
            Err(cause) => {
                let name = stored.name;
                // Strangers cause this at will: once is enough (I26).
                if self.sso.unread.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
                    tracing::warn!(%name, %cause, "a stored connector is of no use; replace or remove it with tctl");
                }
                None
            }
        };
        Ok(self.stored_connectors().await?.into_iter().filter_map(read).collect())
    }

    /// The connector of that name.
    pub(crate) async fn connector(&self, name: &str) -> ApiResult<Option<Connector>> {
        self.stored_connector(name).await?.map(|stored| stored.connector).transpose()
    }
}
