//! What one connection forwards from this machine to its client: the ssh-agent, and ports. Owns the answers to those requests and what is recorded and said of
//! a refusal. Never carries an octet.

use std::time::Duration;

use remoteler_core::{ForwardDirection, SessionId, random_uuid};
use russh::{ChannelId, server::Handle};

use super::Connection;
use crate::{
    node::{
        authorize::{Action, Permit, Refusal},
        forward::{self, Destination, Ends, Permitless},
        remote::Bound,
        report::{Forwarded, SessionReport},
        reverse::{Reverse, Way},
    },
    process::Account,
};

impl Connection {
    /// What everything needs that opens channels to the client.
    pub(super) fn reverse(&self, handle: Handle) -> Reverse {
        Reverse { node: self.node.clone(), handle, places: self.reverse.clone() }
    }

    pub(super) async fn refuse_forward(&self, what: Forwarded, refusal: &Refusal) {
        forward::refuse(&self.node, self.access.clone().map(Permitless), what, refusal).await;
    }

    /// `auth-agent-req@openssh.com`: the socket is made when the session begins.
    pub(super) async fn ask_for_agent(&mut self, channel: ChannelId) -> bool {
        match self.authorize(Action::ForwardAgent) {
            Ok(permit) => match self.pending(channel) {
                Some(pending) if pending.start.is_some() => {
                    pending.agent = Some(permit);
                    true
                }
                Some(_) | None => false,
            },
            Err(refusal) => {
                let agent = ForwardDirection::Agent;
                self.refuse_forward(
                    Forwarded { direction: agent, addr: "ssh-agent".into(), originator: None },
                    &refusal,
                )
                .await;
                // OpenSSH's client does not ask for an answer, so the user would not learn of it.
                if let Some(pending) = self.pending(channel)
                    && pending.refused.is_empty()
                {
                    pending.refused.push(format!("{refusal}; ssh -a or ForwardAgent no asks for none"));
                }
                false
            }
        }
    }

    /// `tcpip-forward`: listens, and yields the port. The answer waits for the account database and the audit log, because the request has no other moment for it.
    pub(super) async fn listen(&mut self, asked: Destination, handle: Handle) -> Option<u16> {
        let permit = match self.authorize(Action::RemoteForward) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.refuse_forward(asked.forwarded(ForwardDirection::Remote), &refusal).await;
                self.tell_later(format!("{} is not forwarded: {refusal}", asked.name()));
                return None;
            }
        };
        let live = self.live_signal()?;
        let report =
            self.node.reporter.session(SessionId::from_uuid(random_uuid(&*self.node.entropy)), permit.access());
        let bound = match self.bind(&asked, &permit).await {
            Ok(bound) => bound,
            Err(error) => return self.not_listening(&report, asked, error).await,
        };
        let what = bound.place().forwarded(ForwardDirection::Remote);
        if let Err(error) = report.port(what).await {
            tracing::warn!(%error, "a port is not forwarded: the audit log does not take events");
            self.tell_later(format!("{} is not forwarded: the audit log does not take events", asked.name()));
            return None;
        }
        let port = bound.port();
        let ends = Ends { gone: self.ended.clone(), live };
        let way = Way { shared: self.reverse(handle), permit, report: report.clone(), ends };
        match self.remote.serve(bound, way) {
            Ok(()) => Some(port),
            Err(error) => self.not_listening(&report, asked, error.to_string()).await,
        }
    }

    /// I20: a forward, too, belongs to an account that exists now.
    async fn bind(&self, asked: &Destination, permit: &Permit) -> Result<Bound, String> {
        let finding = tokio::time::timeout(ACCOUNT, Account::find(permit.access().login()));
        let account = finding.await.map_err(|_| "the account database does not answer".to_owned())?;
        let account = account.map_err(|error| error.to_string())?;
        self.remote.bind(asked, &account).map_err(|error| error.to_string())
    }

    async fn not_listening(&mut self, report: &SessionReport, asked: Destination, error: String) -> Option<u16> {
        self.tell_later(format!("{} is not forwarded: {error}", asked.name()));
        report.port_refused(asked.forwarded(ForwardDirection::Remote), error).await;
        None
    }

    /// The answer to a global request has no words: they are said in the next session, if there is one.
    fn tell_later(&mut self, words: String) {
        if self.untold.len() < MAX_UNTOLD {
            self.untold.push(words);
        }
    }
}

const MAX_UNTOLD: usize = 8;
const ACCOUNT: Duration = Duration::from_secs(10);
