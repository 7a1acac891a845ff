//! Text for people: what came from elsewhere made harmless for a terminal (I72), and an error with its causes on one line. Owns the list
//! of characters that steer a terminal. Never shortens anything.

use std::error::Error;

/// `text` with everything escaped that could move the cursor, hide or reorder what a terminal shows, as `\u{…}` or `\n`, `\r`, `\t`; the
/// result is one line.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if steers_terminal(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// Whether a character is none that is simply shown: control characters (C0, DEL, C1), line and paragraph separators, invisible ones, and
/// the controls of bidirectional text (UAX #9).
#[must_use]
pub fn steers_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// JSON with everything escaped in the same way, as `\u` and four hex digits: the same values, whose lines are those of the layout.
#[must_use]
pub fn printable_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // A newline is white space between values; within strings there is none.
        if steers_terminal(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// An error with its causes on one line, outermost first. A cause whose text stands there already is not said twice.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn remote_text_cannot_control_the_terminal() {
        let shown = printable("a\u{1b}]0;owned\u{7}\u{9b}2J\r\nb\u{202e}c\u{7f}\u{feff}\u{e0041}é");
        assert!(!shown.chars().any(steers_terminal)); // I72
        assert_eq!(shown, "a\\u{1b}]0;owned\\u{7}\\u{9b}2J\\r\\nb\\u{202e}c\\u{7f}\\u{feff}\\u{e0041}é");
        assert_eq!(printable("Zoë, 日本, 🦀 #1"), "Zoë, 日本, 🦀 #1");
    }

    /// Text in which what steers terminals is no rarity.
    fn hostile() -> impl Strategy<Value = String> {
        let one_of = |range: Range<u32>| range.prop_map(|code| char::from_u32(code).unwrap());
        let c = prop_oneof![any::<char>(), one_of(0..0xa0), one_of(0x2000..0x2070), one_of(0x30..0x7b)];
        prop::collection::vec(c, 0..40).prop_map(String::from_iter)
    }

    /// As SECURITY's I72 lists them: C0, DEL, C1, and the controls of bidirectional text.
    fn listed(c: char) -> bool {
        matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    }

    proptest! {
        // I72
        #[test]
        fn text_from_elsewhere_is_one_line_that_shows_what_it_is_and_loses_nothing_harmless(text in hostile()) {
            let shown = printable(&text);
            prop_assert!(!shown.contains(listed), "{:?}", shown);
            prop_assert_eq!(&printable(&shown), &shown);
            let mut rest = shown.as_str();
            for harmless in text.split(steers_terminal) {
                let (_, behind) = rest.split_once(harmless).unwrap();
                rest = behind;
            }
        }

        // I72
        #[test]
        fn json_keeps_its_values_and_loses_what_steers_a_terminal(name in hostile(), value in hostile()) {
            let value = serde_json::json!({ "user": value, "other": ["é", { name: "🦀" }] });
            let shown = printable_json(&serde_json::to_string_pretty(&value).unwrap());
            prop_assert!(!shown.replace('\n', "").contains(listed), "{}", shown);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn causes_stand_on_one_line_and_none_of_them_twice() {
        let inner = Layer { text: "connection\nrefused", source: None };
        let middle = Layer { text: "b cannot be reached", source: Some(Box::new(inner)) };
        let outer = Layer { text: "no login, b cannot be reached", source: Some(Box::new(middle)) };
        assert_eq!(with_causes(&outer), "no login, b cannot be reached: connection refused");
    }
}
