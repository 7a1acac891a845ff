//! What a profile must be before anything is signed, and what stands in the certificates then.

use std::time::Duration;

use proptest::prelude::*;
use remoteler_ca::{Authority, HostProfile, MAX_USER_TTL, ProfileError, SshPermits, UserProfile};
use remoteler_core::{
    CaKind, ClusterName, Entropy, Login, NodeName, OsEntropy, SshCertificatePurpose, Timestamp, VerifyError,
    X509Purpose,
};
use ssh_key::{Certificate, PublicKey, public::KeyData};
use x509_parser::{extensions::ParsedExtension, pem::parse_x509_pem};

use crate::support::{Cluster, host_profile, now, tls_key, user_profile, verify_ssh, verify_x509};

#[test]
fn a_user_certificate_lasts_from_a_minute_ago_to_the_end_that_was_asked_for() {
    let root = Cluster::new("root");
    let prepared = user_profile(&root.name).prepare(&root.user, now(), &OsEntropy).unwrap();
    let (end, ssh_serial, tls_serial) = (prepared.not_after(), prepared.ssh_serial(), prepared.tls_serial());
    assert_eq!(end, now().plus(Duration::from_secs(8 * 3600)));
    let issued = root.user.issue_user(prepared).unwrap();

    let ssh = verify_ssh(&issued.ssh_certificate, &root.trust(), SshCertificatePurpose::User, now());
    let ssh = ssh.unwrap().user().unwrap();
    let tls = verify_x509(&issued.tls_certificate_pem, &root.trust(), X509Purpose::Client, now());
    let tls = tls.unwrap().user().unwrap();
    assert_eq!((ssh.expires(), ssh.serial()), (end, ssh_serial.as_str()));
    assert_eq!((tls.expires(), tls.serial()), (end, tls_serial.as_str()));
    assert_eq!(ssh.identity(), &user_profile(&root.name).identity); // I9
    assert_eq!(tls.identity(), &user_profile(&root.name).identity); // I9

    // I6: not before, not after, at either verifier.
    for (at, expected) in [
        (now().minus(Duration::from_secs(60)), true),
        (now().minus(Duration::from_secs(3600)), false),
        (end.minus(Duration::from_secs(1)), true),
        (end.plus(Duration::from_secs(1)), false),
    ] {
        let ssh = verify_ssh(&issued.ssh_certificate, &root.trust(), SshCertificatePurpose::User, at);
        let tls = verify_x509(&issued.tls_certificate_pem, &root.trust(), X509Purpose::Client, at);
        assert_eq!((ssh.is_ok(), tls.is_ok()), (expected, expected), "{at}");
    }
}

#[test]
fn a_host_certificate_has_no_end_and_the_names_of_its_identity() {
    let root = Cluster::new("root");
    let issued = root.issue_host();
    let identity = host_profile(&root.name).identity;

    let certificate = Certificate::from_openssh(&issued.ssh_certificate).unwrap();
    assert_eq!((certificate.valid_before(), certificate.valid_principals()), (u64::MAX, &*identity.principals())); // I9
    let (_, pem) = parse_x509_pem(issued.tls_certificate_pem.as_bytes()).unwrap();
    let leaf = pem.parse_x509().unwrap();
    assert_eq!(leaf.validity().not_after.timestamp(), 253_402_300_799); // 99991231235959Z
    let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.iter();
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    assert_eq!(names, identity.dns_names().iter().map(|name| format!("DNSName({name})")).collect::<Vec<_>>()); // I9

    let century = now().plus(Duration::from_secs(100 * 31_557_600));
    for name in identity.principals() {
        let ssh = verify_ssh(&issued.ssh_certificate, &root.trust(), SshCertificatePurpose::Host(&name), century);
        assert_eq!(ssh.unwrap().host().unwrap().identity(), &identity);
    }
    let tls = verify_x509(&issued.tls_certificate_pem, &root.trust(), X509Purpose::Server, century).unwrap();
    assert_eq!(tls.host().unwrap().identity(), &identity);
}

#[test]
fn x509_certificates_say_what_they_may_be_used_for() {
    let root = Cluster::new("root");
    for (pem, usages, organizations) in [
        (root.issue_user().tls_certificate_pem, (true, false), vec!["access", "auditor"]),
        (root.issue_host().tls_certificate_pem, (true, true), vec!["node", "kube"]),
    ] {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        let leaf = pem.parse_x509().unwrap();
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((usage.client_auth, usage.server_auth), usages);
        assert!(!usage.any && usage.other.is_empty());
        assert_eq!(leaf.key_usage().unwrap().unwrap().value.flags, 1); // digitalSignature
        assert!(!leaf.is_ca());
        assert_eq!(leaf.raw_serial().len(), 16);
        let listed: Vec<_> = leaf.subject().iter_organization().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(listed, organizations);
        // Go and webpki refuse critical extensions that they do not know.
        let unknown = leaf
            .extensions()
            .iter()
            .filter(|e| matches!(e.parsed_extension(), ParsedExtension::UnsupportedExtension { .. }));
        assert!(unknown.map(|extension| extension.critical).eq([false]));
    }
}

#[test]
fn an_authority_certifies_leafs_only_for_ten_years() {
    let root = Cluster::new("root.example.com");
    for (authority, name) in [(&root.user, "root.example.com user CA"), (&root.host, "root.example.com host CA")] {
        let (_, pem) = parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(authority.public().x509, std::slice::from_ref(&pem.contents));
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0)); // I11
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        assert_eq!(certificate.subject().iter_common_name().next().unwrap().as_str(), Ok(name));
        let years = (certificate.validity().not_after.timestamp() - now().unix_seconds()) / 31_557_600;
        assert_eq!(years, 10);
    }
}

#[test]
fn a_permit_that_was_not_given_is_absent() {
    let root = Cluster::new("root");
    let permits = |permits: SshPermits| {
        let profile = UserProfile { permits, ..user_profile(&root.name) };
        let issued = root.user.issue_user(profile.prepare(&root.user, now(), &OsEntropy).unwrap()).unwrap();
        let certificate = Certificate::from_openssh(&issued.ssh_certificate).unwrap();
        assert!(certificate.critical_options().is_empty());
        certificate.extensions().keys().cloned().collect::<Vec<String>>()
    };
    // I5
    assert_eq!(permits(SshPermits::default()), ["identity@remoteler.dev"]);
    let all = permits(SshPermits { pty: true, port_forwarding: true, agent_forwarding: true });
    let expected = ["identity@remoteler.dev", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];
    assert_eq!(all, expected); // I5
    let host = Certificate::from_openssh(&root.issue_host().ssh_certificate).unwrap();
    assert!(host.extensions().keys().eq(["identity@remoteler.dev"])); // I5
}

#[test]
fn a_user_without_logins_or_with_one_twice_or_with_too_many_is_refused() {
    let root = Cluster::new("root");
    let with = |logins: Vec<String>| {
        let mut profile = user_profile(&root.name);
        profile.identity.logins = logins.iter().map(|login| Login::new(login).unwrap()).collect();
        profile.prepare(&root.user, now(), &OsEntropy).map(|_| ())
    };
    assert!(matches!(with(Vec::new()), Err(ProfileError::PrincipalCount { count: 0, .. }))); // I4
    let many = |count| (0..count).map(|at| format!("u{at}")).collect();
    assert!(with(many(256)).is_ok()); // I4
    assert!(matches!(with(many(257)), Err(ProfileError::PrincipalCount { count: 257, .. }))); // I4
    assert!(matches!(with(vec!["a".into(), "b".into(), "a".into()]), Err(ProfileError::Duplicate { .. })));
}

#[test]
fn keys_outside_the_list_are_refused_before_anything_is_signed() {
    let root = Cluster::new("root");
    let security_key = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo=";
    let issued = Certificate::from_openssh(&root.issue_user().ssh_certificate).unwrap();
    let certificate_as_key = PublicKey::new(KeyData::from(issued), "");
    for key in [PublicKey::from_openssh(security_key).unwrap(), certificate_as_key] {
        let user = UserProfile { ssh_key: key.clone(), ..user_profile(&root.name) };
        assert!(matches!(user.prepare(&root.user, now(), &OsEntropy), Err(ProfileError::SshKey { .. }))); // I2 I7
        let host = HostProfile { ssh_key: key, ..host_profile(&root.name) };
        assert!(matches!(host.prepare(&root.host, now(), &OsEntropy), Err(ProfileError::SshKey { .. }))); // I2 I7
    }
}

#[test]
fn an_identity_too_large_for_its_readers_is_refused() {
    let root = Cluster::new("root");
    let mut profile = user_profile(&root.name);
    profile.identity.traits.insert("groups".into(), vec!["x".repeat(1024); 64]);
    assert!(matches!(profile.prepare(&root.user, now(), &OsEntropy), Err(ProfileError::Identity { .. })));
}

#[test]
fn a_host_without_a_role_or_with_a_name_that_dns_cannot_hold_is_refused() {
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63)].join(".");
    let far = Cluster::new(&long);
    let mut profile = host_profile(&far.name);
    profile.identity.name = NodeName::new(&long).unwrap();
    assert!(matches!(profile.prepare(&far.host, now(), &OsEntropy), Err(ProfileError::DnsName { .. })));
    let root = Cluster::new("root");
    let mut profile = host_profile(&root.name);
    profile.identity.roles.clear();
    assert!(matches!(profile.prepare(&root.host, now(), &OsEntropy), Err(ProfileError::NoRole { .. })));
}

#[test]
fn serials_are_sixteen_octets_with_a_clear_sign_bit_whatever_is_drawn() {
    struct Constant(u8);
    impl Entropy for Constant {
        fn fill(&self, buffer: &mut [u8]) -> bool {
            buffer.fill(self.0);
            true
        }
    }
    let root = Cluster::new("root");
    for octet in [0, 0x7f, 0x80, 0xff] {
        let prepared = user_profile(&root.name).prepare(&root.user, now(), &Constant(octet)).unwrap();
        let (ssh, tls) = (prepared.ssh_serial(), prepared.tls_serial());
        assert_ne!(ssh, "0");
        let issued = root.user.issue_user(prepared).unwrap();
        let verified = verify_x509(&issued.tls_certificate_pem, &root.trust(), X509Purpose::Client, now());
        assert_eq!(verified.unwrap().user().unwrap().serial(), tls);
        let (_, pem) = parse_x509_pem(issued.tls_certificate_pem.as_bytes()).unwrap();
        let raw = pem.parse_x509().unwrap().raw_serial().to_vec();
        assert!(raw.len() == 16 && (0x40..0x80).contains(&raw[0]));
    }
}

#[test]
fn an_authority_reads_back_as_it_was_stored_and_shows_no_key_when_printed() {
    let root = Cluster::new("root");
    let stored = root.user.to_stored();
    let json = serde_json::to_string(&stored).unwrap();
    let again = Authority::from_stored(&serde_json::from_str(&json).unwrap()).unwrap();
    assert_eq!(again.public(), root.user.public());
    assert_eq!((again.kind(), again.cluster()), (CaKind::User, &root.name));
    let issued = again.issue_user(user_profile(&root.name).prepare(&root.user, now(), &OsEntropy).unwrap()).unwrap();
    assert!(verify_ssh(&issued.ssh_certificate, &root.trust(), SshCertificatePurpose::User, now()).is_ok());

    let secret = stored.ssh_key.clear().unwrap().reveal().lines().nth(1).unwrap();
    for printed in [format!("{stored:?}"), format!("{:?}", root.user)] {
        assert!(!printed.contains(secret) && !printed.contains("PRIVATE"), "{printed}"); // I8 I76
    }
}

#[test]
fn a_stored_authority_whose_parts_do_not_belong_together_is_refused() {
    let (root, other) = (Cluster::new("root"), Cluster::new("root"));
    let with = |change: &dyn Fn(&mut remoteler_ca::StoredAuthority)| {
        let mut stored = root.user.to_stored();
        change(&mut stored);
        Authority::from_stored(&stored).map(|_| ()).unwrap_err().to_string()
    };
    assert!(with(&|s| s.x509_key = other.user.to_stored().x509_key).contains("another key"));
    assert!(with(&|s| s.kind = CaKind::Host).contains("another cluster or purpose")); // I1
    assert!(with(&|s| s.cluster = ClusterName::new("leaf").unwrap()).contains("another cluster or purpose")); // I12
    assert!(with(&|s| std::mem::swap(&mut s.x509_key, &mut s.ssh_key)).contains("key failed"));
    assert!(with(&|s| s.x509_certificate = "x".into()).contains("no PEM"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// I6
    #[test]
    fn no_user_certificate_is_empty_or_longer_than_the_limit(
        clock in prop_oneof![any::<i64>(), 0..4_000_000_000_000_i64],
        ttl in prop_oneof![any::<i64>(), -100_000_000..200_000_000_i64, Just(0), Just(i64::MAX)],
    ) {
        let clock = Timestamp::from_unix_millis(clock);
        let not_after = Timestamp::from_unix_millis(clock.unix_millis().saturating_add(ttl));
        let profile = UserProfile { not_after, ..cached_user_profile() };
        if let Ok(prepared) = with_root(|root| profile.prepare(&root.user, clock, &OsEntropy)) {
            prop_assert!(prepared.not_after() > clock || prepared.not_after().unix_seconds() > clock.unix_seconds());
            prop_assert!(prepared.not_after().since(clock) <= MAX_USER_TTL);
            prop_assert!((0..253_402_300_799).contains(&prepared.not_after().unix_seconds()));
            with_root(|root| {
                let trust = root.trust();
                let issued = root.user.issue_user(prepared).unwrap();
                let verify_at = |at| verify_ssh(&issued.ssh_certificate, &trust, SshCertificatePurpose::User, at);
                prop_assert!(verify_at(clock).is_ok());
                prop_assert!(verify_x509(&issued.tls_certificate_pem, &trust, X509Purpose::Client, clock).is_ok());
                prop_assert!(matches!(verify_at(not_after.plus(Duration::from_secs(1))), Err(VerifyError::Expired(_))));
                Ok(())
            })?;
        } else {
            let inside = not_after.unix_seconds() > clock.unix_seconds()
                && not_after <= clock.plus(MAX_USER_TTL)
                && (60..253_402_000_000).contains(&clock.unix_seconds());
            prop_assert!(!inside, "{} until {}", clock, not_after);
        }
    }
}

fn cached_user_profile() -> UserProfile {
    use std::sync::OnceLock;
    static PROFILE: OnceLock<UserProfile> = OnceLock::new();
    PROFILE.get_or_init(|| user_profile(&ClusterName::new("root").unwrap())).clone()
}

fn with_root<T>(act: impl FnOnce(&Cluster) -> T) -> T {
    use std::sync::OnceLock;
    static ROOT: OnceLock<Cluster> = OnceLock::new();
    act(ROOT.get_or_init(|| Cluster::new("root")))
}

#[test]
fn the_same_key_may_be_certified_for_tls_of_every_listed_algorithm() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().public_key_pem();
        assert!(remoteler_ca::TlsPublicKey::from_pem(&pem).is_ok()); // I7
    }
    let der = tls_key().as_der().to_vec();
    for end in 0..der.len() {
        assert!(remoteler_ca::TlsPublicKey::from_der(&der[..end]).is_err());
    }
    assert!(remoteler_ca::TlsPublicKey::from_der(&[&der[..], &[0]].concat()).is_err());
}
