//! Secrets that we hand out: how they are drawn, what they look like and what is kept of them.

use remoteler_core::{Entropy, Secret, fill_random};
use ring::digest::{SHA256, digest};

/// Hex digits of a secret.
const DIGITS: usize = 64;

/// 256 random bits in hex.
pub(crate) fn draw(entropy: &dyn Entropy) -> Secret {
    let octets: [u8; 32] = fill_random(entropy);
    Secret::new(hex(&octets))
}

/// What is stored instead of the secret: the hex of its SHA-256. No slow hash, because the secret is random; and looked up by
/// the hash, so that timing tells nothing of the secret (I35).
pub(crate) fn hash(secret: &Secret) -> String {
    hex(digest(&SHA256, secret.reveal().as_bytes()).as_ref())
}

/// Whether a text has the form of what [`draw`] gives.
pub(crate) fn is_drawn(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|octet| octet.is_ascii_hexdigit())
}

/// Two small letters or digits for each octet.
pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
