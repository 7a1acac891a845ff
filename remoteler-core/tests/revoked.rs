//! What is revoked is refused by both verification functions, whatever else is right with it, and nothing else is. The certificates are issued
//! by nobody: they are put together here and signed by a trusted key.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SerialNumber,
};
use remoteler_core::{
    CaKind, CaSet, ClusterName, HostIdentity, Identity, Login, NodeName, RevocationTarget, Revocations, RoleName,
    SSH_IDENTITY_EXTENSION, SshCertificatePurpose, SystemRole, Timestamp, TlsSerial, TrustBundle, UserIdentity,
    UserName, Verified, VerifyError, X509_IDENTITY_OID, X509Purpose, spki_pin, ssh_identity_value,
    verify_ssh_certificate, verify_x509_chain, x509_naming,
};
use rustls_pki_types::CertificateDer;
use ssh_key::{
    Certificate, HashAlg, PrivateKey,
    certificate::{Builder, CertType},
    private::{Ed25519Keypair, KeypairData},
};
use time::OffsetDateTime;

const NOW: i64 = 1_772_366_400;
const SERIAL: u64 = 4711;
const TLS_SERIAL: [u8; 3] = [0x4f, 0, 0xa1];

/// One certificate of each kind, and the bundle under which all are good.
struct Scene {
    trust: TrustBundle,
    ssh_user: Certificate,
    ssh_host: Certificate,
    tls_user: CertificateDer<'static>,
    tls_host: CertificateDer<'static>,
}

/// A door: what it is shown, and what it says under a bundle.
type Door<'a> = (&'static str, Box<dyn Fn(&TrustBundle) -> Result<Verified, VerifyError> + 'a>);

impl Scene {
    fn new() -> Self {
        let (user, host) = (authority("users"), authority("hosts"));
        let set = |seed, x509: &CertifiedIssuer<'static, KeyPair>| CaSet {
            ssh: vec![key(seed).public_key().clone()],
            x509: vec![x509.der().to_vec()],
        };
        Self {
            trust: TrustBundle::new(ClusterName::new("root").unwrap(), set(1, &user), set(2, &host)),
            ssh_user: ssh(1, 3, CertType::User, &ann(), &["root"], NOW + 3600),
            ssh_host: ssh(2, 4, CertType::Host, &web(), &["web-1", "web-1.root"], i64::MAX),
            tls_user: tls(&user, &ann()),
            tls_host: tls(&host, &web()),
        }
    }

    fn doors(&self) -> Vec<Door<'_>> {
        let now = Timestamp::from_unix_seconds(NOW);
        let ssh = move |certificate: &'_ Certificate, trust: &TrustBundle, purpose| {
            verify_ssh_certificate(certificate, trust, purpose, now)
        };
        let tls = move |certificate: &CertificateDer<'static>, trust: &TrustBundle, purpose| {
            verify_x509_chain(std::slice::from_ref(certificate), trust, purpose, now)
        };
        vec![
            ("a user by SSH", Box::new(move |trust| ssh(&self.ssh_user, trust, SshCertificatePurpose::User))),
            ("a host by SSH", Box::new(move |trust| ssh(&self.ssh_host, trust, SshCertificatePurpose::Host("web-1")))),
            ("a user by TLS", Box::new(move |trust| tls(&self.tls_user, trust, X509Purpose::Client))),
            ("a user at Kubernetes", Box::new(move |trust| tls(&self.tls_user, trust, X509Purpose::KubeClient))),
            ("a host as a TLS client", Box::new(move |trust| tls(&self.tls_host, trust, X509Purpose::Client))),
            ("a host as a TLS server", Box::new(move |trust| tls(&self.tls_host, trust, X509Purpose::Server))),
        ]
    }

    fn revoking(&self, targets: impl IntoIterator<Item = RevocationTarget>) -> TrustBundle {
        TrustBundle { revoked: targets.into_iter().collect(), ..self.trust.clone() }
    }

    /// The key in a TLS certificate.
    fn tls_key(certificate: &CertificateDer<'_>) -> RevocationTarget {
        RevocationTarget::key(&spki_pin(certificate).unwrap()).unwrap()
    }
}

// I3, I73
#[test]
fn each_revocation_closes_exactly_the_doors_of_its_certificate() {
    let scene = Scene::new();
    let ssh = |authority| RevocationTarget::SshSerial { authority, serial: SERIAL };
    let serial = TlsSerial::from_octets(&TLS_SERIAL).unwrap();
    let tls = |authority| RevocationTarget::TlsSerial { authority, serial };
    let (user_tls, host_tls) =
        (["a user by TLS", "a user at Kubernetes"], ["a host as a TLS client", "a host as a TLS server"]);
    let rows: Vec<(RevocationTarget, &[&str])> = vec![
        (ssh(CaKind::User), &["a user by SSH"]),
        (ssh(CaKind::Host), &["a host by SSH"]),
        (tls(CaKind::User), &user_tls),
        (tls(CaKind::Host), &host_tls),
        (RevocationTarget::ssh_key(scene.ssh_user.public_key()), &["a user by SSH"]),
        (RevocationTarget::ssh_key(scene.ssh_host.public_key()), &["a host by SSH"]),
        (Scene::tls_key(&scene.tls_user), &user_tls),
        (Scene::tls_key(&scene.tls_host), &host_tls),
        // Neighbours, and the digests of nobody's key.
        (RevocationTarget::SshSerial { authority: CaKind::User, serial: SERIAL + 1 }, &[]),
        ("tls-user-4f00a2".parse().unwrap(), &[]),
        ("tls-user-4f00".parse().unwrap(), &[]),
        (RevocationTarget::SshKey([0; 32]), &[]),
        (RevocationTarget::TlsKey([0; 32]), &[]),
    ];
    for (target, closed) in rows {
        let trust = scene.revoking([target]);
        for (door, verify) in scene.doors() {
            let outcome = verify(&trust);
            if closed.contains(&door) {
                assert_eq!(outcome, Err(VerifyError::Revoked(target)), "{target}: {door}");
            } else {
                assert!(outcome.is_ok(), "{target}: {door}: {outcome:?}");
            }
        }
    }
}

#[test]
fn a_fingerprint_as_ssh_keygen_prints_it_and_the_key_itself_are_the_same() {
    let scene = Scene::new();
    let printed = scene.ssh_user.public_key().fingerprint(HashAlg::Sha256).to_string();
    let line = scene.ssh_user.to_openssh().unwrap();
    for shown in [printed.as_str(), &line] {
        let trust = scene.revoking([RevocationTarget::key(shown).unwrap()]);
        assert!(matches!(scene.doors()[0].1(&trust), Err(VerifyError::Revoked(_))), "{shown}");
    }
}

#[test]
fn what_is_wrong_with_the_signature_is_said_before_what_is_revoked() {
    // Nobody learns from a forged certificate which serials are revoked.
    let scene = Scene::new();
    let stranger = ssh(9, 3, CertType::User, &ann(), &["root"], NOW + 3600);
    let trust = scene.revoking(["ssh-user-4711".parse().unwrap(), "tls-user-4f00a1".parse().unwrap()]);
    let now = Timestamp::from_unix_seconds(NOW);
    let refused = verify_ssh_certificate(&stranger, &trust, SshCertificatePurpose::User, now);
    assert!(matches!(refused, Err(VerifyError::UnknownAuthority { .. })), "{refused:?}");
    let stranger = tls(&authority("users"), &ann());
    let refused = verify_x509_chain(&[stranger], &trust, X509Purpose::Client, now);
    assert!(matches!(refused, Err(VerifyError::UnknownAuthority { .. })), "{refused:?}");
}

#[test]
fn a_bundle_of_before_reads_as_one_in_which_nothing_is_revoked_and_ten_thousand_fit_into_a_body() {
    let scene = Scene::new();
    let text = serde_json::to_string(&scene.trust).unwrap();
    assert!(!text.contains("revoked"), "{text}");
    assert_eq!(serde_json::from_str::<TrustBundle>(&text).unwrap(), scene.trust);

    // The longest names there are.
    let many: Revocations = (0..10_000_u32)
        .map(|at| RevocationTarget::SshKey([at.to_be_bytes(); 8].concat().try_into().unwrap()))
        .collect();
    let trust = TrustBundle { revoked: many, ..scene.trust.clone() };
    let text = serde_json::to_string(&trust).unwrap();
    assert!(text.len() < remoteler_core::wire::MAX_JSON, "{} octets", text.len());
    assert_eq!(serde_json::from_str::<TrustBundle>(&text).unwrap(), trust);
    assert!(scene.doors().iter().all(|(_, verify)| verify(&trust).is_ok()));
}

#[test]
fn a_proof_can_be_looked_at_again_when_something_is_revoked_later() {
    let scene = Scene::new();
    let user = scene.doors()[2].1(&scene.trust).unwrap().user().unwrap();
    let host = scene.doors()[4].1(&scene.trust).unwrap().host().unwrap();
    let later = scene.revoking(["tls-user-4f00a1".parse().unwrap()]);
    assert_eq!(later.revoked.of(user.shown()), Some("tls-user-4f00a1".parse().unwrap()));
    assert_eq!(later.revoked.of(host.shown()), None);
}

fn ssh(signer: u8, subject: u8, kind: CertType, identity: &Identity, principals: &[&str], before: i64) -> Certificate {
    let subject = key(subject);
    let (after, before) = (u64::try_from(NOW - 60).unwrap(), u64::try_from(before).unwrap());
    let mut builder = Builder::new([9; 16], subject.public_key(), after, before).unwrap();
    builder.serial(SERIAL).unwrap().cert_type(kind).unwrap().key_id(identity.subject()).unwrap();
    match identity {
        Identity::Host(host) => host.principals().iter().for_each(|name| {
            builder.valid_principal(name.as_str()).unwrap();
        }),
        Identity::User(_) | Identity::KubeUser(_) | Identity::ProvenUser(_) | Identity::AppUser(_) => {
            principals.iter().for_each(|name| {
                builder.valid_principal(*name).unwrap();
            })
        }
    }
    builder.extension(SSH_IDENTITY_EXTENSION, ssh_identity_value(identity)).unwrap();
    builder.sign(&key(signer)).unwrap()
}

fn tls(issuer: &CertifiedIssuer<'static, KeyPair>, identity: &Identity) -> CertificateDer<'static> {
    let naming = x509_naming(identity);
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&TLS_SERIAL));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, naming.common_name);
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW - 60).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW + 3600).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&X509_IDENTITY_OID, naming.extension)];
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

fn ann() -> Identity {
    Identity::User(UserIdentity {
        user: UserName::new("ann").unwrap(),
        cluster: ClusterName::new("root").unwrap(),
        roles: [RoleName::new("access").unwrap()].into(),
        traits: Default::default(),
        logins: vec![Login::new("root").unwrap()],
    })
}

fn web() -> Identity {
    Identity::Host(HostIdentity {
        id: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
        name: NodeName::new("web-1").unwrap(),
        cluster: ClusterName::new("root").unwrap(),
        roles: [SystemRole::Node].into(),
        kube_clusters: Default::default(),
        apps: Default::default(),
        labels: Default::default(),
        generation: 0,
    })
}
