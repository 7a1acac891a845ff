//! How an agent gets into its cluster the first time: by a join token, or by the identity of somebody who may make one. Owns the order of the steps,
//! of which each may be the last before the power fails.

use std::{collections::BTreeSet, sync::Arc};

use remoteler_core::{ApiError, ApiErrorKind, AuthApi, NewToken, NodeName, Secret, SystemRole};
use remoteler_tunnel::{SharedTlsIdentity, Ways};
use zeroize::Zeroizing;

use super::builder::BuildError;
use crate::{
    connector::AuthTrust,
    files::FileError,
    host_clock::HostClock,
    host_state::HostState,
    identity_file::IdentityFile,
    join::{JoinError, JoinParams, join},
    pending_keys::PendingKeys,
    remote::RemoteAuth,
    state_store::StateStore,
};

/// By what an agent is let into its cluster, when its state holds no identity yet.
#[derive(Clone, Debug)]
pub struct Join(Means);

#[derive(Clone, Debug)]
enum Means {
    Token { token: Secret, pins: Vec<String>, insecure: bool },
    Identity(Box<IdentityFile>),
}

impl Join {
    /// With a join token of type `node`.
    #[must_use]
    pub fn token(token: &str) -> Self {
        Self(Means::Token { token: Secret::new(token.trim()), pins: Vec::new(), insecure: false })
    }

    /// As somebody who may create join tokens (`tctl auth sign` writes the file): the agent makes itself one, for one host of its name. The
    /// cluster is known by the file, so that no pin is needed. Once joined the agent is a host of its own, and the file can go.
    ///
    /// ```no_run
    /// use remoteler_client::{IdentityFile, sdk::{Agent, Join}};
    ///
    /// # async fn device() -> Result<(), Box<dyn std::error::Error>> {
    /// let join = Join::identity(IdentityFile::read("/etc/device/identity".as_ref())?);
    /// let agent = Agent::builder("proxy.example.com:3080").join(join).name("edge-1").state("/var/lib/device").build().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn identity(file: IdentityFile) -> Self {
        Self(Means::Identity(Box::new(file)))
    }

    /// The cluster is known by this pin (`sha256:…`), which `tctl tokens add` prints beside the token. Several may be given. An identity brings its
    /// own and takes none.
    #[must_use]
    pub fn pin(mut self, pin: &str) -> Self {
        if let Means::Token { pins, .. } = &mut self.0 {
            pins.push(pin.to_owned());
        }
        self
    }

    /// Without a pin whoever is in the path gets the token (I15). Counts only when there is no pin.
    #[must_use]
    pub fn without_pin(mut self) -> Self {
        if let Means::Token { insecure, .. } = &mut self.0 {
            *insecure = true;
        }
        self
    }
}

/// Where and as whom to join.
pub(super) struct Joining<'a> {
    pub(super) proxy: &'a str,
    pub(super) name: &'a NodeName,
    pub(super) store: &'a dyn StateStore,
    pub(super) clock: &'a HostClock,
    pub(super) ways: &'a Ways,
}

impl Joining<'_> {
    /// Joins, and keeps what was issued.
    pub(super) async fn join(&self, by: &Join) -> Result<HostState, BuildError> {
        let state = match &by.0 {
            Means::Token { token, pins, insecure } => self.ask(token.clone(), pins.clone(), *insecure).await?,
            Means::Identity(file) => self.by_identity(file).await?,
        };
        state.save_to(self.store)?;
        PendingKeys::forget_in(self.store)?;
        self.store.remove(TOKEN)?;
        tracing::info!(cluster = %state.cluster_name(), host = %state.host_id(), "joined");
        Ok(state)
    }

    /// With a token that this agent makes itself. It is kept until the agent has joined: who asks again with the same token and the same keys is the
    /// same host.
    async fn by_identity(&self, file: &IdentityFile) -> Result<HostState, BuildError> {
        let pins = file.trust().host_pins().unwrap_or_default();
        if let Some(token) = self.kept_token()? {
            match self.ask(token, pins.clone(), false).await {
                // Used up, or unknown because its time is over: a token is good for minutes, and power may be away for days.
                Err(BuildError::Join(JoinError::Refused { source, .. }))
                    if matches!(source.kind, ApiErrorKind::Denied | ApiErrorKind::Unauthenticated) =>
                {
                    self.store.remove(TOKEN)?;
                    tracing::debug!(reason = %source, "the token of the attempt before is worth nothing any more");
                }
                joined => return joined,
            }
        }
        let token = self.make_token(file).await?;
        self.store.write(TOKEN, token.reveal().as_bytes())?;
        self.ask(token, pins, false).await
    }

    fn kept_token(&self) -> Result<Option<Secret>, FileError> {
        let kept: Option<Zeroizing<Vec<u8>>> = self.store.read(TOKEN, MOST_TOKEN)?;
        Ok(kept.and_then(|kept| std::str::from_utf8(&kept).ok().map(Secret::new)))
    }

    async fn make_token(&self, file: &IdentityFile) -> Result<Secret, BuildError> {
        let identity = SharedTlsIdentity::new(file.tls().clone());
        let trust = AuthTrust::Bundle(file.trust().clone());
        let auth = RemoteAuth::tls_by_clock(self.proxy, Some(identity), trust, Arc::new(self.clock.clone()))?;
        let wanted = NewToken {
            roles: BTreeSet::from([SystemRole::Node]),
            ttl_seconds: Some(LIFE),
            value: None,
            uses: Some(1),
            names: Some(self.name.to_string()),
            labels: Default::default(),
        };
        let refused = |source: ApiError| BuildError::Token { user: file.identity().user.to_string(), source };
        Ok(auth.by(self.ways).create_token(wanted).await.map_err(refused)?.token)
    }

    async fn ask(&self, token: Secret, ca_pins: Vec<String>, insecure: bool) -> Result<HostState, BuildError> {
        let params = JoinParams {
            addr: self.proxy.to_owned(),
            token,
            ca_pins,
            insecure,
            node_name: self.name.clone(),
            roles: BTreeSet::from([SystemRole::Node]),
            kube_clusters: BTreeSet::new(),
            apps: Default::default(),
            service_account: None,
            keys: Some(PendingKeys::load_or_make_in(self.store, self.name.as_str())?),
            ways: self.ways.clone(),
        };
        Ok(join(params, self.clock).await?)
    }
}

/// The token that an agent made itself, until it has joined.
const TOKEN: &str = "join_token";
const MOST_TOKEN: u64 = 4096;
/// Seconds that it works: for an attempt whose answer was lost, and its repetition.
const LIFE: u64 = 600;
