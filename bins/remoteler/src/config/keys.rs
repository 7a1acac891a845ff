//! What the configuration says about the authorities' keys: which algorithms, and which token. Owns the checks of these values; opens neither
//! token nor file.

use std::path::PathBuf;

use serde::{Deserialize, de::IgnoredAny};

use super::ConfigError;

/// `ca_key_params:`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaKeyParams {
    /// `token` or `database`: where new keys are made.
    #[serde(default)]
    pub new_keys: Option<String>,
    /// The token.
    pub pkcs11: Pkcs11,
}

/// `pkcs11:`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11 {
    /// The shared library that speaks to the token.
    pub module_path: PathBuf,
    /// Label of the token.
    #[serde(default)]
    pub token_label: Option<String>,
    /// Its slot.
    #[serde(default)]
    pub slot_number: Option<u64>,
    /// File with the user's PIN.
    #[serde(default)]
    pub pin_path: Option<PathBuf>,
    /// Refused: a configuration file is no place for it. Not kept.
    #[serde(default)]
    pub pin: Option<IgnoredAny>,
}

/// How the authorities' keys are made, and where.
#[derive(Clone, Debug, Default)]
pub struct KeySettings {
    /// Which algorithms; absent: as before, and the default at the first start.
    pub suite: Option<SuiteName>,
    /// The token that has keys or is to have them.
    pub token: Option<TokenSettings>,
}

/// A token.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// The shared library that speaks to it.
    pub module: PathBuf,
    /// Which of the module's tokens.
    pub token: TokenName,
    /// File with the user's PIN.
    pub pin_file: PathBuf,
    /// Whether new keys are made in it.
    pub for_new_keys: bool,
}

/// Which of a module's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenName {
    /// By its label.
    Label(String),
    /// By its slot.
    Slot(u64),
}

/// A suite of signature algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuiteName {
    /// Ed25519 and P-256.
    Balanced,
    /// RSA.
    Legacy,
    /// P-256 only.
    Token,
}

impl KeySettings {
    /// Checks what is written.
    pub(super) fn new(suite: Option<&str>, params: Option<CaKeyParams>) -> Result<Self, ConfigError> {
        let suite = match suite {
            None => None,
            // Also as teleport.yaml has them.
            Some("balanced" | "balanced-v1") => Some(SuiteName::Balanced),
            Some("legacy") => Some(SuiteName::Legacy),
            Some("token" | "hsm-v1") => Some(SuiteName::Token),
            Some(other) => {
                let reason = format!("{other:?} is not available; balanced, legacy and token are");
                return Err(refused("authentication.signature_algorithm_suite", reason));
            }
        };
        Ok(Self { suite, token: params.map(TokenSettings::new).transpose()? })
    }
}

impl TokenSettings {
    fn new(params: CaKeyParams) -> Result<Self, ConfigError> {
        let CaKeyParams { new_keys, pkcs11 } = params;
        let Pkcs11 { module_path: module, token_label, slot_number, pin_path, pin } = pkcs11;
        let for_new_keys = match new_keys.as_deref() {
            None | Some("token") => true,
            Some("database") => false,
            Some(other) => {
                return Err(refused("ca_key_params.new_keys", format!("{other:?} is neither token nor database")));
            }
        };
        if pin.is_some() {
            let reason = "a PIN does not belong into a configuration file; write it into a file that only the daemon's user may read, and name that in pin_path";
            return Err(refused("ca_key_params.pkcs11.pin", reason));
        }
        let token = match (token_label, slot_number) {
            (Some(label), None) if !label.is_empty() => TokenName::Label(label),
            (None, Some(number)) => TokenName::Slot(number),
            _ => return Err(refused("ca_key_params.pkcs11", "give either token_label or slot_number")),
        };
        let Some(pin_file) = pin_path else {
            return Err(refused("ca_key_params.pkcs11.pin_path", "it is missing: the file with the token's PIN"));
        };
        if !module.is_absolute() {
            let reason = format!("{} is no absolute path", module.display());
            return Err(refused("ca_key_params.pkcs11.module_path", reason));
        }
        Ok(Self { module, token, pin_file, for_new_keys })
    }
}

fn refused(field: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { field, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Flags, Settings};

    fn keys(yaml: &str) -> Result<KeySettings, String> {
        let file = ConfigFile::parse(yaml)?;
        let settings = Settings::new(file, Flags::default()).map_err(|cause| cause.to_string())?;
        Ok(settings.auth.unwrap().keys)
    }

    const TOKEN: &str =
        "auth_service:\n  ca_key_params:\n    pkcs11:\n      module_path: /usr/lib/softhsm/libsofthsm2.so\n";

    #[test]
    fn a_token_is_named_by_its_label_or_its_slot() {
        let by = |line: &str| keys(&format!("{TOKEN}      pin_path: /run/pin\n      {line}\n")).unwrap().token.unwrap();
        assert_eq!(by("token_label: my ca").token, TokenName::Label("my ca".into()));
        let by_slot = by("slot_number: 7");
        assert_eq!((by_slot.token, by_slot.for_new_keys), (TokenName::Slot(7), true));
        assert_eq!(keys("").unwrap().suite, None);
    }

    #[test]
    fn new_keys_can_be_made_in_the_database_while_the_token_is_still_there() {
        let yaml = format!("{TOKEN}      pin_path: /run/pin\n      slot_number: 7\n    new_keys: database\n");
        assert!(!keys(&yaml).unwrap().token.unwrap().for_new_keys);
    }

    #[test]
    fn suites_have_our_names_and_those_of_teleport() {
        for (name, suite) in [
            ("balanced", SuiteName::Balanced),
            ("balanced-v1", SuiteName::Balanced),
            ("legacy", SuiteName::Legacy),
            ("token", SuiteName::Token),
            ("hsm-v1", SuiteName::Token),
        ] {
            let yaml =
                format!("auth_service: {{ authentication: {{ type: local, signature_algorithm_suite: {name} }} }}");
            assert_eq!(keys(&yaml).unwrap().suite, Some(suite), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_way_out_and_without_the_pin() {
        for (yaml, expected) in [
            (
                "auth_service:\n  ca_key_params:\n    pkcs12: {}\n",
                "line 3: unknown key \"pkcs12\"; did you mean \"pkcs11\"?",
            ),
            (&format!("{TOKEN}      pin_pth: /x\n"), "line 5: unknown key \"pin_pth\"; did you mean \"pin_path\"?"),
            (&format!("{TOKEN}      pin: 31415926\n      slot_number: 7\n"), "pkcs11.pin: a PIN does not belong"),
            (&format!("{TOKEN}      pin_path: /x\n"), "give either token_label or slot_number"),
            (&format!("{TOKEN}      pin_path: /x\n      token_label: a\n      slot_number: 7\n"), "give either"),
            (&format!("{TOKEN}      slot_number: 7\n"), "pkcs11.pin_path: it is missing"),
            (
                &format!("{TOKEN}      slot_number: 7\n      pin_path: /x\n    new_keys: here\n"),
                "neither token nor database",
            ),
            (
                "auth_service: { authentication: { type: local, signature_algorithm_suite: best } }",
                "\"best\" is not available",
            ),
            (&TOKEN.replace("/usr", "usr"), "give either"),
        ] {
            let said = keys(yaml).unwrap_err();
            assert!(said.contains(expected) && said.lines().count() == 1, "{yaml}{said}");
            assert!(!said.contains("31415926"), "{said}"); // I76
        }
        let relative = format!("{}      pin_path: /x\n      slot_number: 7\n", TOKEN.replace("/usr", "usr"));
        assert!(keys(&relative).unwrap_err().contains("no absolute path"));
    }
}
