//! Documents that set the cluster: in force at once at every service, kept over a restart, and never against the configuration file.

use std::time::Duration;

use remoteler_auth::AuthService;
use remoteler_core::{
    ApiErrorKind, AuditKind, AuthPreferenceSpec, ClusterConfig, LockMode, ORIGIN_LABEL, RecordingMode, Resource,
    ResourceKind, SecondFactor, SystemRole,
};
use serde_json::{Value, json};

use crate::support::{Cluster, kind};

const CAP: ResourceKind = ResourceKind::ClusterAuthPreference;

fn document(kind: &str, spec: Value) -> Resource {
    let name = kind.replace('_', "-");
    serde_json::from_value(json!({ "kind": kind, "version": "v2", "metadata": { "name": name }, "spec": spec }))
        .unwrap()
}

fn origin(document: &Resource) -> &str {
    &document.metadata.labels[ORIGIN_LABEL]
}

async fn shown(cluster: &Cluster, kind: ResourceKind) -> Resource {
    let [document] = cluster.admin().resources(kind, None).await.unwrap().try_into().unwrap();
    document
}

#[tokio::test]
async fn a_document_is_in_force_at_every_service_at_once_and_after_a_restart() {
    let cluster = Cluster::start().await;
    let host = cluster.join("n1", &[SystemRole::Node], &[]).await;
    let api = cluster.as_host(&host);
    let before = api.policy(None, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(origin(&shown(&cluster, CAP).await), "defaults");

    let admin = cluster.admin();
    for document in [
        document("cluster_auth_preference", json!({ "second_factor": "on", "locking_mode": "strict" })),
        document("cluster_networking_config", json!({ "client_idle_timeout": "30m" })),
        document("session_recording_config", json!({ "mode": "off" })),
    ] {
        admin.put_resource(document, false).await.unwrap();
    }
    let told = api.policy(Some(before.version), Duration::from_secs(25)).await.unwrap().unwrap();
    let settings = told.limits.unwrap().settings;
    assert_eq!((settings.second_factor, settings.locking_mode), (SecondFactor::On, LockMode::Strict));
    assert_eq!(settings.client_idle_timeout(), Some(Duration::from_secs(1800)));
    assert_eq!(settings.session_recording, RecordingMode::Off);
    let AuditKind::AuthPreferenceUpdate { changes, .. } = &cluster.events("auth_preference.update").await[0].kind
    else {
        panic!()
    };
    assert_eq!(changes, &["locking_mode: unset -> strict", "second_factor: unset -> on"]);

    let Cluster { service, clock, dir } = cluster;
    drop((api, admin, service));
    let cluster = Cluster::reopen(dir, clock).await;
    assert_eq!(cluster.service.policy_source().policy().settings, settings);
    let kept = shown(&cluster, CAP).await;
    assert_eq!((origin(&kept), &kept.spec["second_factor"]), ("dynamic", &json!("on")));

    // What is printed is read again, and only with -f; without a document the defaults count again.
    assert_eq!(kind(cluster.admin().put_resource(kept.clone(), false).await), ApiErrorKind::Conflict);
    cluster.admin().put_resource(kept, true).await.unwrap();
    cluster.admin().delete_resource(CAP, "cluster-auth-preference".into()).await.unwrap();
    assert_eq!(cluster.service.policy_source().policy().settings.second_factor, SecondFactor::default());
    let again = cluster.admin().delete_resource(CAP, "cluster-auth-preference".into()).await;
    assert_eq!(kind(again), ApiErrorKind::NotFound);
}

#[tokio::test]
async fn what_the_configuration_file_says_is_not_written_over_and_a_document_it_hides_comes_back_with_it_gone() {
    let cluster = Cluster::start().await;
    let lenient = document("cluster_auth_preference", json!({ "locking_mode": "best_effort" }));
    cluster.admin().put_resource(lenient, false).await.unwrap();

    let Cluster { service, clock, dir } = cluster;
    drop(service);
    let auth = AuthPreferenceSpec { locking_mode: Some(LockMode::Strict), ..AuthPreferenceSpec::default() };
    let mut config = Cluster::config(&dir, &clock);
    config.settings = ClusterConfig { auth, ..ClusterConfig::default() };
    let cluster = Cluster { service: AuthService::open(config).await.unwrap(), clock, dir };
    let settings = || cluster.service.policy_source().policy().settings;
    assert_eq!(settings().locking_mode, LockMode::Strict, "the file counts");
    let document = |spec| document("cluster_auth_preference", spec);
    let in_force = shown(&cluster, CAP).await;
    assert_eq!((origin(&in_force), &in_force.spec["locking_mode"]), ("config-file", &json!("strict")));

    let contradicting = document(json!({ "locking_mode": "best_effort", "second_factor": "on" }));
    let refused = cluster.admin().put_resource(contradicting, true).await.unwrap_err();
    assert!(refused.message.contains("auth_service.authentication.locking_mode"), "{refused}");
    assert_eq!(settings().second_factor, SecondFactor::default(), "nothing was written");
    cluster.admin().put_resource(document(json!({ "second_factor": "on" })), true).await.unwrap();
    assert_eq!((settings().second_factor, settings().locking_mode), (SecondFactor::On, LockMode::Strict));

    let Cluster { service, clock, dir } = cluster;
    drop(service);
    let cluster = Cluster::reopen(dir, clock).await;
    let settings = cluster.service.policy_source().policy().settings;
    assert_eq!((settings.second_factor, settings.locking_mode), (SecondFactor::On, LockMode::BestEffort));
}

#[tokio::test]
async fn only_who_may_change_the_clusters_settings_does() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.user("eve", &["editor"], &[]).await;
    let document = || document("cluster_auth_preference", json!({ "disconnect_expired_cert": true }));
    let ann = cluster.as_user("ann").await;
    assert_eq!(kind(ann.put_resource(document(), true).await), ApiErrorKind::Denied);
    assert_eq!(kind(ann.resources(CAP, None).await), ApiErrorKind::Denied);
    cluster.as_user("eve").await.put_resource(document(), true).await.unwrap();
    assert!(cluster.service.policy_source().policy().settings.disconnect_expired_cert);
}
