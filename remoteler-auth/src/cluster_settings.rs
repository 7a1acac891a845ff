//! Documents that set the cluster: `cluster_auth_preference`, `cluster_networking_config`, `session_recording_config`. Owns what is stored of them and
//! how it comes into force. What the configuration file says is never stored and never written over: it lies over the documents, field by field,
//! and a document that contradicts it is refused.

use remoteler_core::{
    AuditKind, AuthType, ClusterConfig, Labels, Metadata, ORIGIN_LABEL, Policy, PolicySource, Resource, ResourceKind,
    singleton_name,
};
use serde_json::Value;

use crate::{
    failure::{ApiResult, bad_request, conflict, not_found},
    records::{RecordError, Records, key},
    service::Inner,
};

/// Kinds that set the cluster.
const KINDS: [ResourceKind; 3] =
    [ResourceKind::ClusterAuthPreference, ResourceKind::ClusterNetworkingConfig, ResourceKind::SessionRecordingConfig];

/// What documents say, as it was stored. A field that this program does not know stops the start, for what it would forbid is not known (I80).
pub(crate) async fn load(records: &Records) -> Result<ClusterConfig, RecordError> {
    let mut config = ClusterConfig::default();
    for kind in KINDS {
        let key = key::of(key::CLUSTER_CONFIG, kind.as_str());
        if let Some(spec) = records.read::<Value>(&key).await? {
            config = config
                .with_spec(kind, spec)
                .map_err(|cause| RecordError::Malformed { key, reason: cause.to_string() })?;
        }
    }
    Ok(config)
}

/// Says in the log where the file wins over a document that is stored.
pub(crate) fn warn_of_hidden(file: &ClusterConfig, stored: &ClusterConfig) {
    for kind in KINDS {
        if let Err(cause) = stored.agrees_with_file(kind, file) {
            tracing::warn!(document = kind.as_str(), %cause, "the configuration file counts, not the document");
        }
    }
}

impl Inner {
    /// The document of this kind as it is in force, with where that comes from.
    pub(crate) async fn cluster_document(&self, kind: ResourceKind) -> ApiResult<Resource> {
        let stored = load(&self.records).await?;
        let said = |config: &ClusterConfig| config.spec(kind).as_object().is_some_and(|fields| !fields.is_empty());
        let origin = match () {
            () if said(&self.file_settings) => "config-file",
            () if said(&stored) => "dynamic",
            () => "defaults",
        };
        let in_file: Vec<String> =
            self.file_settings.spec(kind).as_object().into_iter().flatten().map(|(field, _)| field.clone()).collect();
        let description = (!in_file.is_empty()).then(|| format!("by the configuration file: {}", in_file.join(", ")));
        let in_force = self.file_settings.clone().over(stored).over(ClusterConfig::defaults());
        Ok(Resource {
            kind: kind.as_str().into(),
            version: "v2".into(),
            metadata: Metadata {
                name: singleton_name(kind).unwrap_or_default().into(),
                description,
                labels: Labels::from([(ORIGIN_LABEL.to_owned(), origin.to_owned())]),
                expires: None,
            },
            spec: in_force.spec(kind),
        })
    }

    /// Writes such a document; [`Inner::changes`] is held by the caller.
    pub(crate) async fn write_cluster_document(
        &self,
        actor: String,
        kind: ResourceKind,
        document: Resource,
        replace: bool,
    ) -> ApiResult<()> {
        if !kind.versions().contains(&document.version.as_str()) {
            let version: String = document.version.chars().take(40).collect();
            return Err(bad_request(format!("version {version:?} of kind {} is not read; v2 is", kind.as_str())));
        }
        let stored = load(&self.records).await?;
        let wanted = stored.clone().with_document(kind, document).map_err(|cause| bad_request(cause.to_string()))?;
        wanted.agrees_with_file(kind, &self.file_settings).map_err(|cause| conflict(cause.to_string()))?;
        if kind == ResourceKind::ClusterAuthPreference {
            self.check_default_connector(&wanted).await?;
        }
        let key = key::of(key::CLUSTER_CONFIG, kind.as_str());
        if !replace && self.records.read::<Value>(&key).await?.is_some() {
            let kind = kind.as_str();
            return Err(conflict(format!("there is a {kind} already; use tctl create -f to replace it")));
        }
        self.record_change(actor, kind, &stored, &wanted).await?;
        self.records.write(&key, &wanted.spec(kind), None).await?;
        self.believe_settings(wanted);
        Ok(())
    }

    /// Goes back to the defaults; [`Inner::changes`] is held by the caller.
    pub(crate) async fn delete_cluster_document(&self, actor: String, kind: ResourceKind, name: &str) -> ApiResult<()> {
        let key = key::of(key::CLUSTER_CONFIG, kind.as_str());
        let own = singleton_name(kind).unwrap_or_default();
        if name != own || self.records.read::<Value>(&key).await?.is_none() {
            let name: String = name.chars().take(80).collect();
            return Err(not_found(format!(
                "no {} {name} is stored; {own} is what the configuration file and the defaults say",
                kind.as_str()
            )));
        }
        let stored = load(&self.records).await?;
        let without = stored.clone().with_spec(kind, Value::Null).map_err(|cause| bad_request(cause.to_string()))?;
        self.record_change(actor, kind, &stored, &without).await?;
        self.records.delete(&key).await?;
        self.believe_settings(without);
        Ok(())
    }

    /// How people log in who say nothing else: the way, and its connector.
    pub(crate) async fn login_preference(&self) -> ApiResult<(AuthType, Option<String>)> {
        let in_force = self.file_settings.clone().over(load(&self.records).await?);
        Ok((in_force.auth.auth_type.unwrap_or_default(), in_force.auth.connector_name))
    }

    /// That the connector which everybody is sent to is there, and of the kind that is said beside it.
    async fn check_default_connector(&self, wanted: &ClusterConfig) -> ApiResult<()> {
        let auth = self.file_settings.clone().over(wanted.clone()).auth;
        let (kind, Some(name)) = (auth.auth_type.unwrap_or_default(), auth.connector_name) else { return Ok(()) };
        let shown: String = name.chars().filter(char::is_ascii_graphic).take(80).collect();
        if kind == AuthType::Local {
            return Err(bad_request(format!(
                "connector_name {shown} is for type oidc, github or saml; type is local: who has a password needs no connector"
            )));
        }
        match self.connector(&name).await? {
            Some(found) if found.kind().as_str() == kind.as_str() => Ok(()),
            Some(found) => {
                let (found, kind) = (found.kind().as_str(), kind.as_str());
                Err(bad_request(format!(
                    "connector {shown} is of kind {found}, and type is {kind}; name one of that kind"
                )))
            }
            None => Err(bad_request(format!("there is no connector {shown}; create it first"))),
        }
    }

    async fn record_change(
        &self,
        user: String,
        kind: ResourceKind,
        before: &ClusterConfig,
        after: &ClusterConfig,
    ) -> ApiResult<()> {
        let changes = before.changes(kind, after);
        self.record(match kind {
            ResourceKind::ClusterNetworkingConfig => AuditKind::NetworkingConfigUpdate { user, changes },
            ResourceKind::SessionRecordingConfig => AuditKind::RecordingConfigUpdate { user, changes },
            ResourceKind::ClusterAuthPreference
            | ResourceKind::Role
            | ResourceKind::User
            | ResourceKind::Token
            | ResourceKind::Node
            | ResourceKind::KubeCluster
            | ResourceKind::App
            | ResourceKind::PolicyTest
            | ResourceKind::Lock
            | ResourceKind::Oidc
            | ResourceKind::Github
            | ResourceKind::Saml => AuditKind::AuthPreferenceUpdate { user, changes },
        })
        .await
    }

    /// Puts what documents say in force, here and at every service.
    fn believe_settings(&self, documents: ClusterConfig) {
        let settings = self.file_settings.clone().over(documents).settings();
        self.policy.replace(Policy { settings, ..Policy::clone(&self.policy.policy()) });
    }
}
