//! The second factor of a login at a node whose roles want one for each session: after the certificate, keyboard-interactive (RFC 4256) asks for a code, so
//! that every client of SSH can answer. Owns a login that is half done, how often it may guess, and the time it has. Whether a code is right, the auth
//! service says; whether the proof fits, `remoteler-core`.

use std::{borrow::Cow, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use remoteler_core::{
    ApiError, ApiErrorKind, Login, Secret, SessionId, SessionProof, SessionProofRequest, SessionProven, SessionPurpose,
    VerifiedUser,
};
use russh::server::Auth;

/// Takes a second factor to the auth service.
pub type SecondFactors = Arc<dyn Fn(SessionProofRequest) -> SessionProving + Send + Sync>;

/// What comes of it. Dropped, it may have taken the code.
pub type SessionProving = Pin<Box<dyn Future<Output = Result<SessionProven, ApiError>> + Send>>;

/// Codes that may be typed in one connection.
const TRIES: u32 = 3;
/// How long the auth service may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest text that is taken as a code.
const MAX_CODE: usize = 64;
/// How long the user has, from the certificate on: the code in the app changes every 30 s, and who has just used one waits for the next.
pub(super) const TIME: Duration = Duration::from_secs(120);

/// Somebody whose certificate is right, and who must show a second factor for this connection.
pub(super) struct Half {
    pub(super) user: VerifiedUser,
    pub(super) login: Login,
    /// Drawn here; the proof must name it (I49).
    pub(super) session: SessionId,
    tries: u32,
}

/// What comes next.
pub(super) enum Next {
    /// The client is asked for a code, with these words.
    Ask(String),
    /// It was right.
    Proven(SessionProof),
    /// The login is over, and the user may know why.
    Over(String),
}

impl Half {
    pub(super) const fn new(user: VerifiedUser, login: Login, session: SessionId) -> Self {
        Self { user, login, session, tries: 0 }
    }

    /// Looks at a code; `None` before one was typed.
    pub(super) async fn proceed(&mut self, ask: &SecondFactors, code: Option<Secret>, remote: Option<String>) -> Next {
        if code.is_some() {
            self.tries += 1;
        }
        if code.as_ref().is_some_and(|code| code.reveal().len() > MAX_CODE) {
            return self.again("that is no code");
        }
        let (user, login) = (self.user.identity().user.clone(), self.login.clone());
        let purpose = SessionPurpose::Ssh { user, login, remote };
        let asked = ask(SessionProofRequest { session: self.session, purpose, code });
        let refused = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(SessionProven { proof, .. })) => return Next::Proven(proof),
            Ok(Err(refused)) => refused,
            Err(_) => return Next::Over(UNCHECKED.into()),
        };
        if refused.kind == ApiErrorKind::SecondFactorNeeded || refused.kind == ApiErrorKind::Unauthenticated {
            return self.again(&refused.message);
        }
        if refused.kind == ApiErrorKind::Denied || refused.kind == ApiErrorKind::RateLimited {
            return Next::Over(refused.message);
        }
        tracing::warn!(error = %refused, "a second factor could not be checked");
        Next::Over(UNCHECKED.into())
    }

    fn again(&self, why: &str) -> Next {
        if self.tries >= TRIES { Next::Over(format!("access denied: {why}")) } else { Next::Ask(why.to_owned()) }
    }
}

impl fmt::Debug for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Half").field("session", &self.session).field("tries", &self.tries).finish_non_exhaustive()
    }
}

/// The question as it goes to the client. What is typed may be seen: it counts once.
pub(super) fn question(instructions: String) -> Auth {
    Auth::Partial {
        name: Cow::Borrowed(""),
        instructions: Cow::Owned(instructions),
        prompts: Cow::Borrowed(&[(Cow::Borrowed("One-time code: "), true)]),
    }
}

const UNCHECKED: &str = "access denied: each session here needs a second factor, and the auth service that checks it does not answer; try again later";
