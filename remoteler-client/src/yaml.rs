//! YAML in and out, by one library that may change. Owns its options and the one-line form of its mistakes.

use remoteler_core::Erased;
use serde::{Serialize, de::DeserializeOwned};
use serde_saphyr::{DuplicateKeyPolicy, SnippetMode};

/// A mistake in YAML text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", .line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct YamlError {
    /// Where it begins, counted from 1.
    pub line: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    let read = serde_saphyr::from_str_with_options(text, options).map(|Erased(value)| value);
    read.map_err(|cause| {
        let line = cause.location().map(|location| location.line()).filter(|line| *line > 0);
        let plain = cause.without_snippet().render_with_options(serde_saphyr::render_options! {
            snippets: SnippetMode::Off,
        });
        // One line, and the place is said once.
        let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        let reason = match plain.rfind(" at line ") {
            Some(place) => plain.get(..place).unwrap_or(&plain).to_owned(),
            None => plain,
        };
        YamlError { line, reason }
    })
}

pub(crate) fn write<T: Serialize>(value: &T) -> Result<String, YamlError> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options)
        .map_err(|cause| YamlError { line: None, reason: cause.to_string() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_mistake_is_one_line_and_says_where() {
        let error = read::<BTreeMap<String, u16>>("a: 1\nb: two\n").unwrap_err();
        assert_eq!(error.line, Some(2), "{error}");
        assert!(!error.to_string().contains('\n'));
        assert!(read::<BTreeMap<String, u16>>("a: 1\na: 2\n").is_err());
    }

    #[test]
    fn strings_that_look_like_other_things_stay_strings() {
        let original: BTreeMap<String, String> =
            ["yes", "012", "null", "1e3", "a: b", "#x", "line\nline", "", "~", "2026-01-01"]
                .iter()
                .enumerate()
                .map(|(i, text)| (format!("k{i}"), (*text).to_owned()))
                .chain([("long".to_owned(), "A".repeat(5000)), ("words".to_owned(), "word ".repeat(100))])
                .collect();
        let text = write(&original).unwrap();
        assert_eq!(read::<BTreeMap<String, String>>(&text).unwrap(), original);
        let generic: BTreeMap<String, serde_json::Value> = read(&text).unwrap();
        assert!(generic.values().all(serde_json::Value::is_string), "{text}");
    }
}
