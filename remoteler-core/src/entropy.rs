//! Randomness as an injected source. [`OsEntropy`] is the only one used outside tests.

use ring::rand::{SecureRandom, SystemRandom};

/// Gives unpredictable octets.
pub trait Entropy: Send + Sync {
    /// Fills `buffer`. `false` when the source failed; then nothing may be made of the buffer.
    fn fill(&self, buffer: &mut [u8]) -> bool;
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) -> bool {
        SystemRandom::new().fill(buffer).is_ok()
    }
}

/// `N` random octets.
///
/// # Panics
/// When the operating system's generator fails: nothing secure can be done from then on.
#[must_use]
pub fn fill_random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut octets = [0; N];
    assert!(entropy.fill(&mut octets), "the system's random generator failed");
    octets
}

/// A random UUID (version 4).
#[must_use]
pub fn random_uuid(entropy: &dyn Entropy) -> uuid::Uuid {
    uuid::Builder::from_random_bytes(fill_random(entropy)).into_uuid()
}
