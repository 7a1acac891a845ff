//! Two machines with one disk: the second claimant is refused, and an administrator decides which one it is.

use std::{sync::Arc, time::Duration};

use remoteler_core::{
    ApiErrorKind, AuditKind, AuthApi, Clock, Heartbeat, HostCerts, InstanceId, JoinRequest, RejoinStatement,
    SystemRole, TrustAck, TrustAcked, VerifyError, X509Purpose, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use ssh_key::{
    PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};
use uuid::Uuid;

use crate::support::{Cluster, Keys, join_request, kind};

/// One machine with the disk of a host: its certificates, and the run of its daemon.
struct Machine {
    certs: HostCerts,
    run: InstanceId,
    /// A connection that was made with them.
    api: Arc<dyn AuthApi>,
}

impl Machine {
    /// Starts the daemon on this disk.
    fn start(cluster: &Cluster, certs: &HostCerts, run: u128) -> Self {
        let run = InstanceId::from_uuid(Uuid::from_u128(run));
        Self { certs: certs.clone(), run, api: cluster.as_host(certs) }
    }

    /// Says that it is there, and renews if it is told to; whether it was.
    async fn speak(&mut self, cluster: &Cluster) -> Result<bool, ApiErrorKind> {
        let ack = || TrustAck { generation: 0, instance: Some(self.run), heartbeat: None };
        let told = self.api.acknowledge_trust(ack()).await.map_err(|cause| cause.kind)?;
        if told.renew {
            let certs = self.api.renew_host(Some(self.run)).await.map_err(|cause| cause.kind)?;
            *self = Self { api: cluster.as_host(&certs), certs, run: self.run };
            let ack = TrustAck { generation: 0, instance: Some(self.run), heartbeat: None };
            self.api.acknowledge_trust(ack).await.map_err(|cause| cause.kind)?;
        }
        Ok(told.renew)
    }
}

fn believed(cluster: &Cluster, certs: &HostCerts) -> Result<(), VerifyError> {
    let certificate = CertificateDer::from_pem_slice(certs.tls_certificate.as_bytes()).unwrap();
    let trust = cluster.service.trust_bundle();
    verify_x509_chain(&[certificate], &trust, X509Purpose::Client, cluster.clock.now()).map(drop)
}

fn wait(cluster: &Cluster, seconds: u64) {
    cluster.clock.advance(Duration::from_secs(seconds));
}

async fn copies(cluster: &Cluster) -> Vec<(u64, u64, Option<String>, Option<String>)> {
    let events = cluster.events("instance.copy").await;
    events
        .into_iter()
        .map(|event| {
            let AuditKind::InstanceCopy { generation, newest, remote, host, .. } = event.kind else {
                panic!("{event:?}")
            };
            (generation, newest, remote, host)
        })
        .collect()
}

// I28
#[tokio::test]
async fn a_copy_that_runs_beside_its_host_is_refused_and_shut_out_and_audited() {
    let cluster = Cluster::start().await;
    let mut host = Machine::start(&cluster, &cluster.join("edge", &[SystemRole::Node], &[]).await, 1);
    assert_eq!(host.speak(&cluster).await, Ok(false));
    let mut copy = Machine::start(&cluster, &host.certs, 2);
    let disk = host.certs.clone();
    wait(&cluster, 10);
    assert_eq!(copy.speak(&cluster).await, Ok(false));
    wait(&cluster, 20);
    // The host is heard again: there are two. It gets certificates that the copy does not have, and the copy's are revoked.
    assert_eq!(host.speak(&cluster).await, Ok(true));
    assert_eq!(copies(&cluster).await.len(), 1);
    assert!(matches!(believed(&cluster, &disk), Err(VerifyError::Revoked(_))));
    believed(&cluster, &host.certs).unwrap();
    assert_eq!(host.speak(&cluster).await, Ok(false));
    let serials: Vec<_> = cluster.admin().revocations().await.unwrap();
    assert!(serials.iter().any(|each| each.target.to_string().starts_with("ssh-host-")));
    assert!(serials.iter().all(|each| each.comment.contains("copy of host edge")));
}

#[tokio::test]
async fn a_copy_of_an_old_disk_is_refused_at_its_first_word() {
    let cluster = Cluster::start().await;
    let joined = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let (mut host, mut copy) = (Machine::start(&cluster, &joined, 1), Machine::start(&cluster, &joined, 2));
    assert_eq!(host.speak(&cluster).await, Ok(false));
    wait(&cluster, 86_400);
    assert_eq!(host.speak(&cluster).await, Ok(true));
    wait(&cluster, 3600);
    // The host is away, and is the host all the same.
    let old = cluster.as_host(&copy.certs);
    assert_eq!(copy.speak(&cluster).await, Err(ApiErrorKind::Copied));
    assert_eq!(kind(old.renew_host(Some(copy.run)).await), ApiErrorKind::Copied);
    assert_eq!(kind(old.renew_host(None).await), ApiErrorKind::Copied);
    assert!(matches!(believed(&cluster, &copy.certs), Err(VerifyError::Revoked(_))));
    let here = Some("192.0.2.7:41000".to_owned());
    assert_eq!(copies(&cluster).await, [(0, 1, here.clone(), here)]);
    assert_eq!(host.speak(&cluster).await, Ok(false));
}

#[tokio::test]
async fn a_daemon_that_is_started_again_is_not_refused() {
    let cluster = Cluster::start().await;
    let mut host = Machine::start(&cluster, &cluster.join("edge", &[SystemRole::Node], &[]).await, 1);
    host.speak(&cluster).await.unwrap();
    for run in 2..6 {
        host = Machine::start(&cluster, &host.certs, run);
        for _ in 0..4 {
            host.speak(&cluster).await.unwrap();
            wait(&cluster, 30);
        }
    }
    assert!(copies(&cluster).await.is_empty());
}

// I28
#[tokio::test]
async fn of_a_host_that_speaks_seldom_a_copy_is_found_by_its_next_word_and_told_when_to_speak_until_then() {
    let cluster = Cluster::start().await;
    let joined = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let (host, copy) = (cluster.as_host(&joined), cluster.as_host(&joined));
    let word = |run| TrustAck {
        generation: 0,
        instance: Some(InstanceId::from_uuid(Uuid::from_u128(run))),
        heartbeat: Some(Heartbeat::from(1800)),
    };
    let told = host.acknowledge_trust(word(1)).await.unwrap();
    assert_eq!(told, TrustAcked { renew: false, longest_heartbeat: Some(Heartbeat::LONGEST) });
    // For three quarters of an hour nobody else speaks for it: what is left of them after the half hour that this word announces.
    for left in [571, 211, 30, 30, 30] {
        wait(&cluster, 360);
        let told = copy.acknowledge_trust(word(2)).await.unwrap();
        assert_eq!(told, TrustAcked { renew: false, longest_heartbeat: Some(Heartbeat::from(left)) });
    }
    assert!(host.acknowledge_trust(word(1)).await.unwrap().renew);
    assert_eq!(kind(copy.acknowledge_trust(word(2)).await), ApiErrorKind::Copied);
    assert_eq!(copies(&cluster).await.len(), 1);
}

// R5
#[tokio::test]
async fn a_device_that_lost_its_power_says_four_words_until_it_speaks_for_its_host_again() {
    for (period, silence) in [(1800, 2730), (300, 480)] {
        let cluster = Cluster::start().await;
        let api = cluster.as_host(&cluster.join("edge", &[SystemRole::Node], &[]).await);
        let word = |run, heartbeat| TrustAck {
            generation: 0,
            instance: Some(InstanceId::from_uuid(Uuid::from_u128(run))),
            heartbeat: Some(heartbeat),
        };
        api.acknowledge_trust(word(1, Heartbeat::from(period))).await.unwrap();
        // As a host does: its first word says nothing, each other one at most what it was told before.
        let (mut said, mut words, mut seconds) = (Heartbeat::default(), 1, 0);
        loop {
            let told = api.acknowledge_trust(word(2, said)).await.unwrap();
            if told.renew {
                break;
            }
            wait(&cluster, said.period().as_secs());
            (words, seconds) = (words + 1, seconds + said.period().as_secs());
            said = told.longest_heartbeat.unwrap().min(Heartbeat::from(period));
        }
        assert_eq!((words, seconds), (4, silence + 1));
        assert!(copies(&cluster).await.is_empty());
    }
}

// R5
#[tokio::test]
async fn an_answer_that_is_lost_shuts_nobody_out() {
    let cluster = Cluster::start().await;
    let mut host = Machine::start(&cluster, &cluster.join("edge", &[SystemRole::Node], &[]).await, 1);
    host.speak(&cluster).await.unwrap();
    for run in 2..5 {
        // Renewed, but the power failed before it was written.
        drop(cluster.as_host(&host.certs).renew_host(Some(host.run)).await.unwrap());
        host = Machine::start(&cluster, &host.certs, run);
        wait(&cluster, 5);
        host.speak(&cluster).await.unwrap();
        wait(&cluster, 100);
        host.speak(&cluster).await.unwrap();
    }
    assert!(copies(&cluster).await.is_empty());
}

#[tokio::test]
async fn an_administrator_lets_the_right_machine_back_in_and_the_other_stays_out() {
    let cluster = Cluster::start().await;
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&[7; 32]));
    let key = PrivateKey::new(pair, "host").unwrap();
    let request = |token: &remoteler_core::Secret| JoinRequest {
        ssh_public_key: key.public_key().to_openssh().unwrap(),
        tls_public_key: TLS_KEY.with(|tls| tls.clone()),
        ..join_request(token, "edge", &[SystemRole::Node], &[])
    };
    let token = cluster.token(&[SystemRole::Node]).await;
    let joined = cluster.anonymous().join(request(&token)).await.unwrap();
    let (mut copy, mut host) = (Machine::start(&cluster, &joined, 1), Machine::start(&cluster, &joined, 2));
    // The copy was first.
    wait(&cluster, 86_400);
    assert_eq!(copy.speak(&cluster).await, Ok(true));
    assert_eq!(host.speak(&cluster).await, Err(ApiErrorKind::Copied));

    let token = cluster.admin().create_rejoin_token("edge".into()).await.unwrap();
    assert_eq!((token.host_id, token.uses), (Some(joined.host_id), Some(1)));
    let rejoin = |token: &remoteler_core::Secret| {
        let request = request(token);
        let statement = RejoinStatement {
            cluster: cluster.service.cluster_name(),
            token: &request.token,
            host_id: joined.host_id,
            node_name: &request.node_name,
            ssh_public_key: &request.ssh_public_key,
            tls_public_key: &request.tls_public_key,
            signed_at: cluster.clock.now(),
        };
        let proof = statement.prove(&key).unwrap();
        JoinRequest { rejoin: Some(proof), ..request }
    };
    // It is for this host to join again, and for nothing else.
    let other = join_request(&token.token, "edge-2", &[SystemRole::Node], &[]);
    assert_eq!(kind(cluster.anonymous().join(other).await), ApiErrorKind::Denied);
    let lost = cluster.anonymous().join(rejoin(&token.token)).await.unwrap();
    let certs = cluster.anonymous().join(rejoin(&token.token)).await.unwrap();
    assert_eq!(certs.host_id, joined.host_id);
    host = Machine::start(&cluster, &certs, 3);
    host.speak(&cluster).await.unwrap();
    assert_eq!(copy.speak(&cluster).await, Err(ApiErrorKind::Copied));
    for out in [&copy.certs, &joined, &lost] {
        assert!(matches!(believed(&cluster, out), Err(VerifyError::Revoked(_))));
    }
    believed(&cluster, &host.certs).unwrap();
    // Once somebody has shown what the token gave, it gives no more: not to the copy either, which has the host's key.
    assert_eq!(kind(cluster.anonymous().join(rejoin(&token.token)).await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.admin().create_rejoin_token("nobody".into()).await), ApiErrorKind::NotFound);
}

thread_local! {
    static TLS_KEY: String = Keys::new().tls;
}

#[tokio::test]
async fn who_speaks_for_nobody_makes_no_rejoin_token() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let host: Arc<dyn AuthApi> = cluster.as_host(&certs);
    assert_eq!(kind(host.create_rejoin_token("edge".into()).await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.anonymous().create_rejoin_token("edge".into()).await), ApiErrorKind::Unauthenticated);
}
