//! Authorities of every suite issue certificates that our verifiers take.

use std::sync::OnceLock;

use remoteler_ca::{Authority, SignerAlgorithm, StoredAuthority, Suite};
use remoteler_core::{CaKind, ClusterName, OsEntropy, SshCertificatePurpose, TrustBundle, X509Purpose};
use ssh_key::Certificate;

use crate::support::{Cluster, host_profile, now, user_profile, verify_ssh, verify_x509};

/// The two authorities of a cluster, of `suite`.
pub(crate) fn cluster(suite: Suite) -> Cluster {
    let name = ClusterName::new("root.example.com").unwrap();
    let make = |kind| Authority::generate_with(&name, kind, suite, now(), &OsEntropy).unwrap();
    if suite != Suite::Legacy {
        return Cluster { user: make(CaKind::User), host: make(CaKind::Host), name };
    }
    // Large primes are slow to find without optimisation: once is enough.
    static LEGACY: OnceLock<[StoredAuthority; 2]> = OnceLock::new();
    let [user, host] = LEGACY.get_or_init(|| [make(CaKind::User).to_stored(), make(CaKind::Host).to_stored()]);
    let load = |stored| Authority::from_stored(stored).unwrap();
    Cluster { user: load(user), host: load(host), name }
}

#[test]
fn every_suite_issues_what_the_verifiers_take() {
    for (suite, algorithm) in
        [(Suite::Balanced, "ssh-ed25519"), (Suite::Token, "ecdsa-sha2-nistp256"), (Suite::Legacy, "rsa-sha2-512")]
    {
        let root = cluster(suite);
        let trust = TrustBundle::new(root.name.clone(), root.user.public(), root.host.public());
        let (user, host) = (root.issue_user(), root.issue_host());
        for line in [&user.ssh_certificate, &host.ssh_certificate] {
            let certificate = Certificate::from_openssh(line).unwrap();
            assert_eq!(certificate.signature().algorithm().as_str(), algorithm); // I7
        }
        let name = host_profile(&root.name).identity.principals().remove(0);
        assert!(verify_ssh(&user.ssh_certificate, &trust, SshCertificatePurpose::User, now()).is_ok(), "{suite}");
        assert!(
            verify_ssh(&host.ssh_certificate, &trust, SshCertificatePurpose::Host(&name), now()).is_ok(),
            "{suite}"
        );
        assert!(verify_x509(&user.tls_certificate_pem, &trust, X509Purpose::Client, now()).is_ok(), "{suite}");
        assert!(verify_x509(&host.tls_certificate_pem, &trust, X509Purpose::Server, now()).is_ok(), "{suite}");

        // It is stored with the authority, and no other suite takes its keys.
        let stored = root.user.to_stored();
        let again = Authority::from_stored(&serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap());
        assert_eq!(again.unwrap().suite(), suite);
        for other in [Suite::Balanced, Suite::Token, Suite::Legacy].into_iter().filter(|other| *other != suite) {
            let mislabelled = StoredAuthority { suite: other, ..stored.clone() };
            assert!(Authority::from_stored(&mislabelled).is_err(), "{suite} as {other}"); // I7
        }
    }
}

#[test]
fn a_suite_is_written_as_it_is_read() {
    for suite in [Suite::Balanced, Suite::Token, Suite::Legacy] {
        assert_eq!(suite.to_string().parse(), Ok(suite));
        assert_eq!(serde_json::to_string(&suite).unwrap(), format!("\"{suite}\""));
    }
    assert!("BALANCED".parse::<Suite>().is_err());
    assert_eq!(
        (Suite::default().ssh(), Suite::default().x509()),
        (SignerAlgorithm::Ed25519, SignerAlgorithm::EcdsaP256)
    );
}

#[test]
fn a_user_prepared_by_one_suite_is_not_signed_by_another() {
    let (balanced, token) = (cluster(Suite::Balanced), cluster(Suite::Token));
    let prepared = user_profile(&balanced.name).prepare(&balanced.user, now(), &OsEntropy).unwrap();
    assert!(token.user.issue_user(prepared).is_err());
}
