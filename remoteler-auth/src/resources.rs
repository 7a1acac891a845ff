//! Documents of every kind, as `tctl get`, `create` and `rm` use them. Roles, users and tokens without a secret are written; tokens with
//! one, nodes and Kubernetes clusters are made by their own calls and only shown and removed here.

use std::collections::BTreeSet;

use remoteler_core::{
    AppRecord, JoinMethod, KubeRecord, KubernetesAllow, KubernetesRules, Metadata, NewUser, NodeRecord, Resource,
    ResourceKind, RoleName, Secret, TokenChecker, TokenSpec, TokenSummary, Traits, UserName, Verb,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Caller,
    failure::{ApiResult, bad_request, not_found},
    records::key,
    service::Inner,
    users::UserRecord,
};

/// `spec` of a user document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserSpec {
    roles: BTreeSet<RoleName>,
    #[serde(default)]
    traits: Traits,
}

impl Inner {
    pub(crate) async fn resources(
        &self,
        caller: &Caller,
        kind: ResourceKind,
        name: Option<String>,
    ) -> ApiResult<Vec<Resource>> {
        let verb = if name.is_some() { Verb::Read } else { Verb::List };
        self.admit(caller, kind.as_str(), verb).await?;
        let all: Vec<Resource> = match kind {
            ResourceKind::Role => {
                self.records.list::<Resource>(key::ROLES).await?.into_iter().map(|(_, role, _)| role).collect()
            }
            ResourceKind::User => {
                let users = self.records.list::<UserRecord>(key::USERS).await?;
                users.into_iter().map(|(_, user, _)| user_document(user)).collect()
            }
            ResourceKind::Token => self.token_summaries().await?.into_iter().map(token_document).collect(),
            ResourceKind::Node => self.all_nodes().await?.into_iter().map(node_document).collect(),
            ResourceKind::KubeCluster => self.all_kube_clusters().await?.into_iter().map(kube_document).collect(),
            ResourceKind::App => self.all_apps().await?.into_iter().map(app_document).collect(),
            ResourceKind::PolicyTest => {
                self.records.list::<Resource>(key::POLICY_TESTS).await?.into_iter().map(|(_, test, _)| test).collect()
            }
            ResourceKind::Lock => self.lock_documents(),
            ResourceKind::ClusterAuthPreference
            | ResourceKind::ClusterNetworkingConfig
            | ResourceKind::SessionRecordingConfig => vec![self.cluster_document(kind).await?],
            ResourceKind::Oidc | ResourceKind::Github | ResourceKind::Saml => {
                self.connector_documents(kind, name.as_deref()).await?
            }
        };
        let Some(name) = name else { return Ok(all) };
        let found: Vec<_> = all.into_iter().filter(|document| document.metadata.name == name).collect();
        if found.is_empty() {
            let name: String = name.chars().take(80).collect();
            return Err(not_found(format!("there is no {} {name}", kind.as_str())));
        }
        Ok(found)
    }

    pub(crate) async fn put_resource(&self, caller: &Caller, document: Resource, replace: bool) -> ApiResult<()> {
        let kind = ResourceKind::parse(&document.kind).map_err(|cause| bad_request(cause.to_string()))?;
        if matches!(kind, ResourceKind::Role | ResourceKind::User | ResourceKind::PolicyTest) {
            return self.put_policy(caller, vec![document], replace).await;
        }
        let actor = self.admit_put(caller, kind, replace).await?;
        if matches!(kind, ResourceKind::Oidc | ResourceKind::Github | ResourceKind::Saml) {
            return self.put_connector(caller, document, replace).await;
        }
        let _turn = self.changes.write().await;
        match kind {
            ResourceKind::Token => self.write_join_rule(actor, document, replace).await,
            ResourceKind::Lock => self.write_lock(actor, document, replace).await,
            ResourceKind::ClusterAuthPreference
            | ResourceKind::ClusterNetworkingConfig
            | ResourceKind::SessionRecordingConfig => self.write_cluster_document(actor, kind, document, replace).await,
            ResourceKind::Role
            | ResourceKind::User
            | ResourceKind::PolicyTest
            | ResourceKind::Oidc
            | ResourceKind::Github
            | ResourceKind::Saml
            | ResourceKind::Node
            | ResourceKind::KubeCluster
            | ResourceKind::App => {
                let how = kind.made_elsewhere().unwrap_or_default();
                let kind = kind.as_str();
                Err(bad_request(format!(
                    "documents of kind {kind} cannot be created: {how}; those of kinds role, user, token, policy_test, lock, oidc, github and saml and those that set the cluster can"
                )))
            }
        }
    }

    /// Who may write a document of that kind.
    pub(crate) async fn admit_put(&self, caller: &Caller, kind: ResourceKind, replace: bool) -> ApiResult<String> {
        let actor = self.admit(caller, kind.as_str(), Verb::Create).await?;
        if replace { self.admit(caller, kind.as_str(), Verb::Update).await } else { Ok(actor) }
    }

    pub(crate) async fn delete_resource(&self, caller: &Caller, kind: ResourceKind, name: String) -> ApiResult<()> {
        match kind {
            ResourceKind::User => {
                let name = UserName::new(name).map_err(|cause| bad_request(cause.to_string()))?;
                self.delete_user(caller, name).await
            }
            ResourceKind::Token => self.delete_token(caller, &Secret::new(name)).await,
            ResourceKind::Role
            | ResourceKind::Node
            | ResourceKind::KubeCluster
            | ResourceKind::App
            | ResourceKind::PolicyTest
            | ResourceKind::Lock
            | ResourceKind::ClusterAuthPreference
            | ResourceKind::ClusterNetworkingConfig
            | ResourceKind::SessionRecordingConfig
            | ResourceKind::Oidc
            | ResourceKind::Github
            | ResourceKind::Saml => {
                let actor = self.admit(caller, kind.as_str(), Verb::Delete).await?;
                let _turn = self.changes.write().await;
                match kind {
                    ResourceKind::Role => self.delete_role(actor, &name).await,
                    ResourceKind::Node => self.delete_node(actor, &name).await,
                    ResourceKind::App => self.delete_app(actor, &name).await,
                    ResourceKind::PolicyTest => self.delete_policy_test(actor, &name).await,
                    ResourceKind::Lock => self.delete_lock(actor, &name).await,
                    ResourceKind::ClusterAuthPreference
                    | ResourceKind::ClusterNetworkingConfig
                    | ResourceKind::SessionRecordingConfig => self.delete_cluster_document(actor, kind, &name).await,
                    ResourceKind::Oidc | ResourceKind::Github | ResourceKind::Saml => {
                        self.delete_connector(actor, kind, &name).await
                    }
                    ResourceKind::KubeCluster | ResourceKind::User | ResourceKind::Token => {
                        self.delete_kube_cluster(actor, &name).await
                    }
                }
            }
        }
    }
}

pub(crate) fn user_of(document: Resource) -> ApiResult<NewUser> {
    let Resource { version, metadata, spec, .. } = document;
    if version != "v2" {
        let version: String = version.chars().take(40).collect();
        return Err(bad_request(format!("version {version:?} of kind user is not read; v2 is")));
    }
    let name = UserName::new(&metadata.name).map_err(|cause| bad_request(cause.to_string()))?;
    for (field, given) in [
        ("description", metadata.description.is_some()),
        ("labels", !metadata.labels.is_empty()),
        ("expires", metadata.expires.is_some()),
    ] {
        if given {
            return Err(bad_request(format!("metadata.{field} of user {name} is refused: users have none")));
        }
    }
    let spec: UserSpec = serde_json::from_value(spec)
        .map_err(|cause| bad_request(format!("spec of user {name} is refused: {cause}")))?;
    Ok(NewUser { name, roles: spec.roles, traits: spec.traits })
}

fn document(kind: ResourceKind, version: &str, metadata: Metadata, spec: serde_json::Value) -> Resource {
    Resource { kind: kind.as_str().into(), version: version.into(), metadata, spec }
}

fn named(name: impl std::fmt::Display) -> Metadata {
    Metadata { name: name.to_string(), description: None, labels: remoteler_core::Labels::new(), expires: None }
}

fn user_document(user: UserRecord) -> Resource {
    let spec = json!({ "roles": user.roles, "traits": user.traits });
    document(ResourceKind::User, "v2", named(user.name), spec)
}

fn token_document(token: TokenSummary) -> Resource {
    let TokenSummary { id, join_method, scope, expires, uses_left, host_id: _, service_accounts } = token;
    let allow = service_accounts.into_iter().map(|service_account| KubernetesAllow { service_account });
    let rules = KubernetesRules { checked_by: TokenChecker::InCluster, allow: allow.collect() };
    let spec = TokenSpec {
        roles: scope.roles,
        join_method,
        names: scope.names,
        labels: scope.labels,
        uses_left,
        kubernetes: (join_method == JoinMethod::Kubernetes).then_some(rules),
    };
    document(ResourceKind::Token, "v2", Metadata { expires, ..named(id) }, json!(spec))
}

fn node_document(node: NodeRecord) -> Resource {
    let NodeRecord { host_id, name, labels, addr, version, last_seen, heartbeat: _ } = node;
    let spec = json!({ "host_id": host_id, "addr": addr, "version": version, "last_seen": last_seen });
    document(ResourceKind::Node, "v2", Metadata { labels, ..named(name) }, spec)
}

fn kube_document(kube: KubeRecord) -> Resource {
    let KubeRecord { host_id, name, labels, addr, version, last_seen, heartbeat: _ } = kube;
    let spec = json!({ "host_id": host_id, "addr": addr, "version": version, "last_seen": last_seen });
    document(ResourceKind::KubeCluster, "v3", Metadata { labels, ..named(name) }, spec)
}

fn app_document(app: AppRecord) -> Resource {
    let AppRecord { host_id, name, public_addr, labels, version, addr, last_seen, heartbeat: _ } = app;
    let spec = json!({
        "host_id": host_id, "public_addr": public_addr, "addr": addr, "version": version, "last_seen": last_seen
    });
    document(ResourceKind::App, "v3", Metadata { labels, ..named(name) }, spec)
}
