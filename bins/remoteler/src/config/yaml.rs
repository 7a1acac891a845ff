//! The only module that knows YAML. Reading the config file: YAML to [`ConfigFile`], with errors that name the key, its line and the nearest known key.

use std::path::Path;

use remoteler_core::Erased;

use super::{ConfigError, ConfigFile};

impl ConfigFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong, in which line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| ConfigError::Syntax { path: path.to_owned(), reason })
    }

    /// Reads the text of a file; the error is one line.
    ///
    /// # Errors
    /// What is wrong, in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let Erased(config): Erased<Self> = serde_saphyr::from_str(text).map_err(|cause| explain(&cause))?;
        match config.version.as_deref() {
            None | Some("v1") => Ok(config),
            Some(other) => Err(format!("version {other:?} is not read; this program reads v1")),
        }
    }
}

/// A value as a YAML document.
///
/// # Errors
/// It has no such form.
pub(crate) fn to_yaml(value: &impl serde::Serialize) -> anyhow::Result<String> {
    use anyhow::Context;
    let text = serde_saphyr::to_string(value).context("the result has no YAML form")?;
    Ok(text.trim_end().to_owned() + "\n")
}

fn explain(cause: &serde_saphyr::Error) -> String {
    let text = cause.without_snippet().to_string();
    let line = cause.location().map(|location| format!("line {}: ", location.line())).unwrap_or_default();
    let first = text.lines().next().unwrap_or_default().to_owned();
    let first = first.split(" at line ").next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    match unknown_field(&first) {
        Some((key, known)) => {
            let nearest = known
                .iter()
                .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
                .min_by_key(|(distance, _)| *distance);
            match nearest {
                Some((distance, candidate)) if distance <= 1 + key.len() / 3 => {
                    format!("{line}unknown key {key:?}; did you mean {candidate:?}?")
                }
                _ => format!("{line}unknown key {key:?}; known here are {}", known.join(", ")),
            }
        }
        None => format!("{line}{first}"),
    }
}

/// The parser's wording: unknown field `x`, expected one of a, b.
fn unknown_field(text: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = text.split_once("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let (_, known) = rest.split_once("expected ")?;
    let known = known.trim_start_matches("one of ").split(',').map(|name| name.trim().trim_matches('`'));
    Some((key, known.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_key() {
        let cause = ConfigFile::parse("version: v1\nremoteler:\n  nodename: a\n  data_dri: /x\n").unwrap_err(); // I80
        assert_eq!(cause, "line 4: unknown key \"data_dri\"; did you mean \"data_dir\"?");
    }

    #[test]
    fn a_service_that_this_version_does_not_have_is_refused() {
        let cause = ConfigFile::parse("discovery_service:\n  enabled: yes\n").unwrap_err();
        assert!(cause.starts_with("line 1: unknown key \"discovery_service\""), "{cause}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_its_line() {
        let cause = ConfigFile::parse("ssh_service:\n  enabled: maybe\n").unwrap_err();
        assert!(cause.starts_with("line 2: "), "{cause}");
    }

    #[test]
    fn yes_and_no_are_booleans() {
        let config = ConfigFile::parse("ssh_service:\n  enabled: yes\nproxy_service:\n  enabled: no\n").unwrap();
        assert_eq!(config.ssh_service.unwrap().enabled, Some(true));
        assert_eq!(config.proxy_service.unwrap().enabled, Some(false));
    }
}
