//! Labels whose values commands print, refreshed each in its own period.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use remoteler_core::Labels;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::CommandLabel;

/// The labels of a node: the fixed ones, those of commands, which win over them, and those of its join token, which win over both.
#[derive(Debug)]
pub(crate) struct LiveLabels {
    parts: Mutex<Parts>,
    all: watch::Sender<Labels>,
}

#[derive(Debug, Default)]
struct Parts {
    fixed: Labels,
    commanded: Labels,
    given: Labels,
}

impl LiveLabels {
    /// Runs each command once, then again in its period until `stop`.
    ///
    /// # Errors
    /// A command that fails at the start: without its label, a role that denies by it would let in.
    pub(crate) async fn start(
        fixed: Labels,
        given: Labels,
        commands: Vec<CommandLabel>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let parts = Parts { fixed, commanded: Labels::new(), given };
        let all = watch::Sender::new(parts.all());
        let labels = Arc::new(Self { parts: Mutex::new(parts), all });
        for command in commands {
            labels
                .refresh(&command)
                .await
                .map_err(|reason| anyhow::anyhow!("the command of label {} failed: {reason}", command.name))?;
            let (labels, stop) = (labels.clone(), stop.clone());
            tokio::spawn(async move {
                while stop.run_until_cancelled(tokio::time::sleep(command.period)).await.is_some() {
                    if let Err(reason) = labels.refresh(&command).await {
                        // The last value stays: a role that denies by it must not let in because it is gone.
                        tracing::warn!(
                            label = command.name,
                            program = command.program,
                            reason,
                            "a label's command failed"
                        );
                    }
                }
            });
        }
        Ok(labels)
    }

    /// All labels now.
    pub(crate) fn read(&self) -> Labels {
        self.all.borrow().clone()
    }

    /// Follows the labels as they change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Labels> {
        self.all.subscribe()
    }

    /// Takes other fixed labels.
    pub(crate) fn replace_fixed(&self, fixed: Labels) {
        self.change(|parts| parts.fixed = fixed);
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        let all = parts.all();
        self.all.send_if_modified(|shown| {
            let changed = *shown != all;
            *shown = all;
            changed
        });
    }

    async fn refresh(&self, command: &CommandLabel) -> Result<(), String> {
        let value = run(command).await?;
        self.change(|parts| {
            parts.commanded.insert(command.name.clone(), value);
        });
        Ok(())
    }
}

impl Parts {
    fn all(&self) -> Labels {
        let mut all = self.fixed.clone();
        all.extend(self.commanded.clone());
        all.extend(self.given.clone());
        all
    }
}

const LIMIT: Duration = Duration::from_secs(10);
const MAX_VALUE: usize = 256;

async fn run(command: &CommandLabel) -> Result<String, String> {
    let mut process = tokio::process::Command::new(&command.program);
    process.args(&command.args).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(LIMIT, process.output()).await {
        Err(_) => return Err(format!("it did not end within {} s", LIMIT.as_secs())),
        Ok(Err(cause)) => return Err(cause.to_string()),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let value: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    if value.len() > MAX_VALUE {
        return Err(format!("it printed more than {MAX_VALUE} octets"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> CommandLabel {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (program, args) = words.split_first().unwrap();
        CommandLabel {
            name: "said".into(),
            program: program.clone(),
            args: args.to_vec(),
            period: Duration::from_secs(3600),
        }
    }

    #[tokio::test]
    async fn a_commands_output_becomes_the_labels_value() {
        let stop = CancellationToken::new();
        let fixed = Labels::from([("env".to_owned(), "dev".to_owned())]);
        let labels = LiveLabels::start(fixed, Labels::new(), vec![command(&["echo", "hello"])], &stop).await.unwrap();
        assert_eq!(labels.read()["said"], "hello");
        assert_eq!(labels.read()["env"], "dev");
        stop.cancel();
    }

    // I35
    #[tokio::test]
    async fn labels_of_the_join_token_win_over_all_others_whatever_changes() {
        let stop = CancellationToken::new();
        let label = |value: &str| Labels::from([("said".to_owned(), value.to_owned())]);
        let labels = LiveLabels::start(label("own"), label("given"), vec![command(&["echo", "hello"])], &stop);
        let labels = labels.await.unwrap();
        assert_eq!(labels.read(), label("given"));
        labels.replace_fixed(Labels::from([("said".into(), "other".into()), ("env".into(), "dev".into())]));
        assert_eq!((labels.read()["said"].as_str(), labels.read()["env"].as_str()), ("given", "dev"));
        stop.cancel();
    }

    #[tokio::test]
    async fn a_command_that_fails_at_the_start_stops_the_start() {
        let stop = CancellationToken::new();
        let cause =
            LiveLabels::start(Labels::new(), Labels::new(), vec![command(&["false"])], &stop).await.unwrap_err(); // I80
        assert!(cause.to_string().starts_with("the command of label said failed"), "{cause}");
    }

    #[tokio::test]
    async fn a_command_that_fails_later_leaves_the_last_value() {
        let stop = CancellationToken::new();
        let labels =
            LiveLabels::start(Labels::new(), Labels::new(), vec![command(&["echo", "hello"])], &stop).await.unwrap();
        assert!(labels.refresh(&command(&["false"])).await.is_err());
        assert_eq!(labels.read()["said"], "hello"); // I80
        stop.cancel();
    }
}
