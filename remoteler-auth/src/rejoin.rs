//! Taking back a host that joined before: whoever brings a fresh token and proves to hold the SSH host key on record gets certificates
//! under the same id, name and services. For hosts that were away while the host authority was replaced, which nobody believes any
//! more. Owns the proof's check; the rest is as in joining.

use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, HostCerts, HostId, JoinRequest, PolicySource, RejoinStatement, RevocationTarget,
};
use ssh_key::PublicKey;

use crate::{
    failure::{ApiResult, bad_request, not_found},
    join::{HostRecord, LocalHost},
    records::key,
    service::Inner,
};

impl Inner {
    /// The token was checked by the caller, and is for the services of the request. Everything certified comes from the record (I9),
    /// but for the keys: those are the request's, which the proof covers.
    pub(crate) async fn readmit(
        &self,
        request: JoinRequest,
        event: &(dyn Fn(Option<HostId>, Option<String>) -> AuditKind + Send + Sync),
    ) -> ApiResult<HostCerts> {
        let Some(proof) = &request.rejoin else {
            return Err(bad_request("a rejoin needs a proof of the host key"));
        };
        let id = proof.host_id;
        let Some(record) = self.records.read::<HostRecord>(&key::of(key::HOSTS, id)).await? else {
            return Err(not_found(format!(
                "host {id} is not known here; remove host.json from its data directory and join as a new host"
            )));
        };
        let HostRecord { identity, ssh_public_key, tls_public_key } = record;
        self.check_recorded_keys(id, &ssh_public_key, &tls_public_key)?;
        let statement = RejoinStatement {
            cluster: &self.cluster,
            token: &request.token,
            host_id: id,
            node_name: &identity.name,
            ssh_public_key: &request.ssh_public_key,
            tls_public_key: &request.tls_public_key,
            signed_at: proof.signed_at,
        };
        let recorded = PublicKey::from_openssh(ssh_public_key.trim()).map_err(|cause| {
            ApiError::new(ApiErrorKind::Internal, format!("the key on record of host {id}: {cause}"))
        })?;
        statement
            .verify(&proof.signature, &recorded, self.clock.now())
            .map_err(|cause| ApiError::new(ApiErrorKind::Denied, format!("host {id} is not taken back: {cause}")))?;
        if (&request.node_name, &request.roles, &request.kube_clusters)
            != (&identity.name, &identity.roles, &identity.kube_clusters)
        {
            return Err(bad_request(format!(
                "host {id} is {} with other services than it asks for; a rejoin changes neither name nor services",
                identity.name
            )));
        }
        let JoinRequest { ssh_public_key, tls_public_key, .. } = request;
        let host = LocalHost {
            name: identity.name,
            roles: identity.roles,
            kube_clusters: identity.kube_clusters,
            ssh_public_key,
            tls_public_key,
            host_id: Some(id),
        };
        self.admit_new(host, event).await
    }

    /// A revoked key proves nothing, and a host of which one was revoked was shut out on purpose: with the other it does not come back.
    fn check_recorded_keys(&self, id: HostId, ssh: &str, tls: &str) -> ApiResult<()> {
        let revoked = &self.policy.policy().trust.revoked;
        for recorded in [ssh, tls] {
            let key = RevocationTarget::key(recorded).map_err(|cause| {
                ApiError::new(ApiErrorKind::Internal, format!("the key on record of host {id}: {cause}"))
            })?;
            if revoked.contains(&key) {
                return Err(ApiError::new(
                    ApiErrorKind::Denied,
                    format!(
                        "host {id} is not taken back: the key that it joined with is revoked ({key}); take that back with tctl auth \
                         unrevoke, or remove host.json from its data directory, free its name and join as a new host"
                    ),
                ));
            }
        }
        Ok(())
    }
}
