//! OpenSSH key revocation lists (PROTOCOL.krl): what a stock sshd with `RevokedKeys` refuses. Owns what is revoked, in memory; the octets
//! are written and read next door. A list is not signed, for OpenSSH takes no signatures there: it is believed by the way it arrives.

mod read;
mod serials;
mod write;

use std::collections::{BTreeMap, BTreeSet};

pub use read::KrlError;
use remoteler_core::Timestamp;
use serials::Serials;
use ssh_key::{encoding::Encode, public::KeyData};

/// A key revocation list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Krl {
    /// Grows with each list that is published.
    pub version: u64,
    /// When it was made; whole seconds are kept.
    pub generated: Timestamp,
    /// For people.
    pub comment: String,
    /// By the authority's key as SSH encodes it; empty: whichever authority signed.
    certificates: BTreeMap<Vec<u8>, Revoked>,
    /// Keys as SSH encodes them.
    keys: BTreeSet<Vec<u8>>,
    /// SHA-256 of such.
    fingerprints: BTreeSet<[u8; 32]>,
}

/// The certificates of one authority that are revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Revoked {
    serials: Serials,
    key_ids: BTreeSet<String>,
}

/// A serial that cannot be revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// Zero means "no serial", or the range is empty.
    #[error("serials {first} to {last} cannot be revoked; they begin at 1 and the first is not after the last")]
    Serials {
        /// Lowest.
        first: u64,
        /// Highest.
        last: u64,
    },
    /// An empty key id, or one longer than any certificate of ours has.
    #[error("a key id of {0} octets cannot be revoked; 1 to 1024 are possible")]
    KeyId(usize),
    /// The key does not encode.
    #[error("the key cannot be written into a revocation list")]
    Key(#[source] ssh_key::encoding::Error),
}

/// Longest key id that is written or read.
const MAX_KEY_ID: usize = 1024;

impl Krl {
    /// An empty list.
    #[must_use]
    pub fn new(version: u64, generated: Timestamp, comment: impl Into<String>) -> Self {
        let generated = Timestamp::from_unix_seconds(generated.unix_seconds().max(0));
        Self { version, generated, comment: comment.into(), ..Self::default() }
    }

    /// Revokes the certificates that `authority` signed with the serials from `first` to `last`, both included.
    ///
    /// # Errors
    /// [`RevokeError`]; then nothing was changed.
    pub fn revoke_serials(&mut self, authority: &KeyData, first: u64, last: u64) -> Result<(), RevokeError> {
        if first == 0 || first > last {
            return Err(RevokeError::Serials { first, last });
        }
        self.of(authority)?.serials.insert(first, last);
        Ok(())
    }

    /// Revokes the certificate that `authority` signed with this serial.
    ///
    /// # Errors
    /// As [`Krl::revoke_serials`].
    pub fn revoke_serial(&mut self, authority: &KeyData, serial: u64) -> Result<(), RevokeError> {
        self.revoke_serials(authority, serial, serial)
    }

    /// Revokes every certificate of `authority` with this key id: in ours, all of one user or host.
    ///
    /// # Errors
    /// [`RevokeError`]; then nothing was changed.
    pub fn revoke_key_id(&mut self, authority: &KeyData, key_id: &str) -> Result<(), RevokeError> {
        if !(1..=MAX_KEY_ID).contains(&key_id.len()) {
            return Err(RevokeError::KeyId(key_id.len()));
        }
        self.of(authority)?.key_ids.insert(key_id.to_owned());
        Ok(())
    }

    /// Revokes a key, alone or in whichever certificate; also an authority's, and with it all that it signed.
    ///
    /// # Errors
    /// [`RevokeError::Key`]
    pub fn revoke_key(&mut self, key: &KeyData) -> Result<(), RevokeError> {
        self.keys.insert(encoded(key)?);
        Ok(())
    }

    /// Revokes a key by the SHA-256 of its encoding, as `ssh-keygen -l` prints it in base64.
    pub fn revoke_fingerprint(&mut self, sha256: [u8; 32]) {
        self.fingerprints.insert(sha256);
    }

    /// Whether a certificate of `authority` with this serial and key id is revoked by either; keys are not looked at.
    #[must_use]
    pub fn revokes_certificate(&self, authority: &KeyData, serial: u64, key_id: &str) -> bool {
        let own = encoded(authority).ok().and_then(|key| self.certificates.get(&key));
        own.into_iter()
            .chain(self.certificates.get(&Vec::new()))
            .any(|revoked| revoked.serials.contains(serial) || revoked.key_ids.contains(key_id))
    }

    /// Whether a key is revoked, by itself or by its fingerprint.
    #[must_use]
    pub fn revokes_key(&self, key: &KeyData) -> bool {
        encoded(key).is_ok_and(|octets| {
            let digest = ring::digest::digest(&ring::digest::SHA256, &octets);
            self.keys.contains(&octets) || self.fingerprints.iter().any(|known| known == digest.as_ref())
        })
    }

    /// The list as OpenSSH reads it: a file for `RevokedKeys`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        write::list(self)
    }

    /// Reads a list.
    ///
    /// # Errors
    /// [`KrlError`] for anything but a list of format 1 with sections known here.
    pub fn from_bytes(octets: &[u8]) -> Result<Self, KrlError> {
        read::list(octets)
    }

    fn of(&mut self, authority: &KeyData) -> Result<&mut Revoked, RevokeError> {
        Ok(self.certificates.entry(encoded(authority)?).or_default())
    }
}

fn encoded(key: &KeyData) -> Result<Vec<u8>, RevokeError> {
    key.encode_vec().map_err(RevokeError::Key)
}

/// "SSHKRL\n\0"
const MAGIC: u64 = 0x5353_484b_524c_0a00;
const FORMAT: u32 = 1;
const SECTION_CERTIFICATES: u8 = 1;
const SECTION_KEYS: u8 = 2;
const SECTION_FINGERPRINTS_SHA256: u8 = 5;
const CERTIFICATES_SERIALS: u8 = 0x20;
const CERTIFICATES_RANGE: u8 = 0x21;
const CERTIFICATES_BITMAP: u8 = 0x22;
const CERTIFICATES_KEY_IDS: u8 = 0x23;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ssh_key::public::Ed25519PublicKey;

    use super::*;

    fn key(octet: u8) -> KeyData {
        KeyData::Ed25519(Ed25519PublicKey([octet; 32]))
    }

    fn list() -> Krl {
        Krl::new(7, Timestamp::from_unix_seconds(1_772_366_400), "root: 2026-03-01")
    }

    #[test]
    fn zero_empty_ranges_and_endless_key_ids_are_not_revoked() {
        let mut krl = list();
        for (first, last) in [(0, 0), (0, 7), (2, 1)] {
            assert_eq!(krl.revoke_serials(&key(1), first, last), Err(RevokeError::Serials { first, last }));
        }
        for bad in ["", &"x".repeat(1025)] {
            assert_eq!(krl.revoke_key_id(&key(1), bad), Err(RevokeError::KeyId(bad.len())));
        }
        assert_eq!(krl, list());
    }

    #[test]
    fn no_change_or_cut_of_a_list_makes_the_reader_fail_otherwise_than_with_an_error() {
        let mut krl = list();
        for serial in [1, 2, 3, 10, 11, 13, 15, 17, u64::MAX] {
            krl.revoke_serial(&key(1), serial).unwrap();
        }
        krl.revoke_key_id(&key(2), "ann").unwrap();
        krl.revoke_key(&key(3)).unwrap();
        krl.revoke_fingerprint([4; 32]);
        let octets = krl.to_bytes();
        assert_eq!(Krl::from_bytes(&octets), Ok(krl));
        for at in 0..octets.len() {
            // Between two sections the rest is a shorter list, as in OpenSSH.
            let _shorter = Krl::from_bytes(&octets[..at]);
            for bit in 0..8 {
                let mut changed = octets.clone();
                changed[at] ^= 1 << bit;
                if let Ok(read) = Krl::from_bytes(&changed) {
                    assert_eq!(Krl::from_bytes(&read.to_bytes()), Ok(read)); // I25
                }
            }
        }
        assert!(Krl::from_bytes(&[]).is_err());
        assert!(Krl::from_bytes(&octets[..octets.len() - 1]).is_err());
        assert!(Krl::from_bytes(&[&octets[..], &[1]].concat()).is_err());
    }

    // I22
    #[test]
    fn a_bitmap_cannot_make_the_reader_keep_much_more_than_it_has_octets() {
        let string = |octets: &[u8]| [&u32::try_from(octets.len()).unwrap().to_be_bytes()[..], octets].concat();
        let section = |kind: u8, body: &[u8]| [&[kind][..], &string(body)].concat();
        let list = |bitmaps: u64| {
            let every_second = string(&[0x55; 1024]);
            let bitmap =
                |at: u64| section(CERTIFICATES_BITMAP, &[&(1 + at * 8192).to_be_bytes()[..], &every_second].concat());
            let body = [string(b""), string(b""), (0..bitmaps).flat_map(bitmap).collect()].concat();
            [&Krl::new(1, Timestamp::default(), "").to_bytes()[..], &section(SECTION_CERTIFICATES, &body)].concat()
        };
        assert!(Krl::from_bytes(&list(2)).unwrap().revokes_certificate(&key(1), 4097, ""));
        assert_eq!(Krl::from_bytes(&list(300)), Err(KrlError::TooMany));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_and_revokes_exactly_what_was_revoked(
            singles in proptest::collection::vec(1_u64..400, 0..60),
            far in proptest::collection::vec(1_u64.., 0..20),
            ranges in proptest::collection::vec((1_u64..2000, 0_u64..300), 0..8),
        ) {
            let mut krl = list();
            let mut expected = BTreeSet::new();
            for serial in singles.iter().chain(&far) {
                krl.revoke_serial(&key(1), *serial).unwrap();
                expected.insert(*serial);
            }
            for (first, length) in &ranges {
                krl.revoke_serials(&key(1), *first, first + length).unwrap();
                expected.extend(*first..=first + length);
            }
            let again = Krl::from_bytes(&krl.to_bytes()).unwrap();
            for serial in (0..2400).chain(far.iter().flat_map(|at| [at - 1, *at, at.saturating_add(1)])) {
                prop_assert_eq!(again.revokes_certificate(&key(1), serial, ""), expected.contains(&serial), "{}", serial);
                prop_assert!(!again.revokes_certificate(&key(2), serial, ""));
            }
            prop_assert_eq!(again, krl);
        }
    }
}
