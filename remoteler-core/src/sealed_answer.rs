//! What a login through a browser answers with, so that nobody on the way reads it: HPKE in base mode (RFC 9180) with
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20Poly1305, put together from the primitives of ring. Owns the form of the sealed
//! octets; knows nothing of what is in them, and keeps no key.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    hkdf::{HKDF_SHA256, KeyType, Prk},
    hmac,
    rand::SystemRandom,
};
use zeroize::Zeroizing;

/// Why an answer cannot be sealed or opened. Nothing of its content is in the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedAnswerError {
    /// The other side's key is none.
    #[error("the key for the answer is no X25519 public key")]
    Key,
    /// It was sealed for another key or another login, or was changed on the way.
    #[error("the answer was not sealed for this login")]
    Unreadable,
    /// The system's generator failed.
    #[error("no key could be drawn")]
    Random,
}

/// The private half of the key that answers are sealed to. Drawn for one login, kept in memory only, used once.
pub struct AnswerKey {
    private: EphemeralPrivateKey,
    public: [u8; KEY],
}

/// A key for the one message that follows a sealed answer: both ends export it from the same exchange (RFC 9180 section 5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct FollowKey(Zeroizing<[u8; KEY]>);

const KEY: usize = 32;
const NONCE: usize = 12;
/// `kem_id` of DHKEM(X25519, HKDF-SHA256), as its suite.
const KEM_SUITE: &[u8] = b"KEM\x00\x20";
/// KEM, `kdf_id` of HKDF-SHA256 and `aead_id` of ChaCha20Poly1305.
const SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x03";
/// What the first message is for; the login's id follows.
const INFO: &[u8] = b"remoteler login answer v1\0";
/// What the key of the second message is exported for.
const FOLLOW: &[u8] = b"remoteler login certificates v1";

impl AnswerKey {
    /// Draws one.
    ///
    /// # Errors
    /// [`SealedAnswerError::Random`]
    pub fn generate() -> Result<Self, SealedAnswerError> {
        let private =
            EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| SealedAnswerError::Random)?;
        let public = private.compute_public_key().map_err(|_| SealedAnswerError::Random)?;
        let public = public.as_ref().try_into().map_err(|_| SealedAnswerError::Random)?;
        Ok(Self { private, public })
    }

    /// The public half, as a login carries it: 32 octets in base64url.
    #[must_use]
    pub fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.public)
    }

    /// Opens what was sealed for `login`, and the key of the message that follows.
    ///
    /// # Errors
    /// [`SealedAnswerError::Unreadable`]
    pub fn open(self, login: &str, sealed: &str) -> Result<(Zeroizing<Vec<u8>>, FollowKey), SealedAnswerError> {
        let octets = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| SealedAnswerError::Unreadable)?;
        let Some((enc, ciphertext)) = octets.split_first_chunk::<KEY>() else {
            return Err(SealedAnswerError::Unreadable);
        };
        let shared = agree_ephemeral(self.private, &UnparsedPublicKey::new(&X25519, enc), |dh| {
            shared_secret(dh, enc, &self.public)
        })
        .map_err(|_| SealedAnswerError::Unreadable)?;
        let schedule = Schedule::new(&shared, &info(login));
        let text = schedule.open(ciphertext).ok_or(SealedAnswerError::Unreadable)?;
        Ok((text, schedule.export(FOLLOW)))
    }
}

impl std::fmt::Debug for AnswerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

/// Whether `key` can be sealed to, as far as its form tells.
#[must_use]
pub fn is_answer_key(key: &str) -> bool {
    URL_SAFE_NO_PAD.decode(key).is_ok_and(|octets| octets.len() == KEY)
}

/// Seals `text` for the holder of `key` and for `login`: base64url of the ephemeral public key and the ciphertext.
///
/// # Errors
/// [`SealedAnswerError::Key`], [`SealedAnswerError::Random`]
pub fn seal_answer(key: &str, login: &str, text: &[u8]) -> Result<(String, FollowKey), SealedAnswerError> {
    let public = URL_SAFE_NO_PAD.decode(key).map_err(|_| SealedAnswerError::Key)?;
    let public: [u8; KEY] = public.try_into().map_err(|_| SealedAnswerError::Key)?;
    let mine = AnswerKey::generate()?;
    let enc = mine.public;
    let shared =
        agree_ephemeral(mine.private, &UnparsedPublicKey::new(&X25519, public), |dh| shared_secret(dh, &enc, &public))
            .map_err(|_| SealedAnswerError::Key)?;
    let schedule = Schedule::new(&shared, &info(login));
    let mut octets = enc.to_vec();
    octets.extend(schedule.seal(text).ok_or(SealedAnswerError::Random)?);
    Ok((URL_SAFE_NO_PAD.encode(octets), schedule.export(FOLLOW)))
}

impl FollowKey {
    /// Seals the one message that this key is for.
    ///
    /// # Errors
    /// [`SealedAnswerError::Random`] when the text is longer than the algorithm takes.
    pub fn seal(&self, text: &[u8]) -> Result<String, SealedAnswerError> {
        let sealed = seal(&self.0, &[0; NONCE], b"", text).ok_or(SealedAnswerError::Random)?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`SealedAnswerError::Unreadable`]
    pub fn open(&self, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealedAnswerError> {
        let octets = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| SealedAnswerError::Unreadable)?;
        open(&self.0, &[0; NONCE], b"", &octets).ok_or(SealedAnswerError::Unreadable)
    }

    /// As it is kept until the message is sent.
    #[must_use]
    pub fn to_text(&self) -> crate::Secret {
        crate::Secret::new(URL_SAFE_NO_PAD.encode(*self.0))
    }

    /// What [`FollowKey::to_text`] gave.
    #[must_use]
    pub fn from_text(text: &crate::Secret) -> Option<Self> {
        let octets: [u8; KEY] = URL_SAFE_NO_PAD.decode(text.reveal()).ok()?.try_into().ok()?;
        Some(Self(Zeroizing::new(octets)))
    }
}

impl std::fmt::Debug for FollowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FollowKey(***)")
    }
}

fn info(login: &str) -> Vec<u8> {
    [INFO, login.as_bytes()].concat()
}

/// The key schedule in base mode (RFC 9180 section 5.1).
struct Schedule {
    key: Zeroizing<[u8; KEY]>,
    base_nonce: [u8; NONCE],
    exporter: Zeroizing<[u8; KEY]>,
}

impl Schedule {
    fn new(shared: &[u8; KEY], info: &[u8]) -> Self {
        let psk_id_hash = extract(SUITE, b"", b"psk_id_hash", b"");
        let info_hash = extract(SUITE, b"", b"info_hash", info);
        let context = [&[0][..], &psk_id_hash[..], &info_hash[..]].concat();
        let secret = extract(SUITE, shared, b"secret", b"");
        Self {
            key: Zeroizing::new(expand(SUITE, &secret, b"key", &context)),
            base_nonce: expand(SUITE, &secret, b"base_nonce", &context),
            exporter: Zeroizing::new(expand(SUITE, &secret, b"exp", &context)),
        }
    }

    /// The first message; the nonce of sequence number 0 is the base nonce itself.
    fn seal(&self, text: &[u8]) -> Option<Vec<u8>> {
        seal(&self.key, &self.base_nonce, b"", text)
    }

    fn open(&self, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        open(&self.key, &self.base_nonce, b"", ciphertext)
    }

    fn export(&self, context: &[u8]) -> FollowKey {
        FollowKey(Zeroizing::new(expand(SUITE, &self.exporter, b"sec", context)))
    }
}

/// `ExtractAndExpand` (RFC 9180 section 4.1).
fn shared_secret(dh: &[u8], enc: &[u8], recipient: &[u8]) -> Zeroizing<[u8; KEY]> {
    let prk = extract(KEM_SUITE, b"", b"eae_prk", dh);
    Zeroizing::new(expand(KEM_SUITE, &prk, b"shared_secret", &[enc, recipient].concat()))
}

/// `LabeledExtract` (section 4): HKDF's extraction is an HMAC (RFC 5869 section 2.2), and its result is needed as octets.
fn extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> Zeroizing<[u8; KEY]> {
    let mut octets = Zeroizing::new([0; KEY]);
    let labeled = Zeroizing::new([b"HPKE-v1", suite, label, ikm].concat());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), &labeled);
    octets.copy_from_slice(tag.as_ref());
    octets
}

/// `LabeledExpand` (section 4).
fn expand<const N: usize>(suite: &[u8], prk: &[u8; KEY], label: &[u8], info: &[u8]) -> [u8; N] {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut octets = [0; N];
    let length = u16::try_from(N).unwrap_or(u16::MAX).to_be_bytes();
    let parts = [&length[..], b"HPKE-v1", suite, label, info];
    let prk = Prk::new_less_safe(HKDF_SHA256, prk);
    prk.expand(&parts, Length(N))
        .and_then(|okm| okm.fill(&mut octets))
        .expect("32 octets and fewer are one block of HKDF-SHA256");
    octets
}

fn cipher(key: &[u8; KEY]) -> Option<LessSafeKey> {
    Some(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?))
}

fn seal(key: &[u8; KEY], nonce: &[u8; NONCE], aad: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let mut octets = text.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    cipher(key)?.seal_in_place_append_tag(nonce, Aad::from(aad), &mut octets).ok()?;
    Some(octets)
}

fn open(key: &[u8; KEY], nonce: &[u8; NONCE], aad: &[u8], ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut octets = Zeroizing::new(ciphertext.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = cipher(key)?.open_in_place(nonce, Aad::from(aad), &mut octets).ok()?.len();
    octets.truncate(length);
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_key_schedule_is_that_of_rfc_9180_appendix_a_2_1() {
        let shared: [u8; 32] =
            octets("0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7").try_into().unwrap();
        let schedule = Schedule::new(&shared, &octets("4f6465206f6e2061204772656369616e2055726e"));
        assert_eq!(schedule.key[..], octets("ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91")[..]);
        assert_eq!(schedule.base_nonce[..], octets("5c4d98150661b848853b547f")[..]);
        let text = b"Beauty is truth, truth beauty";
        let sealed = seal(&schedule.key, &schedule.base_nonce, b"Count-0", text).unwrap();
        let expected = "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28";
        assert_eq!(sealed, octets(expected));
        assert_eq!(open(&schedule.key, &schedule.base_nonce, b"Count-0", &sealed).unwrap()[..], text[..]);
        assert_eq!(
            schedule.export(b"").0[..],
            octets("4bbd6243b8bb54cec311fac9df81841b6fd61f56538a775e7c80a9f40160606e")[..]
        );
    }

    #[test]
    fn only_the_holder_of_the_key_opens_an_answer_and_only_for_its_login() {
        // I41
        let (mine, other) = (AnswerKey::generate().unwrap(), AnswerKey::generate().unwrap());
        let (sealed, follow) = seal_answer(&mine.public(), "login-1", b"grant").unwrap();
        assert_eq!(other.open("login-1", &sealed).unwrap_err(), SealedAnswerError::Unreadable);
        let (text, mine_follow) = mine.open("login-1", &sealed).unwrap();
        assert_eq!(&text[..], b"grant");
        assert_eq!(&mine_follow.open(&follow.seal(b"certificates").unwrap()).unwrap()[..], b"certificates");
        assert_eq!(FollowKey::from_text(&follow.to_text()), Some(follow));

        let mine = AnswerKey::generate().unwrap();
        let (sealed, _) = seal_answer(&mine.public(), "login-1", b"grant").unwrap();
        assert_eq!(mine.open("login-2", &sealed).unwrap_err(), SealedAnswerError::Unreadable);
    }

    #[test]
    fn an_answer_that_was_changed_or_cut_is_not_opened_and_a_wrong_key_is_not_sealed_to() {
        for (at, flip) in [(0, 1_u8), (40, 1), (usize::MAX, 0)] {
            let mine = AnswerKey::generate().unwrap();
            let (sealed, _) = seal_answer(&mine.public(), "l", b"a long enough grant").unwrap();
            let mut octets = URL_SAFE_NO_PAD.decode(sealed).unwrap();
            match octets.get_mut(at) {
                Some(octet) => *octet ^= flip,
                None => octets.truncate(20),
            }
            assert!(mine.open("l", &URL_SAFE_NO_PAD.encode(octets)).is_err());
        }
        let zero = URL_SAFE_NO_PAD.encode([0; 32]);
        for wrong in ["", "x", "AAAA", &zero] {
            assert_eq!(seal_answer(wrong, "l", b"x").unwrap_err(), SealedAnswerError::Key, "{wrong}");
        }
    }
}
