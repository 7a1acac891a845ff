//! Who is let in: from a certificate, and a second factor where one is wanted, to the access that everything later is measured by. Records every refusal.
//! Never looks at what a client asks for after its login.

use std::{sync::Arc, time::Duration};

use remoteler_core::{
    ConnectionKind, DenyReason, Login, SessionId, SessionProof, SshAccess, SshCertificatePurpose, Subject, Terms,
    VerifiedUser, VerifyError, authorize_ssh, authorize_ssh_proven, printable, verify_ssh_certificate, with_causes,
};
use russh::keys::Certificate;

use super::Connection;
use crate::{
    node::{
        refusals::{Limit, Refused},
        second_factor::Half,
    },
    process::Account,
};

/// What is known before the login.
#[derive(Default)]
pub(super) struct Attempt {
    /// Somebody asked to log in; the name may come later or never.
    pub(super) begun: bool,
    pub(super) login: Option<String>,
    pub(super) offers: usize,
    /// A refusal of this connection is in the audit log.
    pub(super) recorded: bool,
    /// A key without a certificate was shown. Clients do that on their way to the certificate, so it is no refusal yet.
    pub(super) plain_key: Option<String>,
    /// To be said to somebody who proved who they are and may not log in.
    pub(super) farewell: Option<String>,
    /// A certificate was right, and a second factor is still to come.
    pub(super) half: Option<Half>,
}

/// What comes of an attempt.
pub(super) enum Decision {
    Welcome(Arc<SshAccess>),
    /// The user is known and proven, so they may know why they cannot log in.
    Farewell(String),
    /// The certificate is right, and a second factor must follow.
    SecondFactor(VerifiedUser, Login),
    Refused,
}

impl Connection {
    /// Who logs in as `login` with `certificate`, or what to say. The audit log has the reason of every refusal.
    pub(super) async fn decide(&mut self, login: &str, certificate: &Certificate) -> Decision {
        let node = self.node.clone();
        let policy = node.live.policy().policy();
        let now = node.clock.now();
        let verified = verify_ssh_certificate(certificate, &policy.trust, SshCertificatePurpose::User, now);
        let user = match verified.map(remoteler_core::Verified::user) {
            Ok(Some(user)) => user,
            Ok(None) => {
                let error = VerifyError::WrongType { expected: "user", found: "host" };
                return self.refuse(certificate.key_id(), login, with_causes(&error)).await;
            }
            Err(error) => return self.refuse(certificate.key_id(), login, with_causes(&error)).await,
        };
        let wanted = match Login::new(login) {
            Ok(wanted) => wanted,
            Err(error) => {
                let name = user.identity().user.to_string();
                return self.refuse(&name, login, error.to_string()).await;
            }
        };
        self.admit(user, wanted, None).await
    }

    /// Whether somebody whose certificate is right may log in, with a second factor for the session if one was shown.
    pub(super) async fn admit(
        &mut self,
        user: VerifiedUser,
        wanted: Login,
        proven: Option<(SessionProof, SessionId)>,
    ) -> Decision {
        let node = self.node.clone();
        let policy = node.live.policy().policy();
        let record = node.record();
        let (name, login) = (user.identity().user.to_string(), wanted.to_string());
        let login = login.as_str();
        let decided = match &proven {
            None => authorize_ssh(&user, &policy, &record, &wanted),
            Some((proof, session)) => {
                authorize_ssh_proven(&user, &policy, &record, &wanted, (proof, *session, node.clock.now()))
            }
        };
        let access = match decided {
            Ok(access) => access,
            Err(denied) if denied.reason == DenyReason::SessionMfaNeeded && node.second_factors.get().is_some() => {
                return Decision::SecondFactor(user, wanted);
            }
            Err(denied) => {
                let _refused = self.refuse(&name, login, denied.to_string()).await;
                return Decision::Farewell(denied.public());
            }
        };
        match Account::find(&wanted).await {
            Ok(_) => self.live(access, name, login).await,
            Err(error) => {
                let _refused = self.refuse(&name, login, with_causes(&error)).await;
                Decision::Farewell(error.to_string())
            }
        }
    }

    /// Puts the connection among live work. Refuses it if the rules have changed since it was allowed.
    async fn live(&mut self, access: SshAccess, name: String, login: &str) -> Decision {
        let live = &self.node.live;
        let subject = Subject::user(access.user()).login(access.login().clone()).node(&self.node.record());
        let (options, settings) = (access.options(), live.policy().policy().settings);
        let terms = Terms {
            ends_with_certificate: options.disconnect_expired_cert,
            idle: options.client_idle_timeout.into_iter().chain(settings.client_idle_timeout()).min(),
            connection: Some((ConnectionKind::Ssh, options.max_connections)),
            grace: Duration::ZERO,
        };
        let mode = live.policy().policy().lock_mode(options);
        match live.enter_connection(subject, terms, mode).await {
            Ok(guard) => {
                self.live = Some(guard);
                Decision::Welcome(Arc::new(access))
            }
            Err(reason) => {
                let said = reason.to_string();
                match Limit::of_connections(&reason) {
                    Some(limit) => {
                        self.attempt.recorded = true;
                        let refused = self.refused(&name, login, said.clone());
                        self.node.refusals.record_rejected(&self.node.record(), limit, refused).await;
                    }
                    None => drop(self.refuse(&name, login, said.clone()).await),
                }
                Decision::Farewell(said)
            }
        }
    }

    pub(super) async fn refuse(&mut self, user: &str, login: &str, error: String) -> Decision {
        self.attempt.recorded = true;
        let refused = self.refused(user, login, error);
        self.node.refusals.record(refused).await;
        Decision::Refused
    }

    fn refused(&self, user: &str, login: &str, error: String) -> Refused {
        Refused { user: claimed(user), login: Some(claimed(login)), error, remote: self.client.clone() }
    }
}

impl Drop for Connection {
    /// The library refuses certificates that are expired, not yet valid or wrongly signed without asking us; that somebody tried
    /// and did not get in is recorded here.
    fn drop(&mut self) {
        if !self.attempt.begun || self.access.is_some() || self.attempt.recorded {
            return;
        }
        let half = self.attempt.half.take();
        let error = match self.attempt.plain_key.take() {
            _ if half.is_some() => "no second factor was shown for the session".into(),
            Some(algorithm) => format!("a {algorithm} key was shown without an acceptable certificate"),
            None => {
                "no acceptable certificate was shown: none, or one that is expired, not yet valid or wrongly signed"
                    .into()
            }
        };
        let login = self.attempt.login.take();
        let user = half.map(|half| half.user.identity().user.to_string()).unwrap_or_default();
        let refused = Refused { user, login, error, remote: self.client.take() };
        let node = self.node.clone();
        if tokio::runtime::Handle::try_current().is_ok() {
            self.node.tasks.spawn(async move { node.refusals.record(refused).await });
        }
    }
}

/// What a stranger said, fit for a log line.
pub(super) fn claimed(text: &str) -> String {
    printable(&text.chars().take(80).collect::<String>())
}
