//! What services report and what people look up later: audit events and session recordings. A host may report only of itself.

use remoteler_core::{
    ApiError, ApiErrorKind, AuditEvent, AuditKind, EventQuery, HostId, HostIdentity, PolicySource, RecordingChunk,
    RecordingInfo, RecordingStore, SessionFields, SessionId, SystemRole, Verb, authorize_rule, random_uuid,
    wire::{MAX_CHUNK, MAX_EVENTS},
};

use crate::{
    BreakNotice, Caller,
    event_log::SessionStarted,
    failure::{self, ApiResult, bad_request, not_found, rate_limited},
    service::Inner,
};

/// Recordings listed at the most.
const MAX_RECORDINGS: usize = 10_000;

impl Inner {
    pub(crate) async fn record_events(&self, caller: &Caller, events: Vec<AuditEvent>) -> ApiResult<()> {
        let Caller::Host { host, .. } = caller else {
            return Err(self.refuse(caller, "record audit events").await);
        };
        if events.len() > MAX_EVENTS {
            return Err(bad_request(format!("at most {MAX_EVENTS} events are taken at once, {} came", events.len())));
        }
        for event in &events {
            if event.cluster_name != self.cluster || !may_report(host.identity(), &event.kind) {
                return Err(self.refuse(caller, &format!("record event {} {}", event.name(), event.uid)).await);
            }
        }
        self.check_room()?;
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        if !self.limits.events.take(host.identity().id, count, self.clock.now()) {
            return Err(self.over_quota(caller, "audit events").await);
        }
        let own = host.identity().id.to_string();
        if events.iter().any(|event| event.chain.as_ref().is_some_and(|link| link.writer != own)) {
            return Err(self.refuse(caller, "record audit events in the chain of another writer").await);
        }
        let notice = BreakNotice { time: self.clock.now(), uid: random_uuid(self.entropy.as_ref()) };
        self.events.append(events, notice).await?;
        Ok(())
    }

    pub(crate) async fn events(&self, caller: &Caller, query: EventQuery) -> ApiResult<Vec<AuditEvent>> {
        self.admit(caller, "event", Verb::List).await?;
        Ok(self.events.query(query).await?)
    }

    pub(crate) async fn append_recording(&self, caller: &Caller, chunk: RecordingChunk) -> ApiResult<()> {
        let RecordingChunk { session_id: session, offset, octets, last } = chunk;
        let (host, started) = self.admit_recorder(caller, session).await?;
        if octets.len() > MAX_CHUNK {
            return Err(bad_request(format!("at most {MAX_CHUNK} octets of a recording are taken at once")));
        }
        self.check_room()?;
        let length = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        if !self.limits.recorded.take(host, length, self.clock.now()) {
            return Err(self.over_quota(caller, "octets of recordings").await);
        }
        if offset == 0 {
            self.keep_with_recording(session, started).await?;
        }
        let store = &self.recordings;
        if !last {
            return store.append(session, offset, &octets, false).await.map_err(failure::recording);
        }
        let ended = store.state(session).await.map_err(failure::recording)?.is_some_and(|state| state.complete);
        if !octets.is_empty() {
            store.append(session, offset, &octets, false).await.map_err(failure::recording)?;
        }
        let size = offset.saturating_add(length);
        if !ended {
            self.record(AuditKind::SessionUpload { sid: session.to_string(), size }).await?;
        }
        store.append(session, size, &[], true).await.map_err(failure::recording)
    }

    pub(crate) async fn recording_size(&self, caller: &Caller, session: SessionId) -> ApiResult<u64> {
        self.admit_recorder(caller, session).await?;
        let state = self.recordings.state(session).await.map_err(failure::recording)?;
        Ok(state.map_or(0, |state| state.size))
    }

    pub(crate) async fn recordings(&self, caller: &Caller) -> ApiResult<Vec<RecordingInfo>> {
        let only_of = match caller {
            Caller::User { user, .. } => {
                let identity = self.current(user).await?;
                let all = authorize_rule(identity, &self.policy.policy(), "session", Verb::List).is_some();
                (!all).then(|| identity.user.to_string())
            }
            Caller::LocalAdmin => None,
            // I66: hosts have nothing to read here.
            Caller::Host { .. } | Caller::Anonymous { .. } => return Err(self.refuse(caller, "list recordings").await),
        };
        let kept = self.recordings.list(MAX_RECORDINGS).await.map_err(failure::recording)?;
        let sessions: Vec<SessionId> = kept.iter().map(|(session, _)| *session).collect();
        let mut begun = self.sessions_started(&sessions).await?;
        let mut recordings = Vec::new();
        for (session_id, state) in kept {
            let Some(started) = begun.remove(&session_id) else { continue };
            if only_of.as_ref().is_some_and(|user| *user != started.user) {
                continue;
            }
            let SessionStarted { user, login, node, time, .. } = started;
            let (size, complete) = (state.size, state.complete);
            recordings.push(RecordingInfo { session_id, user, login, node, started: time, size, complete });
        }
        recordings.sort_by_key(|recording| recording.started);
        Ok(recordings)
    }

    pub(crate) async fn read_recording(&self, caller: &Caller, session: SessionId, offset: u64) -> ApiResult<Vec<u8>> {
        match caller {
            Caller::LocalAdmin => {}
            Caller::User { user, .. } => {
                let identity = self.current(user).await?;
                let allowed = authorize_rule(identity, &self.policy.policy(), "session", Verb::Read).is_some();
                let started = self.session_started(session).await?;
                let own = started.is_some_and(|started| started.user == identity.user.as_str());
                if !allowed && !own {
                    return Err(self.refuse(caller, &format!("read recording {session}")).await);
                }
            }
            Caller::Host { .. } | Caller::Anonymous { .. } => {
                return Err(self.refuse(caller, &format!("read recording {session}")).await);
            }
        }
        self.recordings.read(session, offset, MAX_CHUNK).await.map_err(failure::recording)
    }

    /// On a full disk what services send waits where it is, in their spools; the room that is left is for those who log in and those who can help.
    fn check_room(&self) -> ApiResult<()> {
        if self.backups.database().is_none_or(|database| database.has_room()) {
            return Ok(());
        }
        let message = "the auth service's disk is full; it takes events and recordings again when there is room";
        Err(ApiError::new(ApiErrorKind::Unavailable, message))
    }

    /// A host that sends too much is told to wait, and others can see that it was.
    async fn over_quota(&self, caller: &Caller, what: &str) -> ApiError {
        let answer =
            rate_limited(format!("this host sends more {what} than one host may; it must wait and send again"));
        let remote = caller.address().map(|addr| addr.to_string());
        match self.record_attempt(caller.name(), answer.message.clone(), remote).await {
            Ok(()) => answer,
            Err(cause) => cause,
        }
    }

    /// I66: a recording is written only by the node on which its session began, as that node's own event says.
    async fn admit_recorder(&self, caller: &Caller, session: SessionId) -> ApiResult<(HostId, SessionStarted)> {
        let what = format!("write recording {session}");
        let host = self.admit_host(caller, SystemRole::Node, &what).await?;
        match self.session_started(session).await? {
            Some(started) if started.host == Some(host.id) => Ok((host.id, started)),
            Some(_) => Err(self.refuse(caller, &what).await),
            None => Err(not_found(format!("session {session} has no session.start event yet; send that first"))),
        }
    }
}

/// Whether a host may report an event: only what its own services see.
#[expect(clippy::wildcard_enum_match_arm, reason = "a kind that is not named here must be refused, also when new")]
fn may_report(host: &HostIdentity, kind: &AuditKind) -> bool {
    let is = |role| host.roles.contains(&role);
    let is_app = |name: &String| is(SystemRole::App) && host.apps.iter().any(|app| app.as_str() == name);
    let own = |session: &SessionFields| is(SystemRole::Node) && session.server_id == host.id.to_string();
    match kind {
        AuditKind::SessionStart { session, .. }
        | AuditKind::SessionEnd { session, .. }
        | AuditKind::Exec { session, .. }
        | AuditKind::Sftp { session, .. }
        | AuditKind::Port { session, .. } => own(session),
        AuditKind::KubeRequest { kubernetes_cluster, .. } => {
            is(SystemRole::Kube) && host.kube_clusters.iter().any(|kube| kube.as_str() == kubernetes_cluster)
        }
        AuditKind::AppSessionRequest { app_name, .. } => is_app(app_name),
        AuditKind::AuditDropped { server_id, .. } => *server_id == host.id.to_string(),
        AuditKind::TunnelConnect { .. } => is(SystemRole::Proxy),
        AuditKind::ServiceConnect { server_id, .. } => is(SystemRole::Node) && *server_id == host.id.to_string(),
        // A proxy ends what it copies to others.
        AuditKind::ClientDisconnect { server_hostname, .. } => {
            is(SystemRole::Proxy)
                || (is(SystemRole::Node) && host.name.as_str() == server_hostname)
                || (is(SystemRole::Kube) && host.kube_clusters.iter().any(|kube| kube.as_str() == server_hostname))
                || is_app(server_hostname)
        }
        AuditKind::AuthAttempt { service, .. } => service.parse().is_ok_and(is),
        AuditKind::SessionRejected { service, server_hostname, .. } => match service.parse() {
            Ok(SystemRole::Node) => is(SystemRole::Node) && host.name.as_str() == server_hostname,
            Ok(SystemRole::Kube) => {
                is(SystemRole::Kube) && host.kube_clusters.iter().any(|kube| kube.as_str() == server_hostname)
            }
            Ok(SystemRole::App) => is_app(server_hostname),
            _ => false,
        },
        // The rest only the auth service sees.
        _ => false,
    }
}
