use std::time::Duration;

use remoteler_auth::{AuthConfig, AuthService, Caller};
use remoteler_core::{
    ApiErrorKind, AuditKind, AuthApi, Clock, Heartbeat, HostCerts, NewToken, RotateRequest, RotationKind,
    RotationPhase, RotationPlan, RotationStatus, SshCertificatePurpose, SystemRole, TrustAck, TrustBundle, Verified,
    VerifyError, X509Purpose, verify_ssh_certificate, verify_x509_chain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::support::{Cluster, kind};

use RotationPhase::{Init, Rollback, Standby, UpdateClients, UpdateServers};

async fn step(cluster: &Cluster, kind: RotationKind, phase: RotationPhase) -> RotationStatus {
    try_step(&*cluster.admin(), kind, phase).await.unwrap()
}

async fn try_step(
    api: &dyn AuthApi,
    kind: RotationKind,
    phase: RotationPhase,
) -> Result<RotationStatus, remoteler_core::ApiError> {
    api.rotate(RotateRequest { kind, phase, plan: RotationPlan::Manual, force: false }).await
}

fn verified(cluster: &Cluster, pem: &str, trust: &TrustBundle) -> Result<Verified, VerifyError> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    verify_x509_chain(&[certificate], trust, X509Purpose::Client, cluster.clock.now())
}

fn ssh_verified(
    cluster: &Cluster,
    certificate: &str,
    trust: &TrustBundle,
    purpose: SshCertificatePurpose<'_>,
) -> Result<Verified, VerifyError> {
    let certificate = ssh_key::Certificate::from_openssh(certificate).unwrap();
    verify_ssh_certificate(&certificate, trust, purpose, cluster.clock.now())
}

async fn acknowledge(cluster: &Cluster, certs: &HostCerts) {
    let generation = cluster.service.trust_bundle().rotation.generation;
    cluster.as_host(certs).acknowledge_trust(TrustAck { generation, instance: None, heartbeat: None }).await.unwrap();
}

#[tokio::test]
async fn users_certificates_of_both_authorities_work_until_the_old_one_is_retired() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["ann"]).await;
    let before = cluster.log_in("ann").await;
    let mut of_init = None;
    for phase in [Init, UpdateClients, UpdateServers] {
        step(&cluster, RotationKind::User, phase).await;
        let trust = cluster.service.trust_bundle();
        assert_eq!((trust.user.ssh.len(), trust.user.x509.len(), trust.host.ssh.len()), (2, 2, 1));
        let fresh = cluster.log_in("ann").await;
        for certs in [&before, &fresh] {
            verified(&cluster, &certs.tls_certificate, &trust).unwrap();
            ssh_verified(&cluster, &certs.ssh_certificate, &trust, SshCertificatePurpose::User).unwrap();
        }
        // Who knows only the old authority must be able to read what is issued in init, and nothing of what follows.
        let old_only = verified(&cluster, &fresh.tls_certificate, &before.trust);
        assert_eq!(old_only.is_ok(), phase == Init, "{phase}");
        of_init.get_or_insert(fresh);
    }
    let latest = cluster.log_in("ann").await;
    step(&cluster, RotationKind::User, Standby).await;
    let trust = cluster.service.trust_bundle();
    assert_eq!(cluster.service.policy_source().policy().trust, trust);
    for old in [before, of_init.unwrap()] {
        // I1
        let refused = verified(&cluster, &old.tls_certificate, &trust).unwrap_err();
        assert!(matches!(refused, VerifyError::UnknownAuthority { .. }), "{refused}");
        let refused = ssh_verified(&cluster, &old.ssh_certificate, &trust, SshCertificatePurpose::User).unwrap_err();
        assert!(matches!(refused, VerifyError::UnknownAuthority { .. }), "{refused}");
    }
    verified(&cluster, &latest.tls_certificate, &trust).unwrap();
}

#[tokio::test]
async fn hosts_show_clients_the_new_authority_before_their_servers_do() {
    let cluster = Cluster::start().await;
    let mut certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let old = certs.trust.clone();
    assert_eq!(certs.tls_client_certificate, None);

    step(&cluster, RotationKind::Host, Init).await;
    acknowledge(&cluster, &certs).await;
    step(&cluster, RotationKind::Host, UpdateClients).await;
    certs = cluster.as_host(&certs).renew_host(None).await.unwrap();
    let name = SshCertificatePurpose::Host("edge");
    ssh_verified(&cluster, &certs.ssh_certificate, &old, name).unwrap();
    verified(&cluster, &certs.tls_certificate, &old).unwrap();
    let client = certs.tls_client_certificate.clone().unwrap();
    assert!(verified(&cluster, &client, &old).is_err());
    verified(&cluster, &client, &certs.trust.active_only()).unwrap();

    // A host that joins now shows the same.
    let joined = cluster.join("late", &[SystemRole::Node], &[]).await;
    verified(&cluster, &joined.tls_certificate, &old).unwrap();
    verified(&cluster, &joined.tls_client_certificate.clone().unwrap(), &joined.trust.active_only()).unwrap();

    acknowledge(&cluster, &certs).await;
    acknowledge(&cluster, &joined).await;
    step(&cluster, RotationKind::Host, UpdateServers).await;
    certs = cluster.as_host(&certs).renew_host(None).await.unwrap();
    assert_eq!(certs.tls_client_certificate, None);
    assert!(ssh_verified(&cluster, &certs.ssh_certificate, &old, name).is_err());
    ssh_verified(&cluster, &certs.ssh_certificate, &certs.trust.active_only(), name).unwrap();
}

#[tokio::test]
async fn a_rollback_from_any_phase_brings_the_old_authority_back() {
    for path in [vec![Init], vec![Init, UpdateClients], vec![Init, UpdateClients, UpdateServers]] {
        let cluster = Cluster::start().await;
        let before = cluster.service.trust_bundle();
        for phase in path.iter().chain(&[Rollback, Standby]) {
            step(&cluster, RotationKind::Host, *phase).await;
        }
        let after = cluster.service.trust_bundle();
        assert_eq!((after.host, after.user), (before.host, before.user), "{path:?}");
        let phases: Vec<_> = cluster.events("ca.rotate").await.into_iter().map(|event| event.kind).collect();
        assert_eq!(phases.len(), path.len() + 2);
        assert!(matches!(&phases[0], AuditKind::CaRotate { user, ca_type, phase, .. }
            if user == "local:administrator" && ca_type == "host" && phase == "init"));
    }
}

#[tokio::test]
async fn a_phase_waits_for_hosts_in_contact_and_names_them() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    acknowledge(&cluster, &certs).await;
    step(&cluster, RotationKind::User, Init).await;
    let refused = try_step(&*cluster.admin(), RotationKind::User, UpdateClients).await.unwrap_err();
    assert_eq!(refused.kind, ApiErrorKind::Conflict);
    assert!(refused.message.contains("is not acknowledged by edge (last heard of at 2026-03-01T12:00:00"), "{refused}");
    let user = cluster.admin().rotations().await.unwrap().remove(0);
    assert_eq!(user.waiting.len(), 1);

    let future = TrustAck { generation: user.generation + 1, instance: None, heartbeat: None };
    assert_eq!(kind(cluster.as_host(&certs).acknowledge_trust(future).await), ApiErrorKind::BadRequest);
    acknowledge(&cluster, &certs).await;
    step(&cluster, RotationKind::User, UpdateClients).await;

    // By force it goes on without, and the event says without whom.
    let request =
        RotateRequest { kind: RotationKind::User, phase: UpdateServers, plan: RotationPlan::Manual, force: true };
    cluster.admin().rotate(request).await.unwrap();
    let forced = cluster.events("ca.rotate").await.pop().unwrap().kind;
    let AuditKind::CaRotate { forced: true, passed_over, .. } = forced else { panic!("{forced:?}") };
    assert_eq!(passed_over, ["edge"]);
}

#[tokio::test]
async fn of_two_administrators_who_rotate_at_once_one_wins() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.admin(), cluster.admin());
    let (first, second) =
        tokio::join!(try_step(&*one, RotationKind::Host, Init), try_step(&*two, RotationKind::Host, Init));
    let refused = [first, second].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    let [refused] = <[_; 1]>::try_from(refused).unwrap();
    assert_eq!(refused.kind, ApiErrorKind::Conflict);
    assert!(refused.message.contains("the host authority is in phase init"), "{refused}");
    assert_eq!(cluster.service.trust_bundle().host.x509.len(), 2);
}

#[tokio::test]
async fn an_automatic_rotation_ends_by_itself() {
    let cluster = Cluster::start().await;
    let plan = RotationPlan::Automatic { grace_seconds: 30 };
    let before = cluster.service.trust_bundle();
    cluster.admin().rotate(RotateRequest { kind: RotationKind::User, phase: Init, plan, force: false }).await.unwrap();
    for expected in [Init, UpdateClients, UpdateServers, Standby] {
        assert_eq!(cluster.service.trust_bundle().rotation.user, expected);
        cluster.clock.advance(Duration::from_secs(9));
        cluster.service.rotate_when_due().await.unwrap();
        assert_eq!(cluster.service.trust_bundle().rotation.user, expected, "not before its time");
        cluster.clock.advance(Duration::from_secs(1));
        cluster.service.rotate_when_due().await.unwrap();
    }
    let after = cluster.service.trust_bundle();
    assert_eq!(after.user.x509.len(), 1);
    assert_ne!(after.user, before.user);
    let steps = cluster.events("ca.rotate").await;
    let by_itself = |kind: &AuditKind| matches!(kind, AuditKind::CaRotate { user, .. } if user == "local:rotation");
    assert_eq!(steps.iter().filter(|event| by_itself(&event.kind)).count(), 3);
}

#[tokio::test]
async fn an_automatic_rotation_waits_for_a_host_that_speaks_seldom_for_as_long_as_it_may_be_silent() {
    for (period, silence) in [(300, 480), (1800, 2730)] {
        let cluster = Cluster::start().await;
        let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
        let generation = cluster.service.trust_bundle().rotation.generation;
        let word = TrustAck { generation, instance: None, heartbeat: Some(Heartbeat::from(period)) };
        cluster.as_host(&certs).acknowledge_trust(word).await.unwrap();
        let plan = RotationPlan::Automatic { grace_seconds: 3 };
        let begin = RotateRequest { kind: RotationKind::Host, phase: Init, plan, force: false };
        cluster.admin().rotate(begin).await.unwrap();
        for seconds in [period - 100, silence - (period - 100)] {
            cluster.clock.advance(Duration::from_secs(seconds));
            cluster.service.rotate_when_due().await.unwrap();
            assert_eq!(cluster.service.trust_bundle().rotation.host, Init, "{period}");
            let host = cluster.admin().rotations().await.unwrap().remove(1);
            assert_eq!((host.waiting.len(), host.offline.len()), (1, 0), "{period}");
        }
        cluster.clock.advance(Duration::from_secs(1));
        cluster.service.rotate_when_due().await.unwrap();
        assert_eq!(cluster.service.trust_bundle().rotation.host, UpdateClients, "{period}");
        let gone_on = cluster.events("ca.rotate").await.pop().unwrap().kind;
        let AuditKind::CaRotate { passed_over, .. } = gone_on else { panic!("{gone_on:?}") };
        assert_eq!(passed_over, ["edge"]);
    }
}

#[tokio::test]
async fn a_service_that_starts_anew_is_in_the_same_phase_with_the_same_keys() {
    let cluster = Cluster::start().await;
    for phase in [Init, UpdateClients] {
        step(&cluster, RotationKind::User, phase).await;
    }
    let before = cluster.service.trust_bundle();
    let Cluster { service, clock, dir } = cluster;
    drop(service);
    let config = AuthConfig { clock: clock.clone(), ..AuthConfig::new(dir.path(), before.cluster.clone()) };
    let again = AuthService::open(config).await.unwrap();
    assert_eq!(again.trust_bundle(), before);
    let api = again.as_caller(Caller::LocalAdmin);
    try_step(&*api, RotationKind::User, UpdateServers).await.unwrap();
    try_step(&*api, RotationKind::User, Standby).await.unwrap();
    assert_eq!(again.trust_bundle().user, before.user.active());
}

#[tokio::test]
async fn only_who_may_change_authorities_rotates_them_and_only_hosts_renew() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["ann"]).await;
    cluster.user("eve", &["editor"], &[]).await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let (ann, eve, host) = (cluster.as_user("ann").await, cluster.as_user("eve").await, cluster.as_host(&certs));
    for api in [&ann, &host, &cluster.anonymous()] {
        assert!(try_step(&**api, RotationKind::User, Init).await.is_err());
        assert!(api.rotations().await.is_err());
    }
    for api in [&ann, &eve, &cluster.anonymous(), &cluster.admin()] {
        assert!(api.renew_host(None).await.is_err());
        assert!(api.acknowledge_trust(TrustAck { generation: 1, instance: None, heartbeat: None }).await.is_err());
    }
    try_step(&*eve, RotationKind::User, Init).await.unwrap();
}

// I10
#[tokio::test]
async fn renewing_gives_what_the_host_was_let_in_as_and_nothing_more() {
    let cluster = Cluster::start().await;
    let first = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let renewed = cluster.as_host(&first).renew_host(None).await.unwrap();
    let identity = |certs: &HostCerts| {
        let Verified::Host(host) = cluster.verify(&certs.tls_certificate) else { panic!("not a host") };
        host.identity().clone()
    };
    assert_eq!(identity(&renewed), identity(&first));
    let key =
        |certs: &HostCerts| ssh_key::Certificate::from_openssh(&certs.ssh_certificate).unwrap().public_key().clone();
    assert_eq!(key(&renewed), key(&first));
}

#[tokio::test]
async fn the_pin_of_a_token_is_that_of_the_authority_that_servers_show() {
    let cluster = Cluster::start().await;
    let token = || NewToken { roles: [SystemRole::Node].into(), ..NewToken::default() };
    let old = cluster.admin().create_token(token()).await.unwrap().ca_pin;
    let mut seen = Vec::new();
    for phase in [Init, UpdateClients, UpdateServers, Rollback] {
        step(&cluster, RotationKind::Host, phase).await;
        let created = cluster.admin().create_token(token()).await.unwrap();
        assert_eq!(created.ca_pins.len(), 2);
        assert!(created.ca_pins.contains(&created.ca_pin));
        seen.push(created.ca_pin == old);
    }
    assert_eq!(seen, [true, true, false, true]);
}
