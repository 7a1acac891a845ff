//! Second factors at a terminal: an authenticator app, and programs that ask for its codes at a pseudo terminal.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use expectrl::{Expect, Session, process::unix::WaitStatus, session::OsSession};
use ring::hmac;

use crate::eventually_within;

/// An authenticator app (RFC 6238), which shows no code twice.
#[derive(Debug)]
pub struct AuthenticatorApp {
    key: hmac::Key,
    last: u64,
}

impl AuthenticatorApp {
    /// One with the secret that was shown.
    ///
    /// # Panics
    /// When that is no base32.
    #[must_use]
    pub fn new(base32: &str) -> Self {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let (mut octets, mut held, mut count) = (Vec::new(), 0_u32, 0);
        for letter in base32.bytes() {
            let five = alphabet.iter().position(|known| *known == letter).expect("base32");
            held = (held << 5) | u32::try_from(five).expect("below 32");
            count += 5;
            if count >= 8 {
                count -= 8;
                octets.push((held >> count).to_le_bytes()[0]);
            }
        }
        Self { key: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &octets), last: 0 }
    }

    /// The next code that counts: the service takes those of the step before and after, too.
    ///
    /// # Panics
    /// When there is none within 90 s.
    pub fn code(&mut self) -> String {
        let step = eventually_within(Duration::from_secs(90), "a code that was not used", || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|cause| cause.to_string())?;
            let now = since.as_secs() / 30;
            let next = (self.last + 1).max(now - 1);
            if next <= now + 1 { Ok(next) } else { Err("all codes of this minute are used".to_owned()) }
        });
        self.last = step;
        let tag = hmac::sign(&self.key, &step.to_be_bytes());
        let at = usize::from(tag.as_ref()[19] & 15);
        let word = tag.as_ref()[at..at + 4].iter().fold(0, |word, octet| (word << 8) | u32::from(*octet)) & 0x7fff_ffff;
        format!("{:06}", word % 1_000_000)
    }
}

/// Starts a program at a terminal of its own. What is expected of it has 90 s.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn on_terminal(command: Command) -> OsSession {
    let mut session = Session::spawn(command).expect("the program starts");
    session.set_expect_timeout(Some(Duration::from_secs(90)));
    session
}

/// Waits for the end of a program at a terminal.
///
/// # Panics
/// When it does not end with `status`.
#[track_caller]
pub fn ends(mut session: OsSession, status: i32) {
    let said = session.expect(expectrl::Eof).expect("the program ends");
    let ended = session.get_process().wait().expect("a child can be waited for");
    let said = String::from_utf8_lossy(said.as_bytes()).into_owned();
    assert!(matches!(ended, WaitStatus::Exited(_, found) if found == status), "{ended:?}: {said}");
}

/// Answers one question for a code.
///
/// # Panics
/// When none is asked.
#[track_caller]
pub fn answer_code(session: &mut OsSession, code: &str) {
    session.expect("One-time code:").expect("a code is asked for");
    session.send_line(code).expect("the terminal takes a line");
}
