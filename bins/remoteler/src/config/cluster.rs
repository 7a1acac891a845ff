//! What `auth_service` says of the whole cluster: it lies over documents of the kinds `cluster_auth_preference`, `cluster_networking_config` and
//! `session_recording_config`, field by field.

use remoteler_core::{
    AuthPreferenceSpec, AuthType, ClusterConfig, LockMode, NetworkingSpec, RecordingMode, SecondFactor,
    SessionRecordingSpec,
};

use super::{
    file::AuthService,
    settings::{ConfigError, value},
};

/// What the file says, and nothing where it is silent.
pub(super) fn cluster_config(service: &AuthService) -> Result<ClusterConfig, ConfigError> {
    let authentication = service.authentication.as_ref();
    let auth_type = match authentication.map(|given| given.kind.as_str()) {
        None => None,
        Some("local") => Some(AuthType::Local),
        Some(other) => return Err(value("authentication.type", format!("{other:?} is not available; local is"))),
    };
    let locking_mode = match authentication.and_then(|given| given.locking_mode.as_deref()) {
        None => None,
        Some("best_effort") => Some(LockMode::BestEffort),
        Some("strict") => Some(LockMode::Strict),
        Some(other) => {
            return Err(value("authentication.locking_mode", format!("{other:?} is neither best_effort nor strict")));
        }
    };
    let second_factor = match authentication.and_then(|given| given.second_factor.as_deref()) {
        None => None,
        Some("off") => Some(SecondFactor::Off),
        Some("optional") => Some(SecondFactor::Optional),
        Some("on") => Some(SecondFactor::On),
        Some(other) => {
            return Err(value("authentication.second_factor", format!("{other:?} is none of off, optional and on")));
        }
    };
    let client_idle_timeout = match service.client_idle_timeout.as_deref() {
        None => None,
        Some(text) => Some(text.parse().map_err(|cause| value("client_idle_timeout", format!("{cause}")))?),
    };
    let mode = match service.session_recording.as_deref() {
        None => None,
        Some("node") => Some(RecordingMode::Node),
        Some("off") => Some(RecordingMode::Off),
        Some(other) => {
            return Err(value("session_recording", format!("{other:?} is not available; node and off are")));
        }
    };
    Ok(ClusterConfig {
        auth: AuthPreferenceSpec {
            auth_type,
            second_factor,
            locking_mode,
            disconnect_expired_cert: service.disconnect_expired_cert,
        },
        networking: NetworkingSpec { client_idle_timeout },
        recording: SessionRecordingSpec { mode },
    })
}
