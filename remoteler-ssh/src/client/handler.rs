//! What the server may cause: show its certificate, say something, end the connection, and bring what it was asked for (`remote`). Every other channel a
//! server opens is refused.

use std::{fmt, sync::Arc};

use remoteler_core::{Clock, SshCertificatePurpose, TrustBundle, verify_ssh_certificate};
use russh::{
    Channel, ChannelOpenFailure,
    client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session},
    keys::PublicKeyOrCertificate,
};
use tokio_util::sync::DropGuard;

use super::{
    ClientConfig, ConnectError, LastWords,
    remote::{Asked, Inbound},
};
use crate::player::printable;

/// Callbacks of one connection.
pub(super) struct ClientHandler {
    host: String,
    trust: Arc<TrustBundle>,
    clock: Arc<dyn Clock>,
    notice: Arc<dyn Fn(&str) + Send + Sync>,
    /// Says, when this handler goes, that nothing more will be said.
    _over: DropGuard,
    last_words: LastWords,
    inbound: Inbound,
}

impl ClientHandler {
    pub(super) fn new(config: &ClientConfig, last_words: LastWords, asked: Asked) -> Self {
        Self {
            host: config.host.clone(),
            trust: config.trust.clone(),
            clock: config.clock.clone(),
            notice: config.notice.clone(),
            _over: last_words.over.clone().drop_guard(),
            last_words,
            inbound: Inbound::new(asked, config.agent.clone(), config.notice.clone()),
        }
    }
}

impl fmt::Debug for ClientHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandler").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Handler for ClientHandler {
    type Error = ConnectError;

    async fn auth_banner(&mut self, banner: &str, _session: &mut Session) -> Result<(), ConnectError> {
        let lines =
            banner.lines().take(MAX_BANNER_LINES).map(|line| printable(line.get(..MAX_BANNER_LINE).unwrap_or(line)));
        for line in lines {
            (self.notice)(&line);
        }
        Ok(())
    }

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, ConnectError> {
        let Some(certificate) = shown.certificate() else {
            return Err(ConnectError::PlainHostKey(self.host.clone()));
        };
        let purpose = SshCertificatePurpose::Host(&self.host);
        verify_ssh_certificate(certificate, &self.trust, purpose, self.clock.now())
            .map(|_| true)
            .map_err(|source| ConnectError::HostCertificate { host: self.host.clone(), source })
    }

    async fn disconnected(&mut self, reason: DisconnectReason<ConnectError>) -> Result<(), ConnectError> {
        match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                if !said.message.is_empty() {
                    self.last_words.set(printable(&said.message));
                }
                Ok(())
            }
            DisconnectReason::Error(cause) => Err(cause),
        }
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        connected_address: &str,
        connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), ConnectError> {
        self.inbound.forwarded(channel, (connected_address.to_owned(), connected_port), reply).await;
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), ConnectError> {
        refuse(reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), ConnectError> {
        self.inbound.agent(channel, reply).await;
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), ConnectError> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), ConnectError> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), ConnectError> {
        refuse(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), ConnectError> {
        refuse(reply).await
    }
}

async fn refuse(reply: ChannelOpenHandle) -> Result<(), ConnectError> {
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    Ok(())
}

/// What is shown of a banner at most (I22).
const MAX_BANNER_LINES: usize = 20;
const MAX_BANNER_LINE: usize = 255;
