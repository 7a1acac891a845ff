//! Web applications: who announces which under which address, and what else is called so.

use std::{sync::Arc, time::Duration};

use remoteler_core::{ApiError, ApiErrorKind, AppRecord, AuthApi, HostCerts, JoinRequest, ResourceKind, SystemRole};

use crate::{
    apps::{World, join_apps, record},
    support::{join_request, kind},
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
