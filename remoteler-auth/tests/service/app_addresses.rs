//! Web applications: who announces which under which address, and what else is called so.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use remoteler_core::{
    ApiError, ApiErrorKind, AppRecord, AppTokenRequest, AuthApi, HostCerts, JoinRequest, ResourceKind, SystemRole,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;

use crate::{
    apps::{PROXY, World, claims, join_apps, record, way},
    support::{PASSWORD, join_request, kind},
};

// I28, I51
#[tokio::test]
async fn a_service_announces_its_own_applications_and_no_address_of_others() {
    let world = World::new().await;
    let other = join_apps(&world.cluster, "apps-2", &["other"]).await;
    let api = world.cluster.as_host(&other);
    for foreign in [record(&other, "billing"), record(&world.service_certs, "other"), record(&other, "nobodys")] {
        assert_eq!(kind(api.announce_app(foreign).await), ApiErrorKind::Denied);
    }
    let at = |addr: &str| AppRecord { public_addr: Some(addr.into()), ..record(&other, "other") };
    let service = &world.service;
    let money = AppRecord { public_addr: Some("money.example.com".into()), ..record(&world.service_certs, "billing") };
    service.announce_app(money).await.unwrap();
    for taken in [
        "proxy.example.com",
        "Proxy.Example.com:8443",
        "billing.proxy.example.com",
        "nobody.proxy.example.com",
        "a.nobody.proxy.example.com",
        "example.com",
        "MONEY.example.com:1",
        "a.money.example.com",
    ] {
        assert_eq!(kind(api.announce_app(at(taken)).await), ApiErrorKind::Conflict, "{taken}");
    }
    for broken in ["", "10.0.0.1", "a b", "https://a.b", "a.b/c", "localhost:443", "com"] {
        assert_eq!(kind(api.announce_app(at(broken)).await), ApiErrorKind::BadRequest, "{broken}");
    }
    for free in ["other.proxy.example.com", "other.example.com:8443"] {
        api.announce_app(at(free)).await.unwrap();
    }
    let token = world.cluster.token(&[SystemRole::App]).await;
    let again = JoinRequest {
        apps: ["billing".parse().unwrap()].into(),
        ..join_request(&token, "apps-3", &[SystemRole::App], &[])
    };
    assert_eq!(kind(world.cluster.anonymous().join(again).await), ApiErrorKind::Conflict);
}

/// A service of its own for each application, and what it announces under an address.
type Service = (Arc<dyn AuthApi>, Arc<HostCerts>, String);

async fn addressed(world: &World, apps: &[&str]) -> Vec<Service> {
    let mut services = Vec::new();
    for app in apps {
        let certs = join_apps(&world.cluster, &format!("host-of-{app}"), &[app]).await;
        services.push((world.cluster.as_host(&certs), Arc::new(certs), (*app).to_owned()));
    }
    services
}

async fn announce((api, certs, app): &Service, address: &str) -> Result<(), ApiError> {
    api.announce_app(AppRecord { public_addr: Some(address.into()), ..record(certs, app) }).await
}

// I28, I51
#[tokio::test]
async fn an_address_stays_its_applications_while_that_is_away_until_an_administrator_removes_it() {
    let world = World::new().await;
    let services = addressed(&world, &["owner", "thief"]).await;
    announce(&services[0], "money.example.com").await.unwrap();
    world.cluster.clock.advance(Duration::from_secs(3600));
    assert_eq!(world.cluster.admin().apps().await.unwrap().len(), 0, "nobody's heart beats");
    for address in ["money.example.com", "Money.example.com:8443", "a.money.example.com"] {
        assert_eq!(kind(announce(&services[1], address).await), ApiErrorKind::Conflict, "{address}");
    }
    announce(&services[0], "money.example.com:8443").await.unwrap();
    announce(&services[0], "cash.example.com").await.unwrap();
    assert_eq!(
        kind(announce(&services[1], "money.example.com").await),
        ApiErrorKind::Conflict,
        "it moved, and may return"
    );

    world.cluster.admin().delete_resource(ResourceKind::App, "owner".into()).await.unwrap();
    announce(&services[1], "money.example.com").await.unwrap();
    announce(&services[1], "cash.example.com").await.unwrap();
    assert_eq!(kind(announce(&services[0], "money.example.com").await), ApiErrorKind::Conflict);
}

// I28, I51
#[tokio::test]
async fn a_proxy_takes_no_address_that_an_application_has() {
    let world = World::new().await;
    let services = addressed(&world, &["owner", "other"]).await;
    announce(&services[0], "money.example.com").await.unwrap();
    announce(&services[1], "other.example.com").await.unwrap();
    let second = world.cluster.join("p2", &[SystemRole::Proxy], &[]).await;
    for proxy in [&world.proxy, &world.cluster.as_host(&second)] {
        for taken in ["money.example.com:443", "MONEY.example.com:1", "a.money.example.com:443", "example.com:443"] {
            assert_eq!(kind(proxy.announce_proxy(taken.into()).await), ApiErrorKind::Conflict, "{taken}");
        }
        for free in ["203.0.113.1:443", "p.example.net:443", PROXY] {
            proxy.announce_proxy(free.into()).await.unwrap();
        }
    }
    let refused = world.cluster.events("auth").await;
    let of = |words: &str| refused.iter().filter(|event| format!("{event:?}").contains(words)).count();
    assert_eq!(of("a proxy cannot be called example.com"), 2, "each of them once");
    announce(&services[0], "money.example.com").await.unwrap();
    world.cluster.admin().delete_resource(ResourceKind::App, "owner".into()).await.unwrap();
    // What is the other's own name below it is the other's still.
    world.proxy.announce_proxy("example.com:443".into()).await.unwrap();
    announce(&services[1], "other.example.com").await.unwrap();
    assert_eq!(kind(announce(&services[0], "money.example.com").await), ApiErrorKind::Conflict);
}

// I51
#[tokio::test]
async fn of_a_proxy_and_an_application_that_want_a_name_at_one_moment_one_has_it() {
    let world = World::new().await;
    let second = world.cluster.join("p2", &[SystemRole::Proxy], &[]).await;
    for round in 0..8 {
        let service = addressed(&world, &[&format!("app-{round}")]).await.remove(0);
        let (proxy, host) = (world.cluster.as_host(&second), format!("n{round}.example.net"));
        let claim = {
            let (service, address) = (service.clone(), format!("money.{host}"));
            tokio::spawn(async move { announce(&service, &address).await.is_ok() })
        };
        let proxys = tokio::spawn(async move { proxy.announce_proxy(format!("{host}:443")).await.is_ok() });
        let (claimed, proxys) = (claim.await.unwrap(), proxys.await.unwrap());
        assert!(claimed != proxys, "round {round}: application {claimed}, proxy {proxys}");
    }
}

/// Until its lock `l` is removed.
async fn lock(world: &World, host: &str) {
    let lock = json!({
        "kind": "lock", "version": "v2", "metadata": { "name": "l" }, "spec": { "target": { "node": host } },
    });
    world.cluster.admin().put_resource(serde_json::from_value(lock).unwrap(), false).await.unwrap();
}

// I51, I79
#[tokio::test]
async fn a_proxy_that_is_locked_or_was_silent_for_a_month_keeps_no_names() {
    for by in ["lock", "silence"] {
        let world = World::new().await;
        let second = world.cluster.join("p2", &[SystemRole::Proxy], &[]).await;
        world.cluster.as_host(&second).announce_proxy("example.net:443".into()).await.unwrap();
        let services = addressed(&world, &["owner"]).await;
        let claim = async || announce(&services[0], "money.example.net").await;
        assert_eq!(kind(claim().await), ApiErrorKind::Conflict, "{by}");
        if by == "lock" {
            lock(&world, "p2").await;
        } else {
            world.cluster.clock.advance(Duration::from_secs(30 * 24 * 3600));
            assert_eq!(kind(claim().await), ApiErrorKind::Conflict);
            world.cluster.clock.advance(Duration::from_secs(1));
        }
        claim().await.unwrap();
        if by == "lock" {
            world.cluster.admin().delete_resource(ResourceKind::Lock, "l".into()).await.unwrap();
        }
        claim().await.unwrap();
        let back = world.cluster.as_host(&second).announce_proxy("example.net:443".into()).await;
        assert_eq!(kind(back), ApiErrorKind::Conflict, "{by}");
    }
}

// I51
#[tokio::test]
async fn no_application_has_by_its_name_the_address_that_another_one_claimed() {
    let world = World::new().await;
    world.browser.log_in("ann", PASSWORD).await;
    lock(&world, "p1").await;
    let services = addressed(&world, &["owner"]).await;
    announce(&services[0], "billing.proxy.example.com").await.unwrap();
    world.cluster.admin().delete_resource(ResourceKind::Lock, "l".into()).await.unwrap();

    let nowhere = world.browser.get(&way("billing", "/")).await;
    assert_eq!(nowhere.status, StatusCode::BAD_REQUEST, "{}", nowhere.text);
    assert_eq!(kind(world.proxy.announce_proxy(PROXY.into()).await), ApiErrorKind::Conflict);
    let login = world.cluster.log_in("ann").await;
    let login = [CertificateDer::from_pem_slice(login.tls_certificate.as_bytes()).unwrap()];
    let audience = async |app: &str| {
        let request = AppTokenRequest::new(app.parse().unwrap(), &login);
        claims(&world.service.app_token(request).await.unwrap().token)["aud"].clone()
    };
    assert_eq!(audience("billing").await, "https://billing.app.root");
    assert_eq!(audience("wiki").await, "https://wiki.proxy.example.com");
}

// I28, I51
#[tokio::test]
async fn a_proxys_host_and_the_cluster_have_names_that_no_application_gets() {
    let world = World::new().await;
    let second = world.cluster.join("gate.example.org", &[SystemRole::Proxy], &[]).await;
    world.cluster.as_host(&second).announce_proxy("203.0.113.1:443".into()).await.unwrap();
    let services = addressed(&world, &["thief"]).await;
    for taken in ["gate.example.org", "Gate.Example.org:8443", "example.org"] {
        assert_eq!(kind(announce(&services[0], taken).await), ApiErrorKind::Conflict, "{taken}");
    }
    announce(&services[0], "thief.example.org").await.unwrap();
}

// I28, I51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_is_removed_while_it_claims_an_address_leaves_none_behind() {
    let world = World::new().await;
    let services = addressed(&world, &["owner", "next"]).await;
    let remove = async |app: &str| world.cluster.admin().delete_resource(ResourceKind::App, app.into()).await;
    for round in 0..12 {
        announce(&services[0], "before.example.com").await.unwrap();
        let address = format!("a{round}.example.com");
        let claim = {
            let (service, address) = (services[0].clone(), address.clone());
            tokio::spawn(async move { announce(&service, &address).await })
        };
        remove("owner").await.unwrap();
        // Refused, or the service announced itself anew after its removal.
        let _ = claim.await.unwrap();
        match remove("owner").await {
            Ok(()) => {}
            Err(cause) => assert_eq!(cause.kind, ApiErrorKind::NotFound),
        }
        for free in [&address, "before.example.com"] {
            announce(&services[1], free).await.unwrap_or_else(|cause| panic!("round {round}: {free}: {cause}"));
        }
        remove("next").await.unwrap();
    }
}

// I51
#[tokio::test]
async fn of_those_who_claim_addresses_at_one_moment_each_is_one_applications() {
    let world = World::new().await;
    let names: Vec<String> = (0..6).map(|count| format!("app-{count}")).collect();
    let services = addressed(&world, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let same = at_once(&services, &["money.example.com"; 6]).await;
    assert_eq!(same.iter().filter(|announced| **announced).count(), 1, "{same:?}");
    let nested = ["x.a.net", "a.net", "y.x.a.net", "b.net", "c.net", "d.net"];
    let nested = at_once(&services, &nested).await;
    assert_eq!(nested[..3].iter().filter(|announced| **announced).count(), 1, "none is below another: {nested:?}");
    assert_eq!(nested[3..], [true; 3], "all others have theirs");
}

/// Which of the services got the address that it announced, when all announce theirs at the same moment.
async fn at_once(services: &[Service], addresses: &[&'static str]) -> Vec<bool> {
    let announced: Vec<_> = services
        .iter()
        .zip(addresses)
        .map(|(service, address)| {
            let (service, address) = (service.clone(), *address);
            tokio::spawn(async move { announce(&service, address).await.is_ok() })
        })
        .collect();
    let mut got = Vec::new();
    for announced in announced {
        got.push(announced.await.unwrap());
    }
    got
}

// I28
#[tokio::test]
async fn a_host_that_asks_again_and_again_for_what_it_is_refused_is_on_record_once_an_hour() {
    let world = World::new().await;
    let services = addressed(&world, &["owner", "other"]).await;
    announce(&services[0], "money.example.com").await.unwrap();
    let recorded = async || {
        let refused = world.cluster.events("auth").await;
        refused.iter().filter(|event| format!("{event:?}").contains("money.example.com")).count()
    };
    for (seconds, expected) in [(0, 1), (30, 1), (3569, 1), (1, 2)] {
        world.cluster.clock.advance(Duration::from_secs(seconds));
        assert_eq!(kind(announce(&services[1], "money.example.com").await), ApiErrorKind::Conflict);
        assert_eq!(recorded().await, expected, "after {seconds} s more");
    }
}

// I62
#[tokio::test]
async fn an_application_collects_no_addresses() {
    let world = World::new().await;
    let services = addressed(&world, &["many"]).await;
    for count in 0..8 {
        announce(&services[0], &format!("a{count}.example.com")).await.unwrap();
    }
    assert_eq!(kind(announce(&services[0], "a8.example.com").await), ApiErrorKind::Conflict);
    announce(&services[0], "a7.example.com").await.unwrap();
}
