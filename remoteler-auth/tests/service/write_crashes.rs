//! The auth service dies at the write of a change, before it or after it: what belongs together is there together, or is gone together.

use std::{collections::BTreeMap, pin::Pin};

use remoteler_auth::{AuthService, Caller};
use remoteler_core::{
    AuthApi, NodeName, NodeRecord, ResourceKind, Secret, SignUpRequest, Storage, SystemRole, Timestamp, UserName,
};
use serde_json::Value;

use crate::{
    mortal::{Death, Machine},
    support::{PASSWORD, join_request, new_user},
};

/// What a change needs to know of the state it is made in.
struct Before {
    link: Secret,
}

type Change = fn(std::sync::Arc<dyn AuthApi>, Before) -> Pin<Box<dyn Future<Output = bool> + Send>>;

const CHANGES: [(&str, Change); 6] = [
    ("a user is made", |api, _| {
        Box::pin(async move { api.create_user(new_user("cid", &["access"], &["cid"])).await.is_ok() })
    }),
    ("a user is reset", |api, _| Box::pin(async move { api.reset_user(name("bob")).await.is_ok() })),
    ("a user is removed", |api, _| Box::pin(async move { api.delete_user(name("bob")).await.is_ok() })),
    ("a link is used", |api, Before { link }| {
        let request = SignUpRequest { token: link, password: Secret::new(PASSWORD), code: None };
        Box::pin(async move { api.sign_up(request).await.is_ok() })
    }),
    ("a password is set", |api, _| {
        Box::pin(async move { api.set_password(name("bob"), Secret::new(PASSWORD)).await.is_ok() })
    }),
    ("a node is removed", |api, _| {
        Box::pin(async move { api.delete_resource(ResourceKind::Node, "edge".into()).await.is_ok() })
    }),
];

fn name(text: &str) -> UserName {
    UserName::new(text).unwrap()
}

/// Bob, who has a link, and a node that was heard of.
async fn prepare(machine: &Machine) -> Before {
    let service = machine.start().await;
    let admin = service.as_caller(Caller::LocalAdmin);
    let link = admin.create_user(new_user("bob", &["access"], &["bob"])).await.unwrap().token;
    let token = serde_json::json!({ "roles": ["node"] });
    let token = admin.create_token(serde_json::from_value(token).unwrap()).await.unwrap().token;
    let anybody = service.as_caller(Caller::Anonymous { addr: ([192, 0, 2, 1], 4_000).into() });
    let certs = anybody.join(join_request(&token, "edge", &[SystemRole::Node], &[])).await.unwrap();
    let host = as_host(&service, &certs.tls_certificate);
    let record = NodeRecord {
        host_id: certs.host_id,
        name: NodeName::new("edge").unwrap(),
        labels: remoteler_core::Labels::default(),
        addr: None,
        version: "0".into(),
        last_seen: Timestamp::default(),
        heartbeat: Default::default(),
    };
    host.announce_node(record).await.unwrap();
    let generation = service.trust_bundle().rotation.generation;
    let acked = serde_json::json!({ "generation": generation });
    host.acknowledge_trust(serde_json::from_value(acked).unwrap()).await.unwrap();
    Before { link }
}

fn as_host(service: &AuthService, pem: &str) -> std::sync::Arc<dyn AuthApi> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let purpose = remoteler_core::X509Purpose::Client;
    let now = remoteler_core::Clock::now(&remoteler_core::SystemClock);
    let verified = remoteler_core::verify_x509_chain(&[certificate], &service.trust_bundle(), purpose, now).unwrap();
    service.as_caller(Caller::Host { host: verified.host().unwrap(), addr: None })
}

/// Everything that is stored below one of these, by key.
async fn stored(machine: &Machine) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for prefix in ["users/", "invites/", "nodes", "services/"] {
        let page = machine.disk.range(prefix, None, 10_000, Timestamp::default()).await.unwrap();
        found.extend(page.items.into_iter().map(|item| (item.key, serde_json::from_slice(&item.value).unwrap())));
    }
    found
}

/// Every link belongs to the user who has it and every user's link is there; a node that is known has an owner.
fn assert_whole(stored: &BTreeMap<String, Value>, what: &str) {
    let links = stored.iter().filter_map(|(key, user)| Some((key.strip_prefix("invites/")?, user.as_str()?)));
    let links: BTreeMap<&str, &str> = links.collect();
    let users = stored.iter().filter(|(key, _)| key.starts_with("users/"));
    let marks = users.filter_map(|(_, user)| Some((user["invite"]["hash"].as_str()?, user["name"].as_str()?)));
    assert_eq!(links, marks.collect(), "{what}: {stored:#?}");
    let names = |prefix: &str| -> Vec<String> {
        stored.keys().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    assert_eq!(names("nodes/"), names("nodes-owner/"), "{what}");
    assert_eq!(names("nodes/").len(), names("services/").len(), "{what}");
}

#[tokio::test]
async fn a_process_that_dies_at_the_write_of_a_change_has_done_all_of_it_or_nothing() {
    for (what, change) in CHANGES {
        for death in [Death::Before(0), Death::After(0), Death::Never] {
            let machine = Machine::new();
            let before = prepare(&machine).await;
            let first = stored(&machine).await;
            assert_whole(&first, what);
            let (service, disk) = machine.start_counted(death).await;
            let done = change(service.as_caller(Caller::LocalAdmin), before).await;
            assert_eq!(done, death == Death::Never, "{what} {death:?}");
            // A second write would be a second thing that can be missing.
            assert_eq!(disk.writes(), 1, "{what} {death:?}");
            drop(service);
            let after = stored(&machine).await;
            assert_whole(&after, what);
            assert_eq!(after == first, death == Death::Before(0), "{what} {death:?}");
            machine.start().await;
        }
    }
}

/// A token for one host, as long as it is not used.
async fn token(service: &AuthService) -> Secret {
    let token = serde_json::json!({ "roles": ["node", "kube"], "uses": 1 });
    let token = serde_json::from_value(token).unwrap();
    service.as_caller(Caller::LocalAdmin).create_token(token).await.unwrap().token
}

/// What is stored of hosts that joined: their names, their records and standings, and how many a token says have used it.
async fn joined(machine: &Machine) -> [usize; 5] {
    let mut counts = [0; 5];
    for (count, prefix) in counts.iter_mut().zip(["nodes-owner/", "kube-owner/", "hosts/", "standings/", "tokens/"]) {
        let page = machine.disk.range(prefix, None, 10_000, Timestamp::default()).await.unwrap();
        let used = |value: &[u8]| serde_json::from_slice::<Value>(value).unwrap()["used_by"].as_array().map(Vec::len);
        *count = match prefix {
            "tokens/" => page.items.iter().filter_map(|item| used(&item.value)).sum(),
            _ => page.items.len(),
        };
    }
    counts
}

// I35
#[tokio::test]
async fn a_process_that_dies_while_a_host_joins_has_let_it_in_or_has_not_and_its_token_is_not_burnt() {
    for death in [Death::Before(0), Death::After(0), Death::Never] {
        let machine = Machine::new();
        let token = token(&machine.start().await).await;
        let (service, disk) = machine.start_counted(death).await;
        let anybody =
            |service: &AuthService| service.as_caller(Caller::Anonymous { addr: ([192, 0, 2, 1], 4_000).into() });
        let request = join_request(&token, "edge", &[SystemRole::Node, SystemRole::Kube], &["staging", "prod"]);
        let certs = anybody(&service).join(request.clone()).await;
        assert_eq!(certs.is_ok(), death == Death::Never, "{death:?}");
        assert_eq!(disk.writes(), 1, "names, record, standing and the use of the token are one write");
        let expected = if death == Death::Before(0) { [0; 5] } else { [1, 2, 1, 1, 1] };
        assert_eq!(joined(&machine).await, expected, "{death:?}");
        drop(service);
        // It asks again, as the same host if it was let in.
        let again = anybody(&machine.start().await).join(request).await.unwrap();
        assert!(certs.is_err() || certs.unwrap().host_id == again.host_id);
        assert_eq!(joined(&machine).await, [1, 2, 1, 1, 1], "{death:?}");
    }
}

#[tokio::test]
async fn a_first_start_that_is_cut_off_leaves_all_roles_or_none() {
    for write in 0..8 {
        for death in [Death::Before(write), Death::After(write)] {
            let machine = Machine::new();
            let born = machine.try_first_start(death).await;
            let service = machine.start().await;
            let roles = service.as_caller(Caller::LocalAdmin).roles().await.unwrap();
            assert_eq!(roles.len(), 3, "{death:?}, started: {born}");
        }
    }
}
