//! Keeps up to date whom a login believes to be hosts of its cluster: while an authority is rotated, the new one must be known before
//! servers show it. Owns when to ask; what is believed is in the store.

use std::time::Duration;

use remoteler_client::StoredLogin;
use remoteler_core::AuthApi;
use tokio::task::JoinHandle;

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
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the auth service for the authorities and believes them; what was known says whether it is the auth service. Rewrites the
/// kubeconfig when they are others than before.
pub(crate) async fn refresh(context: &Context, login: &StoredLogin) -> anyhow::Result<()> {
    let trust = remote_auth(login)?.trust_bundle().await?;
    if context.store.believe(login, &trust)? {
        tracing::debug!(cluster = %trust.cluster, phase = %trust.rotation.host, "the cluster's authorities have changed");
        let login = context.store.login(&login.profile)?;
        tell_kubeconfig(context, &login).await;
    }
    Ok(())
}

/// The same if that was not done lately. That it fails is no failure of the command: what is known still counts.
pub(crate) async fn refresh_when_old(context: &Context, login: &StoredLogin) {
    // What an identity file does not say is not believed, and the files of logins are not its.
    if context.identity.is_some() {
        return;
    }
    if context.store.trust_age(&login.profile.proxy).is_some_and(|age| age < AGE) {
        return;
    }
    match tokio::time::timeout(LIMIT, refresh(context, login)).await {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => tracing::debug!(cause = one_line(&cause), "the cluster's authorities were not fetched"),
        Err(_) => tracing::debug!("the cluster's authorities were not fetched in time"),
    }
}

/// The same beside a connection.
pub(crate) struct Refresh(JoinHandle<()>);

impl Refresh {
    /// Begins.
    pub(crate) fn start(context: &Context, login: &StoredLogin) -> Self {
        let (context, login) = (context.clone(), login.clone());
        Self(tokio::spawn(async move { refresh_when_old(&context, &login).await }))
    }

    /// Gives it a moment when the connection is over.
    pub(crate) async fn finish(self) {
        let _ = tokio::time::timeout(PATIENCE, self.0).await;
    }
}
