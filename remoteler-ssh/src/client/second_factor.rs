//! The client's side of a login that the server wants a second factor for (RFC 4256, keyboard-interactive behind a certificate). Owns the order of
//! question and answer and their number; asking the user is its caller's, and nothing is answered that nobody typed.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use remoteler_core::{Login, Secret};
use russh::client::KeyboardInteractiveAuthResponse as Reply;

use super::{ConnectError, SshClient, ended};
use crate::player::printable;

/// What a server that was verified wants to know. All of it is printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name of the server.
    pub host: String,
    /// What it says before it asks; may be empty.
    pub instructions: String,
    /// What it asks.
    pub prompt: String,
    /// Whether the answer may be seen.
    pub echo: bool,
}

/// Asks the user; `None` when nobody can be asked.
pub type Answerer = Arc<dyn Fn(Question) -> Answering + Send + Sync>;

/// The answer to come.
pub type Answering = Pin<Box<dyn Future<Output = Option<Secret>> + Send>>;

/// Questions of one login (I22).
const ROUNDS: usize = 8;
const MAX_PROMPTS: usize = 4;
const MAX_TEXT: usize = 600;

impl SshClient {
    /// Answers until the server is content. Each of its replies has `deadline`; the user has as long as the server gives.
    pub(super) async fn second_factor(
        &mut self,
        login: Login,
        answerer: Option<Answerer>,
        deadline: Duration,
    ) -> Result<(), ConnectError> {
        let host = self.host.clone();
        let missing = || ConnectError::SecondFactor { host: host.clone() };
        let answerer = answerer.ok_or_else(missing)?;
        let mut answers: Option<Vec<String>> = None;
        for _ in 0..ROUNDS {
            let reply = async {
                match answers.take() {
                    None => self.handle.authenticate_keyboard_interactive_start(login.as_str(), None).await,
                    Some(answers) => self.handle.authenticate_keyboard_interactive_respond(answers).await,
                }
            };
            let reply = tokio::time::timeout(deadline, reply).await;
            let reply = reply.map_err(|_| ConnectError::Timeout { host: host.clone(), seconds: deadline.as_secs() })?;
            let (name, instructions, prompts) = match reply {
                Ok(Reply::Success) => return Ok(()),
                Ok(Reply::Failure { .. }) => break,
                Ok(Reply::InfoRequest { name, instructions, prompts }) => (name, instructions, prompts),
                Err(cause) if ended(&cause) => {
                    return Err(ConnectError::Closed { host, reason: self.last_words.at_the_end().await });
                }
                Err(cause) => return Err(cause.into()),
            };
            if prompts.len() > MAX_PROMPTS {
                break;
            }
            let text = |text: &str| printable(&text.chars().take(MAX_TEXT).collect::<String>());
            let mut instructions = [name, instructions].map(|said| text(&said)).join(" ").trim().to_owned();
            let mut typed = Vec::new();
            for prompt in &prompts {
                let question = Question {
                    host: host.clone(),
                    instructions: std::mem::take(&mut instructions),
                    prompt: text(&prompt.prompt),
                    echo: prompt.echo,
                };
                typed.push(answerer(question).await.ok_or_else(missing)?.reveal().to_owned());
            }
            answers = Some(typed);
        }
        Err(ConnectError::Refused { host, login, reason: self.last_words.take() })
    }
}
