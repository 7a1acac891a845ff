//! Each rule finds what it is there for: a certificate that is right in all parts but one.

use std::collections::BTreeSet;

use remoteler_core::{
    CaKind, ClusterName, Identity, KubeClusterName, KubeUserIdentity, Login, OsEntropy, Timestamp, UserIdentity,
    UserName, x509_naming,
};
use ssh_key::{
    PublicKey,
    certificate::{Builder, CertType},
    public::Ed25519PublicKey,
};

use super::*;
use crate::{
    Authority, SignerAlgorithm, TlsPublicKey,
    profile::Window,
    x509_leaf::{self, AltName, Leaf},
};

const NOW: i64 = 1_772_366_400;

#[test]
fn every_x509_rule_finds_what_it_is_there_for() {
    let authority = authority();
    let issuer = authority.issuer();
    let key = tls_key();
    let mut shown = BTreeSet::new();
    let mut broken = |octets: &[u8], purpose, issuer: &IssuerName, expected: &'static str| {
        let found = x509_findings(octets, purpose, issuer);
        assert!(found.contains(&expected), "{expected}: {found:?}");
        assert!(x509(octets, purpose, issuer).is_err());
        shown.insert(expected);
    };
    let leaf = |change: &dyn Fn(&mut Leaf<'_>)| {
        let mut leaf = user_leaf(&key);
        change(&mut leaf);
        x509_leaf::to_be_signed(&leaf, issuer).unwrap()
    };
    let good = leaf(&|_| {});
    assert_eq!(x509_findings(&good, Purpose::User, issuer), [""; 0]);

    let patch = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|window| window == from).expect("the octets are there");
        let mut patched = good.clone();
        patched[at..at + to.len()].copy_from_slice(to);
        patched
    };
    let user = Purpose::User;
    broken(&patch(&[0xa0, 3, 2, 1, 2], &[0xa0, 3, 2, 1, 1]), user, issuer, "x509_version");
    broken(&leaf(&|leaf| leaf.serial = [0x80; 16]), user, issuer, "x509_serial");
    let other = IssuerName { algorithm: SignerAlgorithm::Ed25519, ..issuer.clone() };
    broken(&good, user, &other, "x509_signature");
    let other = IssuerName { name: Vec::new(), ..issuer.clone() };
    broken(&good, user, &other, "x509_issuer");
    let other = IssuerName { key_id: vec![1; 20], ..issuer.clone() };
    broken(&good, user, &other, "x509_authority_key");
    broken(&leaf(&|leaf| leaf.window.not_after = Some(NOW - 61)), user, issuer, "x509_validity");
    broken(&leaf(&|leaf| leaf.window.not_after = Some(NOW + 31 * 3600)), user, issuer, "x509_validity"); // I6
    broken(&leaf(&|leaf| leaf.window.not_after = None), user, issuer, "x509_validity"); // I6
    broken(&leaf(&|leaf| leaf.common_name = String::new()), user, issuer, "x509_subject");
    broken(&leaf(&|leaf| leaf.common_name = "a\nb".into()), user, issuer, "x509_subject");
    let own = IssuerName { public_key: key_octets(&key), ..issuer.clone() };
    broken(&good, user, &own, "x509_public_key");
    // Extended key usage becomes a second key usage; basic constraints become a critical issuer alternative name.
    broken(&patch(&[0x55, 0x1d, 0x25], &[0x55, 0x1d, 0x0f]), user, issuer, "x509_extensions");
    broken(&patch(&[0x55, 0x1d, 0x13], &[0x55, 0x1d, 0x12]), user, issuer, "x509_critical");
    broken(&patch(&[0x55, 0x1d, 0x13], &[0x55, 0x1d, 0x12]), user, issuer, "x509_basic_constraints"); // I11
    // digitalSignature and keyCertSign
    broken(&patch(&[3, 2, 7, 0x80], &[3, 2, 2, 0x84]), user, issuer, "x509_key_usage"); // I11
    for purpose in [Purpose::Host, Purpose::Server, Purpose::SmartCard, Purpose::OpensshUser] {
        broken(&good, purpose, issuer, "x509_extended_key_usage"); // I1 I11
    }
    let names = |names: fn() -> Vec<AltName>| leaf(&|leaf| leaf.names = names());
    broken(&names(|| vec![AltName::Dns("a.example.com".into())]), user, issuer, "x509_alternative_names");
    for bad in ["a b", "-oX", "A.example.com", "", "*.*.com", "*.example.com"] {
        let octets = leaf(&|leaf| {
            leaf.purpose = Purpose::Host;
            leaf.names = vec![AltName::Dns(bad.into())];
        });
        broken(&octets, Purpose::Host, issuer, "x509_alternative_names");
    }
    broken(&leaf(&|leaf| leaf.crl = Some("http://pki.example.com/crl".into())), user, issuer, "x509_revocation");
    let card = |crl: Option<&str>| {
        leaf(&|leaf| {
            leaf.purpose = Purpose::SmartCard;
            leaf.names = vec![AltName::Upn("ann@example.com".into())];
            leaf.identity = None;
            leaf.crl = crl.map(ToOwned::to_owned);
        })
    };
    assert_eq!(x509_findings(&card(Some("http://pki.example.com/crl")), Purpose::SmartCard, issuer), [""; 0]);
    broken(&card(Some("https://pki.example.com/crl")), Purpose::SmartCard, issuer, "x509_revocation");
    broken(&card(None), Purpose::SmartCard, issuer, "x509_revocation");
    broken(&leaf(&|leaf| leaf.identity = None), user, issuer, "x509_identity"); // I1
    broken(&good, Purpose::DatabaseClient, issuer, "x509_identity"); // I1
    broken(&good, Purpose::KubeClient, issuer, "x509_identity"); // I1

    let all: BTreeSet<_> = X509_RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(shown, all);
}

#[test]
fn a_user_for_one_kubernetes_cluster_is_linted_as_nothing_else() {
    let (authority, key) = (authority(), tls_key());
    let user = UserIdentity {
        user: UserName::new("ann").unwrap(),
        cluster: ClusterName::new("root").unwrap(),
        roles: [].into(),
        traits: [].into(),
        logins: vec![Login::new("root").unwrap()],
    };
    let identity = Identity::KubeUser(KubeUserIdentity { user, kube_cluster: KubeClusterName::new("k").unwrap() });
    let leaf =
        Leaf { purpose: Purpose::KubeClient, identity: Some(x509_naming(&identity).extension), ..user_leaf(&key) };
    let octets = x509_leaf::to_be_signed(&leaf, authority.issuer()).unwrap();
    assert_eq!(x509_findings(&octets, Purpose::KubeClient, authority.issuer()), [""; 0]);
    assert_eq!(x509_findings(&octets, Purpose::User, authority.issuer()), ["x509_identity"]); // I1
}

#[test]
fn every_ssh_rule_finds_what_it_is_there_for() {
    let authority = authority();
    let mut shown = BTreeSet::new();
    let mut broken = |octets: &[u8], purpose, authority: &KeyData, expected: &'static str| {
        let found = ssh_findings(octets, purpose, authority);
        assert!(found.contains(&expected), "{expected}: {found:?}");
        assert!(ssh(octets, purpose, authority).is_err());
        shown.insert(expected);
    };
    let key = authority.ssh_public();
    let draft = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::new();
        change(&mut draft);
        draft.write(key)
    };
    let good = draft(&|_| {});
    assert_eq!(ssh_findings(&good, Purpose::OpensshUser, key), [""; 0]);

    let user = Purpose::OpensshUser;
    broken(&good, Purpose::OpensshHost, key, "ssh_type"); // I1
    broken(&good, Purpose::DatabaseClient, key, "ssh_type"); // I1
    broken(&draft(&|draft| draft.key_id = String::new()), user, key, "ssh_type");
    broken(&draft(&|draft| draft.key_id = "a\nb".into()), user, key, "ssh_type");
    broken(&draft(&|draft| draft.serial = 0), user, key, "ssh_serial");
    broken(&draft(&|draft| draft.nonce = vec![1; 8]), user, key, "ssh_serial");
    broken(&good, user, &subject(9), "ssh_keys");
    broken(&draft(&|draft| draft.subject = key.clone()), user, key, "ssh_keys");
    for bad in [&[][..], &["a b"], &["a,b"], &["-o"], &["a", "a"], &["*"], &["*.example.com"]] {
        broken(&draft(&|draft| draft.principals = bad.to_vec()), user, key, "ssh_principals"); // I4
    }
    broken(&draft(&|draft| draft.before = u64::MAX), user, key, "ssh_validity"); // I6
    broken(&draft(&|draft| draft.before = draft.after + 31 * 3600), user, key, "ssh_validity"); // I6
    broken(&draft(&|draft| draft.critical = Some("force-command")), user, key, "ssh_extensions"); // I5
    for bad in ["permit-X11-forwarding", "permit-user-rc", "x@example.com", remoteler_core::SSH_IDENTITY_EXTENSION] {
        broken(&draft(&|draft| draft.extension = Some((bad, ""))), user, key, "ssh_extensions"); // I5
    }
    broken(&good, Purpose::User, key, "ssh_extensions"); // I1: no identity in it
    let permit = draft(&|draft| {
        draft.cert_type = CertType::Host;
        draft.extension = Some(("permit-pty", ""));
    });
    broken(&permit, Purpose::OpensshHost, key, "ssh_extensions");
    let large = "x".repeat(200 * 1024);
    broken(&draft(&|draft| draft.extension = Some(("permit-pty", large.clone().leak()))), user, key, "ssh_size");
    // A value that is an empty string within a string reads like no value at all. The block of extensions grows by the four octets.
    let mut nested = draft(&|draft| draft.extension = Some(("permit-pty", "")));
    let at = nested.windows(10).rposition(|window| window == b"permit-pty").unwrap();
    nested.splice(at + 10..at + 14, [0, 0, 0, 4, 0, 0, 0, 0]);
    nested[at - 5] += 4;
    broken(&nested, user, key, "ssh_canonical");

    let all: BTreeSet<_> = SSH_RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(shown, all);
}

#[test]
fn octets_that_are_no_certificate_are_refused() {
    let authority = authority();
    let key = tls_key();
    let good = x509_leaf::to_be_signed(&user_leaf(&key), authority.issuer()).unwrap();
    for end in 0..good.len() {
        assert_eq!(x509(&good[..end], Purpose::User, authority.issuer()).unwrap_err().rule(), "x509_readable"); // I25
    }
    assert!(x509(&[&good[..], &[0]].concat(), Purpose::User, authority.issuer()).is_err());
    let good = Draft::new().write(authority.ssh_public());
    for end in 0..good.len() {
        assert!(ssh(&good[..end], Purpose::OpensshUser, authority.ssh_public()).is_err()); // I25
    }
}

fn x509_findings(octets: &[u8], purpose: Purpose, issuer: &IssuerName) -> Vec<&'static str> {
    let (_, tbs) = TbsCertificate::from_der(octets).unwrap();
    let draft = X509Draft { tbs: &tbs, purpose, issuer };
    X509_RULES.iter().filter(|rule| (rule.check)(&draft).is_err()).map(|rule| rule.name).collect()
}

fn ssh_findings(octets: &[u8], purpose: Purpose, authority: &KeyData) -> Vec<&'static str> {
    let certificate = ssh_certificate::draft(octets).unwrap();
    let draft = SshDraft { octets, certificate: &certificate, purpose, authority };
    SSH_RULES.iter().filter(|rule| (rule.check)(&draft).is_err()).map(|rule| rule.name).collect()
}

/// An SSH certificate to be, right in all parts until a test changes one.
struct Draft {
    cert_type: CertType,
    key_id: String,
    principals: Vec<&'static str>,
    subject: KeyData,
    serial: u64,
    nonce: Vec<u8>,
    after: u64,
    before: u64,
    critical: Option<&'static str>,
    extension: Option<(&'static str, &'static str)>,
}

impl Draft {
    fn new() -> Self {
        let after = NOW.cast_unsigned();
        Self {
            cert_type: CertType::User,
            key_id: "ann".into(),
            principals: vec!["root"],
            subject: subject(7),
            serial: 7,
            nonce: vec![1; 32],
            after,
            before: after + 3600,
            critical: None,
            extension: None,
        }
    }

    fn write(self, authority: &KeyData) -> Vec<u8> {
        let mut builder = Builder::new(self.nonce, self.subject, self.after, self.before).unwrap();
        builder.serial(self.serial).unwrap().cert_type(self.cert_type).unwrap().key_id(self.key_id).unwrap();
        if self.principals.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        for principal in self.principals {
            builder.valid_principal(principal).unwrap();
        }
        if let Some(name) = self.critical {
            builder.critical_option(name, "value").unwrap();
        }
        if let Some((name, value)) = self.extension {
            builder.extension(name, value).unwrap();
        }
        ssh_certificate::written(builder, authority).unwrap()
    }
}

fn user_leaf(key: &TlsPublicKey) -> Leaf<'_> {
    let user = UserIdentity {
        user: UserName::new("ann").unwrap(),
        cluster: ClusterName::new("root").unwrap(),
        roles: [].into(),
        traits: [].into(),
        logins: Vec::new(),
    };
    Leaf {
        purpose: Purpose::User,
        organizations: vec!["access".into()],
        common_name: "ann".into(),
        names: Vec::new(),
        key,
        serial: [0x41; 16],
        window: Window { not_before: NOW - 60, not_after: Some(NOW + 3600) },
        identity: Some(x509_naming(&Identity::User(user)).extension),
        crl: None,
        sid: None,
    }
}

fn subject(octet: u8) -> KeyData {
    PublicKey::from(Ed25519PublicKey([octet; 32])).key_data().clone()
}

fn tls_key() -> TlsPublicKey {
    TlsPublicKey::from_pem(&rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap()
}

fn key_octets(key: &TlsPublicKey) -> Vec<u8> {
    let (_, info) = x509_parser::x509::SubjectPublicKeyInfo::from_der(key.as_der()).unwrap();
    info.subject_public_key.data.to_vec()
}

fn authority() -> Authority {
    let cluster = ClusterName::new("root").unwrap();
    Authority::generate(&cluster, CaKind::User, Timestamp::from_unix_seconds(NOW), &OsEntropy).unwrap()
}
