//! Joining: what lets a host in, and the certificates of those that are in. The write that lets it in is that of [`crate::admission`].

use std::collections::BTreeSet;

use remoteler_core::{
    ApiError, ApiErrorKind, AppName, AuditKind, HostCerts, HostId, HostIdentity, InstanceId, JoinRequest,
    KubeClusterName, Labels, LockContext, NodeName, RevocationTarget, SourceNet, SystemRole, TokenScope,
};
use serde::{Deserialize, Serialize};

use crate::{
    Caller,
    copies::{IssuedSerials, Standing},
    failure::{ApiResult, not_found, rate_limited, unauthenticated},
    issue::{HostIssue, IssuedHost, SubjectKeys},
    records::key,
    secret_hash,
    service::Inner,
    tokens::{id_of, refused},
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
    /// Web applications it will announce.
    pub apps: BTreeSet<AppName>,
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
    /// Of no generation.
    pub(crate) identity: HostIdentity,
    /// OpenSSH's one-line form.
    pub(crate) ssh_public_key: String,
    /// PEM of a SubjectPublicKeyInfo.
    pub(crate) tls_public_key: String,
    /// Hash of the token it joined with, so that it may ask again when the answer was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) joined_with: Option<String>,
}

/// What lets a host in, as the request showed it.
pub(crate) struct Pass {
    /// Hash of the token; absent for pods, which have none.
    pub(crate) hash: Option<String>,
    pub(crate) scope: TokenScope,
    /// The one host that it is for.
    pub(crate) host: Option<HostId>,
    /// Service account of the pod.
    pub(crate) account: Option<String>,
}

/// A host to be let in: what is asked for, and what is given to it.
pub(crate) struct Admission {
    pub(crate) host: LocalHost,
    pub(crate) labels: Labels,
    pub(crate) pass: Option<Pass>,
    /// Whether it was in before, and is told from now on from everybody who has its certificates.
    pub(crate) again: bool,
}

/// Whether a failure is of who asks and may be a guess, so that it counts against the address. A store that does not answer says nothing of
/// the device, and neither does a name that is taken.
const fn is_the_devices(kind: ApiErrorKind) -> bool {
    matches!(kind, ApiErrorKind::Denied | ApiErrorKind::BadRequest)
}

/// What is remembered of certificates, so that they can be revoked.
pub(crate) fn issued_serials(generation: u64, prepared: &HostIssue) -> IssuedSerials {
    let serials = prepared.serials();
    IssuedSerials { generation, ssh: serials.ssh, tls: serials.tls }
}

impl Inner {
    pub(crate) async fn join(&self, caller: &Caller, request: JoinRequest) -> ApiResult<HostCerts> {
        let remote = caller.address().map(|addr| addr.to_string());
        let address = caller.address().map(|addr| SourceNet::of(addr.ip()).to_string());
        let (node_name, without_pin) = (request.node_name.to_string(), request.without_pin);
        let rejoined = request.rejoin.is_some();
        let roles: Vec<String> = request.roles.iter().map(ToString::to_string).collect();
        let passed = match self.pass(&request, address.as_deref()).await {
            Ok(passed) => passed,
            Err(answer) if answer.kind == ApiErrorKind::RateLimited => {
                // Strangers cause this at will: the audit log bounds how often it is said, a log line would not be (I26).
                self.record_attempt(String::new(), answer.message.clone(), remote).await?;
                return Err(answer);
            }
            Err(cause) => Err(cause),
        };
        // A token that is no rule's name may be a secret that was written in its place (I35, I76).
        let token = match &request.service_account {
            Some(_) if self.is_join_rule(&request.token).await => request.token.reveal().to_owned(),
            Some(_) | None => id_of(&secret_hash::hash(&request.token)),
        };
        let service_account = passed.as_ref().ok().and_then(|pass| pass.account.clone());
        let event = |host_id: Option<HostId>, error: Option<String>| AuditKind::InstanceJoin {
            node_name: node_name.clone(),
            host_id: host_id.map(|id| id.to_string()),
            roles: roles.clone(),
            success: error.is_none(),
            error,
            remote: remote.clone(),
            without_pin,
            rejoined,
            token: token.clone(),
            service_account: service_account.clone(),
        };
        let rejoins = request.rejoin.as_ref().map(|proof| proof.host_id);
        let keys = [&request.ssh_public_key, &request.tls_public_key].map(|key| RevocationTarget::key(key).ok());
        let context = LockContext::joining(&self.cluster, keys).host(Some(&node_name), rejoins);
        let admitted = passed.and_then(|pass| self.check_locks(&context).map(|()| pass));
        let joined = match admitted {
            Ok(pass) if rejoined => self.readmit(request, pass, &event).await,
            Ok(pass) => self.admit_by_pass(request, pass, &event).await,
            Err(cause) => Err(cause),
        };
        match joined {
            Ok(certs) => Ok(certs),
            Err(cause) => {
                // What was not let in by what it showed was counted when that was looked at.
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
        let host_id = match host.host_id {
            Some(id) => Some(id),
            None => self.former_own_host(&host.name).await?,
        };
        let host = LocalHost { host_id, ..host };
        let (name, roles) = (host.name.to_string(), host.roles.iter().map(ToString::to_string).collect());
        let admission = Admission { host, labels: Labels::new(), pass: None, again: false };
        self.admit_new(admission, &move |host_id, error| AuditKind::InstanceJoin {
            node_name: name.clone(),
            host_id: host_id.map(|id| id.to_string()),
            roles: Vec::clone(&roles),
            success: error.is_none(),
            error,
            remote: None,
            without_pin: false,
            rejoined: false,
            token: String::new(),
            service_account: None,
        })
        .await
    }

    /// The auth service's own host of this name, when its data directory was lost and only the database was put back: it stays that host, with new keys. A name of any
    /// other host stays with that.
    async fn former_own_host(&self, name: &NodeName) -> ApiResult<Option<HostId>> {
        let Some(id) = self.records.read::<HostId>(&key::of(key::NODE_OWNERS, name)).await? else { return Ok(None) };
        let record = self.records.read::<HostRecord>(&key::of(key::HOSTS, id)).await?;
        let own = record.is_some_and(|record| record.identity.roles.contains(&SystemRole::Auth));
        if own {
            tracing::warn!(%name, %id, "this host's own files are gone; it gets new keys and stays the host that it was");
        }
        Ok(own.then_some(id))
    }

    /// What lets the host of a request in, if anything does. The outer failure is that its address may not ask now.
    ///
    /// I35: a token is looked up by its hash, and joins of all addresses take turns until theirs is found, so that no address has more
    /// guesses than it may have failures, however many are under way.
    async fn pass(&self, request: &JoinRequest, address: Option<&str>) -> ApiResult<ApiResult<Pass>> {
        let open = |now| match address {
            Some(address) if !self.limits.join.is_open(address, now) => {
                Err(rate_limited("too many failed joins from this address; wait five minutes"))
            }
            Some(_) | None => Ok(()),
        };
        let failed = || {
            if let Some(address) = address {
                self.limits.join.failed(address, self.clock.now());
            }
        };
        if let Some(proof) = &request.service_account {
            open(self.clock.now())?;
            let judged = self.judge_pod(&request.token, proof).await;
            if judged.as_ref().is_err_and(|cause| cause.kind == ApiErrorKind::Unauthenticated) {
                failed();
            }
            return Ok(judged.map(|(rule, account)| Pass {
                hash: None,
                scope: rule.spec.scope(),
                host: None,
                account: Some(account.to_string()),
            }));
        }
        let found = {
            let _turn = self.limits.guess.lock().await;
            open(self.clock.now())?;
            let found = self.token(&request.token).await;
            if matches!(found, Ok(None)) {
                failed();
            }
            found
        };
        Ok(match found {
            Ok(Some(token)) => Ok(Pass {
                hash: Some(secret_hash::hash(&request.token)),
                scope: token.scope,
                host: token.host_id,
                account: None,
            }),
            Ok(None) => {
                Err(unauthenticated("the join token is wrong or has expired; make a new one with tctl tokens add"))
            }
            Err(cause) => Err(cause),
        })
    }

    async fn admit_by_pass(
        &self,
        request: JoinRequest,
        pass: Pass,
        event: &(dyn Fn(Option<HostId>, Option<String>) -> AuditKind + Send + Sync),
    ) -> ApiResult<HostCerts> {
        if let Some(host) = pass.host {
            return Err(ApiError::new(
                ApiErrorKind::Denied,
                format!("the join token is for host {host} to join again: run remoteler rejoin there"),
            ));
        }
        let JoinRequest { node_name: name, roles, kube_clusters, apps, ssh_public_key, tls_public_key, .. } = request;
        pass.scope.admits(&roles, &name, &kube_clusters, &apps).map_err(|cause| refused(&cause))?;
        let labels = pass.scope.labels.clone();
        let mut host = LocalHost { name, roles, kube_clusters, apps, ssh_public_key, tls_public_key, host_id: None };
        host.host_id = self.asked_before(&host, &labels, &pass).await?;
        self.admit_new(Admission { host, labels, pass: Some(pass), again: false }, event).await
    }

    /// The id of the host that joined with the same token as the same host with the same keys: it did not get the answer.
    async fn asked_before(&self, host: &LocalHost, labels: &Labels, pass: &Pass) -> ApiResult<Option<HostId>> {
        let Some(owner) = self.records.read::<HostId>(&key::of(key::NODE_OWNERS, &host.name)).await? else {
            return Ok(None);
        };
        let Some(record) = self.records.read::<HostRecord>(&key::of(key::HOSTS, owner)).await? else {
            return Ok(None);
        };
        let same = pass.hash.is_some()
            && record.joined_with == pass.hash
            && (&record.ssh_public_key, &record.tls_public_key) == (&host.ssh_public_key, &host.tls_public_key)
            && (&record.identity.roles, &record.identity.kube_clusters, &record.identity.apps)
                == (&host.roles, &host.kube_clusters, &host.apps)
            && record.identity.labels == *labels;
        if !same {
            return Ok(None);
        }
        self.check_locks(&LockContext::of_host_identity(&record.identity))?;
        // Who has shown what was issued has got it: from then on these keys alone are not enough.
        let standing = self.records.read::<Standing>(&key::of(key::STANDINGS, owner)).await?.unwrap_or_default();
        Ok(standing.holder().is_none().then_some(owner))
    }

    /// Certificates for the keys that the calling host joined with, as what it was let in: renewing widens nothing (I10), and who
    /// stole a certificate's key gets none for a key of their own. Who speaks for the host gets certificates of a new generation.
    pub(crate) async fn renew_host(&self, caller: &Caller, instance: Option<InstanceId>) -> ApiResult<HostCerts> {
        let Caller::Host { host, .. } = caller else {
            return Err(self.refuse(caller, "renew host certificates").await);
        };
        if caller.address().is_some() {
            self.check_locks(&LockContext::of_host(host))?;
        }
        // Each renewal signs three times and is two events and two writes; an honest host asks once a day and once for each step of a rotation.
        if !self.limits.renewals.attempt(&host.identity().id.to_string(), self.clock.now()) {
            let answer = rate_limited("this host renews its certificates too often; it must wait five minutes");
            let remote = caller.address().map(|addr| addr.to_string());
            self.record_attempt(caller.name(), answer.message.clone(), remote).await?;
            return Err(answer);
        }
        let heeded = self.hear_host(caller, host, instance, None).await?;
        let identity = host.identity().of_generation(0);
        // A host that is removed at this moment is renewed before that or not at all; others are renewed beside it.
        let _turn = self.changes.read().await;
        let Some(record) = self.records.read::<HostRecord>(&key::of(key::HOSTS, identity.id)).await? else {
            return Err(not_found(format!("host {} is not known any more; it must join again", identity.id)));
        };
        if record.identity != identity {
            return Err(self.refuse(caller, "renew host certificates of another name or for other services").await);
        }
        let keys = SubjectKeys::parse(&record.ssh_public_key, &record.tls_public_key)?;
        let now = self.clock.now();
        let generation =
            self.change_standing(identity.id, |standing| standing.next_generation(heeded.speaks, now)).await?;
        let prepared = self.issuer.prepare_host(record.identity.of_generation(generation), keys)?;
        self.remember_issued(identity.id, generation, &prepared).await?;
        let issued = self.issuer.issue_host(prepared).await?;
        Ok(self.host_certs(identity.id, issued))
    }

    /// Keeps the serials of what is issued, before it is.
    async fn remember_issued(&self, id: HostId, generation: u64, prepared: &HostIssue) -> ApiResult<()> {
        let issued = issued_serials(generation, prepared);
        self.change_standing(id, |standing: &mut Standing| standing.issued(issued.clone())).await
    }

    pub(crate) fn host_certs(&self, host_id: HostId, issued: IssuedHost) -> HostCerts {
        HostCerts {
            host_id,
            cluster_name: self.cluster.clone(),
            ssh_certificate: issued.serving.ssh_certificate,
            tls_certificate: issued.serving.tls_certificate_pem,
            tls_client_certificate: issued.tls_client_pem,
            trust: self.issuer.trust(),
        }
    }
}
