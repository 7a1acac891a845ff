//! Each authority has one cluster and one purpose: the matrix of signer, certificate and verifier (I1, I12).

use remoteler_ca::{Authority, CaError, ProfileError};
use remoteler_core::{
    CaKind, CaSet, OsEntropy, SshCertificatePurpose, TrustBundle, Verified, VerifyError, X509Purpose,
};

use crate::support::{Cluster, host_profile, now, user_profile, verify_ssh, verify_x509};

/// A certificate in both forms and where it comes from.
struct Shown {
    what: &'static str,
    ssh: String,
    x509: String,
}

/// Every certificate that the authorities of these clusters can be made to sign.
fn shown_by(root: &Cluster, leaf: &Cluster, impostor: &Cluster) -> Vec<Shown> {
    let mut shown = Vec::new();
    for (cluster, user, host) in [
        (root, "user of root", "host of root"),
        (leaf, "user of leaf", "host of leaf"),
        (impostor, "user of the impostor", "host of the impostor"),
    ] {
        let issued = cluster.issue_user();
        shown.push(Shown { what: user, ssh: issued.ssh_certificate, x509: issued.tls_certificate_pem });
        let issued = cluster.issue_host();
        shown.push(Shown { what: host, ssh: issued.ssh_certificate, x509: issued.tls_certificate_pem });
    }
    shown
}

#[test]
fn only_the_listed_cells_of_signer_certificate_and_verifier_pass() {
    let root = Cluster::new("root.example.com");
    let leaf = Cluster::new("leaf.example.com");
    let impostor = Cluster::new("root.example.com"); // same names, other keys
    // I1
    let mut passed = Vec::new();
    for Shown { what, ssh, x509 } in shown_by(&root, &leaf, &impostor) {
        for (trusting, trust) in [("root", root.trust()), ("leaf", leaf.trust())] {
            let mut note = |verifier: &str, outcome: Result<Verified, VerifyError>| {
                if let Ok(verified) = outcome {
                    let became = match verified {
                        Verified::User(_) => "a user",
                        Verified::Host(_) => "a host",
                    };
                    passed.push(format!("{what}, {verifier} trusting {trusting}: {became}"));
                }
            };
            note("SSH user", verify_ssh(&ssh, &trust, SshCertificatePurpose::User, now()));
            note("SSH host", verify_ssh(&ssh, &trust, SshCertificatePurpose::Host("web_1"), now()));
            note("TLS client", verify_x509(&x509, &trust, X509Purpose::Client, now()));
            note("TLS server", verify_x509(&x509, &trust, X509Purpose::Server, now()));
        }
    }
    passed.sort();
    assert_eq!(
        passed,
        [
            "host of leaf, SSH host trusting leaf: a host",
            "host of leaf, TLS client trusting leaf: a host",
            "host of leaf, TLS server trusting leaf: a host",
            "host of root, SSH host trusting root: a host",
            "host of root, TLS client trusting root: a host",
            "host of root, TLS server trusting root: a host",
            "user of leaf, SSH user trusting leaf: a user",
            "user of leaf, TLS client trusting leaf: a user",
            "user of root, SSH user trusting root: a user",
            "user of root, TLS client trusting root: a user",
        ]
    );
}

#[test]
fn authorities_under_the_wrong_purpose_admit_nobody() {
    let root = Cluster::new("root");
    let swapped = TrustBundle { user: root.host.public(), host: root.user.public(), ..root.trust() };
    // I1: the key's purpose is where it stands; the certificates it signed say otherwise.
    for (ssh, x509) in [
        (root.issue_user().ssh_certificate, root.issue_user().tls_certificate_pem),
        (root.issue_host().ssh_certificate, root.issue_host().tls_certificate_pem),
    ] {
        for purpose in [SshCertificatePurpose::User, SshCertificatePurpose::Host("web_1")] {
            assert!(verify_ssh(&ssh, &swapped, purpose, now()).is_err());
        }
        for purpose in [X509Purpose::Client, X509Purpose::Server] {
            assert!(verify_x509(&x509, &swapped, purpose, now()).is_err());
        }
    }
}

#[test]
fn an_authority_that_was_rotated_out_is_not_believed() {
    let root = Cluster::new("root");
    let next = Cluster::new("root");
    let (user, host) = (root.issue_user(), root.issue_host());

    let both = |old: CaSet, new: CaSet| CaSet { ssh: [new.ssh, old.ssh].concat(), x509: [new.x509, old.x509].concat() };
    let during = TrustBundle::new(
        root.name.clone(),
        both(root.user.public(), next.user.public()),
        both(root.host.public(), next.host.public()),
    );
    assert!(verify_ssh(&user.ssh_certificate, &during, SshCertificatePurpose::User, now()).is_ok());
    assert!(verify_x509(&host.tls_certificate_pem, &during, X509Purpose::Server, now()).is_ok());

    let after = next.trust();
    // I1
    assert!(verify_ssh(&user.ssh_certificate, &after, SshCertificatePurpose::User, now()).is_err());
    assert!(verify_ssh(&host.ssh_certificate, &after, SshCertificatePurpose::Host("web_1"), now()).is_err());
    assert!(verify_x509(&user.tls_certificate_pem, &after, X509Purpose::Client, now()).is_err());
    assert!(verify_x509(&host.tls_certificate_pem, &after, X509Purpose::Server, now()).is_err());
}

#[test]
fn a_leaf_that_mints_certificates_naming_root_is_refused_by_both() {
    // The leaf's administrator owns its keys and stores them under root's name.
    let root = Cluster::new("root");
    let leaf = Cluster::new("leaf");
    let turned = |authority: &Authority| Authority::generate(&root.name, authority.kind(), now(), &OsEntropy).unwrap();
    let forger = Cluster { name: root.name.clone(), user: turned(&leaf.user), host: turned(&leaf.host) };
    // What root would believe of leaf: its keys, under leaf's name.
    let leaf_as_seen = TrustBundle::new(leaf.name.clone(), forger.user.public(), forger.host.public());
    let (user, host) = (forger.issue_user(), forger.issue_host());

    // I12
    let ssh_user = verify_ssh(&user.ssh_certificate, &leaf_as_seen, SshCertificatePurpose::User, now());
    assert!(matches!(ssh_user, Err(VerifyError::WrongCluster { .. })), "{ssh_user:?}");
    let ssh_host = verify_ssh(&host.ssh_certificate, &leaf_as_seen, SshCertificatePurpose::Host("web_1"), now());
    assert!(matches!(ssh_host, Err(VerifyError::WrongCluster { .. })), "{ssh_host:?}");
    let tls_user = verify_x509(&user.tls_certificate_pem, &leaf_as_seen, X509Purpose::Client, now());
    assert!(matches!(tls_user, Err(VerifyError::WrongCluster { .. })), "{tls_user:?}");
    let tls_host = verify_x509(&host.tls_certificate_pem, &leaf_as_seen, X509Purpose::Server, now());
    assert!(matches!(tls_host, Err(VerifyError::WrongCluster { .. })), "{tls_host:?}");
    assert!(verify_ssh(&user.ssh_certificate, &root.trust(), SshCertificatePurpose::User, now()).is_err());
    assert!(verify_x509(&user.tls_certificate_pem, &root.trust(), X509Purpose::Client, now()).is_err());
}

#[test]
fn an_authority_issues_only_its_own_kind_and_only_for_its_own_cluster() {
    let root = Cluster::new("root");
    let user = |cluster, authority| user_profile(cluster).prepare(authority, now(), &OsEntropy);
    let host = |cluster, authority| host_profile(cluster).prepare(authority, now(), &OsEntropy);
    assert!(matches!(user(&root.name, &root.host), Err(ProfileError::WrongKind { .. }))); // I1
    assert!(matches!(host(&root.name, &root.user), Err(ProfileError::WrongKind { .. }))); // I1

    let leaf = Cluster::new("leaf");
    assert!(matches!(user(&leaf.name, &root.user), Err(ProfileError::WrongCluster { .. }))); // I12
    assert!(matches!(host(&leaf.name, &root.host), Err(ProfileError::WrongCluster { .. }))); // I12

    // What was prepared for one authority, no other signs: not of the other kind, not of another cluster, not after a rotation.
    let rotated = Cluster::new("root");
    for other in [&root.host, &leaf.user, &rotated.user] {
        let prepared = user(&root.name, &root.user).unwrap();
        assert!(matches!(other.issue_user(prepared), Err(CaError::PreparedForAnother { .. }))); // I1
    }
    for other in [&root.user, &leaf.host, &rotated.host] {
        let prepared = host(&root.name, &root.host).unwrap();
        assert!(matches!(other.issue_host(prepared), Err(CaError::PreparedForAnother { .. }))); // I1
    }
}

#[test]
fn the_four_keys_of_a_cluster_are_four_keys() {
    let root = Cluster::new("root");
    let keys = [root.user.public(), root.host.public()];
    assert_eq!((root.user.kind(), root.host.kind()), (CaKind::User, CaKind::Host));
    assert_ne!(keys[0].ssh[0].key_data(), keys[1].ssh[0].key_data()); // I1
    assert_ne!(keys[0].x509, keys[1].x509); // I1
}
