use remoteler_auth::HostQuotas;
use remoteler_core::{
    ApiErrorKind, AuditEvent, AuditKind, Clock, ClusterName, ConnectionFields, EventQuery, Secret, SessionFields,
    SignUpRequest, SystemRole,
};
use uuid::Uuid;

use crate::support::{Cluster, PASSWORD, join_request, kind, login_request, new_user};

fn event(cluster: &Cluster, kind: AuditKind) -> AuditEvent {
    AuditEvent::new(kind, cluster.clock.now(), Uuid::new_v4(), cluster.service.cluster_name().clone())
}

fn exec(server_id: &str) -> AuditKind {
    let session = SessionFields {
        sid: Uuid::new_v4().to_string(),
        user: "ann".into(),
        login: "root".into(),
        server_id: server_id.into(),
        server_hostname: "edge".into(),
    };
    AuditKind::Exec { session, command: "uptime".into(), exit_code: None, error: None }
}

#[tokio::test]
async fn a_hosts_events_are_kept_once_however_often_they_come() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let api = cluster.as_host(&certs);
    let events = vec![event(&cluster, exec(&certs.host_id.to_string())); 2];
    api.record_events(events.clone()).await.unwrap();
    api.record_events(events.clone()).await.unwrap();
    assert_eq!(cluster.events("exec").await, &events[..1]);
}

#[tokio::test]
async fn an_events_text_is_kept_as_the_event_and_what_is_no_event_takes_the_others_along() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let api = cluster.as_host(&certs);
    let sent = event(&cluster, exec(&certs.host_id.to_string()));
    let text = sent.to_text().unwrap();
    let unknown = text.replace("\"exec\"", "\"no.such.event\"");
    assert_ne!(unknown, text);
    assert_eq!(kind(api.record_texts(vec![text.clone(), unknown]).await), ApiErrorKind::BadRequest);
    assert!(cluster.events("exec").await.is_empty());
    api.record_texts(vec![text]).await.unwrap();
    assert_eq!(cluster.events("exec").await, [sent]);
}

#[tokio::test]
async fn a_host_cannot_forge_the_events_of_others() {
    let cluster = Cluster::start().await;
    let edge = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let other = cluster.join("other", &[SystemRole::Node], &[]).await;
    let api = cluster.as_host(&edge);
    let kube = AuditKind::KubeRequest {
        user: "ann".into(),
        kubernetes_cluster: "staging".into(),
        kubernetes_user: "ann".into(),
        kubernetes_groups: Vec::new(),
        verb: "GET".into(),
        request_path: "/".into(),
        response_code: None,
        with_mfa: None,
        connection: ConnectionFields::default(),
    };
    let attempt = AuditKind::AuthAttempt {
        user: "ann".into(),
        service: "proxy".into(),
        login: None,
        error: "forged".into(),
        remote: None,
    };
    let login = AuditKind::UserLogin {
        user: "ann".into(),
        method: "local".into(),
        success: true,
        error: None,
        connector: None,
        remote: None,
    };
    let mut elsewhere = event(&cluster, exec(&edge.host_id.to_string()));
    elsewhere.cluster_name = ClusterName::new("leaf").unwrap();
    let ended = |place: &str| AuditKind::ClientDisconnect {
        user: "ann".into(),
        login: None,
        server_hostname: place.into(),
        reason: "locked".into(),
    };
    for forged in [
        event(&cluster, ended("other")),
        event(&cluster, exec(&other.host_id.to_string())),
        event(&cluster, kube),
        event(&cluster, login),
        event(&cluster, attempt),
        elsewhere,
    ] {
        let own = event(&cluster, exec(&edge.host_id.to_string()));
        assert_eq!(kind(api.record_events(vec![own, forged]).await), ApiErrorKind::Denied); // I66
    }
    assert!(cluster.events("exec").await.is_empty(), "all or none");
    assert_eq!(cluster.events("auth").await.len(), 6);
    api.record_events(vec![event(&cluster, ended("edge"))]).await.unwrap();
    assert_eq!(kind(cluster.admin().record_events(Vec::new()).await), ApiErrorKind::Denied);
}

#[tokio::test]
async fn too_many_events_at_once_are_refused() {
    let cluster = Cluster::start().await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    let events = vec![event(&cluster, exec(&certs.host_id.to_string())); 1001];
    assert_eq!(kind(cluster.as_host(&certs).record_events(events).await), ApiErrorKind::BadRequest);
}

#[tokio::test]
async fn a_host_that_floods_the_log_is_told_to_wait_and_others_are_not() {
    let quotas = HostQuotas { events_at_once: 1000, events_per_second: 10, ..HostQuotas::default() };
    let cluster = Cluster::with_quotas(quotas).await;
    let noisy = cluster.join("noisy", &[SystemRole::Node], &[]).await;
    let quiet = cluster.join("quiet", &[SystemRole::Node], &[]).await;
    let batch = |id: String| (0..500).map(|_| event(&cluster, exec(&id))).collect::<Vec<_>>();
    let (api, more) = (cluster.as_host(&noisy), batch(noisy.host_id.to_string()));
    api.record_events(batch(noisy.host_id.to_string())).await.unwrap();
    api.record_events(batch(noisy.host_id.to_string())).await.unwrap();
    assert_eq!(kind(api.record_events(more.clone()).await), ApiErrorKind::RateLimited);
    assert_eq!(cluster.events("exec").await.len(), 1000);
    cluster.as_host(&quiet).record_events(batch(quiet.host_id.to_string())).await.unwrap();
    let refusals = cluster.events("auth").await;
    let AuditKind::AuthAttempt { user, .. } = &refusals[0].kind else { panic!("{refusals:?}") };
    assert_eq!(*user, noisy.host_id.to_string());

    cluster.clock.advance(std::time::Duration::from_secs(50));
    api.record_events(more).await.unwrap();
    assert_eq!(cluster.events("exec").await.len(), 2000);
}

#[tokio::test]
async fn only_auditors_read_the_log() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["auditor"], &[]).await;
    cluster.user("bob", &["access", "editor"], &[]).await;
    let certs = cluster.join("edge", &[SystemRole::Node], &[]).await;
    assert!(!cluster.as_user("ann").await.events(EventQuery::default()).await.unwrap().is_empty());
    assert_eq!(kind(cluster.as_user("bob").await.events(EventQuery::default()).await), ApiErrorKind::Denied);
    assert_eq!(kind(cluster.as_host(&certs).events(EventQuery::default()).await), ApiErrorKind::Denied); // I66
}

#[tokio::test]
async fn the_chain_of_the_log_holds_over_everything_that_happened() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    cluster.log_in("ann").await;
    assert!(cluster.service.event_log().verify().await.unwrap() >= 5); // I75
}

#[tokio::test]
async fn refusals_of_nobody_in_particular_cannot_fill_the_log() {
    let cluster = Cluster::start().await;
    for _ in 0..150 {
        assert_eq!(kind(cluster.anonymous().users().await), ApiErrorKind::Unauthenticated);
    }
    assert_eq!(cluster.events("auth").await.len(), 100); // I26
    assert_eq!(kind(cluster.at_address([192, 0, 2, 200]).users().await), ApiErrorKind::Unauthenticated);
    cluster.service.audit_sink().summarise_all().await.unwrap();
    let events = cluster.events("auth").await;
    assert_eq!(events.len(), 102);
    let AuditKind::AuthAttempt { error, remote, .. } = &events.last().unwrap().kind else { panic!("{events:?}") };
    assert_eq!(error, "50 refusals of 192.0.2.1 were not recorded one by one");
    assert_eq!(remote.as_deref(), Some("192.0.2.1"));
}

#[tokio::test]
async fn a_refusal_says_where_a_caller_with_a_certificate_came_from() {
    let cluster = Cluster::start().await;
    cluster.user("bob", &["access"], &[]).await;
    assert_eq!(kind(cluster.as_user("bob").await.users().await), ApiErrorKind::Denied);
    let events = cluster.events("auth").await;
    let [AuditKind::AuthAttempt { user, remote, .. }] = &[&events[0].kind] else { panic!("{events:?}") };
    assert_eq!((user.as_str(), remote.as_deref()), ("bob", Some("192.0.2.7:41000")));
}

#[tokio::test]
async fn attempts_past_the_limit_are_in_the_log_and_bounded() {
    let cluster = Cluster::start().await;
    for _ in 0..40 {
        let _refused = cluster.anonymous().login(login_request("ann", "wrong")).await.unwrap_err();
        let wrong = join_request(&Secret::new("no token of ours"), "edge", &[SystemRole::Node], &[]);
        let _refused = cluster.anonymous().join(wrong).await.unwrap_err();
    }
    assert_eq!(cluster.events("user.login").await.len(), 10);
    assert_eq!(cluster.events("instance.join").await.len(), 10);
    let events = cluster.events("auth").await;
    let limited = |start: &str| {
        events
            .iter()
            .filter(|event| matches!(&event.kind, AuditKind::AuthAttempt { error, .. } if error.starts_with(start)))
            .count()
    };
    assert_eq!((limited("too many failed logins"), limited("too many failed joins")), (30, 30)); // I26
}

#[tokio::test]
async fn what_cannot_be_audited_does_not_happen() {
    let cluster = Cluster::start().await;
    cluster.user("ann", &["access"], &["root"]).await;
    let token = cluster.token(&[SystemRole::Node]).await;
    let database = rusqlite::Connection::open(cluster.dir.path().join("auth.sqlite")).unwrap();
    database.execute_batch("ALTER TABLE events RENAME TO gone").unwrap();

    let (anonymous, admin) = (cluster.anonymous(), cluster.admin());
    assert_eq!(kind(anonymous.login(login_request("ann", PASSWORD)).await), ApiErrorKind::Unavailable); // I75
    let join = join_request(&token, "edge", &[SystemRole::Node], &[]);
    assert_eq!(kind(anonymous.join(join).await), ApiErrorKind::Unavailable);
    assert_eq!(kind(admin.create_user(new_user("bob", &["access"], &[])).await), ApiErrorKind::Unavailable);
    assert_eq!(kind(admin.delete_user("ann".parse().unwrap()).await), ApiErrorKind::Unavailable);
    assert_eq!(kind(admin.delete_token(token).await), ApiErrorKind::Unavailable);

    database.execute_batch("ALTER TABLE gone RENAME TO events").unwrap();
    let users: Vec<String> = admin.users().await.unwrap().into_iter().map(|user| user.name.to_string()).collect();
    assert_eq!(users, ["ann"]);
    assert_eq!(admin.tokens().await.unwrap().len(), 1);
    assert!(cluster.events("cert.create").await.is_empty());
    // The name that the host wanted is free.
    cluster.join("edge", &[SystemRole::Node], &[]).await;
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_all_or_nothing() {
    let cluster = Cluster::start().await;
    let invite = cluster.admin().create_user(new_user("ann", &["access"], &["root"])).await.unwrap();
    let api = cluster.anonymous();
    let request = SignUpRequest { token: invite.token.clone(), password: Secret::new(PASSWORD), code: None };
    {
        let sign_up = api.sign_up(request);
        tokio::pin!(sign_up);
        // Polled once, then dropped in the middle of hashing.
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(sign_up.as_mut().poll(context).is_pending())).await
        );
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while api.invited_user(invite.token.clone()).await.is_ok() {
        assert!(std::time::Instant::now() < end, "the password is never set");
        tokio::task::yield_now().await;
    }
    api.login(login_request("ann", PASSWORD)).await.unwrap();
}
