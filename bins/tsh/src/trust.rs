//! Keeps up to date whom a login believes to be hosts of its cluster: while an authority is rotated, the new one must be known before
//! servers show it. Owns when to ask, and how long who is about to verify a server waits for what is
//! revoked; what is believed is in the store.

use std::time::Duration;

use remoteler_client::StoredLogin;
use remoteler_core::{AuthApi, Revocations};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    commands::login::tell_kubeconfig,
    context::{Context, remote_auth},
    output::one_line,
};

/// Asks at most so often.
const AGE: Duration = Duration::from_secs(60);
/// How long a command that is done waits for the answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a command that needs the answer waits for it.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// How long a connection that is being made waits for what is revoked, counted from its begin.
const NEWEST: Duration = Duration::from_secs(2);

/// Asks the auth service for the authorities and believes them; what was known says whether it is the auth service. Rewrites the
/// kubeconfig when they are others than before. What is revoked now.
pub(crate) async fn refresh(context: &Context, login: &StoredLogin) -> anyhow::Result<Revocations> {
    let trust = remote_auth(login)?.trust_bundle().await?;
    if context.store.believe(login, &trust)? {
        tracing::debug!(cluster = %trust.cluster, phase = %trust.rotation.host, "the cluster's authorities have changed");
        let login = context.store.login(&login.profile)?;
        tell_kubeconfig(context, &login).await;
    }
    Ok(trust.revoked)
}

/// The same, for who can go on without: `None` when no answer came in time.
pub(crate) async fn refresh_in_time(context: &Context, login: &StoredLogin) -> Option<anyhow::Result<Revocations>> {
    tokio::time::timeout(LIMIT, refresh(context, login)).await.ok()
}

/// The same if that was not done lately. That it fails is no failure of the command: what is known still counts.
pub(crate) async fn refresh_when_old(context: &Context, login: &StoredLogin) {
    // The files of logins are not the identity file's.
    if context.identity.is_none() {
        newest(context, login).await;
    }
}

/// What is revoked now, unless what is known was heard of lately.
async fn newest(context: &Context, login: &StoredLogin) -> Option<Revocations> {
    let fetch = async {
        if context.identity.is_some() {
            return revoked_beside(login).await;
        }
        refresh(context, login).await
    };
    if context.identity.is_none() && context.store.trust_age(&login.profile.proxy).is_some_and(|age| age < AGE) {
        return None;
    }
    match tokio::time::timeout(LIMIT, fetch).await {
        Ok(Ok(revoked)) => Some(revoked),
        Ok(Err(cause)) => {
            tracing::debug!(cause = one_line(&cause), "the cluster's authorities were not fetched");
            None
        }
        Err(_) => {
            tracing::debug!("the cluster's authorities were not fetched in time");
            None
        }
    }
}

/// For an identity file: whom it does not name is not believed, and nothing is kept; but whoever is revoked meanwhile is believed no more.
async fn revoked_beside(login: &StoredLogin) -> anyhow::Result<Revocations> {
    let trust = remote_auth(login)?.trust_bundle().await?;
    Ok(login.trust.revoked.iter().chain(trust.revoked.iter()).copied().collect())
}

/// The same beside a connection.
pub(crate) struct Refresh {
    task: Option<JoinHandle<Option<Revocations>>>,
    until: Instant,
}

impl Refresh {
    /// Begins.
    pub(crate) fn start(context: &Context, login: &StoredLogin) -> Self {
        let (context, login) = (context.clone(), login.clone());
        Self::of(tokio::spawn(async move { newest(&context, &login).await }), NEWEST)
    }

    fn of(task: JoinHandle<Option<Revocations>>, within: Duration) -> Self {
        Self { task: Some(task), until: Instant::now() + within }
    }

    /// What is revoked now, for a server that is about to be verified. `None`: what is known counts, because it is new enough or nothing newer
    /// came in time.
    pub(crate) async fn revoked(&mut self) -> Option<Revocations> {
        let done = tokio::time::timeout_at(self.until, self.task.as_mut()?).await.ok()?;
        self.task = None;
        done.ok().flatten()
    }

    /// Gives it a moment when the connection is over.
    pub(crate) async fn finish(self) {
        if let Some(task) = self.task {
            let _ = tokio::time::timeout(PATIENCE, task).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_revoked_is_taken_when_it_comes_in_time_and_keeps_nobody_waiting_otherwise() {
        let revoked: Revocations = [("ssh-host-7").parse().unwrap()].into_iter().collect();
        let brought = Some(revoked.clone());
        let mut quick = Refresh::of(tokio::spawn(async move { brought }), Duration::from_secs(20));
        assert_eq!(quick.revoked().await, Some(revoked));
        assert_eq!(quick.revoked().await, None);
        quick.finish().await;

        let mut slow = Refresh::of(tokio::spawn(std::future::pending()), Duration::from_millis(1));
        assert_eq!(tokio::time::timeout(Duration::from_secs(20), slow.revoked()).await.unwrap(), None);
        slow.finish().await;
    }
}
