//! The threads that talk to a token. Owns the sessions, one a thread because no two calls may share one, and the login, of which a process
//! has one. A caller waits for so long and no longer; a thread that the token keeps waiting is lost to it and to nobody else.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    mechanism::MechanismType,
    object::{Attribute, ObjectClass, ObjectHandle},
    session::{Session, SessionState, UserType},
    slot::Slot,
    types::AuthPin,
};
use remoteler_core::Secret;

use super::{
    Pkcs11Config, TokenChoice,
    answer::{Asked, answer, told},
    places,
};
use crate::{TokenError, TokenKeyId};

/// Sessions that are used at once. A token in the machine answers one at a time; one behind a network answers several.
const SESSIONS: usize = 4;
/// Questions that wait for a session.
const WAITING: usize = 256;
/// How long the end of the threads is waited for.
const PARTING: Duration = Duration::from_secs(5);

/// The threads, and the queue they serve. Ends with the last user, and waits until the threads have: a module that is asked something while its
/// process ends takes the process down.
pub(super) struct Workers {
    /// There until the end.
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    /// Nothing ever comes; closed when the last thread is done.
    done: Mutex<Receiver<()>>,
    token: String,
}

/// One question, and whom to tell.
type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// What all sessions of a token share.
struct Shared {
    context: Pkcs11,
    module: PathBuf,
    choice: TokenChoice,
    token: String,
    login: Mutex<Login>,
}

/// The login of this process.
struct Login {
    pin: Secret,
    /// Why the PIN is shown to the token no more.
    over: Option<TokenError>,
}

/// One thread. What it holds ends in this order.
struct Worker {
    connection: Option<Connection>,
    shared: Arc<Shared>,
    _done: SyncSender<()>,
}

/// One session, logged in.
pub(super) struct Connection {
    context: Pkcs11,
    slot: Slot,
    session: Session,
    /// Where private keys were found, as long as the session lasts.
    keys: HashMap<TokenKeyId, ObjectHandle>,
}

impl Workers {
    /// Loads the module, finds the token, and starts the threads; they log in when they are asked something.
    pub(super) fn start(config: Pkcs11Config) -> Result<Self, TokenError> {
        let Pkcs11Config { module, token: choice, pin } = config;
        let context = places::load(&module)?;
        let (_, token) = places::find(&context, &module, &choice)?;
        let login = Mutex::new(Login { pin, over: None });
        let shared = Arc::new(Shared { context, module, choice, token: token.clone(), login });
        let (queue, jobs) = sync_channel::<Job>(WAITING);
        let (done, all_done) = sync_channel(1);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut workers =
            Self { queue: Some(queue), threads: Vec::new(), done: Mutex::new(all_done), token: token.clone() };
        for number in 0..SESSIONS {
            let jobs = jobs.clone();
            let worker = Worker { connection: None, shared: shared.clone(), _done: done.clone() };
            let thread = std::thread::Builder::new().name(format!("token {number}"));
            let thread = thread.spawn(move || worker.serve(&jobs)).map_err(|cause| TokenError::Failed {
                token: token.clone(),
                doing: "be given a thread",
                source: told(&cause.to_string()),
            })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Label of the token.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Asks the token. `work` is done in any of the sessions; a second time, in a new one, when the session was lost.
    pub(super) fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        limit: Duration,
        work: impl Fn(&mut Connection) -> Result<T, Asked> + Send + 'static,
    ) -> Result<T, TokenError> {
        let (reply, answer) = sync_channel(1);
        let given_up = Instant::now() + limit;
        let job: Job = Box::new(move |worker| {
            // Whoever asked has gone: then nothing is to be made or signed for them.
            if Instant::now() < given_up {
                let _ = reply.send(worker.answer(doing, &work));
            }
        });
        let token = || self.token.clone();
        let queue = self.queue.as_ref().ok_or_else(|| ended(token(), doing))?;
        queue.try_send(job).map_err(|cause| match cause {
            TrySendError::Full(_) => TokenError::Busy { token: token() },
            TrySendError::Disconnected(_) => ended(token(), doing),
        })?;
        match answer.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(TokenError::Silent { token: token(), doing, limit }),
            Err(RecvTimeoutError::Disconnected) => Err(ended(token(), doing)),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue = None;
        let done = self.done.get_mut().unwrap_or_else(PoisonError::into_inner);
        // One that the token keeps waiting is left to itself.
        if done.recv_timeout(PARTING) == Err(RecvTimeoutError::Disconnected) {
            for thread in self.threads.drain(..) {
                let _ = thread.join(); // a panic in there was reported by the panic hook
            }
        }
    }
}

fn ended(token: String, doing: &'static str) -> TokenError {
    TokenError::Failed { token, doing, source: told("the thread that talks to it has ended") }
}

impl Worker {
    fn serve(mut self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            // The lock is held while waiting for a job and not while doing it.
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            match job {
                Ok(job) => job(&mut self),
                Err(_) => return, // nobody can ask any more
            }
        }
    }

    fn answer<T>(
        &mut self,
        doing: &'static str,
        work: &impl Fn(&mut Connection) -> Result<T, Asked>,
    ) -> Result<T, TokenError> {
        let first = self.attempt(work);
        let asked = match first {
            Err(asked) if asked.lost() => {
                // Closing it is tried, and fails as a rule.
                drop(self.connection.take());
                self.attempt(work)
            }
            other => other,
        };
        asked.map_err(|asked| {
            let failed = |source| TokenError::Failed { token: self.shared.token.clone(), doing, source };
            match asked {
                Asked::NoSession(cause) => cause,
                Asked::LoggedOut => failed(told("the session is not logged in")),
                Asked::Unusable(what) => failed(told(what)),
                Asked::Module(cause) => failed(answer(&cause)),
            }
        })
    }

    fn attempt<T>(&mut self, work: &impl Fn(&mut Connection) -> Result<T, Asked>) -> Result<T, Asked> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.shared.connect().map_err(Asked::NoSession)?),
        };
        work(connection)
    }
}

impl Shared {
    fn connect(&self) -> Result<Connection, TokenError> {
        let failed =
            |doing, cause: &Error| TokenError::Failed { token: self.token.clone(), doing, source: answer(cause) };
        // Slots change their numbers when a token comes back.
        let (slot, _) = places::find(&self.context, &self.module, &self.choice)?;
        let session = self.context.open_rw_session(slot).map_err(|cause| failed("open a session", &cause))?;
        self.log_in(slot, &session)?;
        Ok(Connection { context: self.context.clone(), slot, session, keys: HashMap::new() })
    }

    /// Logs in unless another session has. A PIN that was refused once is not shown again, in this process or, where the token tells, in the
    /// next one.
    fn log_in(&self, slot: Slot, session: &Session) -> Result<(), TokenError> {
        let mut login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cause) = &login.over {
            return Err(cause.clone());
        }
        let token = || self.token.clone();
        let failed = |cause: &Error| TokenError::Failed { token: token(), doing: "log in", source: answer(cause) };
        let state = session.get_session_info().map_err(|cause| failed(&cause))?.session_state();
        if state == SessionState::RwUser {
            return Ok(());
        }
        let info = self.context.get_token_info(slot).map_err(|cause| failed(&cause))?;
        if info.user_pin_locked() {
            return Err(TokenError::PinLocked { token: token() });
        }
        if info.user_pin_count_low() || info.user_pin_final_try() {
            return Err(TokenError::PinCounted { token: token(), module: self.module.clone() });
        }
        let pin = AuthPin::from(login.pin.reveal());
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(cause @ Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                let refused = TokenError::Pin { token: token(), source: answer(&cause) };
                login.over = Some(refused.clone());
                Err(refused)
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                let locked = TokenError::PinLocked { token: token() };
                login.over = Some(locked.clone());
                Err(locked)
            }
            Err(cause) => Err(failed(&cause)),
        }
    }
}

impl Connection {
    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    /// What the token can do.
    pub(super) fn mechanisms(&self) -> Result<Vec<MechanismType>, Asked> {
        Ok(self.context.get_mechanism_list(self.slot)?)
    }

    /// The private key with this id; `None` when there is none.
    pub(super) fn private_key(&mut self, id: TokenKeyId) -> Result<Option<ObjectHandle>, Asked> {
        if let Some(handle) = self.keys.get(&id) {
            return Ok(Some(*handle));
        }
        let found = self.objects(ObjectClass::PRIVATE_KEY, id)?;
        match found.as_slice() {
            [] => Ok(None),
            [one] => {
                self.keys.insert(id, *one);
                Ok(Some(*one))
            }
            _ => Err(Asked::Unusable("several private keys have the same id")),
        }
    }

    /// Destroys both halves of the key with this id.
    pub(super) fn destroy(&mut self, id: TokenKeyId) -> Result<(), Asked> {
        self.keys.remove(&id);
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            for object in self.objects(class, id)? {
                self.session.destroy_object(object)?;
            }
        }
        Ok(())
    }

    fn objects(&self, class: ObjectClass, id: TokenKeyId) -> Result<Vec<ObjectHandle>, Asked> {
        // To who is not logged in, private keys are not refused: they are not there.
        if self.session.get_session_info()?.session_state() != SessionState::RwUser {
            return Err(Asked::LoggedOut);
        }
        let wanted = [Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.octets().to_vec())];
        Ok(self.session.find_objects(&wanted)?)
    }
}
