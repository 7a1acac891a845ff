//! Client of a running ssh-agent (draft-miller-ssh-agent): gives it the key and certificate of a login for as long as they are valid,
//! and takes exactly those back. Owns the framing. Never asks the agent for a signature, and never touches other keys.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use remoteler_core::UserName;
use ssh_key::{Certificate, PrivateKey};
use zeroize::Zeroizing;

use crate::profile::ProxyAddr;

/// Why the agent did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// No agent there, or the connection broke.
    #[error("the ssh-agent at {} does not answer: {source}", .socket.display())]
    Io {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent said no.
    #[error("the ssh-agent refused to {0}; is it locked, or does it not take certificates or lifetimes?")]
    Refused(&'static str),
    /// It does not speak the protocol.
    #[error("the ssh-agent's answer is not understood: {0}")]
    Protocol(&'static str),
    /// A key of a kind that is not given to agents.
    #[error("only Ed25519 keys are given to an ssh-agent")]
    KeyKind,
    /// The certificate has expired.
    #[error("the certificate has no lifetime left")]
    Expired,
}

/// A running ssh-agent. Each call has a deadline of 5 s for each answer.
#[derive(Debug)]
pub struct SshAgent {
    stream: UnixStream,
    socket: PathBuf,
}

impl SshAgent {
    /// Connects to the agent at `socket`, which is what `SSH_AUTH_SOCK` names.
    ///
    /// # Errors
    /// [`AgentError::Io`] when none answers.
    pub fn connect(socket: &Path) -> Result<Self, AgentError> {
        let connected = UnixStream::connect(socket).and_then(|stream| {
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            Ok(stream)
        });
        let stream = connected.map_err(|source| AgentError::Io { socket: socket.into(), source })?;
        Ok(Self { stream, socket: socket.into() })
    }

    /// Replaces what the agent holds of this login: the key and, as a second entry, its certificate, as `ssh-add` does. Both go by
    /// themselves after `lifetime` (whole seconds, at least 1). An agent that does not know lifetimes refuses.
    ///
    /// # Errors
    /// [`AgentError`]; one of the two may have been added then.
    pub fn add(
        &mut self,
        proxy: &ProxyAddr,
        user: &UserName,
        key: &PrivateKey,
        certificate: &Certificate,
        lifetime: Duration,
    ) -> Result<(), AgentError> {
        let pair = key.key_data().ed25519().ok_or(AgentError::KeyKind)?;
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        if seconds == 0 {
            return Err(AgentError::Expired);
        }
        self.remove(proxy, user)?;
        let comment = comment(proxy, user);
        let blob = certificate.to_bytes().map_err(|_| AgentError::Protocol("the certificate does not encode"))?;
        let parts: [(&str, Option<&[u8]>); 2] =
            [("ssh-ed25519", None), ("ssh-ed25519-cert-v01@openssh.com", Some(&blob))];
        for (kind, certificate) in parts {
            let mut message = Zeroizing::new(Vec::with_capacity(2048));
            message.push(ADD_ID_CONSTRAINED);
            put(&mut message, kind.as_bytes());
            if let Some(blob) = certificate {
                put(&mut message, blob);
            }
            put(&mut message, pair.public.as_ref());
            put(&mut message, Zeroizing::new(pair.to_bytes()).as_slice());
            put(&mut message, comment.as_bytes());
            message.push(CONSTRAIN_LIFETIME);
            message.extend_from_slice(&seconds.to_be_bytes());
            self.succeed(&message, "take a key")?;
        }
        Ok(())
    }

    /// Takes back what was added for this login, and nothing else. Says how many entries there were.
    ///
    /// # Errors
    /// [`AgentError`]
    pub fn remove(&mut self, proxy: &ProxyAddr, user: &UserName) -> Result<usize, AgentError> {
        let comment = comment(proxy, user);
        let identities = self.identities()?;
        let ours = identities.iter().filter(|identity| identity.comment == comment.as_bytes());
        let mut removed = 0;
        for HeldIdentity { blob, .. } in ours {
            let mut message = vec![REMOVE_IDENTITY];
            put(&mut message, blob);
            self.succeed(&message, "remove a key")?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Key blobs and comments of all that the agent holds.
    fn identities(&mut self) -> Result<Vec<HeldIdentity>, AgentError> {
        let answer = self.ask(&[REQUEST_IDENTITIES])?;
        let mut reader = Fields(&answer);
        if reader.octet()? != IDENTITIES_ANSWER {
            return Err(AgentError::Refused("list its keys"));
        }
        let count = reader.number()?;
        let mut identities = Vec::new();
        for _ in 0..count {
            identities.push(HeldIdentity { blob: reader.string()?.to_vec(), comment: reader.string()?.to_vec() });
        }
        Ok(identities)
    }

    fn succeed(&mut self, message: &[u8], what: &'static str) -> Result<(), AgentError> {
        match self.ask(message)?.first() {
            Some(&SUCCESS) => Ok(()),
            Some(_) => Err(AgentError::Refused(what)),
            None => Err(AgentError::Protocol("it is empty")),
        }
    }

    fn ask(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, AgentError> {
        let length = u32::try_from(message.len()).map_err(|_| AgentError::Protocol("the request is too long"))?;
        let mut frame = Zeroizing::new(Vec::with_capacity(message.len() + 4));
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(message);
        let io = |source| AgentError::Io { socket: self.socket.clone(), source };
        self.stream.write_all(&frame).map_err(io)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(io)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_FRAME {
            return Err(AgentError::Protocol("it is longer than 256 KiB")); // I74
        }
        let mut answer = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or(0)]);
        self.stream.read_exact(&mut answer).map_err(io)?;
        Ok(answer)
    }
}

/// One entry of the agent.
struct HeldIdentity {
    /// Public key or certificate.
    blob: Vec<u8>,
    comment: Vec<u8>,
}

/// By which our entries are known.
fn comment(proxy: &ProxyAddr, user: &UserName) -> String {
    format!("remoteler:{}:{user}", proxy.host())
}

fn put(message: &mut Vec<u8>, string: &[u8]) {
    let length = u32::try_from(string.len()).expect("keys and certificates are far below 4 GiB");
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(string);
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], AgentError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(AgentError::Protocol("it ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn octet(&mut self) -> Result<u8, AgentError> {
        self.take(1)?.first().copied().ok_or(AgentError::Protocol("it ends early"))
    }

    fn number(&mut self) -> Result<u32, AgentError> {
        self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_| AgentError::Protocol("it ends early"))
    }

    fn string(&mut self) -> Result<&'a [u8], AgentError> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| AgentError::Protocol("it ends early"))?)
    }
}

// draft-miller-ssh-agent, section 6.
const SUCCESS: u8 = 6;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const REMOVE_IDENTITY: u8 = 18;
const ADD_ID_CONSTRAINED: u8 = 25;
const CONSTRAIN_LIFETIME: u8 = 1;

const MAX_FRAME: u32 = 256 * 1024;
const ANSWER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// An agent that answers the first request with `answer`.
    fn agent_answering(answer: Vec<u8>) -> (tempfile::TempDir, std::thread::JoinHandle<()>, SshAgent) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("agent")).unwrap();
        let agent = SshAgent::connect(&dir.path().join("agent")).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 5];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&answer).unwrap();
        });
        (dir, thread, agent)
    }

    #[test]
    fn an_answer_that_lies_about_its_lengths_is_an_error_and_allocates_nothing() {
        for answer in [
            vec![0xff, 0xff, 0xff, 0xff],                             // I74: frame of 4 GiB
            vec![0, 0, 0, 0],                                         // empty
            vec![0, 0, 0, 5, 12, 0xff, 0xff, 0xff, 0xff],             // 4 billion identities, none there
            vec![0, 0, 0, 9, 12, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], // a blob of 4 GiB
            vec![0, 0, 0, 1, 5],                                      // failure
        ] {
            let (_dir, thread, mut agent) = agent_answering(answer);
            let outcome = agent.remove(&"p".parse().unwrap(), &UserName::new("ann").unwrap());
            assert!(matches!(outcome, Err(AgentError::Protocol(_) | AgentError::Refused(_))), "{outcome:?}");
            thread.join().unwrap();
        }
    }
}
