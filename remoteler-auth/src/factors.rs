//! The second factors of one user, as a machine without IO: what counts as a proof, and what is left after it. Owns that each code counts once (I48);
//! storing it before the proof is believed, its caller sees to.

pub(crate) mod totp;

use std::collections::BTreeSet;

use data_encoding::BASE32_NOPAD;
use remoteler_core::{Entropy, Factor, FactorKind, SecondFactor, Secret, Timestamp, fill_random};
use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::{AuthenticationResult, SecurityKey};
use zeroize::Zeroizing;

use crate::{secret_hash, security_keys::counted};

/// What is stored of a user's factors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Factors {
    #[serde(default)]
    devices: Vec<Device>,
    /// Hashes of recovery codes that were not used.
    #[serde(default)]
    recovery: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Device {
    name: String,
    added: Timestamp,
    #[serde(default)]
    last_used: Option<Timestamp>,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Kind {
    Totp {
        secret: Secret,
        /// The last step whose code was taken.
        last_step: u64,
    },
    Webauthn {
        /// The name of the proxy it was registered under (`rpId`).
        site: String,
        /// Public half, credential id and counter.
        key: Box<SecurityKey>,
    },
}

impl Kind {
    const fn shown(&self) -> FactorKind {
        match self {
            Self::Totp { .. } => FactorKind::Totp,
            Self::Webauthn { .. } => FactorKind::Webauthn,
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Totp { last_step, .. } => {
                f.debug_struct("Totp").field("last_step", last_step).finish_non_exhaustive()
            }
            Self::Webauthn { site, .. } => f.debug_struct("Webauthn").field("site", site).finish_non_exhaustive(),
        }
    }
}

/// What proved to be the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proved {
    /// The factor of this name.
    Factor(String),
    /// A recovery code; so many are left.
    Recovery(usize),
}

/// What the answer of a security key is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// The key of this name is the user's.
    By(String),
    /// It is, and its counter went back.
    Cloned(String),
    /// It is not the user's.
    Unknown,
}

/// Why a factor was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FactorError {
    /// The code is of another secret or time.
    #[error("the code is not right; look whether the app's clock is right, and type the code it shows now")]
    WrongCode,
    /// Not plain text.
    #[error("a factor's name has 1 to {MAX_NAME} characters without control characters")]
    Name,
    /// There is one.
    #[error("you have a factor of that name already; choose another name")]
    Taken,
    /// Too many.
    #[error("a user has at most {MAX_DEVICES} factors; remove one first")]
    TooMany,
}

const MAX_NAME: usize = 64;
const MAX_DEVICES: usize = 10;
/// Recovery codes made at once.
const RECOVERY_CODES: usize = 8;
/// Octets of a recovery code: 80 bits need no slow hash.
const RECOVERY_OCTETS: usize = 10;
/// Longest text that is looked at as a code.
const MAX_TYPED: usize = 64;

impl Factors {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Whether there is one of this kind.
    pub(crate) fn has(&self, kind: FactorKind) -> bool {
        self.devices.iter().any(|device| device.kind.shown() == kind)
    }

    /// Whether there is one that counts where the cluster wants this, besides the one that is named.
    pub(crate) fn suffices(&self, wanted: SecondFactor, without: Option<&str>) -> bool {
        let others = self.devices.iter().filter(|device| without != Some(device.name.as_str()));
        others.into_iter().any(|device| wanted.takes(device.kind.shown()))
    }

    /// The security keys for this site.
    pub(crate) fn keys(&self, wanted: &str) -> Vec<SecurityKey> {
        let keys = self.devices.iter().filter_map(|device| match &device.kind {
            Kind::Webauthn { site, key } if site == wanted => Some(key.as_ref().clone()),
            Kind::Webauthn { .. } | Kind::Totp { .. } => None,
        });
        keys.collect()
    }

    /// Counts that a key of this site answered rightly, if it is the user's.
    pub(crate) fn touch(&mut self, wanted: &str, used: &AuthenticationResult, now: Timestamp) -> Touched {
        for device in &mut self.devices {
            let Kind::Webauthn { site, key } = &mut device.kind else { continue };
            if site != wanted || key.cred_id() != used.cred_id() {
                continue;
            }
            if counted(key, used).is_err() {
                return Touched::Cloned(device.name.clone()); // I48
            }
            device.last_used = Some(now);
            return Touched::By(device.name.clone());
        }
        Touched::Unknown
    }

    /// Looks whether a code is the user's, now, and takes it: the same is none from then on. Codes of apps count where the cluster takes them, recovery
    /// codes everywhere.
    pub(crate) fn prove(&mut self, typed: &Secret, apps: bool, now: Timestamp) -> Option<Proved> {
        let typed = typed.reveal();
        if typed.len() > MAX_TYPED {
            return None;
        }
        for device in self.devices.iter_mut().filter(|_| apps) {
            let Kind::Totp { secret, last_step } = &mut device.kind else { continue };
            if let Some(step) = totp::step_of(secret, typed, now, *last_step) {
                *last_step = step;
                device.last_used = Some(now);
                return Some(Proved::Factor(device.name.clone()));
            }
        }
        // I48: taken out, so that it opens nothing again.
        self.recovery.remove(&recovery_hash(typed)).then_some(Proved::Recovery(self.recovery.len()))
    }

    /// The name of the factor whose code it is, which is taken as by [`Factors::prove`]. Recovery codes are for the day on which the devices are gone, and
    /// none is spent for a session.
    pub(crate) fn prove_by_device(&mut self, typed: &Secret, now: Timestamp) -> Option<String> {
        let recovery = std::mem::take(&mut self.recovery);
        let proved = self.prove(typed, true, now);
        self.recovery = recovery;
        match proved {
            Some(Proved::Factor(name)) => Some(name),
            Some(Proved::Recovery(_)) | None => None,
        }
    }

    /// Takes an app's secret as a factor, when `code` is one of it.
    pub(crate) fn add_totp(
        &mut self,
        name: &str,
        secret: Secret,
        code: &Secret,
        now: Timestamp,
    ) -> Result<(), FactorError> {
        self.check_new(name)?;
        let last_step = totp::step_of(&secret, code.reveal(), now, 0).ok_or(FactorError::WrongCode)?;
        let kind = Kind::Totp { secret, last_step };
        self.devices.push(Device { name: name.to_owned(), added: now, last_used: None, kind });
        Ok(())
    }

    /// Takes a key that was registered with this site.
    pub(crate) fn add_key(
        &mut self,
        name: &str,
        site: String,
        key: SecurityKey,
        now: Timestamp,
    ) -> Result<(), FactorError> {
        self.check_new(name)?;
        let kind = Kind::Webauthn { site, key: Box::new(key) };
        self.devices.push(Device { name: name.to_owned(), added: now, last_used: None, kind });
        Ok(())
    }

    fn check_new(&self, name: &str) -> Result<(), FactorError> {
        if name.trim().is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(FactorError::Name);
        }
        if self.devices.len() >= MAX_DEVICES {
            return Err(FactorError::TooMany);
        }
        if self.devices.iter().any(|device| device.name == name) {
            return Err(FactorError::Taken);
        }
        Ok(())
    }

    /// Makes recovery codes; those before count no more.
    pub(crate) fn draw_recovery(&mut self, entropy: &dyn Entropy) -> Vec<Secret> {
        let codes: Vec<Secret> = (0..RECOVERY_CODES).map(|_| draw_code(entropy)).collect();
        self.recovery = codes.iter().map(|code| recovery_hash(code.reveal())).collect();
        codes
    }

    /// Removes the factor of that name, and with the last one the recovery codes; whether there was one.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let before = self.devices.len();
        self.devices.retain(|device| device.name != name);
        if self.devices.is_empty() {
            self.recovery.clear();
        }
        self.devices.len() < before
    }

    /// What their owner may see.
    pub(crate) fn shown(&self) -> Vec<Factor> {
        let shown = self.devices.iter().map(|Device { name, added, last_used, kind }| Factor {
            name: name.clone(),
            kind: kind.shown(),
            added: *added,
            last_used: *last_used,
        });
        shown.collect()
    }
}

/// Four groups of four letters and digits.
fn draw_code(entropy: &dyn Entropy) -> Secret {
    let octets: Zeroizing<[u8; RECOVERY_OCTETS]> = Zeroizing::new(fill_random(entropy));
    let text = Zeroizing::new(BASE32_NOPAD.encode(&*octets).to_ascii_lowercase());
    let groups: Vec<&str> = (0..4).filter_map(|group| text.get(4 * group..4 * group + 4)).collect();
    Secret::new(groups.join("-"))
}

/// However it was typed: with or without dashes, spaces and capitals.
fn recovery_hash(typed: &str) -> String {
    let plain: String = typed.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    secret_hash::hash(&Secret::new(plain))
}

#[cfg(test)]
mod tests {
    use remoteler_core::OsEntropy;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_000_000);

    fn with_phone() -> (Factors, Secret) {
        let (mut factors, secret) = (Factors::default(), totp::draw(&OsEntropy));
        let earlier = NOW.minus(std::time::Duration::from_secs(300));
        let code = Secret::new(totp::code_at(&secret, earlier));
        factors.add_totp("phone", secret.clone(), &code, earlier).unwrap();
        (factors, secret)
    }

    #[test]
    fn each_code_counts_once() {
        let (mut factors, secret) = with_phone();
        let code = Secret::new(totp::code_at(&secret, NOW));
        assert_eq!(factors.prove(&code, true, NOW), Some(Proved::Factor("phone".into())));
        assert_eq!(factors.prove(&code, true, NOW), None); // I48
        let recovery = factors.draw_recovery(&OsEntropy);
        let typed = Secret::new(recovery[3].reveal().to_uppercase().replace('-', " "));
        assert_eq!(factors.prove(&typed, true, NOW), Some(Proved::Recovery(7)));
        assert_eq!(factors.prove(&recovery[3], true, NOW), None); // I48
        factors.draw_recovery(&OsEntropy);
        assert_eq!(factors.prove(&recovery[0], true, NOW), None, "older ones count no more");
    }

    #[test]
    fn a_recovery_code_opens_no_session_and_is_not_spent_on_one() {
        let (mut factors, secret) = with_phone();
        let recovery = factors.draw_recovery(&OsEntropy);
        assert_eq!(factors.prove_by_device(&recovery[0], NOW), None);
        assert_eq!(factors.prove(&recovery[0], true, NOW), Some(Proved::Recovery(7)));
        let code = Secret::new(totp::code_at(&secret, NOW));
        assert_eq!(factors.prove_by_device(&code, NOW), Some("phone".into()));
        assert_eq!(factors.prove_by_device(&code, NOW), None); // I48
    }

    #[test]
    fn the_code_that_made_a_factor_proves_nothing_more() {
        let (mut factors, secret) = (Factors::default(), totp::draw(&OsEntropy));
        let code = Secret::new(totp::code_at(&secret, NOW));
        factors.add_totp("phone", secret, &code, NOW).unwrap();
        assert_eq!(factors.prove(&code, true, NOW), None); // I48
    }

    #[test]
    fn a_factor_needs_a_name_of_its_own_and_a_code() {
        let (mut factors, _) = with_phone();
        let secret = totp::draw(&OsEntropy);
        let code = Secret::new(totp::code_at(&secret, NOW));
        let mut add = |name: &str, code: &Secret| factors.add_totp(name, secret.clone(), code, NOW);
        for name in ["", " ", "a\u{1b}b", &"x".repeat(65)] {
            assert_eq!(add(name, &code), Err(FactorError::Name), "{name:?}");
        }
        assert_eq!(add("phone", &code), Err(FactorError::Taken));
        assert_eq!(add("tablet", &Secret::new("000000000")), Err(FactorError::WrongCode));
        for number in 1..MAX_DEVICES {
            add(&number.to_string(), &code).unwrap();
        }
        assert_eq!(add("one more", &code), Err(FactorError::TooMany));
    }

    #[test]
    fn what_is_stored_holds_no_recovery_code_and_with_the_last_factor_they_go() {
        let (mut factors, _) = with_phone();
        let codes = factors.draw_recovery(&OsEntropy);
        let stored = serde_json::to_string(&factors).unwrap();
        assert!(codes.iter().all(|code| !stored.contains(code.reveal()) && code.reveal().len() == 19));
        assert_eq!(serde_json::from_str::<Factors>(&stored).unwrap(), factors);
        assert!(factors.remove("phone") && !factors.remove("phone"));
        assert_eq!(factors.prove(&codes[0], true, NOW), None);
        assert!(!format!("{factors:?}").contains("secret:"));
    }
}
