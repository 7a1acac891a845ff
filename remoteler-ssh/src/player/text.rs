//! Text of remote origin made safe to show: what could move a cursor, hide or reorder text is escaped or removed (I72).

use remoteler_core::steers_terminal;

/// Takes terminal control sequences (ECMA-48) out of a session's output and keeps the text and its lines. Pieces may be cut
/// anywhere.
#[derive(Clone, Debug, Default)]
pub struct PlainText {
    state: State,
    line: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate character: one more belongs to it.
    Intermediate,
    /// In a control sequence, until its final character.
    Csi,
    /// In a control string (title, clipboard, …), until BEL or ST.
    String,
    /// In a control string, after ESC.
    StringEscape,
    /// After CR: a line is ended by LF or written over by anything else.
    Return,
}

impl PlainText {
    /// Appends to `plain` the lines that are complete, with what is left of unsafe characters escaped.
    pub fn push(&mut self, output: &str, plain: &mut String) {
        for c in output.chars() {
            self.state = match (self.state, c) {
                (State::String | State::StringEscape, '\u{7}') | (State::StringEscape, '\\') => State::Text,
                (State::String | State::StringEscape, '\u{1b}') => State::StringEscape,
                (State::String | State::StringEscape, _) => State::String,
                (_, '\u{1b}') => State::Escape,
                (State::Escape, '[') | (State::Text | State::Return, '\u{9b}') => State::Csi,
                (State::Escape, ']' | 'P' | 'X' | '^' | '_') => State::String,
                (State::Escape | State::Intermediate, '\u{20}'..='\u{2f}') => State::Intermediate,
                (State::Escape | State::Intermediate, _) => State::Text,
                (State::Csi, '\u{40}'..='\u{7e}') => State::Text,
                (State::Csi, _) => State::Csi,
                (State::Text | State::Return, '\n') => self.end_line(plain),
                (State::Text | State::Return, '\r') => State::Return,
                (State::Text, '\u{8}') => {
                    self.line.pop();
                    State::Text
                }
                (State::Text, '\u{7}') => State::Text,
                (state, c) => {
                    if state == State::Return {
                        self.line.clear();
                    }
                    if c == '\t' || !steers_terminal(c) {
                        self.line.push(c)
                    } else {
                        self.line.extend(c.escape_default())
                    }
                    if self.line.len() > MAX_LINE { self.end_line(plain) } else { State::Text }
                }
            };
        }
    }

    /// Appends the last line, if it was not ended.
    pub fn finish(mut self, plain: &mut String) {
        if !self.line.is_empty() {
            self.end_line(plain);
        }
    }

    fn end_line(&mut self, plain: &mut String) -> State {
        plain.push_str(&self.line);
        plain.push('\n');
        self.line.clear();
        State::Text
    }
}

const MAX_LINE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_of_a_session_has_its_words_and_no_sequences() {
        let mut plain = String::new();
        let mut filter = PlainText::default();
        for piece in
            ["\u{1b}[1;3", "2mgreen\u{1b}[0m\r\n", "\u{1b}]52;c;ZXZpbA==\u{1b}", "\\ls\u{8}\u{8}id\u{1b}(B\r\n"]
        {
            filter.push(piece, &mut plain);
        }
        filter.push("50%\r100%\u{200b}", &mut plain);
        filter.finish(&mut plain);
        assert_eq!(plain, "green\nid\n100%\\u{200b}\n");
    }

    #[test]
    fn cutting_the_output_anywhere_changes_nothing() {
        let output = "\u{1b}[2J\u{1b}]0;t\u{7}a\tb\r\nc\u{1b}Pq\u{1b}\\d\r\n";
        let whole = {
            let (mut plain, mut filter) = (String::new(), PlainText::default());
            filter.push(output, &mut plain);
            plain
        };
        let (mut plain, mut filter) = (String::new(), PlainText::default());
        for c in output.chars() {
            filter.push(&c.to_string(), &mut plain);
        }
        assert_eq!(plain, whole);
        assert_eq!(whole, "a\tb\ncd\n");
    }
}
