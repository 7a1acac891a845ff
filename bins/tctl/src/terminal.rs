//! Text from elsewhere, made harmless for a terminal. Never shortens and never drops anything.

use std::borrow::Cow;

/// `text` with everything escaped that could move the cursor, colour, hide or reorder what a terminal shows: control
/// characters (C0, DEL, C1), line and paragraph separators, and the controls of bidirectional text (UAX #9).
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_harmful(character) {
            harmless.extend(character.escape_unicode());
        } else {
            harmless.push(character);
        }
    }
    Cow::Owned(harmless)
}

/// JSON in which the same characters stand as `\uXXXX`: the same values, and harmless.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut harmless = String::with_capacity(json.len());
    for character in json.chars() {
        // A newline is white space between values; within strings, serde_json has escaped it already. All others are below U+10000.
        if is_harmful(character) && character != '\n' {
            harmless.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            harmless.push(character);
        }
    }
    harmless
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    // I72
    #[test]
    fn nothing_that_steers_a_terminal_passes() {
        let hostile = "a\u{1b}[2Jb\r\nc\u{9b}31md\u{7f}\u{202e}e\u{2066}f";
        let shown = escaped(hostile);
        assert_eq!(shown, "a\\u{1b}[2Jb\\u{d}\\u{a}c\\u{9b}31md\\u{7f}\\u{202e}e\\u{2066}f");
        assert!(!shown.chars().any(is_harmful));
    }

    // I72
    #[test]
    fn json_keeps_its_values_and_loses_what_steers_a_terminal() {
        let value = serde_json::json!({ "user": "a\u{9b}31m\u{202e}b\u{7f}\u{1b}\n", "other": ["é", "🦀"] });
        let shown = escaped_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!shown.replace('\n', "").chars().any(is_harmful), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn text_of_people_stays_as_it_is() {
        assert!(matches!(escaped("Zoë, 日本, 🦀 #1"), Cow::Borrowed("Zoë, 日本, 🦀 #1")));
    }
}
