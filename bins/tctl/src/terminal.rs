//! JSON from elsewhere, made harmless for a terminal. Never shortens and never drops anything.

use remoteler_core::steers_terminal;

/// JSON in which the same characters stand as `\u` and four hex digits: the same values, and harmless.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut harmless = String::with_capacity(json.len());
    for character in json.chars() {
        // A newline is white space between values; within strings, serde_json has escaped it already.
        if steers_terminal(character) && character != '\n' {
            for unit in character.encode_utf16(&mut [0; 2]) {
                harmless.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            harmless.push(character);
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;

    // I72
    #[test]
    fn json_keeps_its_values_and_loses_what_steers_a_terminal() {
        let value = serde_json::json!({ "user": "a\u{9b}31m\u{202e}b\u{7f}\u{1b}\u{e0041}\n", "other": ["é", "🦀"] });
        let shown = escaped_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!shown.replace('\n', "").chars().any(steers_terminal), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
