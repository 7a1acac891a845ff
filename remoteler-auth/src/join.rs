//! Letting hosts in: the token, the name that must be free, the id that is drawn here, the certificates.

use std::collections::BTreeSet;

use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, HostCerts, HostId, HostIdentity, JoinRequest, KubeClusterName, LockContext,
    NodeName, SourceNet, SystemRole, random_uuid,
};
use serde::{Deserialize, Serialize};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict, not_found, rate_limited, unauthenticated},
    issue::{IssuedHost, SubjectKeys},
    records::key,
    service::Inner,
};

/// A service of this process that wants certificates.
#[derive(Clone, Debug)]
pub struct LocalHost {
    /// Name of the host.
    pub name: NodeName,
    /// What it does.
    pub roles: BTreeSet<SystemRole>,
    /// Kubernetes clusters it will announce.
    pub kube_clusters: BTreeSet<KubeClusterName>,
    /// Public key to be certified for SSH, OpenSSH's one-line form.
    pub ssh_public_key: String,
    /// Public key to be certified for TLS: PEM of a SubjectPublicKeyInfo.
    pub tls_public_key: String,
    /// The id it was given before; absent at its first start.
    pub host_id: Option<HostId>,
}

/// What a host was let in as, and its keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostRecord {
    pub(crate) identity: HostIdentity,
    /// OpenSSH's one-line form.
    pub(crate) ssh_public_key: String,
    /// PEM of a SubjectPublicKeyInfo.
    pub(crate) tls_public_key: String,
}

/// Whether a failure is of who asks and may be a guess, so that it counts against the address. A store that does not answer says nothing of
/// the device, and neither does a name that is taken.
const fn is_the_devices(kind: ApiErrorKind) -> bool {
    matches!(kind, ApiErrorKind::Unauthenticated | ApiErrorKind::Denied | ApiErrorKind::BadRequest)
}

/// Most Kubernetes clusters of one host.
const MAX_KUBE_CLUSTERS: usize = 64;

impl Inner {
    pub(crate) async fn join(&self, caller: &Caller, request: JoinRequest) -> ApiResult<HostCerts> {
        let remote = caller.address();
        let address = remote.map(|addr| SourceNet::of(addr.ip()).to_string());
        if let Some(address) = &address
            && !self.limits.join.is_open(address, self.clock.now())
        {
            // Strangers cause this at will: the audit log bounds how often it is said, a log line would not be (I26).
            let answer = rate_limited("too many failed joins from this address; wait five minutes");
            self.record_attempt(String::new(), answer.message.clone(), remote.map(|addr| addr.to_string())).await?;
            return Err(answer);
        }
        let (node_name, without_pin) = (request.node_name.to_string(), request.without_pin);
        let rejoined = request.rejoin.is_some();
        let roles: Vec<String> = request.roles.iter().map(ToString::to_string).collect();
        let event = |host_id: Option<HostId>, error: Option<String>| AuditKind::InstanceJoin {
            node_name: node_name.clone(),
            host_id: host_id.map(|id| id.to_string()),
            roles: roles.clone(),
            success: error.is_none(),
            error,
            remote: remote.map(|addr| addr.to_string()),
            without_pin,
            rejoined,
        };
        let admitted = match self.check_token(&request).await {
            Ok(()) => self.check_locks(
                &LockContext::default().host(Some(&node_name), request.rejoin.as_ref().map(|proof| proof.host_id)),
            ),
            Err(cause) => Err(cause),
        };
        let joined = match admitted {
            Ok(()) if rejoined => self.readmit(request, &event).await,
            Ok(()) => {
                let JoinRequest { node_name: name, roles, kube_clusters, ssh_public_key, tls_public_key, .. } = request;
                let host = LocalHost { name, roles, kube_clusters, ssh_public_key, tls_public_key, host_id: None };
                self.admit_new(host, &event).await
            }
            Err(cause) => Err(cause),
        };
        match joined {
            Ok(certs) => Ok(certs),
            Err(cause) => {
                if let Some(address) = &address
                    && is_the_devices(cause.kind)
                {
                    self.limits.join.failed(address, self.clock.now());
                }
                self.record(event(None, Some(cause.message.clone()))).await?;
                Err(cause)
            }
        }
    }

    pub(crate) async fn issue_local_host(&self, host: LocalHost) -> ApiResult<HostCerts> {
        let (name, roles) = (host.name.to_string(), host.roles.iter().map(ToString::to_string).collect());
        self.admit_new(host, &move |host_id, error| AuditKind::InstanceJoin {
            node_name: name.clone(),
            host_id: host_id.map(|id| id.to_string()),
            roles: Vec::clone(&roles),
            success: error.is_none(),
            error,
            remote: None,
            without_pin: false,
            rejoined: false,
        })
        .await
    }

    /// I35: the token is looked up by its hash, and each role must be one it is for.
    async fn check_token(&self, request: &JoinRequest) -> ApiResult<()> {
        let Some(token) = self.token(&request.token).await? else {
            return Err(unauthenticated("the join token is wrong or has expired; make a new one with tctl tokens add"));
        };
        if request.roles.is_empty() {
            return Err(bad_request("a host joins with at least one service: node, kube or proxy"));
        }
        if let Some(role) = request.roles.iter().find(|role| !token.roles.contains(role)) {
            return Err(ApiError::new(
                ApiErrorKind::Denied,
                format!("the join token is not for service {role}; make one with tctl tokens add --type {role}"),
            ));
        }
        Ok(())
    }

    pub(crate) async fn admit_new(
        &self,
        host: LocalHost,
        event: &(dyn Fn(Option<HostId>, Option<String>) -> AuditKind + Send + Sync),
    ) -> ApiResult<HostCerts> {
        let LocalHost { name, roles, kube_clusters, ssh_public_key, tls_public_key, host_id } = host;
        self.check_node_name(&name)?;
        if kube_clusters.len() > MAX_KUBE_CLUSTERS {
            return Err(bad_request(format!("a host announces at most {MAX_KUBE_CLUSTERS} Kubernetes clusters")));
        }
        if !kube_clusters.is_empty() && !roles.contains(&SystemRole::Kube) {
            return Err(bad_request("a host that announces Kubernetes clusters joins with the service kube"));
        }
        let id = host_id.unwrap_or_else(|| HostId::from_uuid(random_uuid(self.entropy.as_ref())));
        let keys = SubjectKeys::parse(&ssh_public_key, &tls_public_key)?;
        let identity = HostIdentity {
            id,
            name: name.clone(),
            cluster: self.cluster.clone(),
            roles,
            kube_clusters: kube_clusters.clone(),
        };
        let record = HostRecord { identity: identity.clone(), ssh_public_key, tls_public_key };
        let prepared = self.issuer.prepare_host(identity, keys)?;

        let mut claims = vec![(key::of(key::NODE_OWNERS, &name), format!("node {name}"), format!("node/{name}"))];
        claims.extend(kube_clusters.iter().map(|kube| {
            let what = format!("Kubernetes cluster {kube}");
            (key::of(key::KUBE_OWNERS, kube), what, format!("kube_cluster/{kube}"))
        }));
        let _turn = self.changes.write().await; // claims of one host are taken together
        let mut taken = Vec::new();
        let mut outcome = Ok(());
        for (key, what, resource) in &claims {
            match self.claim(key, id, what, resource).await {
                Ok(true) => taken.push(key),
                Ok(false) => {}
                Err(cause) => {
                    outcome = Err(cause);
                    break;
                }
            }
        }
        if outcome.is_ok() {
            outcome = self.record(event(Some(id), None)).await;
        }
        if outcome.is_ok() {
            outcome = self.records.write(&key::of(key::HOSTS, id), &record, None).await.map_err(Into::into);
        }
        let issued = match outcome {
            Ok(()) => self.issuer.issue_host(prepared).await,
            Err(cause) => Err(cause),
        };
        match issued {
            Ok(issued) => Ok(self.host_certs(id, issued)),
            Err(cause) => {
                for key in taken {
                    self.records.delete(key).await?; // a host that was not let in keeps no name
                }
                Err(cause)
            }
        }
    }

    /// Certificates for the keys that the calling host joined with, as what it was let in: renewing widens nothing (I10), and who
    /// stole a certificate's key gets none for a key of their own.
    pub(crate) async fn renew_host(&self, caller: &Caller) -> ApiResult<HostCerts> {
        let Caller::Host { host, .. } = caller else {
            return Err(self.refuse(caller, "renew host certificates").await);
        };
        if caller.address().is_some() {
            self.check_locks(&LockContext::of_host(host))?;
        }
        let identity = host.identity();
        // A host that is removed at this moment is renewed before that or not at all; others are renewed beside it.
        let _turn = self.changes.read().await;
        let Some(record) = self.records.read::<HostRecord>(&key::of(key::HOSTS, identity.id)).await? else {
            return Err(not_found(format!("host {} is not known any more; it must join again", identity.id)));
        };
        if record.identity != *identity {
            return Err(self.refuse(caller, "renew host certificates of another name or for other services").await);
        }
        let keys = SubjectKeys::parse(&record.ssh_public_key, &record.tls_public_key)?;
        let issued = self.issuer.issue_host(self.issuer.prepare_host(record.identity, keys)?).await?;
        Ok(self.host_certs(identity.id, issued))
    }

    fn host_certs(&self, host_id: HostId, issued: IssuedHost) -> HostCerts {
        HostCerts {
            host_id,
            cluster_name: self.cluster.clone(),
            ssh_certificate: issued.serving.ssh_certificate,
            tls_certificate: issued.serving.tls_certificate_pem,
            tls_client_certificate: issued.tls_client_pem,
            trust: self.issuer.trust(),
        }
    }

    /// Binds a name to a host (I28). `true` when it was free, `false` when it was this host's already.
    async fn claim(&self, key: &str, host: HostId, what: &str, resource: &str) -> ApiResult<bool> {
        match self.records.create(key, &host, None).await {
            Ok(_) => Ok(true),
            Err(cause) if cause.is_conflict() => match self.records.read::<HostId>(key).await? {
                Some(owner) if owner == host => Ok(false),
                Some(owner) => Err(conflict(format!(
                    "{what} belongs to host {owner}; on that host run remoteler rejoin, else choose another name, or free it with \
                     tctl rm {resource}"
                ))),
                None => Err(conflict(format!("{what} was freed at this moment; try again"))),
            },
            Err(cause) => Err(cause.into()),
        }
    }

    /// A host certificate is valid for its id and for `name.cluster`, and for names below `kube.cluster`: no node may be called so that
    /// these are another's.
    fn check_node_name(&self, name: &NodeName) -> ApiResult<()> {
        let text = name.as_str();
        let refuse = |why: &str| Err(bad_request(format!("node name {text} is refused: {why}; choose another")));
        if text == "kube" || text.ends_with(".kube") {
            return refuse("names below kube stand for Kubernetes clusters");
        }
        if text.parse::<HostId>().is_ok() {
            return refuse("it looks like a host id");
        }
        if text == self.cluster.as_str() || text.ends_with(&format!(".{}", self.cluster)) {
            return refuse("it ends with the cluster's name, which is added by itself");
        }
        Ok(())
    }
}
