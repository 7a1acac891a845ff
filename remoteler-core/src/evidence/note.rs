//! Signed notes: a few lines of text with Ed25519 signatures below (C2SP signed-note). Owns the form of notes and of public keys; the
//! private key is the caller's.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};

/// Longest note that is read, in octets.
const MAX_NOTE: usize = 64 * 1024;
/// Most signatures below a note.
const MAX_SIGNATURES: usize = 16;
/// Ed25519, as a note's key says it.
const ALGORITHM: u8 = 1;
/// What begins the line of a signature.
const DASH: &str = "\u{2014} ";

/// Why a note or its key is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not a note.
    #[error("no signed note: {0}")]
    Malformed(&'static str),
    /// Not a public key of notes.
    #[error("no key of an audit log: NAME+8 hex digits+base64 is expected, as tctl auth export --type audit prints it")]
    NoKey,
    /// None of the signatures is by a key that is believed.
    #[error("the note is not signed by {0}")]
    NotSigned(String),
    /// One that should be is wrong.
    #[error("the signature of {0} is wrong: the note was changed after it was signed")]
    WrongSignature(String),
}

/// The public key of a log: a name, and an Ed25519 key. As text `NAME+KEYID+BASE64` (C2SP signed-note, verifier keys).
#[derive(Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    public: [u8; 32],
}

impl NoteKey {
    /// The key `public` of `name`, which has neither spaces nor `+`.
    ///
    /// # Errors
    /// [`NoteError::NoKey`] for another name, or octets that are not 32.
    pub fn new(name: impl Into<String>, public: &[u8]) -> Result<Self, NoteError> {
        let name = name.into();
        let public = public.try_into().map_err(|_| NoteError::NoKey)?;
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
            return Err(NoteError::NoKey);
        }
        Ok(Self { name, public })
    }

    /// Whose.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four octets of SHA-256 over name, newline, algorithm and key.
    fn id(&self) -> [u8; 4] {
        let mut input = self.name.clone().into_bytes();
        input.extend([b'\n', ALGORITHM]);
        input.extend(self.public);
        let hash = digest(&SHA256, &input);
        let mut id = [0; 4];
        id.copy_from_slice(hash.as_ref().get(..4).unwrap_or(&[0; 4]));
        id
    }

    fn believes(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(text.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ALGORITHM];
        key.extend(self.public);
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), STANDARD.encode(key))
    }
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::NoKey);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::NoKey)?;
        let [ALGORITHM, public @ ..] = key.as_slice() else { return Err(NoteError::NoKey) };
        let key = Self::new(name, public)?;
        // The id too: a key that was mistyped is not another key.
        if key.to_string() == text.trim() { Ok(key) } else { Err(NoteError::NoKey) }
    }
}

/// `text`, which ends in a newline and has no empty line, with a signature by `key`; `sign` signs octets with its private half.
///
/// # Errors
/// Those of `sign`.
pub fn sign_note<E>(text: &str, key: &NoteKey, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<String, E> {
    let mut signature = key.id().to_vec();
    signature.extend(sign(text.as_bytes())?);
    Ok(format!("{text}\n{DASH}{} {}\n", key.name, STANDARD.encode(signature)))
}

/// The text of a note that one of `keys` signed.
///
/// # Errors
/// [`NoteError`]; then nothing of the note is to be believed.
pub fn open_note<'a>(note: &'a str, keys: &[NoteKey]) -> Result<&'a str, NoteError> {
    if note.len() > MAX_NOTE {
        return Err(NoteError::Malformed("it is too long"));
    }
    let Some(end) = note.find("\n\n") else { return Err(NoteError::Malformed("no signature follows its text")) };
    let (text, signatures) = (&note[..=end], &note[end + 2..]);
    if !signatures.ends_with('\n') {
        return Err(NoteError::Malformed("its last line has no end"));
    }
    let mut believed = false;
    for (count, line) in signatures.lines().enumerate() {
        let signed = line.strip_prefix(DASH).and_then(|line| line.split_once(' '));
        let Some((name, signature)) = signed.filter(|_| count < MAX_SIGNATURES) else {
            return Err(NoteError::Malformed("a line below its text is no signature"));
        };
        let signature = STANDARD.decode(signature).map_err(|_| NoteError::Malformed("a signature is not base64"))?;
        let Some((id, signature)) = signature.split_at_checked(4) else {
            return Err(NoteError::Malformed("a signature is too short"));
        };
        for key in keys.iter().filter(|key| key.name == name && key.id() == id) {
            if !key.believes(text, signature) {
                return Err(NoteError::WrongSignature(name.to_owned()));
            }
            believed = true;
        }
    }
    if believed {
        return Ok(text);
    }
    let names: Vec<_> = keys.iter().map(ToString::to_string).collect();
    Err(NoteError::NotSigned(names.join(" or ")))
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    fn key(name: &str, seed: u8) -> (NoteKey, Ed25519KeyPair) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        (NoteKey::new(name, pair.public_key().as_ref()).unwrap(), pair)
    }

    fn signed(text: &str, key: &(NoteKey, Ed25519KeyPair)) -> String {
        sign_note(text, &key.0, |octets| Ok::<_, ()>(key.1.sign(octets).as_ref().to_vec())).unwrap()
    }

    /// The example of golang.org/x/mod/sumdb/note, which made the format.
    #[test]
    fn the_published_example_is_believed() {
        let key: NoteKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let note = format!(
            "{text}\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        assert_eq!(open_note(&note, &[key]), Ok(text));
    }

    #[test]
    fn a_note_that_was_changed_anywhere_is_not_believed() {
        let signer = key("log.example", 1);
        let note = signed("log.example\n7\n", &signer);
        assert_eq!(open_note(&note, std::slice::from_ref(&signer.0)), Ok("log.example\n7\n"));
        for at in 0..note.len() {
            let mut octets = note.clone().into_bytes();
            octets[at] ^= 1;
            let Ok(changed) = String::from_utf8(octets) else { continue };
            assert!(open_note(&changed, std::slice::from_ref(&signer.0)).is_err(), "octet {at}"); // I75
            if let Some(cut) = note.get(..at) {
                assert!(open_note(cut, std::slice::from_ref(&signer.0)).is_err());
            }
        }
    }

    #[test]
    fn the_signature_of_another_is_no_signature() {
        let (ours, theirs) = (key("log.example", 1), key("log.example", 2));
        let refusal = open_note(&signed("a\n", &theirs), std::slice::from_ref(&ours.0)).unwrap_err();
        assert!(matches!(refusal, NoteError::NotSigned(_)), "{refusal}");
        assert!(open_note(&signed("a\n", &theirs), &[ours.0, theirs.0]).is_ok());
    }

    #[test]
    fn a_key_reads_back_and_a_mistyped_one_is_none() {
        let (key, _) = key("remoteler.dev/audit/root", 3);
        let text = key.to_string();
        assert_eq!(text.parse::<NoteKey>().unwrap(), key);
        for at in 0..text.len() {
            let mut octets = text.clone().into_bytes();
            octets[at] = if octets[at] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(octets).unwrap();
            assert_eq!(changed.parse::<NoteKey>(), Err(NoteError::NoKey), "{changed}");
        }
    }
}
