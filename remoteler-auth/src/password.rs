//! Password hashes: argon2id with OWASP's parameters (19 MiB, 2 passes, 1 lane), off the async threads, and only so many at once.
//! A check costs the same whether there is a password or not.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version, password_hash::SaltString,
};
use remoteler_core::{Entropy, Secret, fill_random};
use tokio::sync::Semaphore;
use zxcvbn::{Score, zxcvbn};

use crate::BreachedPasswords;

/// Shortest password set, in characters.
const MIN_CHARS: usize = 8;
/// Longest password set or checked, in octets.
const MAX_OCTETS: usize = 1024;
/// Checks that wait at the most; each running one takes 19 MiB.
const MAX_WAITING: usize = 256;

/// Why a password was not set or checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Too short.
    #[error("a password has at least {MIN_CHARS} characters")]
    TooShort,
    /// Too long.
    #[error("a password has at most {MAX_OCTETS} octets")]
    TooLong,
    /// A control character, which cannot be typed at every prompt.
    #[error("a password has no control characters")]
    ControlCharacter,
    /// Among the first that somebody tries who guesses.
    #[error("the password is easy to guess{advice}; take several words that do not belong together")]
    Guessable {
        /// What makes it so, if that is known.
        advice: String,
    },
    /// It was stolen from somebody, somewhere.
    #[error("the password is in a list of stolen passwords, which attackers try first; take another one")]
    Breached,
    /// The list of stolen passwords cannot be asked.
    #[error("the list of breached passwords cannot be read, so no password can be set; ask an administrator")]
    List(#[source] std::io::Error),
    /// Too many checks wait already.
    #[error("too many logins at once; try again in a moment")]
    Busy,
    /// The hash function or its thread failed.
    #[error("the password could not be hashed")]
    Hash(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Hashes and checks.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Hash of nothing that anybody knows; what unknown users are checked against.
    decoy: Arc<str>,
    breached: Option<BreachedPasswords>,
    /// With which parameters passwords were hashed to be checked, in order.
    #[cfg(test)]
    work: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Passwords {
    /// Draws a decoy. `parallel` checks run at once.
    pub(crate) fn new(parallel: usize, entropy: &dyn Entropy) -> Result<Self, PasswordError> {
        let octets: [u8; 32] = fill_random(entropy);
        let decoy = hash(&octets, fill_random(entropy))?;
        Ok(Self {
            running: Arc::new(Semaphore::new(parallel.max(1))),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            decoy: decoy.into(),
            breached: None,
            #[cfg(test)]
            work: Arc::default(),
        })
    }

    /// The same, refusing what is in this list.
    pub(crate) fn refusing(self, breached: Option<BreachedPasswords>) -> Self {
        Self { breached, ..self }
    }

    /// The hash of a password that may be set, in PHC string format.
    /// `about` are words that whoever guesses tries first: names of the user and the cluster.
    pub(crate) async fn hash(
        &self,
        password: Secret,
        about: &[&str],
        entropy: &dyn Entropy,
    ) -> Result<String, PasswordError> {
        check(password.reveal())?;
        let about: Vec<String> = about.iter().map(|word| (*word).to_owned()).collect();
        let salt: [u8; 16] = fill_random(entropy);
        let breached = self.breached.clone();
        self.run(move || {
            let about: Vec<&str> = about.iter().map(String::as_str).collect();
            check_strength(password.reveal(), &about)?;
            // Fails closed: a list that the operator wants and that is not there is none that was asked.
            if let Some(list) = breached
                && list.contains(password.reveal()).map_err(PasswordError::List)?
            {
                return Err(PasswordError::Breached);
            }
            hash(password.reveal().as_bytes(), salt)
        })
        .await?
    }

    /// Whether `password` belongs to `stored`. Without `stored` the answer is no, after the same work.
    pub(crate) async fn verify(&self, password: Secret, stored: Option<String>) -> Result<bool, PasswordError> {
        let decoy = Arc::clone(&self.decoy);
        let too_long = password.reveal().len() > MAX_OCTETS;
        #[cfg(test)]
        let work = Arc::clone(&self.work);
        self.run(move || {
            let text = stored.as_deref().unwrap_or(&decoy);
            // What is too long is not hashed whole, and never right.
            let candidate = if too_long { b"" } else { password.reveal().as_bytes() };
            let matches = PasswordHash::new(text).is_ok_and(|parsed| {
                #[cfg(test)]
                work.lock().unwrap().push(parsed.params.to_string());
                Argon2::default().verify_password(candidate, &parsed).is_ok()
            });
            matches && stored.is_some() && !too_long
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        let work = tokio::task::spawn_blocking(move || {
            let _held = (place, turn); // also when the caller has gone: the work still takes its memory
            work()
        });
        work.await.map_err(|cause| PasswordError::Hash(Box::new(cause)))
    }
}

/// Whether a password may be set.
fn check(password: &str) -> Result<(), PasswordError> {
    if password.len() > MAX_OCTETS {
        return Err(PasswordError::TooLong);
    }
    if password.chars().count() < MIN_CHARS {
        return Err(PasswordError::TooShort);
    }
    if password.chars().any(char::is_control) {
        return Err(PasswordError::ControlCharacter);
    }
    Ok(())
}

/// Whether a password withstands who guesses: by how often its parts are chosen, not by which characters it has.
fn check_strength(password: &str, about: &[&str]) -> Result<(), PasswordError> {
    let estimate = zxcvbn(password, about);
    if estimate.score() >= Score::Three {
        return Ok(());
    }
    let warning = estimate.feedback().and_then(zxcvbn::feedback::Feedback::warning);
    let advice = warning.map(|warning| format!(" ({})", warning.to_string().trim_end_matches('.').to_lowercase()));
    Err(PasswordError::Guessable { advice: advice.unwrap_or_default() })
}

fn hash(password: &[u8], salt: [u8; 16]) -> Result<String, PasswordError> {
    let failed = |cause: argon2::password_hash::Error| PasswordError::Hash(Box::new(cause));
    let params = Params::new(19_456, 2, 1, None).map_err(|cause| failed(cause.into()))?;
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(hasher.hash_password(password, &salt).map_err(failed)?.to_string())
}

#[cfg(test)]
impl Passwords {
    /// With which parameters passwords were hashed to be checked since this was asked last.
    pub(crate) fn take_work(&self) -> Vec<String> {
        std::mem::take(&mut self.work.lock().unwrap())
    }
}

#[cfg(test)]
mod tests {
    use remoteler_core::OsEntropy;

    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_matches_its_hash() {
        let passwords = Passwords::new(2, &OsEntropy).unwrap();
        let stored = passwords.hash(Secret::new("correct horse"), &[], &OsEntropy).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.verify(Secret::new("correct horse"), Some(stored.clone())).await.unwrap());
        for wrong in ["correct hors", "", "correct horse ", &"x".repeat(2000)] {
            assert!(!passwords.verify(Secret::new(wrong), Some(stored.clone())).await.unwrap(), "{wrong:?}");
        }
        assert!(!passwords.verify(Secret::new(""), None).await.unwrap());
        assert!(!passwords.verify(Secret::new("x".repeat(2000)), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_password_that_was_stolen_elsewhere_is_refused_however_strong_it_is() {
        let stolen = "correct horse battery staple";
        let file = tempfile::NamedTempFile::new().unwrap();
        // Its SHA-1, as `printf %s … | sha1sum` says.
        std::fs::write(file.path(), "ABF7AAD6438836DBE526AA231ABDE2D0EEF74D42:216\n").unwrap();
        let list = BreachedPasswords::open(file.path()).unwrap();
        let passwords = Passwords::new(2, &OsEntropy).unwrap().refusing(Some(list));
        let set = async |password: &str| passwords.hash(Secret::new(password), &[], &OsEntropy).await;
        let refused = set(stolen).await.unwrap_err();
        assert!(matches!(refused, PasswordError::Breached) && !refused.to_string().contains(stolen));
        set("vier tote ziegen im mai").await.unwrap();
        // What is there no more is not passed over.
        std::fs::write(file.path(), "x").unwrap();
        assert!(matches!(set("vier tote ziegen im mai").await, Err(PasswordError::List(_))));
    }

    #[test]
    fn short_long_and_untypable_passwords_are_refused() {
        assert!(matches!(check("1234567"), Err(PasswordError::TooShort)));
        assert!(matches!(check(&"x".repeat(1025)), Err(PasswordError::TooLong)));
        assert!(matches!(check("12345678\n"), Err(PasswordError::ControlCharacter)));
        assert!(check("pässwörd").is_ok());
    }

    #[test]
    fn what_is_guessed_first_is_refused_whatever_characters_it_has() {
        for weak in ["password1", "P@ssw0rd!", "aaaaaaaaaaaa", "qwertyuiop", "20260301", "annannann", "lighthouse-ann"]
        {
            let refused = check_strength(weak, &["ann", "lighthouse"]);
            assert!(matches!(refused, Err(PasswordError::Guessable { .. })), "{weak}");
        }
        let said = check_strength("password1", &[]).unwrap_err().to_string();
        assert!(!said.contains("password1") && !said.contains('\n'), "{said}");
        for strong in ["correct horse battery", "vier tote ziegen im mai", "kJ7#mQ2pX9"] {
            check_strength(strong, &["ann", "root"]).unwrap();
        }
    }
}
