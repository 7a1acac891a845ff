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
    use super::*;

    #[test]
    fn remote_text_cannot_control_the_terminal() {
        let shown = printable("a\u{1b}]0;owned\u{7}\u{9b}2J\r\nb\u{202e}c\u{7f}\u{feff}\u{e0041}é");
        assert!(!shown.chars().any(steers_terminal)); // I72
        assert_eq!(shown, "a\\u{1b}]0;owned\\u{7}\\u{9b}2J\\r\\nb\\u{202e}c\\u{7f}\\u{feff}\\u{e0041}é");
        assert_eq!(printable("Zoë, 日本, 🦀 #1"), "Zoë, 日本, 🦀 #1");
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
