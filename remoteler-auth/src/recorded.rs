//! Whose a recording is: the `session.start` that settles it, kept beside the recording from its first octet on, so that nobody's right to it goes with
//! the retention of the audit log. Owns those records; who may read or write a recording is decided elsewhere.

use std::{collections::BTreeMap, time::Duration};

use remoteler_core::{HostId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{event_log::SessionStarted, failure::ApiResult, records::key, service::Inner};

/// So long after its `session.start` was removed from the log a recording may still begin to arrive: a node that was away sends its events first.
const LATE: Duration = Duration::from_secs(30 * 24 * 3600);

/// As it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedSession {
    user: String,
    login: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<HostId>,
    node: String,
    started: Timestamp,
}

impl From<SessionStarted> for RecordedSession {
    fn from(SessionStarted { user, login, host, node, time }: SessionStarted) -> Self {
        Self { user, login, host, node, started: time }
    }
}

impl From<RecordedSession> for SessionStarted {
    fn from(RecordedSession { user, login, host, node, started }: RecordedSession) -> Self {
        Self { user, login, host, node, time: started }
    }
}

impl Inner {
    /// How a session began. What is kept beside the recording counts more than the log: there the event that settled it may be gone, and another
    /// one, later and by somebody else, be the first that is left (I66).
    pub(crate) async fn session_started(&self, session: SessionId) -> ApiResult<Option<SessionStarted>> {
        match self.records.read::<RecordedSession>(&key::of(key::RECORDINGS, session)).await? {
            Some(kept) => Ok(Some(kept.into())),
            None => Ok(self.events.session_started(session).await?),
        }
    }

    /// The same of many.
    pub(crate) async fn sessions_started(
        &self,
        sessions: &[SessionId],
    ) -> ApiResult<BTreeMap<SessionId, SessionStarted>> {
        let kept = self.records.list::<RecordedSession>(key::RECORDINGS).await?;
        let mut known: BTreeMap<SessionId, SessionStarted> =
            kept.into_iter().filter_map(|(id, kept, _)| Some((id.parse().ok()?, kept.into()))).collect();
        let unknown: Vec<SessionId> = sessions.iter().filter(|session| !known.contains_key(session)).copied().collect();
        known.extend(self.events.sessions_started(&unknown).await?);
        Ok(known)
    }

    /// Keeps how a session began for as long as its recording, which is about to have its first octets.
    pub(crate) async fn keep_with_recording(&self, session: SessionId, started: SessionStarted) -> ApiResult<()> {
        let record = RecordedSession::from(started);
        Ok(self.records.write(&key::of(key::RECORDINGS, session), &record, None).await?)
    }

    /// Keeps how sessions began whose `session.start` is about to be removed from the log: with their recordings if there are any, and for a while if
    /// they may still come.
    pub(crate) async fn keep_before_removal(&self, sessions: &[SessionId]) -> ApiResult<()> {
        let now = self.clock.now();
        for session in sessions {
            let Some(started) = self.session_started(*session).await? else { continue };
            let recorded = self.recordings.state(*session).await.map_err(crate::failure::recording)?.is_some();
            let (record, until) = (RecordedSession::from(started), (!recorded).then(|| now.plus(LATE)));
            self.records.write(&key::of(key::RECORDINGS, session), &record, until).await?;
        }
        Ok(())
    }
}
