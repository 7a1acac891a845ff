//! One-time codes by time (RFC 6238: HMAC-SHA-1, 30 s, 6 digits, as every authenticator app makes them). Owns the arithmetic and the form of a secret;
//! `now` comes in, and that a code counts once, its caller sees to.

use data_encoding::BASE32_NOPAD;
use remoteler_core::{Entropy, Secret, Timestamp, fill_random, wire::segment};
use ring::hmac;
use zeroize::Zeroizing;

/// Seconds for which a code is shown.
const PERIOD: u64 = 30;
/// Codes before and after the one of now that are taken too: clocks of telephones are not exact.
const WINDOW: u64 = 1;
/// Digits of a code.
const DIGITS: usize = 6;

/// A new secret of 160 bits in base32, as RFC 4226 section 4 recommends.
pub(crate) fn draw(entropy: &dyn Entropy) -> Secret {
    let octets: Zeroizing<[u8; 20]> = Zeroizing::new(fill_random(entropy));
    Secret::new(BASE32_NOPAD.encode(&*octets))
}

/// What apps read from a QR code.
pub(crate) fn uri(cluster: &str, user: &str, secret: &Secret) -> Secret {
    let issuer = segment(&format!("Remoteler {cluster}"));
    let user = segment(user);
    let secret = secret.reveal();
    Secret::new(format!(
        "otpauth://totp/{issuer}:{user}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={PERIOD}"
    ))
}

/// The step whose code was typed, if it is near `now` and later than `last`: a code is taken once, and none before it any more (RFC 6238 section 5.2).
pub(crate) fn step_of(secret: &Secret, typed: &str, now: Timestamp, last: u64) -> Option<u64> {
    let key = Zeroizing::new(BASE32_NOPAD.decode(secret.reveal().as_bytes()).ok()?);
    let typed = digits(typed)?;
    let current = now.unix_seconds_unsigned() / PERIOD;
    let near = current.saturating_sub(WINDOW)..=current.saturating_add(WINDOW);
    // All are computed, so that time tells nothing of which it was.
    near.fold(None, |found, step| {
        let right = code(&key, step) == typed && step > last;
        if right { Some(step) } else { found }
    })
}

/// HOTP (RFC 4226 section 5.3).
fn code(key: &[u8], step: u64) -> u32 {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag.last().copied().unwrap_or_default() & 0xf);
    let word = tag.get(offset..offset + 4).and_then(|word| <[u8; 4]>::try_from(word).ok()).unwrap_or_default();
    (u32::from_be_bytes(word) & 0x7fff_ffff) % 1_000_000
}

fn digits(typed: &str) -> Option<u32> {
    let digits: String = typed.chars().filter(|c| !c.is_whitespace()).collect();
    let whole = digits.len() == DIGITS && digits.bytes().all(|octet| octet.is_ascii_digit());
    if whole { digits.parse().ok() } else { None }
}

#[cfg(test)]
pub(crate) fn code_at(secret: &Secret, now: Timestamp) -> String {
    let key = BASE32_NOPAD.decode(secret.reveal().as_bytes()).unwrap();
    format!("{:06}", code(&key, now.unix_seconds_unsigned() / PERIOD))
}

#[cfg(test)]
mod tests {
    use remoteler_core::OsEntropy;

    use super::*;

    /// The key of RFC 6238 appendix B.
    const KEY: &[u8] = b"12345678901234567890";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        // Appendix B, the last six of its eight digits.
        for (seconds, digits) in [
            (59, 287_082),
            (1_111_111_109, 81_804),
            (1_111_111_111, 50_471),
            (1_234_567_890, 5_924),
            (2_000_000_000, 279_037),
            (20_000_000_000, 353_130),
        ] {
            assert_eq!(code(KEY, seconds / PERIOD), digits, "{seconds}");
        }
    }

    #[test]
    fn a_code_counts_near_its_time_and_once() {
        let secret = Secret::new(BASE32_NOPAD.encode(KEY));
        let typed = code_at(&secret, at(600));
        for (now, taken) in [(569, false), (570, true), (600, true), (659, true), (660, false)] {
            assert_eq!(step_of(&secret, &typed, at(now), 0).is_some(), taken, "{now}"); // I48
        }
        let step = step_of(&secret, &typed, at(600), 0).unwrap();
        assert_eq!(step_of(&secret, &typed, at(601), step), None); // I48
        let next = code_at(&secret, at(630));
        assert_eq!(step_of(&secret, &next, at(601), step), Some(step + 1));
        assert_eq!(step_of(&secret, &typed, at(601), step + 1), None, "none before it any more");
    }

    #[test]
    fn what_is_no_code_is_none() {
        let secret = draw(&OsEntropy);
        assert_eq!(secret.reveal().len(), 32);
        let right = code_at(&secret, at(600));
        let spaced = format!("{} {}", &right[..3], &right[3..]);
        assert!(step_of(&secret, &spaced, at(600), 0).is_some());
        for wrong in ["", "12345", "1234567", "+12345", "abcdef", "１２３４５６", &format!("{right}0")] {
            assert_eq!(step_of(&secret, wrong, at(600), 0), None, "{wrong}");
        }
        assert_eq!(step_of(&Secret::new("not base32"), &right, at(600), 0), None);
        assert_eq!(step_of(&secret, &right, at(-5), u64::MAX), None);
    }

    #[test]
    fn a_uri_keeps_names_apart() {
        let uri = uri("root", "ann@example.com:&x", &Secret::new("ABC"));
        let expected = "otpauth://totp/Remoteler%20root:ann%40example.com%3A%26x?secret=ABC&issuer=Remoteler%20root&algorithm=SHA1&digits=6&period=30";
        assert_eq!(uri.reveal(), expected);
    }
}
