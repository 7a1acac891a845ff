//! One SSH connection: its login and what the client asks for in it. Asks `admission` who the client is and `authorize` what
//! it may do, answers, and hands the work to tasks of their own; nothing here waits for a process, a disk or another host.

mod admission;
mod forwarding;

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use remoteler_core::{ForwardDirection, LiveGuard, LiveSignal, Secret, SessionId, SshAccess, random_uuid};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Pty as Code, Sig,
    keys::Certificate,
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    node::{
        Node,
        authorize::{Action, Permit, Refusal, authorize, copies_files},
        config::MAX_OFFERS,
        connection::admission::{Attempt, Decision, claimed},
        environment::{MAX_VARIABLES, term_name},
        forward::{self, Destination},
        gate::Gate,
        refusals::{Limit, Refused},
        remote::RemoteForwards,
        reverse::Places,
        second_factor::{self, Half, Next},
        session::{self, Control, Kind, Start},
    },
    pty::{PtyRequest, Size},
};

/// Why a connection is broken off.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Ssh(#[from] russh::Error),
    #[error("the client offered more than {MAX_OFFERS} keys")]
    TooManyOffers,
}

/// The handler of one connection.
pub(super) struct Connection {
    node: Arc<Node>,
    client: Option<String>,
    /// Where the client reached this node.
    own_addr: Option<SocketAddr>,
    gate: Gate,
    ended: CancellationToken,
    attempt: Attempt,
    access: Option<Arc<SshAccess>>,
    /// Its place among live work, from the login on.
    live: Option<LiveGuard>,
    channels: HashMap<ChannelId, Entry>,
    remote: RemoteForwards,
    /// Channels that this node may have open to the client.
    reverse: Places,
    /// What was refused before there was a session to say so in.
    untold: Vec<String>,
}

/// What is known of one channel.
struct Entry {
    /// Cancelled when its task has ended.
    ended: CancellationToken,
    session: Option<Pending>,
}

/// A session channel: what was asked so far, and how to reach its task.
struct Pending {
    pty: Option<PtyRequest>,
    env: Vec<(String, String)>,
    agent: Option<Permit>,
    /// What was asked for and refused, to be said when the session begins.
    refused: Vec<String>,
    start: Option<oneshot::Sender<Start>>,
    signals: mpsc::Sender<Control>,
    size: watch::Sender<Option<Size>>,
}

impl Connection {
    /// `ends`: the client's address and this node's, as far as they are known.
    pub(super) fn new(
        node: Arc<Node>,
        ends: (Option<String>, Option<SocketAddr>),
        gate: Gate,
        ended: CancellationToken,
    ) -> Self {
        let (client, own_addr) = ends;
        Self {
            remote: RemoteForwards::default(),
            reverse: Places::new(node.config.limits.max_channels_per_connection),
            untold: Vec::new(),
            node,
            client,
            own_addr,
            gate,
            ended,
            attempt: Attempt::default(),
            access: None,
            live: None,
            channels: HashMap::new(),
        }
    }

    fn live_signal(&self) -> Option<LiveSignal> {
        self.live.as_ref().map(LiveGuard::signal)
    }

    fn authorize(&self, action: Action<'_>) -> Result<Permit, Refusal> {
        if let Some(reason) = self.live.as_ref().and_then(|live| live.signal().reason().cloned()) {
            return Err(Refusal::Ended(reason));
        }
        authorize(self.access.as_ref(), action, self.node.clock.now())
    }

    /// Records that an authenticated client was refused something.
    async fn note(&self, refusal: &Refusal) {
        let Some(access) = &self.access else { return };
        let refused = Refused {
            user: access.user().identity().user.to_string(),
            login: Some(access.login().to_string()),
            error: refusal.to_string(),
            remote: self.client.clone(),
        };
        if let Refusal::TooManySessions(limit) = refusal {
            let limit = Limit { option: "max_sessions", reached: Some(*limit) };
            self.node.refusals.record_rejected(&self.node.record(), limit, refused).await;
        } else {
            self.node.refusals.record(refused).await;
        }
    }

    /// The limit of sessions in one connection, if it is reached.
    fn has_all_sessions(&self) -> Option<u32> {
        let limit = self.access.as_ref()?.options().max_sessions?;
        let open =
            self.channels.values().filter(|entry| entry.session.is_some() && !entry.ended.is_cancelled()).count();
        (open >= usize::try_from(limit).unwrap_or(usize::MAX)).then_some(limit)
    }

    /// Counts a new channel in, if there is room.
    fn enter(&mut self, id: ChannelId, session: Option<Pending>) -> Option<CancellationToken> {
        self.channels.retain(|_, entry| !entry.ended.is_cancelled());
        if self.channels.len() >= self.node.config.limits.max_channels_per_connection {
            return None;
        }
        let ended = CancellationToken::new();
        self.channels.insert(id, Entry { ended: ended.clone(), session });
        Some(ended)
    }

    fn pending(&mut self, id: ChannelId) -> Option<&mut Pending> {
        self.channels.get_mut(&id)?.session.as_mut()
    }

    /// Starts something in a session channel; its task answers the request.
    async fn start(
        &mut self,
        id: ChannelId,
        action: Action<'_>,
        kind: Kind,
        session: &mut Session,
    ) -> Result<(), ConnectionError> {
        let permit = match self.authorize(action) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.note(&refusal).await;
                return Ok(session.channel_failure(id)?);
            }
        };
        let Some(pending) = self.pending(id) else { return Ok(session.channel_failure(id)?) };
        // One program in one channel (RFC 4254 section 6.5).
        let Some(start) = pending.start.take() else { return Ok(session.channel_failure(id)?) };
        let (pty, env) = (pending.pty.take(), std::mem::take(&mut pending.env));
        let (agent, mut refused) = (pending.agent.take(), std::mem::take(&mut pending.refused));
        refused.append(&mut self.untold);
        if start.send(Start { permit, kind, pty, env, agent, refused }).is_err() {
            session.channel_failure(id)?;
        }
        Ok(())
    }
}

impl Handler for Connection {
    type Error = ConnectionError;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        self.attempt.begun = true;
        Ok(None)
    }

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        self.attempt.login = Some(claimed(user));
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(&mut self, user: &str, _offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        self.attempt.login = Some(claimed(user));
        // An offer costs the check of a signature, and the library counts none of them.
        self.attempt.offers += 1;
        if self.attempt.offers > MAX_OFFERS {
            return Err(ConnectionError::TooManyOffers);
        }
        // Key or certificate cannot be told apart here; the decision is made when possession is proven (I16).
        Ok(Auth::Accept)
    }

    async fn auth_publickey(&mut self, _user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        self.attempt.plain_key = Some(key.algorithm.to_string());
        Ok(Auth::reject())
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        match self.decide(user, certificate).await {
            Decision::Welcome(access) => self.access = Some(access),
            Decision::Farewell(text) => self.attempt.farewell = Some(text),
            Decision::SecondFactor(user, login) => {
                // Once: who shows the certificate again wins neither time nor guesses.
                if self.attempt.half.is_none() {
                    let session = SessionId::from_uuid(random_uuid(&*self.node.entropy));
                    self.attempt.half = Some(Half::new(user, login, session));
                    self.gate.proving(Instant::now() + second_factor::TIME);
                }
                let methods = MethodSet::from(&[MethodKind::KeyboardInteractive][..]);
                return Ok(Auth::Reject { proceed_with_methods: Some(methods), partial_success: true });
            }
            Decision::Refused => return Ok(Auth::reject()),
        }
        Ok(Auth::Accept)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let code = response.map(|mut answers| answers.next().unwrap_or_default());
        let code = code.map(|typed| Secret::new(String::from_utf8_lossy(&typed).trim()));
        // Under another name nothing was begun; what was, stays, with the guesses it has left.
        let begun = self.attempt.half.take_if(|half| half.login.as_str() == user);
        let (Some(mut half), Some(ask)) = (begun, self.node.second_factors.get().cloned()) else {
            return Ok(Auth::reject());
        };
        match half.proceed(&ask, code, self.client.clone()).await {
            Next::Ask(instructions) => {
                self.attempt.half = Some(half);
                return Ok(second_factor::question(instructions));
            }
            Next::Proven(proof) => match self.admit(half.user, half.login, Some((proof, half.session))).await {
                Decision::Welcome(access) => self.access = Some(access),
                Decision::Farewell(text) => self.attempt.farewell = Some(text),
                Decision::SecondFactor(..) | Decision::Refused => return Ok(Auth::reject()),
            },
            Next::Over(text) => {
                let name = half.user.identity().user.to_string();
                let _refused = self.refuse(&name, half.login.as_str(), text.clone()).await;
                self.attempt.farewell = Some(text);
            }
        }
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        if let (Some(_), Some(live)) = (&self.access, self.live_signal()) {
            self.gate.logged_in(live);
            return Ok(());
        }
        // Nothing was granted: without `access` every action is refused, and the connection ends with this message.
        let text = self.attempt.farewell.take().unwrap_or_else(|| "access denied".into());
        session.disconnect(Disconnect::NoMoreAuthMethodsAvailable, &text, "en")?;
        self.gate.leaving();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let permit = match self.authorize(Action::OpenSession) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.note(&refusal).await;
                reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
                return Ok(());
            }
        };
        // Who is refused a channel is told nothing by the clients there are: it is opened, says why, and ends.
        let beyond = self.has_all_sessions().map(Refusal::TooManySessions);
        if let Some(refusal) = &beyond {
            self.note(refusal).await;
        }
        let Some(live) = self.live_signal() else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let (start, started) = oneshot::channel();
        let (signals, controls) = mpsc::channel(SIGNALS);
        let (size, sizes) = watch::channel(None);
        let start = Some(start);
        let pending = Pending { pty: None, env: Vec::new(), agent: None, refused: Vec::new(), start, signals, size };
        let Some(ended) = self.enter(channel.id(), Some(pending)) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        reply.accept().await;
        let place = session::Place {
            node: self.node.clone(),
            client: self.client.clone(),
            own_addr: self.own_addr,
            handle: session.handle(),
            reverse: self.reverse(session.handle()),
            gone: self.ended.clone(),
            live,
        };
        let inputs = session::Inputs { started, controls, sizes };
        self.node.tasks.spawn(async move {
            let _end = ended.drop_guard();
            match beyond {
                None => session::run(place, permit, channel, inputs).await,
                Some(refusal) => session::turn_away(place, &refusal.to_string(), channel, inputs).await,
            }
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let destination = Destination { host: host_to_connect.to_owned(), port: port_to_connect };
        let permit = match self.authorize(Action::DirectTcpip) {
            Ok(permit) => permit,
            Err(refusal) => {
                reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
                self.refuse_forward(destination.forwarded(ForwardDirection::Local), &refusal).await;
                return Ok(());
            }
        };
        let (Some(ended), Some(live)) = (self.enter(channel.id(), None), self.live_signal()) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let (node, ends) = (self.node.clone(), forward::Ends { gone: self.ended.clone(), live });
        self.node.tasks.spawn(async move {
            let _end = ended.drop_guard();
            forward::run(node, permit, destination, channel, reply, ends).await;
        });
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_channel(Action::X11, reply).await
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_channel(Action::ForwardedTcpip, reply).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_channel(Action::Streamlocal, reply).await
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        col_width: u32,
        row_height: u32,
        pix_width: u32,
        pix_height: u32,
        modes: &[(Code, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let allowed = self.authorize(Action::Pty).is_ok();
        let size = Size::new(col_width, row_height, pix_width, pix_height);
        let request = PtyRequest { term: term_name(term).to_owned(), size, modes: modes.to_vec() };
        match self.pending(channel) {
            Some(pending) if allowed && pending.start.is_some() && pending.pty.is_none() => pending.pty = Some(request),
            Some(_) | None => return Ok(session.channel_failure(channel)?),
        }
        Ok(session.channel_success(channel)?)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        variable_name: &str,
        variable_value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // Refusing is normal here: clients send what they have and do not mind. So it is not in the audit log.
        let allowed = self.authorize(Action::Env { name: variable_name, value: variable_value }).is_ok();
        match self.pending(channel) {
            Some(pending) if allowed && pending.start.is_some() && pending.env.len() < MAX_VARIABLES => {
                pending.env.push((variable_name.to_owned(), variable_value.to_owned()));
            }
            Some(_) | None => return Ok(session.channel_failure(channel)?),
        }
        Ok(session.channel_success(channel)?)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(channel, Action::Shell, Kind::Shell, session).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let action = if copies_files(data) { Action::CopyFiles } else { Action::Exec };
        self.start(channel, action, Kind::Exec(data.to_vec()), session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, Action::Subsystem { name }, Kind::Sftp, session).await
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        col_width: u32,
        row_height: u32,
        pix_width: u32,
        pix_height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.authorize(Action::Resize).is_ok()
            && let Some(pending) = self.pending(channel)
        {
            pending.size.send_replace(Some(Size::new(col_width, row_height, pix_width, pix_height)));
        }
        Ok(())
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _session: &mut Session) -> Result<(), Self::Error> {
        if self.authorize(Action::Signal).is_ok()
            && let Some(pending) = self.pending(channel)
        {
            // A program that is sent signals faster than they can be delivered misses some, as with kill(2).
            let _queued = pending.signals.try_send(Control::Signal(signal));
        }
        Ok(())
    }

    async fn agent_request(&mut self, channel: ChannelId, _session: &mut Session) -> Result<bool, Self::Error> {
        Ok(self.ask_for_agent(channel).await)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _x11_auth_protocol: &str,
        _x11_auth_cookie: &str,
        _x11_screen_number: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Err(refusal) = self.authorize(Action::X11) {
            self.note(&refusal).await;
        }
        Ok(session.channel_failure(channel)?)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let listening = self.listen(Destination { host: address.to_owned(), port: *port }, session.handle()).await;
        *port = listening.map_or(*port, u32::from);
        Ok(listening.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        // Giving back needs no permission that taking did not.
        Ok(self.remote.cancel(&Destination { host: address.to_owned(), port }))
    }

    async fn streamlocal_forward(&mut self, _socket_path: &str, _session: &mut Session) -> Result<bool, Self::Error> {
        if let Err(refusal) = self.authorize(Action::Streamlocal) {
            self.note(&refusal).await;
        }
        Ok(false)
    }
}

impl Connection {
    async fn refuse_channel(&self, action: Action<'_>, reply: ChannelOpenHandle) -> Result<(), ConnectionError> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        if let Err(refusal) = self.authorize(action) {
            self.note(&refusal).await;
        }
        Ok(())
    }
}

const SIGNALS: usize = 8;
