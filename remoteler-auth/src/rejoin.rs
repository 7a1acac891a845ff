//! Taking back a host that joined before: whoever brings a fresh token and proves to hold the SSH host key on record gets certificates
//! under the same id, name and services. For hosts that were away while the host authority was replaced, which nobody believes any
//! more. Owns the proof's check; the rest is as in joining.

use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, HostCerts, HostId, HostIdentity, JoinRequest, LockContext, PolicySource,
    RejoinStatement, RevocationTarget,
};
use ssh_key::PublicKey;

use crate::{
    copies::Standing,
    failure::{ApiResult, bad_request, not_found},
    join::{Admission, HostRecord, LocalHost, Pass},
    records::key,
    service::Inner,
    tokens::{TokenRecord, refused, used_up},
};

impl Inner {
    /// The token was looked up by the caller. Everything certified comes from the record (I9),
    /// but for the keys: those are the request's, which the proof covers.
    pub(crate) async fn readmit(
        &self,
        request: JoinRequest,
        pass: Pass,
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
        if pass.host.is_some_and(|host| host != id) {
            return Err(ApiError::new(ApiErrorKind::Denied, "the join token is for another host to join again"));
        }
        let HostRecord { identity, ssh_public_key, tls_public_key, joined_with } = record;
        self.check_recorded_keys(id, &ssh_public_key, &tls_public_key)?;
        let recorded = [&ssh_public_key, &tls_public_key].map(|key| RevocationTarget::key(key).ok());
        self.check_locks(&LockContext::of_host_identity(&identity).keys(recorded))?;
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
        if (&request.node_name, &request.roles, &request.kube_clusters, &request.apps)
            != (&identity.name, &identity.roles, &identity.kube_clusters, &identity.apps)
        {
            return Err(bad_request(format!(
                "host {id} is {} with other services than it asks for; a rejoin changes neither name nor services",
                identity.name
            )));
        }
        let HostIdentity { roles, name, kube_clusters, apps, .. } = &identity;
        pass.scope.admits(roles, name, kube_clusters, apps).map_err(|cause| refused(&cause))?;
        self.check_spent(id, &pass, joined_with.as_deref()).await?;
        let JoinRequest { ssh_public_key, tls_public_key, .. } = request;
        let host_name = identity.name.clone();
        let host = LocalHost {
            name: identity.name,
            roles: identity.roles,
            kube_clusters: identity.kube_clusters,
            apps: identity.apps,
            ssh_public_key,
            tls_public_key,
            host_id: Some(id),
        };
        let only_one = pass.host.is_some();
        // Labels are those it joined with, not those of this token.
        let admission = Admission { host, labels: identity.labels, pass: Some(pass), again: true };
        let certs = self.admit_new(admission, event).await?;
        if only_one {
            // The token said that this one is the host: whatever was issued before is in other hands, too.
            let older = self.change_standing(id, Standing::take_older).await?;
            self.revoke_issued(older, &format!("host {} joined again in place of its copies", host_name)).await;
        }
        Ok(certs)
    }

    /// A token whose uses are counted takes a host back once; once more only as long as nobody has shown what it was given, for that may
    /// have been lost on its way.
    async fn check_spent(&self, id: HostId, pass: &Pass, joined_with: Option<&str>) -> ApiResult<()> {
        let Some(hash) = &pass.hash else { return Ok(()) };
        let counted = self.records.read::<TokenRecord>(&key::of(key::TOKENS, hash)).await?;
        let again = counted.is_some_and(|token| token.used_by.contains(&id)) && joined_with == Some(hash.as_str());
        let standing = self.records.read::<Standing>(&key::of(key::STANDINGS, id)).await?.unwrap_or_default();
        if again && standing.holder().is_some() { Err(used_up()) } else { Ok(()) }
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
