//! What the SSH verifier refuses, shown with certificates that were put together by hand and signed by a trusted key.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use remoteler_core::{
    CaSet, ClusterName, HostId, HostIdentity, Identity, Login, NodeName, RoleName, SSH_IDENTITY_EXTENSION,
    SSH_PARSER_STACK, SshCertificatePurpose, SystemRole, Timestamp, TrustBundle, UserIdentity, UserName, Verified,
    VerifyError, check_ssh_key, ssh_identity_value, verify_ssh_certificate,
};
use ssh_key::{
    Certificate, PrivateKey,
    certificate::{Builder, CertType},
    private::{Ed25519Keypair, KeypairData},
    public::{EcdsaPublicKey, KeyData},
};

const NOW: u64 = 1_772_366_400;
const USER_CA: [u8; 32] = [1; 32];
const HOST_CA: [u8; 32] = [2; 32];
const SUBJECT: [u8; 32] = [3; 32];

#[test]
fn a_certificate_of_the_user_authority_gives_its_identity() {
    let verified = verify(&user(|_| {})).unwrap().user().unwrap();
    assert_eq!(verified.identity(), &ann());
    assert_eq!((verified.serial(), verified.expires()), ("7", Timestamp::from_unix_seconds(NOW as i64 + 3600)));
}

#[test]
fn a_host_certificate_counts_only_for_the_names_in_it() {
    let certificate = Draft::host().sign();
    let as_host = |name: &str| verify_as(&certificate, SshCertificatePurpose::Host(name));
    assert!(matches!(as_host("web-1"), Ok(Verified::Host(_))));
    assert!(matches!(as_host("web-1.root"), Ok(Verified::Host(_))));
    for other in ["web-2", "WEB-1", "web-1.leaf", "", "*", "root"] {
        assert!(matches!(as_host(other), Err(VerifyError::WrongHost { .. })), "{other:?}");
    }
}

#[test]
fn a_host_certificate_is_no_user_certificate_even_when_the_user_authority_signed_it() {
    let mut draft = Draft::host();
    draft.signer = USER_CA;
    assert!(matches!(verify(&draft.sign()), Err(VerifyError::WrongType { .. }))); // I1

    // The type is "user", the identity a host's.
    let forged = user(|draft| draft.identity = Some(ssh_identity_value(&Identity::Host(host()))));
    assert!(verify(&forged).is_err()); // I1
}

#[test]
fn a_certificate_in_the_place_of_a_key_is_refused_at_any_depth() {
    // I2: the key that signs, or the key that is signed, is itself a certificate.
    let inner = user(|_| {});
    let nested = KeyData::from(inner.clone());
    assert!(matches!(check_ssh_key(&nested), Err(VerifyError::Algorithm(_))));
    let mut twice = user(|_| {});
    for _ in 0..3 {
        twice = with_signature_key(&twice);
        assert!(verify(&twice).is_err(), "a certificate signed by a certificate");
    }

    // Even an authority list that holds the nested certificate does not make it an authority.
    let nested = with_signature_key(&inner);
    let mut trust = trust();
    trust.user.ssh.push(ssh_key::PublicKey::new(nested.signature_key().clone(), "nested"));
    let refused =
        verify_ssh_certificate(&nested, &trust, SshCertificatePurpose::User, Timestamp::from_unix_seconds(NOW as i64));
    assert!(matches!(refused, Err(VerifyError::Algorithm(_))), "{refused:?}");
}

#[test]
fn the_deepest_nesting_that_fits_into_a_packet_fits_onto_the_stack_that_is_asked_for() {
    // I2 I25: built inside out, each level the smallest that the parser follows.
    let string = |octets: &[u8]| [&u32::try_from(octets.len()).unwrap().to_be_bytes()[..], octets].concat();
    let mut nested = [string(b"ssh-ed25519"), string(&[7; 32])].concat();
    while nested.len() < 280 * 1024 {
        let head = [string(b"ssh-ed25519-cert-v01@openssh.com"), string(b""), string(&[7; 32])].concat();
        let middle = [[0; 8].as_slice(), &[0, 0, 0, 1], &[0; 8], &[0; 8], &[0xff; 8], &[0; 12]].concat();
        let signature = string(&[string(b"x@y"), string(b"1")].concat());
        nested = [head, middle, string(&nested), signature].concat();
    }
    let parser = std::thread::Builder::new().stack_size(SSH_PARSER_STACK);
    let thread = parser.spawn(move || verify(&Certificate::from_bytes(&nested).unwrap())).unwrap();
    assert!(matches!(thread.join().unwrap(), Err(VerifyError::UnknownAuthority { .. })));
}

#[test]
fn principals_must_be_there_and_be_those_of_the_identity() {
    let with = |principals: &[&str]| verify(&user(|draft| draft.principals = owned(principals)));
    assert_eq!(with(&[]), Err(VerifyError::PrincipalCount(0))); // I4
    assert_eq!(with(&vec!["root"; 257]), Err(VerifyError::PrincipalCount(257))); // I4
    for bad in ["-oProxyCommand=x", "a b", "a,b", "a\"b", "a\nb", ""] {
        assert!(matches!(with(&[bad]), Err(VerifyError::Principal(_))), "{bad:?}"); // I4
    }
    for other in [&["root"][..], &["ubuntu", "root"], &["root", "ubuntu", "admin"], &["*"], &["ROOT", "ubuntu"]] {
        assert_eq!(with(other), Err(VerifyError::PrincipalMismatch), "{other:?}");
    }
}

#[test]
fn critical_options_are_refused_whatever_they_say() {
    for name in ["force-command", "source-address", "verify-required", "x@example.com"] {
        let refused = verify(&user(|draft| draft.critical = Some(name)));
        assert_eq!(refused, Err(VerifyError::CriticalOption(name.into()))); // I5
    }
}

#[test]
fn the_window_is_half_open_with_a_minute_of_skew_at_its_beginning() {
    let at = |after: u64, before: u64| {
        verify(&user(|draft| {
            draft.after = after;
            draft.before = before;
        }))
    };
    // I6
    assert!(at(NOW + 60, NOW + 90).is_ok());
    assert!(matches!(at(NOW + 61, NOW + 90), Err(VerifyError::NotYetValid(_))));
    assert!(at(NOW - 60, NOW + 1).is_ok());
    assert!(matches!(at(NOW - 60, NOW), Err(VerifyError::Expired(_))));
    assert!(matches!(at(0, 0), Err(VerifyError::Expired(_))));
    assert_eq!(at(NOW, u64::MAX), Err(VerifyError::ForEver));
    assert_eq!(at(NOW, u64::MAX - 1), Err(VerifyError::ForEver));
    assert_eq!(at(NOW, i64::MAX as u64), Err(VerifyError::ForEver));
    assert!(matches!(at(u64::MAX, u64::MAX), Err(VerifyError::ForEver)));
}

#[test]
fn a_clock_before_1970_or_at_the_end_of_time_neither_panics_nor_admits() {
    let certificate = user(|_| {});
    for now in [i64::MIN, -1, 0] {
        let refused = verify_ssh_certificate(
            &certificate,
            &trust(),
            SshCertificatePurpose::User,
            Timestamp::from_unix_millis(now),
        );
        assert!(matches!(refused, Err(VerifyError::NotYetValid(_))), "{now}"); // I6
    }
    let end = Timestamp::from_unix_millis(i64::MAX);
    let refused = verify_ssh_certificate(&certificate, &trust(), SshCertificatePurpose::User, end);
    assert!(matches!(refused, Err(VerifyError::Expired(_)))); // I6
}

#[test]
fn only_the_listed_key_algorithms_are_certified() {
    let ecdsa = |field: usize| {
        let point: Vec<u8> = std::iter::once(4).chain((0..2 * field).map(|at| at as u8)).collect();
        KeyData::Ecdsa(EcdsaPublicKey::from_sec1_bytes(&point).unwrap())
    };
    // I7
    assert!(check_ssh_key(key(SUBJECT).public_key().key_data()).is_ok());
    assert!(check_ssh_key(&ecdsa(32)).is_ok());
    assert!(check_ssh_key(&ecdsa(48)).is_ok());
    assert!(check_ssh_key(&ecdsa(66)).is_err());
    for (bits, accepted) in [(1024, false), (2047, false), (2048, true), (8192, true), (8193, false), (16384, false)] {
        assert_eq!(check_ssh_key(&rsa(bits)).is_ok(), accepted, "{bits}");
    }
}

#[test]
fn a_changed_certificate_does_not_verify() {
    let certificate = user(|_| {});
    let octets = certificate.to_bytes().unwrap();
    for at in (0..octets.len()).step_by(5) {
        let mut changed = octets.clone();
        changed[at] ^= 1;
        if let Ok(changed) = Certificate::from_bytes(&changed) {
            assert!(verify(&changed).is_err(), "octet {at}");
        }
    }
}

#[test]
fn the_identity_must_be_there_and_agree_with_the_outside() {
    assert!(matches!(verify(&user(|draft| draft.identity = None)), Err(VerifyError::Identity(_))));
    assert!(matches!(verify(&user(|draft| draft.key_id = "bob".into())), Err(VerifyError::Identity(_))));
    assert!(matches!(verify(&user(|draft| draft.identity = Some("{}".into()))), Err(VerifyError::Identity(_))));
    let leaf = UserIdentity { cluster: ClusterName::new("leaf").unwrap(), ..ann() };
    let foreign = user(|draft| draft.identity = Some(ssh_identity_value(&Identity::User(leaf))));
    assert!(matches!(verify(&foreign), Err(VerifyError::WrongCluster { .. }))); // I12
}

/// A certificate to be, right in all parts until a test changes one.
struct Draft {
    signer: [u8; 32],
    cert_type: CertType,
    key_id: String,
    principals: Vec<String>,
    after: u64,
    before: u64,
    critical: Option<&'static str>,
    identity: Option<String>,
}

impl Draft {
    fn user() -> Self {
        Self {
            signer: USER_CA,
            cert_type: CertType::User,
            key_id: "ann".into(),
            principals: owned(&["root", "ubuntu"]),
            after: NOW - 60,
            before: NOW + 3600,
            critical: None,
            identity: Some(ssh_identity_value(&Identity::User(ann()))),
        }
    }

    fn host() -> Self {
        Self {
            signer: HOST_CA,
            cert_type: CertType::Host,
            key_id: host().id.to_string(),
            principals: host().principals(),
            before: u64::MAX,
            identity: Some(ssh_identity_value(&Identity::Host(host()))),
            ..Self::user()
        }
    }

    fn sign(self) -> Certificate {
        let subject = key(SUBJECT);
        let mut builder = Builder::new([9; 16], subject.public_key(), self.after, self.before).unwrap();
        builder.serial(7).unwrap().cert_type(self.cert_type).unwrap().key_id(self.key_id).unwrap();
        if self.principals.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        for principal in self.principals {
            builder.valid_principal(principal).unwrap();
        }
        if let Some(name) = self.critical {
            builder.critical_option(name, "value").unwrap();
        }
        if let Some(identity) = self.identity {
            builder.extension(SSH_IDENTITY_EXTENSION, identity).unwrap();
        }
        sign_whatever_the_window(builder, &key(self.signer))
    }
}

/// In debug builds the builder checks what it signed at `valid_after`, and fails for windows that are empty.
fn sign_whatever_the_window(builder: Builder, signer: &PrivateKey) -> Certificate {
    struct Unchecked<'a>(&'a PrivateKey, std::cell::RefCell<Option<Vec<u8>>>);
    impl signature::Signer<ssh_key::Signature> for Unchecked<'_> {
        fn try_sign(&self, message: &[u8]) -> Result<ssh_key::Signature, signature::Error> {
            let signature = self.0.try_sign(message)?;
            let mut octets = message.to_vec();
            let encoded = ssh_key::encoding::Encode::encode_vec(&signature).expect("a signature encodes");
            octets.extend(u32::try_from(encoded.len()).expect("it is short").to_be_bytes());
            octets.extend(encoded);
            *self.1.borrow_mut() = Some(octets);
            Ok(signature)
        }
    }
    impl From<&Unchecked<'_>> for KeyData {
        fn from(signer: &Unchecked<'_>) -> Self {
            signer.0.public_key().key_data().clone()
        }
    }
    let signer = Unchecked(signer, std::cell::RefCell::new(None));
    let _checked = builder.sign(&signer);
    Certificate::from_bytes(&signer.1.into_inner().expect("the builder signed")).unwrap()
}

/// The same certificate with a certificate as the key that signs.
fn with_signature_key(inner: &Certificate) -> Certificate {
    let plain = user(|_| {}).to_bytes().unwrap();
    // tbs ends with the prefixed signature key; signature follows. Both are replaced octet for octet.
    let old_key = ssh_key::encoding::Encode::encode_vec(key(USER_CA).public_key().key_data()).unwrap();
    let at = plain.windows(old_key.len()).rposition(|window| window == old_key).unwrap();
    let nested = inner.to_bytes().unwrap();
    let mut octets = plain[..at - 4].to_vec();
    octets.extend(u32::try_from(nested.len()).unwrap().to_be_bytes());
    octets.extend(&nested);
    octets.extend(&plain[at + old_key.len()..]);
    Certificate::from_bytes(&octets).unwrap()
}

fn user(change: impl FnOnce(&mut Draft)) -> Certificate {
    let mut draft = Draft::user();
    change(&mut draft);
    draft.sign()
}

fn verify(certificate: &Certificate) -> Result<Verified, VerifyError> {
    verify_as(certificate, SshCertificatePurpose::User)
}

fn verify_as(certificate: &Certificate, purpose: SshCertificatePurpose<'_>) -> Result<Verified, VerifyError> {
    verify_ssh_certificate(certificate, &trust(), purpose, Timestamp::from_unix_seconds(NOW as i64))
}

fn trust() -> TrustBundle {
    let set = |seed| CaSet { ssh: vec![key(seed).public_key().clone()], x509: Vec::new() };
    TrustBundle::new(ClusterName::new("root").unwrap(), set(USER_CA), set(HOST_CA))
}

fn key(seed: [u8; 32]) -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed)), "").unwrap()
}

fn rsa(bits: usize) -> KeyData {
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] = 0xff >> (modulus.len() * 8 - bits);
    let part = |octets: &[u8]| ssh_key::Mpint::from_positive_bytes(octets);
    KeyData::Rsa(ssh_key::public::RsaPublicKey::new(part(&[1, 0, 1]), part(&modulus)).unwrap())
}

fn ann() -> UserIdentity {
    UserIdentity {
        user: UserName::new("ann").unwrap(),
        cluster: ClusterName::new("root").unwrap(),
        roles: [RoleName::new("access").unwrap()].into(),
        traits: [("logins".to_owned(), owned(&["root", "ubuntu"]))].into(),
        logins: vec![Login::new("root").unwrap(), Login::new("ubuntu").unwrap()],
    }
}

fn host() -> HostIdentity {
    HostIdentity {
        id: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<HostId>().unwrap(),
        name: NodeName::new("web-1").unwrap(),
        cluster: ClusterName::new("root").unwrap(),
        roles: [SystemRole::Node].into(),
        kube_clusters: Default::default(),
        apps: Default::default(),
        labels: Default::default(),
        generation: 0,
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
