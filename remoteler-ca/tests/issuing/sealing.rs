//! Keys at rest: sealed, opened in their own place only, and old records that are read and sealed.

use remoteler_ca::{Authority, CaError, KeyEncryptionKey, KeyRing, SealError, StoredAuthority, StoredKey};
use remoteler_core::{CaKind, ClusterName, OsEntropy, SshCertificatePurpose};

use crate::support::{Cluster, now, user_profile, verify_ssh};

fn key(octet: u8) -> KeyEncryptionKey {
    let mut octets = [octet; 32];
    octets[0] = octet.wrapping_add(1);
    KeyEncryptionKey::new(&octets).unwrap()
}

fn ring(octet: u8) -> KeyRing {
    KeyRing::new(key(octet))
}

/// Where the private halves stand in a record in the clear.
fn secrets(stored: &StoredAuthority) -> Vec<String> {
    let lines = |key: &StoredKey| key.clear().unwrap().reveal().lines().nth(1).unwrap().to_owned();
    vec![lines(&stored.ssh_key), lines(&stored.x509_key)]
}

#[test]
fn a_sealed_authority_signs_as_before_and_its_record_holds_no_key() {
    let root = Cluster::new("root");
    let clear = root.user.to_stored();
    let sealed = clear.sealed(&ring(1)).unwrap();
    assert!(sealed.is_sealed_by(&ring(1)) && !clear.is_sealed_by(&ring(1)) && !sealed.is_sealed_by(&ring(2)));
    let json = serde_json::to_string(&sealed).unwrap();
    for secret in secrets(&clear) {
        assert!(serde_json::to_string(&clear).unwrap().contains(&secret));
        assert!(!json.contains(&secret) && !format!("{sealed:?}").contains(&secret)); // I8
    }
    let again = Authority::from_sealed(&serde_json::from_str(&json).unwrap(), &ring(1)).unwrap();
    assert_eq!(again.public(), root.user.public());
    let issued = again.issue_user(user_profile(&root.name).prepare(&again, now(), &OsEntropy).unwrap()).unwrap();
    assert!(verify_ssh(&issued.ssh_certificate, &root.trust(), SshCertificatePurpose::User, now()).is_ok());
    // What it gives to be kept is the sealed form.
    assert_eq!(again.to_stored(), sealed); // I8
}

#[test]
fn a_record_in_the_clear_is_read_and_given_back_sealed() {
    let root = Cluster::new("root");
    let clear = root.host.to_stored();
    // As it was written before there were suites and seals.
    let mut old = serde_json::to_value(&clear).unwrap();
    assert!(old.as_object_mut().unwrap().remove("suite").is_some());
    let old: StoredAuthority = serde_json::from_value(old).unwrap();
    assert_eq!(old, clear);
    let opened = Authority::from_sealed(&old, &ring(1)).unwrap();
    let kept = opened.to_stored();
    assert!(kept.is_sealed_by(&ring(1)) && kept.ssh_key.clear().is_none() && kept.x509_key.clear().is_none());
}

#[test]
fn a_new_key_encryption_key_takes_over_while_the_old_one_is_at_hand() {
    let root = Cluster::new("root");
    let old = root.user.to_stored().sealed(&ring(1)).unwrap();
    let both = ring(2).with_previous(key(1));
    let kept = Authority::from_sealed(&old, &both).unwrap().to_stored();
    assert!(kept.is_sealed_by(&ring(2)));
    assert!(Authority::from_sealed(&kept, &ring(2)).is_ok());
    for refused in [Authority::from_sealed(&kept, &ring(1)), Authority::from_sealed(&old, &ring(2))] {
        assert!(matches!(refused, Err(CaError::Sealed { source: SealError::UnknownKey(_), .. })));
    }
    assert!(matches!(Authority::from_stored(&kept), Err(CaError::Sealed { source: SealError::NoKey, .. })));
}

#[test]
fn a_sealed_key_opens_in_its_own_place_only() {
    let (root, leaf) = (Cluster::new("root"), Cluster::new("leaf"));
    let sealed = root.user.to_stored().sealed(&ring(1)).unwrap();
    let with = |change: &dyn Fn(&mut StoredAuthority)| {
        let mut moved = sealed.clone();
        change(&mut moved);
        match Authority::from_sealed(&moved, &ring(1)) {
            Err(CaError::Sealed { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(with(&|stored| stored.kind = CaKind::Host), SealError::Opened); // I1
    assert_eq!(with(&|stored| stored.cluster = ClusterName::new("leaf").unwrap()), SealError::Opened); // I1
    assert_eq!(with(&|stored| std::mem::swap(&mut stored.ssh_key, &mut stored.x509_key)), SealError::Opened);
    assert_eq!(with(&|stored| stored.suite = remoteler_ca::Suite::Legacy), SealError::Opened);
    let foreign = leaf.user.to_stored().sealed(&ring(1)).unwrap();
    assert_eq!(with(&|stored| stored.ssh_key = foreign.ssh_key.clone()), SealError::Opened); // I1
}

#[test]
fn no_changed_octet_of_a_sealed_key_goes_unnoticed() {
    let root = Cluster::new("root");
    let sealed = serde_json::to_value(root.user.to_stored().sealed(&ring(1)).unwrap()).unwrap();
    for field in ["key_id", "nonce", "sealed"] {
        let text = sealed["ssh_key"][field].as_str().unwrap();
        for at in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let mut record = sealed.clone();
            record["ssh_key"][field] = String::from_utf8(changed).unwrap().into();
            let stored: StoredAuthority = serde_json::from_value(record).unwrap();
            assert!(Authority::from_sealed(&stored, &ring(1)).is_err(), "{field} {at}");
        }
    }
}

#[test]
fn a_file_that_is_no_random_key_is_refused() {
    for length in [0, 16, 31, 33, 64] {
        assert_eq!(KeyEncryptionKey::new(&vec![7; length]).unwrap_err(), SealError::Length(length));
    }
    for octet in [0, 0xff] {
        assert_eq!(KeyEncryptionKey::new(&[octet; 32]).unwrap_err(), SealError::NotRandom);
    }
    let printed = format!("{:?}", key(0x41));
    assert!(printed.contains(key(0x41).id()) && !printed.contains("AAA") && !printed.contains("65, 65"), "{printed}"); // I76
    assert_ne!(key(1).id(), key(2).id());
}
