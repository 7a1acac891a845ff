//! Connectors with their secrets, for `tctl get --with-secrets`: to take them to another cluster. Owns who may see them, and that it is on record first.
//! What is made here (keys of SAML) never leaves, and is made anew there.

use remoteler_core::{AuditKind, Resource, ResourceKind, Verb};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, not_found},
    service::Inner,
};

impl Inner {
    /// Documents that another cluster takes as they are. To read is not enough: who may see them could as well log in as anybody, as who may change them
    /// can by another provider.
    pub(crate) async fn connector_secrets(
        &self,
        caller: &Caller,
        kind: ResourceKind,
        name: Option<String>,
    ) -> ApiResult<Vec<Resource>> {
        let shown = kind.as_str();
        if !matches!(kind, ResourceKind::Oidc | ResourceKind::Github) {
            return Err(bad_request(format!(
                "documents of kind {shown} hold no secrets; leave --with-secrets out (it is for oidc and github)"
            )));
        }
        self.admit(caller, shown, Verb::Read).await?;
        if name.is_none() {
            self.admit(caller, shown, Verb::List).await?;
        }
        let user = self.admit(caller, shown, Verb::Update).await?;
        let found = self.shown_connectors(kind, name.as_deref()).await?;
        if let (Some(name), true) = (&name, found.is_empty()) {
            let name: String = name.chars().take(80).collect();
            return Err(not_found(format!("there is no {shown} {name}")));
        }
        for each in &found {
            let (user, kind, name) = (user.clone(), shown.to_owned(), each.name().to_owned());
            self.record(AuditKind::ConnectorSecretsShow { user, kind, name }).await?;
        }
        Ok(found.iter().map(|each| each.document(true)).collect())
    }
}
