//! Makes RSA keys and opens what is encrypted for them, which ring cannot. Owns every use of the `rsa` crate's private keys.
//!
//! The crate's private-key operations leak through their time (RUSTSEC-2023-0071, "Marvin"), to whoever can have it decrypt or sign at will.
//! Nobody can here: every signature is made by ring, and the one key that decrypts, [`Opener`], is shown only what a signature of an identity
//! provider of ours covers (`SamlDecrypter`), so that no stranger chooses what it works on. It is blinded all the same.

use remoteler_core::{OsEntropy, fill_random};
use rsa::{
    Oaep, RsaPrivateKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey},
    rand_core::{Infallible, TryCryptoRng, TryRng},
};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Size of the modulus of a new key. NIST SP 800-57 part 1 puts 3072 bits beside P-256.
pub(crate) const RSA_BITS: usize = 3072;

/// A new key as PKCS#8, with the exponent 65537; `None` when none was found.
pub(crate) fn generate() -> Option<Zeroizing<Vec<u8>>> {
    let key = RsaPrivateKey::new(&mut SystemGenerator, RSA_BITS).ok()?;
    let document = key.to_pkcs8_der().ok()?;
    Some(Zeroizing::new(document.as_bytes().to_vec()))
}

/// The two digests of RSA-OAEP (RFC 8017 section 7.1): of its label, and of its mask (MGF1). OAEP asks neither to be free of collisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OaepDigests {
    /// SHA-1 for both.
    Sha1,
    /// SHA-256, and SHA-1 in the mask.
    Sha256MaskSha1,
    /// SHA-256 for both.
    Sha256,
}

/// A private key that opens short secrets that were encrypted for it.
pub(crate) struct Opener(RsaPrivateKey);

impl Opener {
    /// Reads what [`generate`] returned.
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        RsaPrivateKey::from_pkcs8_der(pkcs8).ok().map(Self)
    }

    /// What `sealed` holds, by RSA-OAEP with an empty label; `None` when it does not open.
    pub(crate) fn open(&self, digests: OaepDigests, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (key, random) = (&self.0, &mut SystemGenerator);
        let opened = match digests {
            OaepDigests::Sha1 => key.decrypt_blinded(random, Oaep::<Sha1>::new(), sealed),
            OaepDigests::Sha256MaskSha1 => {
                key.decrypt_blinded(random, Oaep::<Sha256, Sha1>::new_with_mgf_hash(), sealed)
            }
            OaepDigests::Sha256 => key.decrypt_blinded(random, Oaep::<Sha256>::new(), sealed),
        };
        opened.ok().map(Zeroizing::new)
    }
}

/// The operating system's generator (I7), as the crate takes one; where it fails, nothing secure can be done from then on.
pub(crate) struct SystemGenerator;

impl TryRng for SystemGenerator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_ne_bytes(fill_random(&OsEntropy)))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_ne_bytes(fill_random(&OsEntropy)))
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Infallible> {
        for chunk in octets.chunks_mut(64) {
            let drawn = Zeroizing::new(fill_random::<64>(&OsEntropy));
            for (octet, drawn) in chunk.iter_mut().zip(drawn.iter()) {
                *octet = *drawn;
            }
        }
        Ok(())
    }
}

impl TryCryptoRng for SystemGenerator {}
