//! The identity file: read as it was written, whole or not at all, and open to nobody else.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use remoteler_client::{IdentityFile, IdentityFileError, IdentityMistake, KeyPairs, ProxyAddr};
use remoteler_core::{Clock, Secret, SshCertificatePurpose, SystemClock, verify_ssh_certificate};

use crate::cluster::Cluster;

const HOUR: Duration = Duration::from_secs(3600);

fn proxy() -> ProxyAddr {
    "proxy.example.com:443".parse().unwrap()
}

fn identity_at(cluster: &Cluster, user: &str) -> IdentityFile {
    let keys = KeyPairs::generate(user).unwrap();
    IdentityFile::new(&keys, &cluster.user_certs(user, &keys, HOUR), Some(proxy())).unwrap()
}

fn text() -> Secret {
    identity_at(&Cluster::new("root.example.com"), "ann").to_text().unwrap()
}

/// The text from the line that begins with `first` to the one that begins with `last`, both included.
fn cut(text: &str, first: &str, last: &str) -> (String, String) {
    let (mut part, mut rest, mut within, mut done) = (String::new(), String::new(), false, false);
    for line in text.lines() {
        within |= !done && line.starts_with(first);
        let into = if within { &mut part } else { &mut rest };
        into.push_str(line);
        into.push('\n');
        if within && line.starts_with(last) {
            (within, done) = (false, true);
        }
    }
    assert!(done, "{first}");
    (part, rest)
}

const PARTS: [(&str, &str); 6] = [
    ("-----BEGIN OPENSSH PRIVATE KEY", "-----END OPENSSH PRIVATE KEY"),
    ("-----BEGIN PRIVATE KEY", "-----END PRIVATE KEY"),
    ("ssh-ed25519-cert-v01@openssh.com ", "ssh-ed25519-cert-v01@openssh.com "),
    ("-----BEGIN CERTIFICATE", "-----END CERTIFICATE"),
    ("@cert-authority ", "@cert-authority "),
    ("@proxy ", "@proxy "),
];

#[test]
fn what_is_written_is_read_back_and_believes_hosts_only() {
    let cluster = Cluster::new("root.example.com");
    let written = identity_at(&cluster, "ann");
    let text = written.to_text().unwrap();
    let read = IdentityFile::parse(text.reveal()).unwrap();
    assert_eq!(read.identity(), written.identity());
    assert_eq!((read.proxy(), read.expires()), (Some(&proxy()), written.expires()));
    assert_eq!(read.tls().chain(), written.tls().chain());
    assert_eq!(read.trust().host.x509, cluster.trust().host.x509);
    assert_eq!(read.trust().host.ssh[0].key_data(), cluster.trust().host.ssh[0].key_data());
    assert!(read.trust().user.ssh.is_empty() && read.trust().user.x509.is_empty());
    let now = SystemClock.now();
    verify_ssh_certificate(read.ssh_certificate(), &cluster.trust(), SshCertificatePurpose::User, now).unwrap();
    assert_eq!(read.to_text().unwrap().reveal(), text.reveal());
    let login = read.into_login("other.example.com".parse().unwrap());
    assert_eq!((login.profile.proxy.host(), login.profile.user.as_str()), ("other.example.com", "ann"));
    assert!(login.is_valid(now) && !login.is_valid(now.plus(HOUR)));
}

#[test]
fn comments_empty_lines_and_line_ends_of_windows_are_no_mistake() {
    let text = format!("\n# made by hand\n{}\n\n", text().reveal());
    IdentityFile::parse(&text.replace('\n', "\r\n")).unwrap();
}

#[test]
fn without_one_of_its_parts_or_with_one_twice_it_is_no_identity() {
    let text = text();
    for (number, (first, last)) in PARTS.into_iter().enumerate() {
        let (part, rest) = cut(text.reveal(), first, last);
        let without = IdentityFile::parse(&rest);
        match PARTS[number].0 {
            "@proxy " => assert!(without.unwrap().proxy().is_none()),
            _ => assert!(without.is_err(), "{first}"),
        }
        let twice = IdentityFile::parse(&format!("{}{part}", text.reveal()));
        match PARTS[number].0 {
            // A rotation has two authorities.
            "@cert-authority " | "-----BEGIN CERTIFICATE" => assert!(twice.is_ok(), "{first}"),
            _ => assert!(matches!(twice, Err(IdentityMistake::Line { .. })), "{first}: {twice:?}"),
        }
    }
}

#[test]
fn parts_of_two_identities_do_not_make_one() {
    let cluster = Cluster::new("root.example.com");
    let (ann, bob) = (identity_at(&cluster, "ann").to_text().unwrap(), identity_at(&cluster, "bob").to_text().unwrap());
    for (first, last) in PARTS.into_iter().take(4) {
        let mixed = format!("{}{}", cut(bob.reveal(), first, last).0, cut(ann.reveal(), first, last).1);
        assert!(matches!(IdentityFile::parse(&mixed), Err(IdentityMistake::NotOne(_))), "{first}");
    }
    let elsewhere = identity_at(&Cluster::new("leaf.example.com"), "ann").to_text().unwrap();
    let (authority, _) = cut(elsewhere.reveal(), "@cert-authority ", "@cert-authority ");
    let mistake = IdentityFile::parse(&format!("{}{authority}", ann.reveal())).unwrap_err();
    assert!(mistake.to_string().contains("another cluster"), "{mistake}"); // I12
}

// I71
#[test]
fn an_authority_for_all_hosts_is_not_believed() {
    let text = text();
    for pattern in ["*", "*.", "*.root.example.com,*", "!x", "root.example.com", "*.*"] {
        let wide = text.reveal().replace("@cert-authority *.root.example.com ", &format!("@cert-authority {pattern} "));
        assert!(matches!(IdentityFile::parse(&wide), Err(IdentityMistake::Line { .. })), "{pattern}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_without_the_key() {
    let text = text();
    let (key, rest) = cut(text.reveal(), PARTS[0].0, PARTS[0].1);
    let secret = key.lines().nth(1).unwrap();
    let damaged = key.replace(secret, &secret.replace(|c: char| c.is_ascii_lowercase(), "!"));
    for broken in [
        format!("{rest}{damaged}"),
        format!("{rest}{secret}\n"),
        format!("{rest}{}", key.replace("-----END", "---END")),
    ] {
        let mistake = IdentityFile::parse(&broken).unwrap_err().to_string();
        assert!(!mistake.contains(&secret[8..24]) && !mistake.contains('\n'), "{mistake}"); // I76
    }
    let mistake = IdentityFile::parse("# fine\n\nhello\n").unwrap_err();
    assert!(matches!(mistake, IdentityMistake::Line { line: 3, .. }), "{mistake}");
    assert_eq!(IdentityFile::parse("").unwrap_err(), IdentityMistake::Missing("the SSH key"));
    assert!(IdentityFile::parse("-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----\n").is_err());
    assert!(!format!("{:?}", IdentityFile::parse(text.reveal()).unwrap()).contains("PRIVATE")); // I76
}

// I25
#[test]
fn what_is_longer_than_any_honest_file_is_not_read() {
    assert_eq!(IdentityFile::parse(&"#\n".repeat(200_000)).unwrap_err(), IdentityMistake::TooLarge);
    assert!(matches!(IdentityFile::parse(&"x".repeat(70_000)), Err(IdentityMistake::Line { line: 1, .. })));
    let certificates = cut(text().reveal(), PARTS[3].0, PARTS[3].1).0.repeat(20);
    assert!(matches!(IdentityFile::parse(&certificates), Err(IdentityMistake::Line { .. })));
    assert!(matches!(IdentityFile::read(Path::new("/dev/zero")), Err(IdentityFileError::Mistake { .. })));
}

// I2, I25: the deepest nest of certificates that a line can hold is refused on the stack of any thread.
#[test]
fn certificates_within_certificates_do_not_overflow_the_stack() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let string = |octets: &[u8]| [&u32::try_from(octets.len()).unwrap().to_be_bytes()[..], octets].concat();
    let mut nested = [string(b"ssh-ed25519"), string(&[7; 32])].concat();
    while nested.len() < 48_000 {
        let head = [string(b"ssh-ed25519-cert-v01@openssh.com"), string(b""), string(&[7; 32])].concat();
        let middle = [[0; 8].as_slice(), &[0, 0, 0, 1], &[0; 8], &[0; 8], &[0xff; 8], &[0; 12]].concat();
        let signature = string(&[string(b"x@y"), string(b"1")].concat());
        nested = [head, middle, string(&nested), signature].concat();
    }
    let line = format!("ssh-ed25519-cert-v01@openssh.com {}", STANDARD.encode(&nested));
    assert!((64_000..65_536).contains(&line.len()), "{}", line.len());
    let text = text();
    let nested = format!("{line}\n{}", cut(text.reveal(), PARTS[2].0, PARTS[2].1).1);
    let refused = std::thread::spawn(move || IdentityFile::parse(&nested)).join().unwrap().unwrap_err();
    assert!(matches!(refused, IdentityMistake::NotOne(what) if what.contains("SSH certificate")), "{refused}");
}

// I67
#[test]
fn a_file_that_others_can_read_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ann.id");
    std::fs::write(&path, text().reveal()).unwrap();
    for (mode, fits) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let read = IdentityFile::read(&path);
        assert_eq!(read.is_ok(), fits, "{mode:o}");
        if let Err(cause) = read {
            assert!(cause.to_string().contains("chmod 600"), "{cause}");
        }
    }
    let missing = IdentityFile::read(&dir.path().join("none")).unwrap_err();
    assert!(matches!(missing, IdentityFileError::Io { .. }));
    let none = identity_at(&Cluster::new("root"), "ann");
    let text = none.to_text().unwrap().reveal().replace("@proxy ", "# ");
    assert!(IdentityFile::parse(&text).unwrap().auth(None).is_err());
}
