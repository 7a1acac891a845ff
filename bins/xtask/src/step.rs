//! One step of a check: a heading, a command, the time it took. Owns how steps look and the table at the end; the first
//! step that fails ends the check.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// The steps done so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Does `work` under a heading.
    pub(crate) fn run(&mut self, title: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        eprintln!("\n=== {title}");
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        let outcome = if result.is_ok() { "ok" } else { "FAILED" };
        eprintln!("=== {title}: {outcome} in {}", seconds(took));
        self.done.push((title.to_owned(), took));
        result.with_context(|| format!("step {title:?} failed"))
    }

    /// Runs `command` under a heading; anything but exit code 0 is a failure.
    pub(crate) fn command(&mut self, title: &str, command: &mut Command) -> anyhow::Result<()> {
        self.run(title, || run(command))
    }

    /// Says under a heading why nothing is done.
    pub(crate) fn skip(&mut self, title: &str, reason: &str) {
        eprintln!("\n=== {title}\nSKIPPED: {reason}");
        self.done.push((format!("{title} (skipped)"), Duration::ZERO));
    }

    /// Prints what was done and how long it took.
    pub(crate) fn report(&self) {
        eprintln!();
        let width = self.done.iter().map(|(title, _)| title.len()).max().unwrap_or(0);
        for (title, took) in &self.done {
            eprintln!("  {title:width$}  {:>8}", seconds(*took));
        }
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        eprintln!("  {:width$}  {:>8}", "all passed", seconds(total));
    }
}

/// Shows `command` and runs it.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("{} does not start", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Program and arguments, as they would be typed.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_fails_its_step_and_is_named() {
        let mut steps = Steps::default();
        let cause = steps.command("refuse", Command::new("false").arg("now")).unwrap_err();
        assert!(format!("{cause:#}").contains("step \"refuse\" failed: `false now` ended with"), "{cause:#}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let mut steps = Steps::default();
        let cause = steps.command("look", &mut Command::new("/nowhere/at-all")).unwrap_err();
        assert!(format!("{cause:#}").contains("/nowhere/at-all does not start"), "{cause:#}");
    }
}
