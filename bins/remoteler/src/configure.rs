//! `remoteler configure`: prints a commented config file.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, process::ExitCode};

use anyhow::Context;

use crate::{cli::ConfigureArgs, config::commented_config};

/// Runs the command.
///
/// # Errors
/// The file is there already or cannot be written.
pub fn configure(args: &ConfigureArgs) -> anyhow::Result<ExitCode> {
    let text = commented_config(&args.roles.iter().copied().collect());
    match &args.output {
        None => crate::print(&text)?,
        Some(path) => {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .with_context(|| format!("{} was not written", path.display()))?;
            file.write_all(text.as_bytes())?;
            crate::say(&format!("wrote {}; start with: remoteler start -c {}", path.display(), path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
