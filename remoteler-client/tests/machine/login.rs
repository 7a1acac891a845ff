//! The files of a login: whole, private, ours, and gone after logout.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path, time::Duration};

use remoteler_client::{KeyPairs, ProxyAddr, Store, StoreError};
use remoteler_core::{Clock, SshCertificatePurpose, SystemClock, UserName, verify_ssh_certificate};

use crate::cluster::Cluster;

const HOUR: Duration = Duration::from_secs(3600);

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn login(store: &Store, cluster: &Cluster, proxy: &ProxyAddr, name: &str) {
    let keys = KeyPairs::generate(name).unwrap();
    store.save_login(proxy, &user(name), &keys, &cluster.user_certs(name, &keys, HOUR)).unwrap();
}

/// Path below `dir` to content, directories with a slash at the end.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if path.is_dir() {
                found.insert(format!("{name}/"), Vec::new());
                left.push(path);
            } else {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_login_is_found_again_with_everything_to_verify_hosts() {
    let home = tempfile::tempdir().unwrap();
    let (store, cluster) = (Store::new(home.path().join(".tsh")), Cluster::new("root.example.com"));
    let proxy: ProxyAddr = "proxy.example.com:443".parse().unwrap();
    assert!(matches!(store.current_login(), Err(StoreError::NoLogin { .. })));

    login(&store, &cluster, &proxy, "ann");

    let found = store.current_login().unwrap();
    assert!(found.is_valid(SystemClock.now()) && !found.is_valid(SystemClock.now().plus(HOUR)));
    assert_eq!((found.profile.proxy, found.profile.cluster), (proxy, cluster.name.clone()));
    let authority = cluster.trust().host;
    assert_eq!(found.trust.host.x509, authority.x509);
    assert_eq!(found.trust.host.ssh[0].key_data(), authority.ssh[0].key_data());
    assert_eq!(found.identity.user.as_str(), "ann");
    assert_eq!(found.tls.chain().len(), 1);
    verify_ssh_certificate(&found.ssh_certificate, &cluster.trust(), SshCertificatePurpose::User, SystemClock.now())
        .unwrap();
}

#[test]
fn the_files_are_those_of_the_contract_and_nobody_elses_to_read() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::new(home.path().join(".tsh"));
    login(&store, &Cluster::new("root"), &"proxy".parse().unwrap(), "ann");
    let names: Vec<String> = tree(store.home()).into_keys().collect();
    let expected = ["", ".crt", ".key", ".pub", "-cert.pub"].map(|end| format!("keys/proxy/ann{end}"));
    let mut expected: Vec<String> = expected
        .into_iter()
        .chain(["keys/", "keys/proxy/", "keys/proxy/cas.pem", "known_hosts", "profile"].map(String::from))
        .collect();
    expected.sort();
    assert_eq!(names, expected);
    for name in names {
        let mode = std::fs::metadata(store.home().join(&name)).unwrap().mode() & 0o7777;
        assert_eq!(mode, if name.ends_with('/') { 0o700 } else { 0o600 }, "{name}"); // I67
    }
}

#[test]
fn logout_removes_this_login_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::new(home.path().join(".tsh"));
    let (one, two): (ProxyAddr, ProxyAddr) = ("one".parse().unwrap(), "two".parse().unwrap());
    login(&store, &Cluster::new("first"), &one, "ann");
    std::fs::write(store.home().join("notes"), b"mine").unwrap();
    let mut text = std::fs::read_to_string(store.known_hosts()).unwrap();
    text.push_str("host ssh-ed25519 AAAA mine\n");
    std::fs::write(store.known_hosts(), &text).unwrap();
    let before = tree(store.home());

    login(&store, &Cluster::new("second"), &two, "bob");
    assert_eq!(store.current().unwrap().unwrap().proxy, two);
    let bob = store.profile("two").unwrap().unwrap();
    assert!(store.logout(&bob).unwrap());

    let mut after = tree(store.home());
    assert!(store.current().unwrap().is_none());
    assert_eq!(store.profiles().unwrap().len(), 1);
    after.insert("profile".into(), before["profile"].clone());
    assert_eq!(after, before); // I67
    assert!(!store.logout(&bob).unwrap());
}

#[test]
fn two_users_of_one_proxy_keep_their_own_keys() {
    let home = tempfile::tempdir().unwrap();
    let (store, cluster, proxy) = (Store::new(home.path().join(".tsh")), Cluster::new("root"), "p".parse().unwrap());
    login(&store, &cluster, &proxy, "ann");
    let ann = store.current().unwrap().unwrap();
    login(&store, &cluster, &proxy, "bob");
    assert_eq!(store.users(&proxy).unwrap(), [user("ann"), user("bob")]);
    store.logout(&store.current().unwrap().unwrap()).unwrap();
    store.select(&ann).unwrap();
    assert_eq!(store.current_login().unwrap().identity.user, user("ann"));
}

#[test]
fn certificates_that_are_not_for_our_keys_or_user_are_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let (store, cluster, proxy) = (Store::new(home.path().join(".tsh")), Cluster::new("root"), "p".parse().unwrap());
    let (keys, others) = (KeyPairs::generate("a").unwrap(), KeyPairs::generate("b").unwrap());
    let for_others = cluster.user_certs("ann", &others, HOUR);
    let for_bob = cluster.user_certs("bob", &keys, HOUR);
    for certs in [for_others, for_bob] {
        assert!(matches!(store.save_login(&proxy, &user("ann"), &keys, &certs), Err(StoreError::NotOurs { .. })));
    }
    assert!(!store.home().exists());
}

#[test]
fn a_login_of_which_a_part_is_missing_or_old_is_not_taken_for_one() {
    let home = tempfile::tempdir().unwrap();
    let (store, cluster, proxy) = (Store::new(home.path().join(".tsh")), Cluster::new("root"), "p".parse().unwrap());
    login(&store, &cluster, &proxy, "ann");
    let old = std::fs::read(store.home().join("keys/p/ann-cert.pub")).unwrap();
    login(&store, &cluster, &proxy, "ann");
    std::fs::write(store.home().join("keys/p/ann-cert.pub"), old).unwrap();
    let error = store.current_login().unwrap_err();
    assert!(error.to_string().contains("tsh login --proxy p:3080 --user ann"), "{error}"); // I67
    std::fs::remove_file(store.home().join("keys/p/ann-cert.pub")).unwrap();
    assert!(matches!(store.current_login(), Err(StoreError::Broken { .. })));
}

#[test]
fn many_processes_at_once_leave_one_whole_login_of_each_user() {
    let home = tempfile::tempdir().unwrap();
    let (store, cluster) = (Store::new(home.path().join(".tsh")), Cluster::new("root"));
    std::thread::scope(|scope| {
        for i in 0..50 {
            let (store, cluster) = (&store, &cluster);
            scope.spawn(move || {
                let proxy: ProxyAddr = format!("proxy{}", i % 5).parse().unwrap();
                login(store, cluster, &proxy, "ann");
                store.profiles().unwrap();
                let profile = store.profile(proxy.host()).unwrap().unwrap();
                store.login(&profile).unwrap();
            });
        }
    });
    for profile in store.profiles().unwrap() {
        store.login(&profile).unwrap(); // I67
    }
    assert_eq!(store.profiles().unwrap().len(), 5);
    assert!(tree(store.home()).keys().all(|name| !name.starts_with('.')));
}

// I70
#[test]
fn a_connector_whose_name_is_none_becomes_part_of_no_address() {
    let home = tempfile::tempdir().unwrap();
    let (store, cluster, proxy) = (Store::new(home.path().join(".tsh")), Cluster::new("root"), "p".parse().unwrap());
    let keys = KeyPairs::generate("ann").unwrap();
    let long = "a".repeat(1000);
    let wrong = ["", "../account", "idp/done", "idp?x", "local", "idp\u{1b}[2J", "idp\n", "@evil.example", &long];
    for (name, kept) in wrong.map(|name| (name, None)).into_iter().chain([("idp", Some("idp"))]) {
        let mut certs = cluster.user_certs("ann", &keys, HOUR);
        certs.logout_connector = Some(name.to_owned());
        let login = store.save_login(&proxy, &user("ann"), &keys, &certs).unwrap();
        assert_eq!(login.profile.logout_connector.as_deref(), kept, "{name:?}");
        assert_eq!(store.current().unwrap().unwrap().logout_connector.as_deref(), kept, "{name:?}");
    }
}
