//! Writes a list: serials in whichever of the three forms is shortest.

use remoteler_core::Timestamp;
use ssh_key::encoding::Encode;
use ssh_key::encoding::Mpint;

use super::{
    CERTIFICATES_BITMAP, CERTIFICATES_KEY_IDS, CERTIFICATES_RANGE, CERTIFICATES_SERIALS, FORMAT, Krl, MAGIC, Revoked,
    SECTION_CERTIFICATES, SECTION_FINGERPRINTS_SHA256, SECTION_KEYS, Serials,
};

pub(super) fn list(krl: &Krl) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(MAGIC.to_be_bytes());
    out.extend(FORMAT.to_be_bytes());
    out.extend(krl.version.to_be_bytes());
    out.extend(seconds(krl.generated).to_be_bytes());
    out.extend(0_u64.to_be_bytes()); // flags: none are defined
    string(&mut out, b""); // reserved
    string(&mut out, krl.comment.as_bytes());
    for (authority, revoked) in &krl.certificates {
        let mut body = Vec::new();
        string(&mut body, authority);
        string(&mut body, b""); // reserved
        certificates(&mut body, revoked);
        section(&mut out, SECTION_CERTIFICATES, &body);
    }
    if !krl.keys.is_empty() {
        section(&mut out, SECTION_KEYS, &strings(krl.keys.iter().map(Vec::as_slice)));
    }
    if !krl.fingerprints.is_empty() {
        section(&mut out, SECTION_FINGERPRINTS_SHA256, &strings(krl.fingerprints.iter().map(<[u8; 32]>::as_slice)));
    }
    out
}

fn certificates(out: &mut Vec<u8>, revoked: &Revoked) {
    let mut singles = Vec::new();
    for run in runs(&revoked.serials) {
        match run {
            Run::Bitmap { first, bits } => {
                let mut body = first.to_be_bytes().to_vec();
                let bits = Mpint::from_positive_bytes(&bits);
                string(&mut body, bits.as_bytes());
                section(out, CERTIFICATES_BITMAP, &body);
            }
            Run::Range(first, last) => {
                section(out, CERTIFICATES_RANGE, &[first.to_be_bytes(), last.to_be_bytes()].concat());
            }
            Run::Singles(first, last) => singles.extend((first..=last).flat_map(u64::to_be_bytes)),
        }
    }
    if !singles.is_empty() {
        section(out, CERTIFICATES_SERIALS, &singles);
    }
    if !revoked.key_ids.is_empty() {
        section(out, CERTIFICATES_KEY_IDS, &strings(revoked.key_ids.iter().map(String::as_bytes)));
    }
}

/// Serials in one of the three forms.
enum Run {
    /// Most significant octet first; the last bit is `first`.
    Bitmap {
        first: u64,
        bits: Vec<u8>,
    },
    Range(u64, u64),
    Singles(u64, u64),
}

/// Serials that stand close together go into a bitmap where that is shorter, long ranges into two numbers, the rest into the list.
fn runs(serials: &Serials) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut close: Vec<(u64, u64)> = Vec::new();
    for (first, last) in serials.ranges() {
        if close.last().is_some_and(|(_, end)| first - end > MAX_GAP)
            || close.first().is_some_and(|(start, _)| last - start >= MAX_BITMAP)
        {
            finish(&mut runs, &mut close);
        }
        close.push((first, last));
    }
    finish(&mut runs, &mut close);
    runs
}

/// A gap of more bits than a serial in the list has is not worth bridging.
const MAX_GAP: u64 = 64;
/// Longest bitmap written, in bits; OpenSSH reads up to 2^24.
const MAX_BITMAP: u64 = 32 * 1024;
/// Type, length, and the two numbers.
const RANGE_OCTETS: u64 = 1 + 4 + 16;
/// Type, length, offset, length of the number and a leading zero.
const BITMAP_OCTETS: u64 = 1 + 4 + 8 + 4 + 1;
/// Up to so many serials in a row, the list is shorter than a range.
const MAX_SINGLES: u64 = RANGE_OCTETS / 8;

fn finish(runs: &mut Vec<Run>, close: &mut Vec<(u64, u64)>) {
    let ranges = std::mem::take(close);
    let (Some((start, _)), Some((_, end))) = (ranges.first().copied(), ranges.last().copied()) else { return };
    // A range may be of all serials there are: its length less one does not overflow.
    let is_short = |first: u64, last: u64| last - first < MAX_SINGLES;
    let apart: u64 = ranges
        .iter()
        .map(|(first, last)| if is_short(*first, *last) { (last - first + 1) * 8 } else { RANGE_OCTETS })
        .fold(0, u64::saturating_add);
    let span = end - start;
    if ranges.len() > 1 && span < MAX_BITMAP && BITMAP_OCTETS + span / 8 + 1 < apart {
        let octets = usize::try_from(span / 8 + 1).unwrap_or(usize::MAX);
        let mut bits = vec![0_u8; octets];
        for serial in ranges.iter().flat_map(|(first, last)| *first..=*last) {
            let bit = serial - start;
            let from_end = usize::try_from(bit / 8).unwrap_or(usize::MAX);
            if let Some(octet) = octets.checked_sub(1 + from_end).and_then(|at| bits.get_mut(at)) {
                *octet |= 1 << (bit % 8);
            }
        }
        runs.push(Run::Bitmap { first: start, bits });
        return;
    }
    for (first, last) in ranges {
        runs.push(if is_short(first, last) { Run::Singles(first, last) } else { Run::Range(first, last) });
    }
}

fn section(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    string(out, body);
}

fn strings<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        string(&mut out, part);
    }
    out
}

/// A string of RFC 4251 section 5. A list in memory never has parts of 4 GiB.
fn string(out: &mut Vec<u8>, octets: &[u8]) {
    octets.encode(out).expect("a part of a list is shorter than 4 GiB");
}

fn seconds(moment: Timestamp) -> u64 {
    moment.unix_seconds_unsigned()
}
