//! Revocation lists as OpenSSH and OpenSSL read them.

use std::{fs, path::Path, time::Duration};

use remoteler_ca::{CaError, Krl, RevocationList, RevokedCertificate};
use remoteler_core::{OsEntropy, RevocationReason, Timestamp};
use ssh_key::{Certificate, HashAlg, PublicKey};
use x509_parser::{pem::parse_x509_pem, prelude::FromDer, revocation_list::CertificateRevocationList};

use crate::{
    clients::run,
    kinds::{openssh_user, smart_card},
    support::{Cluster, now, ssh_key},
};

/// A certificate of `cluster`'s users, as OpenSSH's line.
fn certificate(cluster: &Cluster) -> String {
    cluster.user.issue_ssh(openssh_user(&["root"]).prepare(&cluster.user, now(), &OsEntropy).unwrap()).unwrap()
}

#[test]
fn ssh_keygen_finds_revoked_what_was_revoked_and_nothing_else() {
    let (root, other) = (Cluster::new("root"), Cluster::new("root"));
    let folder = tempfile::tempdir().unwrap();
    let line = certificate(&root);
    let serial = Certificate::from_openssh(&line).unwrap().serial();
    let authority = root.user.public().ssh.remove(0);
    let stranger = other.user.public().ssh.remove(0);
    let subject = ssh_key(7);
    let revoked = |name: &str, fill: &dyn Fn(&mut Krl)| {
        let mut krl = Krl::new(3, now(), "root");
        fill(&mut krl);
        ssh_keygen_says_revoked(folder.path(), name, &krl, &line)
    };
    let Some(empty) = revoked("empty", &|_| {}) else { return };
    assert!(!empty);
    let (own, foreign) = (authority.key_data(), stranger.key_data());
    type Fill<'a> = Box<dyn Fn(&mut Krl) + 'a>;
    let cases: Vec<(&str, Fill<'_>, bool)> = vec![
        ("serial", Box::new(|krl| krl.revoke_serial(own, serial).unwrap()), true),
        ("other serial", Box::new(|krl| krl.revoke_serial(own, serial ^ 1).unwrap()), false),
        ("serial of another", Box::new(|krl| krl.revoke_serial(foreign, serial).unwrap()), false),
        ("range", Box::new(|krl| krl.revoke_serials(own, serial - 9, serial.saturating_add(9)).unwrap()), true),
        ("range below", Box::new(|krl| krl.revoke_serials(own, 1, serial - 1).unwrap()), false),
        ("everything", Box::new(|krl| krl.revoke_serials(own, 1, u64::MAX).unwrap()), true),
        (
            "bitmap",
            Box::new(|krl| (0..40).for_each(|at| krl.revoke_serial(own, serial - 80 + 2 * at).unwrap())),
            false, // the bits go up to serial - 2
        ),
        (
            "bitmap with it",
            Box::new(|krl| (0..40).for_each(|at| krl.revoke_serial(own, serial - 2 * at).unwrap())),
            true,
        ),
        (
            "odd neighbours",
            Box::new(|krl| (0..40).for_each(|at| krl.revoke_serial(own, serial - 1 - 2 * at).unwrap())),
            false,
        ),
        ("key id", Box::new(|krl| krl.revoke_key_id(own, "ann").unwrap()), true),
        ("other key id", Box::new(|krl| krl.revoke_key_id(own, "ann2").unwrap()), false),
        ("key id of another", Box::new(|krl| krl.revoke_key_id(foreign, "ann").unwrap()), false),
        ("key", Box::new(|krl| krl.revoke_key(subject.key_data()).unwrap()), true),
        ("other key", Box::new(|krl| krl.revoke_key(ssh_key(9).key_data()).unwrap()), false),
        ("fingerprint", Box::new(|krl| krl.revoke_fingerprint(sha256(&subject))), true),
        ("other fingerprint", Box::new(|krl| krl.revoke_fingerprint(sha256(&ssh_key(9)))), false),
        ("authority", Box::new(|krl| krl.revoke_key(own).unwrap()), true),
        ("other authority", Box::new(|krl| krl.revoke_key(foreign).unwrap()), false),
    ];
    for (name, fill, expected) in cases {
        assert_eq!(revoked(name, &*fill), Some(expected), "{name}");
        // Our own reading of the same list agrees.
        let mut krl = Krl::new(3, now(), "root");
        fill(&mut krl);
        let again = Krl::from_bytes(&krl.to_bytes()).unwrap();
        let ours = again.revokes_certificate(own, serial, "ann")
            || again.revokes_key(subject.key_data())
            || again.revokes_key(own);
        assert_eq!(ours, expected, "{name}");
    }
}

#[test]
fn a_list_that_ssh_keygen_wrote_is_read() {
    let root = Cluster::new("root");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let authority = root.user.public().ssh.remove(0);
    fs::write(path("ca.pub"), authority.to_openssh().unwrap()).unwrap();
    let key = ssh_key(9).to_openssh().unwrap();
    fs::write(path("key.pub"), &key).unwrap();
    let spec = format!("serial: 5\nserial: 7-9\nserial: 100\nserial: 102\nserial: 104\nid: ann\nkey: {key}\n");
    fs::write(path("spec"), spec).unwrap();
    let arguments = ["-k", "-f", &path("krl"), "-s", &path("ca.pub"), "-z", "42", &path("spec")];
    if run("ssh-keygen", &arguments).is_none() {
        return;
    }
    let krl = Krl::from_bytes(&fs::read(path("krl")).unwrap()).unwrap();
    assert_eq!(krl.version, 42);
    for serial in 1..200 {
        let expected = matches!(serial, 5 | 7..=9 | 100 | 102 | 104);
        assert_eq!(krl.revokes_certificate(authority.key_data(), serial, "bob"), expected, "{serial}");
    }
    assert!(krl.revokes_certificate(authority.key_data(), 1, "ann"));
    assert!(krl.revokes_key(ssh_key(9).key_data()) && !krl.revokes_key(ssh_key(8).key_data()));
}

/// `ssh-keygen -Q`: whether it calls `line` revoked; `None` where there is no ssh-keygen.
fn ssh_keygen_says_revoked(folder: &Path, name: &str, krl: &Krl, line: &str) -> Option<bool> {
    let path = |suffix: &str| folder.join(format!("{name}{suffix}").replace(' ', "-")).display().to_string();
    fs::write(path(".krl"), krl.to_bytes()).unwrap();
    fs::write(path("-cert.pub"), line).unwrap();
    let answer = run("ssh-keygen", &["-Q", "-f", &path(".krl"), &path("-cert.pub")])?;
    // Where it says neither, the list was not read at all.
    assert!(answer.contains("REVOKED") || answer.trim_end().ends_with("ok"), "{name}: {answer}");
    Some(answer.contains("REVOKED"))
}

fn sha256(key: &PublicKey) -> [u8; 32] {
    key.fingerprint(HashAlg::Sha256).as_bytes().try_into().unwrap()
}

#[test]
fn openssl_refuses_a_certificate_that_the_list_names_and_takes_the_others() {
    let root = Cluster::new("root");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let card = || root.user.issue_x509(smart_card().prepare(&root.user, now(), &OsEntropy).unwrap()).unwrap();
    let (revoked, good) = (card(), card());
    let list = RevocationList {
        number: 258,
        valid_for: Duration::from_secs(3600),
        certificates: vec![
            entry(&revoked, RevocationReason::KeyCompromise),
            entry(&revoked, RevocationReason::Superseded),
        ],
    };
    let der = root.user.sign_revocation_list(&list, now()).unwrap();
    for (name, octets) in [
        ("list.der", &der[..]),
        ("ca.pem", root.user.certificate_pem().as_bytes()),
        ("revoked.pem", revoked.as_bytes()),
        ("good.pem", good.as_bytes()),
    ] {
        fs::write(path(name), octets).unwrap();
    }
    let convert = ["crl", "-inform", "DER", "-in", &path("list.der"), "-out", &path("list.pem")];
    if run("openssl", &convert).is_none() {
        return;
    }
    let text =
        run("openssl", &["crl", "-in", &path("list.pem"), "-noout", "-text", "-CAfile", &path("ca.pem")]).unwrap();
    for part in ["verify OK", "X509v3 CRL Number", "258", "Key Compromise", "X509v3 Authority Key Identifier"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let verify = |leaf: &str, at: Timestamp| {
        let (ca, crl, leaf, at) = (path("ca.pem"), path("list.pem"), path(leaf), at.unix_seconds().to_string());
        let arguments =
            ["verify", "-x509_strict", "-attime", &at, "-CAfile", &ca, "-CRLfile", &crl, "-crl_check", &leaf];
        run("openssl", &arguments).unwrap()
    };
    assert!(verify("good.pem", now()).contains(": OK"));
    assert!(verify("revoked.pem", now()).contains("certificate revoked"));
    // A list that is too old proves nothing.
    let late = now().plus(Duration::from_secs(3599));
    assert!(verify("good.pem", late).contains(": OK"));
    assert!(verify("good.pem", late.plus(Duration::from_secs(2))).contains("CRL has expired"));
}

#[test]
fn a_revocation_list_has_each_serial_once_and_may_be_empty() {
    let root = Cluster::new("root");
    let sign = |certificates, valid_for| {
        let list = RevocationList { number: 1, valid_for: Duration::from_secs(valid_for), certificates };
        root.user.sign_revocation_list(&list, now())
    };
    let of = |serial: &[u8]| RevokedCertificate {
        serial: serial.to_vec(),
        since: now(),
        reason: RevocationReason::Unspecified,
    };
    let der = sign(vec![of(&[0x41; 16]), of(&[0x42; 16]), of(&[0x41; 16])], 60).unwrap();
    let (rest, list) = CertificateRevocationList::from_der(&der).unwrap();
    assert!(rest.is_empty());
    assert_eq!(list.iter_revoked_certificates().count(), 2);
    let empty = sign(Vec::new(), 60).unwrap();
    assert_eq!(CertificateRevocationList::from_der(&empty).unwrap().1.iter_revoked_certificates().count(), 0);

    for bad in [&[][..], &[0; 4], &[1; 21]] {
        assert!(matches!(sign(vec![of(bad)], 60), Err(CaError::RevokedSerial(_))), "{bad:?}");
    }
    assert!(matches!(sign(Vec::new(), 0), Err(CaError::RevocationList(_))));
}

fn entry(pem: &str, reason: RevocationReason) -> RevokedCertificate {
    let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
    RevokedCertificate { serial: block.parse_x509().unwrap().raw_serial().to_vec(), since: now(), reason }
}
