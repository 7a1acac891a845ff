//! Reading a password: without echo from a terminal, else one line of standard input. Never from arguments.

use std::io::{BufRead, IsTerminal, Read};

use anyhow::{Context, ensure};
use remoteler_core::Secret;

/// Longest password read, in octets.
const MAX_OCTETS: u64 = 1024;

/// Asks for a new password, on a terminal twice.
pub(crate) fn new_password(user: &str) -> anyhow::Result<Secret> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return from_line(&mut stdin.lock());
    }
    let ask = |prompt: String| {
        rpassword::prompt_password(prompt).map(Secret::new).context("no password was read from the terminal")
    };
    let password = ask(format!("New password for {user}: "))?;
    ensure!(password == ask("The same again: ".into())?, "the two passwords differ; nothing was changed");
    checked(password)
}

fn from_line(input: &mut impl BufRead) -> anyhow::Result<Secret> {
    let mut line = String::new();
    // One more than allowed and the line's end, so that a longer one is seen to be longer.
    input.take(MAX_OCTETS + 3).read_line(&mut line).context("no password was read from standard input")?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    checked(Secret::new(line))
}

fn checked(password: Secret) -> anyhow::Result<Secret> {
    ensure!(!password.reveal().is_empty(), "the password is empty; nothing was changed");
    let octets = password.reveal().len() as u64;
    ensure!(octets <= MAX_OCTETS, "the password has more than {MAX_OCTETS} octets; nothing was changed");
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_without_its_end() {
        for input in ["correct horse\nrest", "correct horse\r\n", "correct horse"] {
            assert_eq!(from_line(&mut input.as_bytes()).unwrap().reveal(), "correct horse");
        }
    }

    #[test]
    fn an_empty_or_endless_line_is_refused() {
        assert!(from_line(&mut "\n".as_bytes()).is_err());
        let cause = from_line(&mut "x".repeat(5000).as_bytes()).unwrap_err();
        assert_eq!(cause.to_string(), "the password has more than 1024 octets; nothing was changed");
    }
}
