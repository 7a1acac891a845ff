//! What the X.509 verifier refuses, shown with certificates that were put together by hand.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use std::{collections::BTreeMap, slice, sync::Arc};

use remoteler_core::{
    CaSet, ClusterName, ConnectedUser, HostIdentity, Identity, ManualClock, NodeName, Policy, RoleName, SharedPolicy,
    SystemRole, Timestamp, TrustBundle, UserIdentity, UserName, Verified, VerifyError, X509_IDENTITY_OID, X509Purpose,
    spki_pin, verify_x509_chain, x509_naming,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

const NOW: i64 = 1_772_366_400;

#[test]
fn the_authority_that_signed_says_whether_the_holder_is_a_user_or_a_host() {
    let root = Root::new();
    let user = verify(&root, &[root.user_leaf(|_| {})], X509Purpose::Client).unwrap().user().unwrap();
    assert_eq!((user.identity(), user.expires()), (&ann(), Timestamp::from_unix_seconds(NOW + 3600)));
    assert!(matches!(verify(&root, &[root.host_leaf(|_| {})], X509Purpose::Client), Ok(Verified::Host(_))));
    assert!(matches!(verify(&root, &[root.host_leaf(|_| {})], X509Purpose::Server), Ok(Verified::Host(_))));
}

#[test]
fn an_identity_of_the_other_kind_is_refused_whoever_signed() {
    let root = Root::new();
    let user_as_host = leaf(&root.host, &Identity::User(ann()), |_| {});
    let host_as_user = leaf(&root.user, &Identity::Host(host()), |_| {});
    for purpose in [X509Purpose::Client, X509Purpose::Server] {
        assert!(verify(&root, slice::from_ref(&user_as_host), purpose).is_err()); // I1
        assert!(verify(&root, slice::from_ref(&host_as_user), purpose).is_err()); // I1
    }
}

#[test]
fn a_certificate_that_names_another_cluster_is_refused() {
    let root = Root::new();
    let foreign = UserIdentity { cluster: ClusterName::new("leaf").unwrap(), ..ann() };
    let foreign = leaf(&root.user, &Identity::User(foreign), |_| {});
    assert!(matches!(verify(&root, &[foreign], X509Purpose::Client), Err(VerifyError::WrongCluster { .. }))); // I12
}

#[test]
fn nobody_below_an_authority_can_issue() {
    let root = Root::new();
    // A second authority that the first one signed, against its path length.
    let mut params = ca_params("root user CA 2");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let intermediate = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root.user).unwrap();
    let by_intermediate = leaf(&intermediate, &Identity::User(ann()), |_| {});
    let chain = [by_intermediate, intermediate.der().clone()];
    assert!(verify(&root, &chain, X509Purpose::Client).is_err()); // I11

    // A user who signs with the key of their own certificate.
    let key = KeyPair::generate().unwrap();
    let mut params = leaf_params(&Identity::User(ann()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &root.user).unwrap();
    let holder = Issuer::from_ca_cert_der(certificate.der(), key).unwrap();
    let mut params = leaf_params(&Identity::User(ann()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let minted = params.signed_by(&KeyPair::generate().unwrap(), &holder).unwrap();
    let chain = [minted.der().clone(), certificate.der().clone()];
    assert!(verify(&root, &chain, X509Purpose::Client).is_err()); // I11

    // The authority's own certificate.
    for purpose in [X509Purpose::Client, X509Purpose::Server] {
        assert!(verify(&root, &[root.user.der().clone()], purpose).is_err()); // I11
        assert!(verify(&root, &[root.host.der().clone()], purpose).is_err()); // I11
    }
}

#[test]
fn the_extended_key_usage_must_name_the_purpose() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    let root = Root::new();
    // I11
    for (usages, client, server) in [
        (vec![ClientAuth, ServerAuth], true, true),
        (vec![ClientAuth], true, false),
        (vec![ServerAuth], false, true),
        (vec![Any], false, false),
        (vec![], false, false),
    ] {
        let certificate = root.host_leaf(|params| params.extended_key_usages = usages.clone());
        assert_eq!(verify(&root, slice::from_ref(&certificate), X509Purpose::Client).is_ok(), client, "{usages:?}");
        assert_eq!(verify(&root, &[certificate], X509Purpose::Server).is_ok(), server, "{usages:?}");
    }
}

#[test]
fn a_leaf_that_is_an_authority_is_refused() {
    let root = Root::new();
    let certificate = root.user_leaf(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(verify(&root, &[certificate], X509Purpose::Client).is_err()); // I11
}

#[test]
fn an_unknown_critical_extension_is_refused() {
    let root = Root::new();
    let certificate = root.user_leaf(|params| {
        let mut unknown = CustomExtension::from_oid_content(&[2, 25, 1], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
    });
    let refused = verify(&root, &[certificate], X509Purpose::Client);
    assert!(matches!(refused, Err(VerifyError::CriticalOption(_))), "{refused:?}"); // I5
}

#[test]
fn a_user_certificate_must_have_begun_must_not_have_ended_and_must_end() {
    let root = Root::new();
    let within = |from: i64, to: i64| {
        let certificate = root.user_leaf(|params| {
            params.not_before = OffsetDateTime::from_unix_timestamp(from).unwrap();
            params.not_after = OffsetDateTime::from_unix_timestamp(to).unwrap();
        });
        verify(&root, &[certificate], X509Purpose::Client)
    };
    // I6
    assert!(within(NOW, NOW + 1).is_ok());
    assert!(matches!(within(NOW - 60, NOW - 1), Err(VerifyError::Expired(_))));
    assert!(matches!(within(NOW + 1, NOW + 60), Err(VerifyError::NotYetValid(_))));
    assert!(within(NOW + 60, NOW - 60).is_err());
    assert_eq!(within(NOW, 253_402_300_799), Err(VerifyError::ForEver));
}

// I6
#[test]
fn a_connected_user_is_verified_again_by_each_new_view_and_has_an_end() {
    let root = Root::new();
    let view = Arc::new(SharedPolicy::new(Policy::new(root.trust(), BTreeMap::new())));
    let clock = Arc::new(ManualClock::new(Timestamp::from_unix_seconds(NOW)));
    let connected = |leaf| ConnectedUser::new(vec![leaf], X509Purpose::AppClient, view.clone(), clock.clone());
    let peer = connected(root.user_leaf(|_| {}));
    let name = || peer.user().map(|user| user.identity().user.clone());
    assert_eq!((name(), name()), (Ok(ann().user), Ok(ann().user)));

    view.replace(Policy::new(Root::new().trust(), BTreeMap::new()));
    assert!(matches!(name(), Err(VerifyError::UnknownAuthority { .. })), "{:?}", name());
    view.replace(Policy::new(root.trust(), BTreeMap::new()));
    assert_eq!(name(), Ok(ann().user));

    clock.set(Timestamp::from_unix_millis((NOW + 3600) * 1000 - 1));
    assert_eq!(name(), Ok(ann().user));
    clock.set(Timestamp::from_unix_seconds(NOW + 3600));
    assert!(matches!(name(), Err(VerifyError::Expired(_))), "{:?}", name());
}

#[test]
fn a_connected_host_is_no_user() {
    let root = Root::new();
    let view = Arc::new(SharedPolicy::new(Policy::new(root.trust(), BTreeMap::new())));
    let clock = Arc::new(ManualClock::new(Timestamp::from_unix_seconds(NOW)));
    let peer = ConnectedUser::new(vec![root.host_leaf(|_| {})], X509Purpose::KubeClient, view, clock);
    assert_eq!(peer.user().unwrap_err(), VerifyError::WrongType { expected: "user", found: "host" });
}

#[test]
fn the_identity_must_be_there_once_and_agree_with_the_subject() {
    let root = Root::new();
    let refused = |change: &dyn Fn(&mut CertificateParams)| {
        verify(&root, &[root.user_leaf(change)], X509Purpose::Client).unwrap_err()
    };
    assert!(matches!(refused(&|params| params.custom_extensions.clear()), VerifyError::Identity(_)));
    refused(&|params| params.custom_extensions.push(params.custom_extensions[0].clone()));
    let renamed = refused(&|params| params.distinguished_name.push(DnType::CommonName, "bob"));
    assert!(matches!(renamed, VerifyError::Identity(_)));
    let nameless = refused(&|params| params.distinguished_name = DistinguishedName::new());
    assert!(matches!(nameless, VerifyError::Identity(_)));
    let garbage = refused(&|params| {
        params.custom_extensions = vec![CustomExtension::from_oid_content(&X509_IDENTITY_OID, vec![4, 1, 0])];
    });
    assert!(matches!(garbage, VerifyError::Identity(_)));
}

#[test]
fn an_authority_of_the_same_name_with_another_key_is_unknown() {
    let (root, impostor) = (Root::new(), Root::new());
    let refused = verify(&root, &[impostor.user_leaf(|_| {})], X509Purpose::Client);
    assert!(matches!(refused, Err(VerifyError::UnknownAuthority { .. })), "{refused:?}"); // I1
    // Another algorithm under the same name.
    let ed25519 =
        CertifiedIssuer::self_signed(ca_params("root user CA"), KeyPair::generate_for(&PKCS_ED25519).unwrap()).unwrap();
    let forged = leaf(&ed25519, &Identity::User(ann()), |_| {});
    assert!(verify(&root, &[forged.clone(), ed25519.der().clone()], X509Purpose::Client).is_err()); // I1
    assert!(verify(&root, &[forged], X509Purpose::Client).is_err());
}

#[test]
fn a_chain_that_is_none_is_refused_and_no_changed_octet_passes() {
    let root = Root::new();
    assert!(matches!(verify(&root, &[], X509Purpose::Client), Err(VerifyError::Missing)));
    let certificate = root.user_leaf(|_| {});
    for at in (0..certificate.len()).step_by(3) {
        let mut changed = certificate.to_vec();
        changed[at] ^= 1;
        assert!(verify(&root, &[changed.into()], X509Purpose::Client).is_err(), "octet {at}"); // I25
        assert!(verify(&root, &[certificate[..at].to_vec().into()], X509Purpose::Client).is_err());
    }
    let longer = [&certificate[..], &[0]].concat();
    assert!(verify(&root, &[longer.into()], X509Purpose::Client).is_err());
}

#[test]
fn a_pin_is_the_hash_of_the_key_and_survives_a_new_certificate_of_it() {
    let key = KeyPair::generate().unwrap();
    let first = ca_params("a").self_signed(&key).unwrap();
    let second = ca_params("b").self_signed(&key).unwrap();
    let pin = spki_pin(first.der()).unwrap();
    assert_eq!(pin, spki_pin(second.der()).unwrap());
    assert!(pin.starts_with("sha256:") && pin.len() == 71);
    assert_ne!(pin, spki_pin(Root::new().host.der()).unwrap());
}

struct Root {
    user: CertifiedIssuer<'static, KeyPair>,
    host: CertifiedIssuer<'static, KeyPair>,
}

impl Root {
    fn new() -> Self {
        let make = |name| CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap();
        Self { user: make("root user CA"), host: make("root host CA") }
    }

    fn trust(&self) -> TrustBundle {
        let set =
            |issuer: &CertifiedIssuer<'static, KeyPair>| CaSet { ssh: Vec::new(), x509: vec![issuer.der().to_vec()] };
        TrustBundle::new(ClusterName::new("root").unwrap(), set(&self.user), set(&self.host))
    }

    fn user_leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        leaf(&self.user, &Identity::User(ann()), change)
    }

    fn host_leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        leaf(&self.host, &Identity::Host(host()), change)
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A leaf that is right in all parts until `change`; for both TLS sides, so that purposes are told apart by the authority only.
fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    identity: &Identity,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateDer<'static> {
    let mut params = leaf_params(identity);
    change(&mut params);
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

fn leaf_params(identity: &Identity) -> CertificateParams {
    let naming = x509_naming(identity);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, naming.common_name);
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW - 60).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW + 3600).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&X509_IDENTITY_OID, naming.extension)];
    params
}

fn verify(root: &Root, chain: &[CertificateDer<'static>], purpose: X509Purpose) -> Result<Verified, VerifyError> {
    verify_x509_chain(chain, &root.trust(), purpose, Timestamp::from_unix_seconds(NOW))
}

fn ann() -> UserIdentity {
    UserIdentity {
        user: UserName::new("ann").unwrap(),
        cluster: ClusterName::new("root").unwrap(),
        roles: [RoleName::new("access").unwrap()].into(),
        traits: Default::default(),
        logins: Vec::new(),
    }
}

fn host() -> HostIdentity {
    HostIdentity {
        id: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
        name: NodeName::new("web-1").unwrap(),
        cluster: ClusterName::new("root").unwrap(),
        roles: [SystemRole::Node].into(),
        kube_clusters: Default::default(),
        apps: Default::default(),
        labels: Default::default(),
        generation: 0,
    }
}
