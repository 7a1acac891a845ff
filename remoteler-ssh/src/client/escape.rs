//! The escape character of an interactive session, as ssh(1) describes it. A pure machine over the octets typed. Where help is shown is
//! the caller's to say.

/// What the user asked for with an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapeAction {
    /// `~.`: end the connection.
    Disconnect,
    /// `~?`: list the escapes.
    Help,
}

/// Takes escapes out of what is typed. They are recognised at the beginning of a line only.
#[derive(Clone, Debug)]
pub struct EscapeFilter {
    character: u8,
    state: State,
    show: fn(&str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    Escaped,
    Within,
}

impl EscapeFilter {
    /// With `character` as the escape; `~` is usual.
    #[must_use]
    pub const fn new(character: u8) -> Self {
        Self { character, state: State::LineStart, show: |_| {} }
    }

    /// With `show` for the list of escapes. It gets lines that end as a terminal in raw mode needs it.
    #[must_use]
    pub const fn with_help(mut self, show: fn(&str)) -> Self {
        self.show = show;
        self
    }

    /// Shows the list of escapes.
    pub fn help(&self) {
        let escape = printable_escape(self.character);
        let text = format!(
            "{escape}?\r\nSupported escape sequences:\r\n {escape}.   - end the connection\r\n {escape}?   - this message\r\n \
             {escape}{escape}   - send the escape character by typing it twice\r\n(Escapes are only recognised at the beginning of a line.)\r\n"
        );
        (self.show)(&text);
    }

    /// Appends to `sent` what goes to the server. Stops at the first action; octets after it are dropped when it is
    /// [`EscapeAction::Disconnect`].
    pub fn filter(&mut self, typed: &[u8], sent: &mut Vec<u8>) -> Option<EscapeAction> {
        let mut action = None;
        for &octet in typed {
            match (self.state, octet) {
                (State::LineStart, octet) if octet == self.character => self.state = State::Escaped,
                (State::Escaped, b'.') => return Some(EscapeAction::Disconnect),
                (State::Escaped, b'?') => {
                    action = Some(EscapeAction::Help);
                    self.state = State::LineStart;
                }
                (State::Escaped, octet) if octet == self.character => self.pass(octet, sent),
                (State::Escaped, octet) => {
                    sent.push(self.character);
                    self.pass(octet, sent);
                }
                (State::LineStart | State::Within, octet) => self.pass(octet, sent),
            }
        }
        action
    }

    fn pass(&mut self, octet: u8, sent: &mut Vec<u8>) {
        sent.push(octet);
        self.state = if matches!(octet, b'\r' | b'\n') { State::LineStart } else { State::Within };
    }
}

/// A control character as people write it: `^C`.
fn printable_escape(character: u8) -> String {
    if character.is_ascii_control() {
        format!("^{}", char::from(character ^ 0x40))
    } else {
        char::from(character).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn typed(filter: &mut EscapeFilter, text: &str) -> (String, Option<EscapeAction>) {
        let mut sent = Vec::new();
        let action = filter.filter(text.as_bytes(), &mut sent);
        (String::from_utf8(sent).unwrap(), action)
    }

    #[test]
    fn an_escape_counts_only_at_the_beginning_of_a_line() {
        let mut filter = EscapeFilter::new(b'~');
        assert_eq!(typed(&mut filter, "cd ~.\r"), ("cd ~.\r".into(), None));
        assert_eq!(typed(&mut filter, "~"), (String::new(), None));
        assert_eq!(typed(&mut filter, ".rest"), (String::new(), Some(EscapeAction::Disconnect)));
    }

    #[test]
    fn a_doubled_escape_is_sent_once_and_an_unknown_one_as_typed() {
        let mut filter = EscapeFilter::new(b'~');
        assert_eq!(typed(&mut filter, "~~/x\r~/y\r~?z"), ("~/x\r~/y\rz".into(), Some(EscapeAction::Help)));
    }

    #[test]
    fn the_list_of_escapes_is_shown_with_the_character_that_was_chosen() {
        static SHOWN: Mutex<String> = Mutex::new(String::new());
        let filter = EscapeFilter::new(0x1d).with_help(|text| SHOWN.lock().unwrap().push_str(text));
        filter.help();
        let shown = SHOWN.lock().unwrap();
        assert!(shown.contains("\r\n ^].   - end the connection\r\n ^]?   - this message\r\n"), "{shown}");
        assert_eq!(shown.matches('\n').count(), shown.matches("\r\n").count(), "a terminal in raw mode needs both");
    }
}
