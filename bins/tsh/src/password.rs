//! Reads a password, a code or a sign-up link: from the terminal without echo, or one line from standard input when it is no terminal. Never from arguments.

use std::io::{self, BufRead, Read};

use anyhow::{Context, bail};
use remoteler_core::{Secret, UserName};

use crate::{output, terminal};

pub(crate) fn read(prompt: &str) -> anyhow::Result<Secret> {
    read_unseen(prompt, "password")
}

/// Reads a sign-up link, which is as good as a password until it is used.
pub(crate) fn read_link() -> anyhow::Result<Secret> {
    read_unseen("Sign-up link: ", "sign-up link")
}

/// Reads a new password; at a terminal twice, since what was typed is not seen.
pub(crate) fn read_new(user: &UserName) -> anyhow::Result<Secret> {
    for _ in 0..TRIES {
        let password = read(&format!("New password of {user}: "))?;
        if !terminal::stdin_is_terminal() || read("The same password again: ")? == password {
            return Ok(password);
        }
        output::say("tsh: the two passwords are not the same");
    }
    bail!("no password was typed twice alike; nothing was changed")
}

fn read_unseen(prompt: &str, what: &str) -> anyhow::Result<Secret> {
    let mut typed = if terminal::stdin_is_terminal() {
        rpassword::prompt_password(prompt).with_context(|| format!("the {what} cannot be read from the terminal"))?
    } else {
        let mut line = String::new();
        let read = io::stdin().lock().take(MAX).read_line(&mut line);
        read.with_context(|| format!("the {what} cannot be read from standard input"))?;
        line
    };
    let length = typed.trim_end_matches(['\r', '\n']).len();
    typed.truncate(length);
    if typed.is_empty() {
        bail!("no {what} was given; type it, or pass it as one line on standard input");
    }
    Ok(Secret::new(typed))
}

/// Reads a one-time code, or a recovery code: as a password, though on a terminal it may be seen, since it counts once.
pub(crate) fn read_code() -> anyhow::Result<Secret> {
    if terminal::stdin_is_terminal() {
        output::ask("One-time code: ");
    }
    let mut code = String::new();
    io::stdin().lock().take(MAX).read_line(&mut code).context("the code cannot be read from standard input")?;
    let length = code.trim().len();
    if length == 0 {
        bail!("no code was given; type the six digits of your authenticator app, or a recovery code");
    }
    Ok(Secret::new(code.trim()))
}

const MAX: u64 = 4096;
/// How often the two may differ.
const TRIES: usize = 3;
