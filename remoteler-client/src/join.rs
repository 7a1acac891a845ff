//! A machine becomes a host of a cluster: keys made here, certified there in exchange for a join token. Owns the first contact,
//! where nothing is believed yet but a pin.

use std::{collections::BTreeSet, sync::Arc};

use remoteler_core::{
    ApiError, ApiErrorKind, AppName, AuthApi, Clock, HostCerts, JoinRequest, KubeClusterName, NodeName, RejoinError,
    RejoinStatement, Secret, SystemRole,
};

use remoteler_tunnel::Ways;

use crate::{
    connector::{AuthTrust, ConnectError},
    host_clock::{HostClock, TimeError, align_clock},
    host_state::{HostState, HostStateError},
    keys::{KeyError, KeyPairs},
    remote::RemoteAuth,
};

/// Why a host did not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Neither a pin nor the wish to go without one.
    #[error("joining {addr} needs the CA pin that `tctl tokens add` printed (--ca-pin sha256:…), or --insecure")]
    NoPin {
        /// Where.
        addr: String,
    },
    /// Not of the form of a pin.
    #[error("{0:?} is no CA pin; sha256: and 64 hex digits are expected")]
    Pin(String),
    /// The keys could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The connection could not be set up.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The auth service refused, or could not be reached.
    #[error("joining through {addr} failed: {source}")]
    Refused {
        /// Where.
        addr: String,
        /// Why.
        source: ApiError,
    },
    /// The answer holds other authorities than the pinned one.
    #[error("the authorities that {addr} sent do not include the one with the CA pin")]
    OtherAuthority {
        /// Where.
        addr: String,
    },
    /// What time it is there cannot be found out.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// The host cannot prove which one it is.
    #[error(transparent)]
    Proof(#[from] RejoinError),
    /// What was issued is not good.
    #[error(transparent)]
    State(#[from] HostStateError),
}

/// How to join.
#[derive(Clone, Debug)]
pub struct JoinParams {
    /// `host:port` of an auth service or of a proxy: both take the same call.
    pub addr: String,
    /// The join token.
    pub token: Secret,
    /// Pins of the host authority; one of them must fit.
    pub ca_pins: Vec<String>,
    /// Go without a pin (I15): whoever is in the path gets the token. Looked at only when there is no pin.
    pub insecure: bool,
    /// Name wanted.
    pub node_name: NodeName,
    /// Services wanted.
    pub roles: BTreeSet<SystemRole>,
    /// Kubernetes clusters to be announced.
    pub kube_clusters: BTreeSet<KubeClusterName>,
    /// Web applications to be announced.
    pub apps: BTreeSet<AppName>,
    /// Token of the pod's service account; then `token` is the name of the resource that lets it in.
    pub service_account: Option<Secret>,
    /// Keys of an attempt before, whose answer may have been lost; absent: new ones.
    pub keys: Option<KeyPairs>,
    /// How `addr` is reached from here.
    pub ways: Ways,
}

/// Joins, and corrects `clock` by the cluster's if it is wrong and there is a pin to know the cluster by. Nothing is written: the caller
/// saves the state.
///
/// # Errors
/// [`JoinError`]. The token may have been used all the same when the answer was lost or not good: asking again with the same keys gets the
/// same answer.
pub async fn join(params: JoinParams, clock: &HostClock) -> Result<HostState, JoinError> {
    let JoinParams {
        addr,
        token,
        ca_pins,
        insecure,
        node_name,
        roles,
        kube_clusters,
        apps,
        service_account,
        keys,
        ways,
    } = params;
    let trust = first_trust(&addr, &ca_pins, insecure)?;
    let keys = match keys {
        Some(keys) => keys,
        None => KeyPairs::generate(node_name.as_str())?,
    };
    let auth = first_contact(&addr, trust, clock, &ways).await?;
    let request = JoinRequest {
        token,
        node_name,
        roles,
        kube_clusters,
        apps,
        ssh_public_key: keys.ssh_public.clone(),
        tls_public_key: keys.tls_public.clone(),
        without_pin: ca_pins.is_empty(),
        rejoin: None,
        service_account,
    };
    let certs = ask(&auth, request, &addr, &ca_pins).await?;
    Ok(HostState::new(keys, certs, clock.now())?)
}

/// The service, believed as `trust` says. A wrong clock is corrected by it, but only if it has proved who it is.
async fn first_contact(addr: &str, trust: AuthTrust, clock: &HostClock, ways: &Ways) -> Result<RemoteAuth, JoinError> {
    let auth = RemoteAuth::tls_by_clock(addr, None, trust.clone(), Arc::new(clock.clone()))?.by(ways);
    if let AuthTrust::Insecure = trust {
        return Ok(auth);
    }
    match align_clock(clock, &auth, addr, trust).await {
        // What is wrong but for the time, the join itself says.
        Ok(()) | Err(TimeError::Connect(_)) => Ok(auth),
        Err(cause @ (TimeError::Silent { .. } | TimeError::Neither { .. })) => Err(cause.into()),
    }
}

/// How to join again.
#[derive(Clone, Debug)]
pub struct RejoinParams {
    /// `host:port` of an auth service or of a proxy.
    pub addr: String,
    /// A fresh join token, for the services of the host.
    pub token: Secret,
    /// Pins of the host authority as it is now; one of them must fit.
    pub ca_pins: Vec<String>,
    /// Go without a pin (I15).
    pub insecure: bool,
    /// Keys to be certified from now on, which are on disk already; absent: those it has. With new ones a copy of its disk is worth nothing.
    pub new_keys: Option<KeyPairs>,
}

/// Joins again as the host of `state`: same id, name, and services, with certificates and authorities as they are now. Nothing is written: the caller saves
/// the state. An answer that does not arrive is asked for again, which is why new keys must be on disk before: on record is then either the
/// key that it had or the new one, and it proves by both that it is the host.
///
/// # Errors
/// [`JoinError`]; `state` is as good as it was.
pub async fn rejoin(state: &HostState, params: RejoinParams, clock: &HostClock) -> Result<HostState, JoinError> {
    let RejoinParams { addr, token, ca_pins, insecure, new_keys } = params;
    let trust = first_trust(&addr, &ca_pins, insecure)?;
    let present = state.keys()?;
    let keys = new_keys.clone().unwrap_or_else(|| present.clone());
    let auth = first_contact(&addr, trust, clock, &Ways::default()).await?;
    let request = |prover: &KeyPairs| -> Result<JoinRequest, JoinError> {
        let statement = RejoinStatement {
            cluster: state.cluster_name(),
            token: &token,
            host_id: state.host_id(),
            node_name: state.node_name(),
            ssh_public_key: &keys.ssh_public,
            tls_public_key: &keys.tls_public,
            signed_at: clock.now(),
        };
        let proof = statement.prove(&prover.ssh_key()?)?;
        Ok(JoinRequest {
            token: token.clone(),
            node_name: state.node_name().clone(),
            roles: state.roles().clone(),
            kube_clusters: state.kube_clusters().clone(),
            apps: state.apps().clone(),
            ssh_public_key: keys.ssh_public.clone(),
            tls_public_key: keys.tls_public.clone(),
            without_pin: ca_pins.is_empty(),
            rejoin: Some(proof),
            service_account: None,
        })
    };
    let asked = ask(&auth, request(&present)?, &addr, &ca_pins).await;
    let certs = match asked {
        Err(JoinError::Refused { source, addr }) if new_keys.is_some() && source.kind == ApiErrorKind::Denied => {
            // The new key is on record already, if an answer before was lost; if not, the first refusal says why.
            let asked = ask(&auth, request(&keys)?, &addr, &ca_pins).await;
            asked.map_err(|_| JoinError::Refused { addr, source })?
        }
        asked => asked?,
    };
    Ok(state.certified(keys, certs, clock.now())?)
}

async fn ask(auth: &RemoteAuth, request: JoinRequest, addr: &str, ca_pins: &[String]) -> Result<HostCerts, JoinError> {
    let certs = auth.join(request).await.map_err(|source| JoinError::Refused { addr: addr.into(), source })?;
    if !ca_pins.is_empty() {
        let pins = certs.trust.host_pins().unwrap_or_default();
        if !pins.iter().any(|pin| ca_pins.iter().any(|wanted| wanted.eq_ignore_ascii_case(pin))) {
            return Err(JoinError::OtherAuthority { addr: addr.into() });
        }
    }
    Ok(certs)
}

/// What is believed before anything of the cluster is known.
///
/// # Errors
/// [`JoinError::NoPin`] and [`JoinError::Pin`].
pub fn first_trust(addr: &str, ca_pins: &[String], insecure: bool) -> Result<AuthTrust, JoinError> {
    if let Some(bad) = ca_pins.iter().find(|pin| !is_pin(pin)) {
        return Err(JoinError::Pin(bad.chars().take(100).collect()));
    }
    match (ca_pins.is_empty(), insecure) {
        (false, _) => Ok(AuthTrust::Pins(ca_pins.to_vec())),
        (true, true) => Ok(AuthTrust::Insecure),
        (true, false) => Err(JoinError::NoPin { addr: addr.into() }),
    }
}

fn is_pin(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_pin_nothing_is_believed_unless_that_was_asked_for() {
        assert!(matches!(first_trust("a:1", &[], false), Err(JoinError::NoPin { .. }))); // I15
        assert!(matches!(first_trust("a:1", &[], true), Ok(AuthTrust::Insecure)));
        let pin = format!("sha256:{}", "ab".repeat(32));
        assert!(matches!(first_trust("a:1", &[pin], true), Ok(AuthTrust::Pins(_))));
        assert!(matches!(first_trust("a:1", &["sha256:12".into()], true), Err(JoinError::Pin(_))));
    }
}
