//! Reads a password or a code: from the terminal without echo, or one line from standard input when it is no terminal. Never from arguments.

use std::io::{self, BufRead, Read};

use anyhow::{Context, bail};
use remoteler_core::Secret;

use crate::{output, terminal};

pub(crate) fn read(prompt: &str) -> anyhow::Result<Secret> {
    let mut password = if terminal::stdin_is_terminal() {
        rpassword::prompt_password(prompt).context("the password cannot be read from the terminal")?
    } else {
        let mut line = String::new();
        io::stdin().lock().take(MAX).read_line(&mut line).context("the password cannot be read from standard input")?;
        line
    };
    let length = password.trim_end_matches(['\r', '\n']).len();
    password.truncate(length);
    if password.is_empty() {
        bail!("no password was given; type it, or pass it as one line on standard input");
    }
    Ok(Secret::new(password))
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
