//! Reads a list. What it does not know it refuses: a section passed over could be the one that revokes.

use remoteler_core::Timestamp;
use ssh_key::encoding::{Decode, Mpint};

use super::{
    CERTIFICATES_BITMAP, CERTIFICATES_KEY_IDS, CERTIFICATES_RANGE, CERTIFICATES_SERIALS, FORMAT, Krl, MAGIC,
    MAX_KEY_ID, Revoked, SECTION_CERTIFICATES, SECTION_FINGERPRINTS_SHA256, SECTION_KEYS,
};

/// Why a list is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KrlError {
    /// Larger than any honest one.
    #[error("the revocation list has {0} octets; at most {MAX_OCTETS} are read")]
    TooLarge(usize),
    /// Not a list, or of another format.
    #[error("this is no OpenSSH key revocation list of format {FORMAT}")]
    Format,
    /// It would take much more room than it has octets.
    #[error("the revocation list has more than {MAX_SERIALS} serials; use ranges")]
    TooMany,
    /// A section that is not known here.
    #[error("the revocation list has a section of unknown type {0}")]
    Section(u8),
    /// It ends early, or a part of it is not what it should be.
    #[error("the revocation list is malformed: {0}")]
    Malformed(&'static str),
}

/// What is read at the most.
const MAX_OCTETS: usize = 16 * 1024 * 1024;
/// How many serials and ranges are read at the most. A bitmap says eight serials an octet, and what is kept of one takes many.
const MAX_SERIALS: usize = 1024 * 1024;

pub(super) fn list(mut octets: &[u8]) -> Result<Krl, KrlError> {
    if octets.len() > MAX_OCTETS {
        return Err(KrlError::TooLarge(octets.len()));
    }
    let reader = &mut octets;
    let header = u64::decode(reader).ok().zip(u32::decode(reader).ok());
    if header != Some((MAGIC, FORMAT)) {
        return Err(KrlError::Format);
    }
    let (version, generated, _flags) = (number(reader)?, number(reader)?, number(reader)?);
    let generated = i64::try_from(generated).ok().filter(|seconds| *seconds <= MAX_SECONDS);
    let generated = generated.ok_or(KrlError::Malformed("its date cannot be expressed"))?;
    let _reserved = string(reader)?;
    let comment = text(string(reader)?)?;
    let mut krl = Krl::new(version, Timestamp::from_unix_seconds(generated), comment);
    let mut left = MAX_SERIALS;
    while !reader.is_empty() {
        let (kind, mut body) = section(reader)?;
        let body = &mut body;
        match kind {
            SECTION_CERTIFICATES => {
                let authority = string(body)?.to_vec();
                let _reserved = string(body)?;
                let revoked = krl.certificates.entry(authority).or_default();
                while !body.is_empty() {
                    let (kind, inner) = section(body)?;
                    certificates(revoked, kind, inner, &mut left)?;
                }
            }
            SECTION_KEYS => {
                while !body.is_empty() {
                    krl.keys.insert(string(body)?.to_vec());
                }
            }
            SECTION_FINGERPRINTS_SHA256 => {
                while !body.is_empty() {
                    let digest = string(body)?.try_into();
                    krl.fingerprints.insert(digest.map_err(|_| KrlError::Malformed("a SHA-256 has 32 octets"))?);
                }
            }
            unknown => return Err(KrlError::Section(unknown)),
        }
    }
    Ok(krl)
}

/// The year 9999.
const MAX_SECONDS: i64 = 253_402_300_799;

fn certificates(revoked: &mut Revoked, kind: u8, mut body: &[u8], left: &mut usize) -> Result<(), KrlError> {
    let body = &mut body;
    match kind {
        CERTIFICATES_SERIALS => {
            while !body.is_empty() {
                let serial = number(body)?;
                insert(revoked, serial, serial, left)?;
            }
        }
        CERTIFICATES_RANGE => {
            let (first, last) = (number(body)?, number(body)?);
            insert(revoked, first, last, left)?;
        }
        CERTIFICATES_BITMAP => {
            let first = number(body)?;
            let bits = Mpint::decode(body).map_err(|_| KrlError::Malformed("a bitmap is no number"))?;
            let bits = bits.as_positive_bytes().ok_or(KrlError::Malformed("a bitmap is no positive number"))?;
            for (at, octet) in (0_u64..).zip(bits.iter().rev()) {
                for bit in (0..8).filter(|bit| octet & (1 << bit) != 0) {
                    let serial = first.checked_add(at * 8 + bit).ok_or(KrlError::Malformed("a bitmap is too long"))?;
                    insert(revoked, serial, serial, left)?;
                }
            }
        }
        CERTIFICATES_KEY_IDS => {
            while !body.is_empty() {
                let key_id = text(string(body)?)?;
                if !(1..=MAX_KEY_ID).contains(&key_id.len()) {
                    return Err(KrlError::Malformed("a key id is empty or too long"));
                }
                revoked.key_ids.insert(key_id);
            }
        }
        unknown => return Err(KrlError::Section(unknown)),
    }
    if body.is_empty() { Ok(()) } else { Err(KrlError::Malformed("octets follow a section's content")) }
}

fn insert(revoked: &mut Revoked, first: u64, last: u64, left: &mut usize) -> Result<(), KrlError> {
    *left = left.checked_sub(1).ok_or(KrlError::TooMany)?;
    if first == 0 || first > last {
        return Err(KrlError::Malformed("a serial is zero, or a range is empty"));
    }
    revoked.serials.insert(first, last);
    Ok(())
}

fn section<'a>(reader: &mut &'a [u8]) -> Result<(u8, &'a [u8]), KrlError> {
    let kind = u8::decode(reader).map_err(|_| END)?;
    Ok((kind, string(reader)?))
}

fn number(reader: &mut &[u8]) -> Result<u64, KrlError> {
    u64::decode(reader).map_err(|_| END)
}

/// A string of RFC 4251 section 5, borrowed: its length is compared with what is there before anything is made of it.
fn string<'a>(reader: &mut &'a [u8]) -> Result<&'a [u8], KrlError> {
    let length = u32::decode(reader).ok().and_then(|length| usize::try_from(length).ok()).ok_or(END)?;
    let (octets, rest) = reader.split_at_checked(length).ok_or(END)?;
    *reader = rest;
    Ok(octets)
}

fn text(octets: &[u8]) -> Result<String, KrlError> {
    std::str::from_utf8(octets).map(ToOwned::to_owned).map_err(|_| KrlError::Malformed("a text is no UTF-8"))
}

const END: KrlError = KrlError::Malformed("it ends early");
