//! The certificates that are not for our own listeners: what stands in them, and that our verifiers refuse every one.

use std::{fs, time::Duration};

use remoteler_ca::{
    AppProfile, DatabaseProfile, KubeProfile, OpensshHostProfile, OpensshUserProfile, PreparedX509, ProfileError,
    Purpose, ServerProfile, SmartCardProfile, SshPermits,
};
use remoteler_core::{
    AppName, KubeClusterName, OnlyAt, OsEntropy, SessionId, SessionProof, SessionTarget, SshCertificatePurpose,
    Timestamp, UserName, VerifyError, X509Purpose, random_uuid,
};
use ssh_key::Certificate;
use x509_parser::{extensions::GeneralName, pem::parse_x509_pem};

use crate::clients::run;
use crate::support::{Cluster, now, ssh_key, tls_key, user_profile, verify_ssh, verify_x509};

fn hour() -> Timestamp {
    now().plus(Duration::from_secs(3600))
}

pub(crate) fn database(user: &str) -> DatabaseProfile {
    DatabaseProfile { database_user: user.into(), tls_key: tls_key(), not_after: hour() }
}

pub(crate) fn smart_card() -> SmartCardProfile {
    SmartCardProfile {
        windows_user: "ann".into(),
        domain: "ad.example.com".into(),
        sid: Some("S-1-5-21-1004336348-1177238915-682003330-512".into()),
        crl_url: "http://pki.example.com/user.crl".into(),
        tls_key: tls_key(),
        not_after: hour(),
    }
}

pub(crate) fn server() -> ServerProfile {
    ServerProfile {
        dns_names: vec!["db.example.com".into(), "*.db.example.com".into()],
        addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        tls_key: tls_key(),
        not_after: None,
    }
}

pub(crate) fn kube(root: &Cluster) -> KubeProfile {
    KubeProfile {
        identity: user_profile(&root.name).identity,
        kube_cluster: KubeClusterName::new("staging").unwrap(),
        tls_key: tls_key(),
        not_after: hour(),
        proven: None,
    }
}

pub(crate) fn openssh_user(principals: &[&str]) -> OpensshUserProfile {
    OpensshUserProfile {
        user: UserName::new("ann").unwrap(),
        principals: principals.iter().map(|name| (*name).to_owned()).collect(),
        ssh_key: ssh_key(7),
        permits: SshPermits { pty: true, ..SshPermits::default() },
        not_after: hour(),
    }
}

pub(crate) fn openssh_host(names: &[&str]) -> OpensshHostProfile {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    OpensshHostProfile { names, ssh_key: ssh_key(8), not_after: None }
}

#[test]
fn a_database_client_is_its_common_name_and_nobody_to_us() {
    let root = Cluster::new("root");
    let prepared = database("reporting").prepare(&root.user, now(), &OsEntropy).unwrap();
    assert_eq!((prepared.purpose(), prepared.not_after()), (Purpose::DatabaseClient, Some(hour())));
    let pem = root.user.issue_x509(prepared).unwrap();
    let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
    let leaf = block.parse_x509().unwrap();
    assert_eq!(leaf.subject().to_string(), "CN=reporting");
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && usage.other.is_empty());
    refused_everywhere(&root, &pem);

    for bad in ["", "a b", "a,b", "-h", &"x".repeat(64)] {
        let refused = database(bad).prepare(&root.user, now(), &OsEntropy);
        assert!(matches!(refused, Err(ProfileError::Name { .. })), "{bad:?}"); // I4
    }
}

#[test]
fn a_smart_card_says_who_logs_on_and_where_its_revocation_list_lies() {
    let root = Cluster::new("root");
    let pem = issue(&root, smart_card().prepare(&root.user, now(), &OsEntropy));
    let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
    let leaf = block.parse_x509().unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    assert_eq!(usage.other.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.3.6.1.4.1.311.20.2.2"]);
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    let [GeneralName::OtherName(oid, value)] = names.as_slice() else { panic!("{names:?}") };
    assert_eq!(oid.to_string(), "1.3.6.1.4.1.311.20.2.3");
    assert!(value.ends_with(b"ann@ad.example.com"));
    let extension = |oid: &str| leaf.extensions().iter().find(|extension| extension.oid.to_string() == oid);
    let sid = extension("1.3.6.1.4.1.311.25.2").unwrap();
    assert!(sid.value.ends_with(b"S-1-5-21-1004336348-1177238915-682003330-512") && !sid.critical);
    refused_everywhere(&root, &pem);

    type Change = fn(&mut SmartCardProfile);
    let changes: [Change; 8] = [
        |card| card.windows_user = "ann@evil".into(),
        |card| card.windows_user = String::new(),
        |card| card.domain = "*.example.com".into(),
        |card| card.domain = "AD.example.com".into(),
        |card| card.sid = Some("S-1-5".into()),
        |card| card.sid = Some("S-1-5-4294967296".into()),
        |card| card.crl_url = "https://pki.example.com/crl".into(),
        |card| card.crl_url = "http://a b".into(),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut card = smart_card();
        change(&mut card);
        assert!(matches!(card.prepare(&root.user, now(), &OsEntropy), Err(ProfileError::Name { .. })), "{at}");
    }
}

#[test]
fn a_server_has_the_names_and_addresses_that_were_given_and_is_no_host_of_the_cluster() {
    let root = Cluster::new("root");
    let pem = issue_by(&root.host, server().prepare(&root.host, now(), &OsEntropy));
    let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
    let leaf = block.parse_x509().unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(&names[..2], ["DNSName(db.example.com)", "DNSName(*.db.example.com)"]);
    refused_everywhere(&root, &pem);

    for bad in ["", "*", "*.com", "a.*.com", "A.example.com", "a..b", "-a.example.com", &"a.".repeat(130)] {
        let profile = ServerProfile { dns_names: vec![bad.into()], ..server() };
        assert!(matches!(profile.prepare(&root.host, now(), &OsEntropy), Err(ProfileError::Name { .. })), "{bad:?}");
    }
    let nameless = ServerProfile { dns_names: Vec::new(), addresses: Vec::new(), ..server() };
    assert!(matches!(nameless.prepare(&root.host, now(), &OsEntropy), Err(ProfileError::Name { .. })));
}

#[test]
fn a_user_for_one_kubernetes_cluster_is_taken_where_kubernetes_is_meant_and_nowhere_else() {
    let root = Cluster::new("root");
    let pem = issue(&root, kube(&root).prepare(&root.user, now(), &OsEntropy));
    let trust = root.trust();
    let verified = verify_x509(&pem, &trust, X509Purpose::KubeClient, now()).unwrap().user().unwrap();
    assert_eq!(verified.only_at(), Some(&OnlyAt::KubeCluster(KubeClusterName::new("staging").unwrap())));
    assert_eq!(verified.identity(), &user_profile(&root.name).identity); // I9
    let refused = verify_x509(&pem, &trust, X509Purpose::Client, now());
    assert!(matches!(refused, Err(VerifyError::Restricted(_))), "{refused:?}"); // I1
    assert!(verify_x509(&pem, &trust, X509Purpose::Server, now()).is_err()); // I1

    // An ordinary user is taken at Kubernetes too, everywhere.
    let user = root.issue_user().tls_certificate_pem;
    let verified = verify_x509(&user, &trust, X509Purpose::KubeClient, now()).unwrap().user().unwrap();
    assert_eq!(verified.only_at(), None);
}

fn app(root: &Cluster) -> AppProfile {
    let KubeProfile { identity, tls_key, not_after, .. } = kube(root);
    AppProfile {
        identity,
        app: AppName::new("billing").unwrap(),
        session: SessionId::from_uuid(random_uuid(&OsEntropy)),
        tls_key,
        not_after,
        proof: None,
        login_expires: hour(),
        proxy: None,
    }
}

// I1, I49, I51
#[test]
fn a_user_at_one_application_is_taken_where_applications_are_meant_and_nowhere_else() {
    let root = Cluster::new("root");
    let profile = app(&root);
    let proof = |name: &str, expires| {
        let target = SessionTarget::App { name: AppName::new(name).unwrap() };
        SessionProof::new(profile.session, UserName::new("ann").unwrap(), target, expires)
    };
    let soon = now().plus(std::time::Duration::from_secs(60));
    let with = |proof, login_expires| AppProfile { not_after: soon, proof, login_expires, ..profile.clone() };
    let trust = root.trust();
    for good in [None, Some(proof("billing", hour()))] {
        let pem = issue(&root, with(good.clone(), hour()).prepare(&root.user, now(), &OsEntropy));
        let verified = verify_x509(&pem, &trust, X509Purpose::AppClient, now()).unwrap().user().unwrap();
        assert_eq!(verified.only_at(), Some(&OnlyAt::App(AppName::new("billing").unwrap())));
        assert_eq!((verified.app_session(), verified.proof()), (Some(profile.session), good.as_ref()));
        assert_eq!((verified.expires(), verified.login_expires()), (soon, hour()));
        for elsewhere in [X509Purpose::Client, X509Purpose::KubeClient, X509Purpose::Server] {
            assert!(verify_x509(&pem, &trust, elsewhere, now()).is_err(), "{elsewhere:?}");
        }
    }
    let earlier = soon.minus(std::time::Duration::from_secs(1));
    for (proof, login) in
        [(Some(proof("wiki", hour())), hour()), (Some(proof("billing", earlier)), hour()), (None, earlier)]
    {
        let outcome = with(proof, login).prepare(&root.user, now(), &OsEntropy);
        assert!(matches!(outcome, Err(ProfileError::OtherProof { .. })), "{outcome:?}");
    }
    // An ordinary user is taken at applications too, one for a Kubernetes cluster is not.
    let user = root.issue_user().tls_certificate_pem;
    assert_eq!(verify_x509(&user, &trust, X509Purpose::AppClient, now()).unwrap().user().unwrap().only_at(), None);
    let elsewhere = issue(&root, kube(&root).prepare(&root.user, now(), &OsEntropy));
    assert!(verify_x509(&elsewhere, &trust, X509Purpose::AppClient, now()).is_err());
}

// I49
#[test]
fn a_second_factor_in_a_certificate_counts_in_its_cluster_alone_and_is_certified_for_no_other_place_or_time() {
    let root = Cluster::new("root");
    let session = SessionId::from_uuid(random_uuid(&OsEntropy));
    let proof = |kube: &str, expires| {
        let target = SessionTarget::KubeCluster { name: KubeClusterName::new(kube).unwrap() };
        SessionProof::new(session, UserName::new("ann").unwrap(), target, expires)
    };
    let login_expires = hour();
    let soon = now().plus(std::time::Duration::from_secs(60));
    let profile = |proof| KubeProfile { not_after: soon, proven: Some((proof, login_expires)), ..kube(&root) };
    let pem = issue(&root, profile(proof("staging", soon)).prepare(&root.user, now(), &OsEntropy));
    let trust = root.trust();
    let verified = verify_x509(&pem, &trust, X509Purpose::KubeClient, now()).unwrap().user().unwrap();
    assert_eq!(verified.only_at(), Some(&OnlyAt::KubeCluster(KubeClusterName::new("staging").unwrap())));
    assert_eq!(verified.proof(), Some(&proof("staging", soon)));
    assert_eq!((verified.expires(), verified.login_expires()), (soon, login_expires));
    for purpose in [X509Purpose::Client, X509Purpose::Server] {
        assert!(verify_x509(&pem, &trust, purpose, now()).is_err(), "{purpose:?}");
    }
    let late = verify_x509(&pem, &trust, X509Purpose::KubeClient, soon.plus(std::time::Duration::from_secs(1)));
    assert!(matches!(late, Err(VerifyError::Expired(_))), "{late:?}");

    let refused = |proven| KubeProfile { not_after: soon, proven: Some(proven), ..kube(&root) };
    let earlier = soon.minus(std::time::Duration::from_secs(1));
    for (proof, login) in
        [(proof("prod", soon), hour()), (proof("staging", earlier), hour()), (proof("staging", soon), earlier)]
    {
        let outcome = refused((proof, login)).prepare(&root.user, now(), &OsEntropy);
        assert!(matches!(outcome, Err(ProfileError::OtherProof { .. })), "{outcome:?}");
    }
}

#[test]
fn openssh_certificates_for_programs_that_are_not_ours_are_worth_nothing_to_ours() {
    let root = Cluster::new("root");
    let prepared = openssh_user(&["deploy", "root"]).prepare(&root.user, now(), &OsEntropy).unwrap();
    let user = root.user.issue_ssh(prepared).unwrap();
    let certificate = Certificate::from_openssh(&user).unwrap();
    assert_eq!(certificate.valid_principals(), ["deploy", "root"]);
    assert!(certificate.extensions().keys().eq(["permit-pty"])); // I5
    let refused = verify_ssh(&user, &root.trust(), SshCertificatePurpose::User, now());
    assert!(matches!(refused, Err(VerifyError::Identity(_))), "{refused:?}"); // I1

    let names = ["db.example.com", "db2.example.com", "192.0.2.7"];
    let host = root.host.issue_ssh(openssh_host(&names).prepare(&root.host, now(), &OsEntropy).unwrap()).unwrap();
    let certificate = Certificate::from_openssh(&host).unwrap();
    assert_eq!((certificate.valid_principals(), certificate.valid_before()), (&names.map(String::from)[..], u64::MAX));
    for name in names {
        assert!(verify_ssh(&host, &root.trust(), SshCertificatePurpose::Host(name), now()).is_err()); // I1
    }
    for bad in [&[][..], &["*"], &["*.example.com"], &["a b"], &["a.example.com", "a.example.com"], &["-o.example.com"]]
    {
        assert!(openssh_host(bad).prepare(&root.host, now(), &OsEntropy).is_err(), "{bad:?}"); // I4
    }
    for bad in [&[][..], &["a b"], &["a,b"], &["-o"], &["a", "a"], &["*"], &["!root"]] {
        assert!(openssh_user(bad).prepare(&root.user, now(), &OsEntropy).is_err(), "{bad:?}"); // I4
    }
}

#[test]
fn openssl_takes_each_kind_for_its_purpose_only_and_prints_what_was_put_in() {
    let root = Cluster::new("root.example.com");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (user, host) = (&root.user, &root.host);
    for (name, text) in [
        ("user-ca", user.certificate_pem().to_owned()),
        ("host-ca", host.certificate_pem().to_owned()),
        ("database", issue(&root, database("reporting").prepare(user, now(), &OsEntropy))),
        ("card", issue(&root, smart_card().prepare(user, now(), &OsEntropy))),
        ("kube", issue(&root, kube(&root).prepare(user, now(), &OsEntropy))),
        ("server", issue_by(host, server().prepare(host, now(), &OsEntropy))),
    ] {
        fs::write(path(name), text).unwrap();
    }
    let verify = |ca: &str, leaf: &str, extra: &[&str]| {
        let (ca, leaf) = (path(ca), path(leaf));
        let mut arguments = vec!["verify", "-x509_strict", "-attime", "1772366400", "-no-CApath", "-CAfile", &ca];
        arguments.extend(extra);
        arguments.push(&leaf);
        run("openssl", &arguments).map(|output| output.contains(": OK"))
    };
    for (leaf, ca, other, client) in [
        ("database", "user-ca", "host-ca", true),
        ("card", "user-ca", "host-ca", true),
        ("kube", "user-ca", "host-ca", true),
        ("server", "host-ca", "user-ca", false),
    ] {
        let Some(as_client) = verify(ca, leaf, &["-purpose", "sslclient"]) else { return };
        assert_eq!(as_client, client, "{leaf}"); // I11
        assert_eq!(verify(ca, leaf, &["-purpose", "sslserver"]), Some(!client), "{leaf}"); // I11
        assert_eq!(verify(other, leaf, &[]), Some(false), "{leaf}"); // I1
    }
    for (names, accepted) in [
        (&["-verify_hostname", "db.example.com"], true),
        (&["-verify_hostname", "a.db.example.com"], true),
        (&["-verify_hostname", "a.b.db.example.com"], false),
        (&["-verify_hostname", "example.com"], false),
        (&["-verify_ip", "192.0.2.7"], true),
        (&["-verify_ip", "2001:db8::7"], true),
        (&["-verify_ip", "192.0.2.8"], false),
    ] {
        assert_eq!(verify("host-ca", "server", names), Some(accepted), "{names:?}");
    }
    let text = run("openssl", &["x509", "-in", &path("card"), "-noout", "-text"]).unwrap();
    for part in ["Microsoft Smartcard Login", "URI:http://pki.example.com/user.crl", "othername:", "CN = ann"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn every_kind_is_refused_by_the_authority_of_the_other_kind_and_beyond_its_time() {
    let root = Cluster::new("root");
    let wrong = |refused: Option<ProfileError>| matches!(refused, Some(ProfileError::WrongKind { .. }));
    assert!(wrong(database("a").prepare(&root.host, now(), &OsEntropy).err())); // I1
    assert!(wrong(smart_card().prepare(&root.host, now(), &OsEntropy).err())); // I1
    assert!(wrong(kube(&root).prepare(&root.host, now(), &OsEntropy).err())); // I1
    assert!(wrong(openssh_user(&["a"]).prepare(&root.host, now(), &OsEntropy).err())); // I1
    assert!(wrong(server().prepare(&root.user, now(), &OsEntropy).err())); // I1
    assert!(wrong(openssh_host(&["a"]).prepare(&root.user, now(), &OsEntropy).err())); // I1

    let late = now().plus(Duration::from_secs(31 * 3600));
    let too_long = |refused: Option<ProfileError>| matches!(refused, Some(ProfileError::TooLong { .. }));
    let mut profile = database("a");
    profile.not_after = late;
    assert!(too_long(profile.prepare(&root.user, now(), &OsEntropy).err())); // I6
    let profile = SmartCardProfile { not_after: late, ..smart_card() };
    assert!(too_long(profile.prepare(&root.user, now(), &OsEntropy).err())); // I6
    let profile = AppProfile { not_after: late, login_expires: late, ..app(&root) };
    assert!(too_long(profile.prepare(&root.user, now(), &OsEntropy).err())); // I6
    let profile = KubeProfile { not_after: late, ..kube(&root) };
    assert!(too_long(profile.prepare(&root.user, now(), &OsEntropy).err())); // I6
    let profile = OpensshUserProfile { not_after: late, ..openssh_user(&["a"]) };
    assert!(too_long(profile.prepare(&root.user, now(), &OsEntropy).err())); // I6
    let profile = ServerProfile { not_after: Some(now()), ..server() };
    assert!(matches!(profile.prepare(&root.host, now(), &OsEntropy), Err(ProfileError::Ended { .. }))); // I6
}

fn issue(root: &Cluster, prepared: Result<PreparedX509, ProfileError>) -> String {
    issue_by(&root.user, prepared)
}

fn issue_by(authority: &remoteler_ca::Authority, prepared: Result<PreparedX509, ProfileError>) -> String {
    authority.issue_x509(prepared.unwrap()).unwrap()
}

/// I1
fn refused_everywhere(root: &Cluster, pem: &str) {
    for purpose in [X509Purpose::Client, X509Purpose::KubeClient, X509Purpose::AppClient, X509Purpose::Server] {
        assert!(verify_x509(pem, &root.trust(), purpose, now()).is_err(), "{purpose:?}");
    }
}
