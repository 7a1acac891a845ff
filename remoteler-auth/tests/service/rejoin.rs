//! A host that was away while the host authority was replaced is taken back as who it was, and nobody else is.

use std::time::Duration;

use remoteler_core::{
    ApiErrorKind, AuditKind, Clock, HostCerts, HostId, JoinRequest, NewRevocation, NodeName, RejoinProof,
    RejoinStatement, ResourceKind, RevocationReason, RevocationTarget, RotateRequest, RotationKind, RotationPhase,
    RotationPlan, Secret, SystemRole, Timestamp, TrustBundle, VerifyError, X509Purpose, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use ssh_key::{
    PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};

use crate::support::{Cluster, Keys, join_request, kind};

use SystemRole::{Kube, Node, Proxy};

/// A host with a key that it can sign with.
struct Device {
    key: PrivateKey,
    tls: String,
}

impl Device {
    fn new(seed: u8) -> Self {
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32]));
        Self { key: PrivateKey::new(pair, "host").unwrap(), tls: Keys::new().tls }
    }

    fn request(&self, token: &Secret, name: &str, roles: &[SystemRole], kube: &[&str]) -> JoinRequest {
        let ssh_public_key = self.key.public_key().to_openssh().unwrap();
        JoinRequest { ssh_public_key, tls_public_key: self.tls.clone(), ..join_request(token, name, roles, kube) }
    }

    /// The request of a rejoin, proven by `signer`.
    fn rejoin(&self, cluster: &Cluster, request: JoinRequest, id: HostId, signer: &PrivateKey) -> JoinRequest {
        self.rejoin_at(cluster, request, id, signer, cluster.clock.now())
    }

    fn rejoin_at(
        &self,
        cluster: &Cluster,
        request: JoinRequest,
        id: HostId,
        signer: &PrivateKey,
        signed_at: Timestamp,
    ) -> JoinRequest {
        let statement = RejoinStatement {
            cluster: cluster.service.cluster_name(),
            token: &request.token,
            host_id: id,
            node_name: &request.node_name,
            ssh_public_key: &request.ssh_public_key,
            tls_public_key: &request.tls_public_key,
            signed_at,
        };
        let proof = statement.prove(signer).unwrap();
        JoinRequest { rejoin: Some(proof), ..request }
    }
}

async fn rotate_hosts(cluster: &Cluster) {
    for phase in
        [RotationPhase::Init, RotationPhase::UpdateClients, RotationPhase::UpdateServers, RotationPhase::Standby]
    {
        let request = RotateRequest { kind: RotationKind::Host, phase, plan: RotationPlan::Manual, force: true };
        cluster.admin().rotate(request).await.unwrap();
    }
}

fn believed(cluster: &Cluster, certs: &HostCerts, trust: &TrustBundle) -> Result<(), VerifyError> {
    let certificate = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).unwrap();
    verify_x509_chain(&[certificate], trust, X509Purpose::Client, cluster.clock.now()).map(drop)
}

#[tokio::test]
async fn a_host_that_was_away_is_taken_back_under_its_id_and_name() {
    let cluster = Cluster::start().await;
    let device = Device::new(1);
    let token = cluster.token(&[Node, Kube]).await;
    let first = device.request(&token, "edge", &[Node, Kube], &["staging"]);
    let before = cluster.anonymous().join(first.clone()).await.unwrap();
    rotate_hosts(&cluster).await;
    let trust = cluster.service.trust_bundle();
    assert!(matches!(believed(&cluster, &before, &trust), Err(VerifyError::UnknownAuthority { .. }))); // I1

    cluster.clock.advance(Duration::from_secs(7200));
    let token = cluster.token(&[Node, Kube]).await;
    let request = JoinRequest { token, ..first };
    let request = device.rejoin(&cluster, request, before.host_id, &device.key);
    let after = cluster.anonymous().join(request).await.unwrap();
    assert_eq!(after.host_id, before.host_id);
    believed(&cluster, &after, &trust).unwrap();
    let host = cluster.verify(&after.tls_certificate).host().unwrap();
    assert_eq!(host.identity().name.as_str(), "edge");
    assert!(host.is(Node) && host.is(Kube) && !host.is(Proxy));
    let event = cluster.events("instance.join").await.pop().unwrap();
    let AuditKind::InstanceJoin { success: true, rejoined: true, host_id, .. } = event.kind else {
        panic!("{event:?}")
    };
    assert_eq!(host_id, Some(before.host_id.to_string()));
    cluster.as_host(&after).renew_host(None).await.unwrap();
}

#[tokio::test]
async fn who_has_a_token_and_not_the_host_key_gets_neither_the_name_nor_the_id() {
    let cluster = Cluster::start().await;
    let (device, thief) = (Device::new(1), Device::new(2));
    let token = cluster.token(&[Node]).await;
    let certs = cluster.anonymous().join(device.request(&token, "edge", &[Node], &[])).await.unwrap();
    let stolen = device.rejoin(&cluster, device.request(&token, "edge", &[Node], &[]), certs.host_id, &device.key);
    let asked = || thief.request(&token, "edge", &[Node], &[]);
    // With a key of its own, with the proof of somebody else's request, with one made of nothing, or with none.
    let other_keys = JoinRequest { rejoin: stolen.rejoin.clone(), ..asked() };
    let nothing = RejoinProof { host_id: certs.host_id, signed_at: cluster.clock.now(), signature: String::new() };
    for request in [
        thief.rejoin(&cluster, asked(), certs.host_id, &thief.key),
        other_keys,
        JoinRequest { rejoin: Some(nothing), ..asked() },
    ] {
        let refused = cluster.anonymous().join(request).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::Denied, "{refused}"); // I28
        assert!(refused.message.contains("is not taken back"), "{refused}");
    }
    let refused = cluster.anonymous().join(asked()).await.unwrap_err();
    assert_eq!(refused.kind, ApiErrorKind::Conflict);
    assert!(refused.message.contains("remoteler rejoin"), "{refused}");
    let failures = cluster.events("instance.join").await;
    assert_eq!(failures.iter().filter(|event| event.code == "TJ001E").count(), 4);
    // None of it has changed what is on record.
    cluster.anonymous().join(stolen).await.unwrap();
}

#[tokio::test]
async fn a_rejoin_widens_nothing() {
    let cluster = Cluster::start().await;
    let device = Device::new(1);
    let token = cluster.token(&[Node, Kube, Proxy]).await;
    let api = cluster.anonymous();
    let id = api.join(device.request(&token, "edge", &[Node], &[])).await.unwrap().host_id;
    let ask = |name: &str, roles: &[SystemRole], kube: &[&str]| {
        device.rejoin(&cluster, device.request(&token, name, roles, kube), id, &device.key)
    };
    // I10
    assert_eq!(kind(api.join(ask("edge", &[Node, Proxy], &[])).await), ApiErrorKind::BadRequest);
    assert_eq!(kind(api.join(ask("edge", &[Node, Kube], &["staging"])).await), ApiErrorKind::BadRequest);
    assert_eq!(kind(api.join(ask("other", &[Node], &[])).await), ApiErrorKind::Denied);
    // The token must be for the services all the same.
    let for_kube = cluster.token(&[Kube]).await;
    let request = device.rejoin(&cluster, device.request(&for_kube, "edge", &[Node], &[]), id, &device.key);
    assert_eq!(kind(api.join(request).await), ApiErrorKind::Denied);
    let unknown = HostId::from_uuid(remoteler_core::random_uuid(&remoteler_core::OsEntropy));
    let request = device.rejoin(&cluster, device.request(&token, "edge", &[Node], &[]), unknown, &device.key);
    assert_eq!(kind(api.join(request).await), ApiErrorKind::NotFound);
    // An old proof with an old token, kept by somebody.
    let long_ago = cluster.clock.now().minus(Duration::from_secs(3600));
    let request = device.request(&token, "edge", &[Node], &[]);
    let refused = api.join(device.rejoin_at(&cluster, request, id, &device.key, long_ago)).await.unwrap_err();
    assert!(refused.message.contains("set this machine's clock"), "{refused}");
    api.join(ask("edge", &[Node], &[])).await.unwrap();
}

#[tokio::test]
async fn a_name_that_went_to_another_host_is_not_given_back() {
    let cluster = Cluster::start().await;
    let device = Device::new(1);
    let token = cluster.token(&[Node]).await;
    let api = cluster.anonymous();
    let id = api.join(device.request(&token, "edge", &[Node], &[])).await.unwrap().host_id;
    cluster.admin().delete_resource(ResourceKind::Node, "edge".into()).await.unwrap();
    let heir = api.join(join_request(&token, "edge", &[Node], &[])).await.unwrap();
    let request = device.rejoin(&cluster, device.request(&token, "edge", &[Node], &[]), id, &device.key);
    assert_eq!(kind(api.join(request).await), ApiErrorKind::Conflict); // I28
    assert_eq!(NodeName::new("edge").unwrap(), cluster.verify(&heir.tls_certificate).host().unwrap().identity().name);
}

#[tokio::test]
async fn a_revoked_key_proves_nothing_and_its_host_is_not_taken_back() {
    let cluster = Cluster::start().await;
    let (device, fresh) = (Device::new(1), Device::new(2));
    let token = cluster.token(&[Node]).await;
    let api = cluster.anonymous();
    let id = api.join(device.request(&token, "edge", &[Node], &[])).await.unwrap().host_id;
    // Signed by the key on record, for keys that nobody has revoked.
    let ask = || device.rejoin(&cluster, fresh.request(&token, "edge", &[Node], &[]), id, &device.key);
    let ssh = RevocationTarget::ssh_key(device.key.public_key().key_data());
    for target in [ssh, RevocationTarget::key(&device.tls).unwrap()] {
        let wanted = NewRevocation {
            target,
            reason: RevocationReason::KeyCompromise,
            comment: String::new(),
            ttl_seconds: None,
        };
        cluster.admin().revoke(wanted).await.unwrap();
        let refused = api.join(ask()).await.unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::Denied);
        assert!(refused.message.contains(&target.to_string()), "{refused}");
        cluster.admin().unrevoke(target).await.unwrap();
    }
    assert_eq!(api.join(ask()).await.unwrap().host_id, id);
}
