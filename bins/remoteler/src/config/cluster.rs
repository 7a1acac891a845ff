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
        Some(kind) => Some(kind.parse::<AuthType>().map_err(|cause| value("authentication.type", cause.to_string()))?),
    };
    let connector_name = authentication.and_then(|given| given.connector_name.clone());
    if let Some(name) = &connector_name {
        let place = "authentication.connector_name";
        remoteler_core::check_connector_name(name).map_err(|cause| value(place, cause.reason))?;
        if auth_type == Some(AuthType::Local) {
            return Err(value(place, "it is for type oidc, github or saml, and type is local"));
        }
    }
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
        Some("otp") => Some(SecondFactor::Otp),
        Some("webauthn") => Some(SecondFactor::Webauthn),
        Some(other) => {
            return Err(value(
                "authentication.second_factor",
                format!("{other:?} is none of off, optional, on, otp and webauthn"),
            ));
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
            connector_name,
            ..AuthPreferenceSpec::default()
        },
        networking: NetworkingSpec { client_idle_timeout },
        recording: SessionRecordingSpec { mode },
    })
}

#[cfg(test)]
mod tests {
    use remoteler_core::ClusterSettings;

    use crate::config::{ConfigFile, Flags, Settings};

    fn config(service: &str) -> Result<remoteler_core::ClusterConfig, String> {
        let file = ConfigFile::parse(&format!("auth_service: {{ {service} }}")).map_err(|cause| cause.to_string())?;
        let settings = Settings::new(file, Flags::default()).map_err(|cause| cause.to_string())?;
        Ok(settings.auth.unwrap().cluster_config)
    }

    #[test]
    fn what_the_file_does_not_say_it_leaves_to_documents() {
        assert_eq!(config("").unwrap(), remoteler_core::ClusterConfig::default());
        let said = config(
            "authentication: { type: local, second_factor: on, locking_mode: strict }, session_recording: off, \
             client_idle_timeout: 30m, disconnect_expired_cert: yes",
        );
        let said = said.unwrap();
        assert!(said.auth.second_factor.is_some() && said.recording.mode.is_some());
        assert_eq!(said.settings().client_idle_timeout_seconds, Some(1800));
        let never = config("client_idle_timeout: never").unwrap();
        assert!(never.networking.client_idle_timeout.is_some(), "said, and not left out");
        assert_eq!(never.settings(), ClusterSettings::default());
    }

    // I80
    #[test]
    fn a_value_that_is_not_known_stops_the_start_with_its_place() {
        for (bad, said) in [
            ("authentication: { type: ldap }", "authentication.type"),
            ("authentication: { type: local, connector_name: idp }", "authentication.connector_name"),
            ("authentication: { type: oidc, connector_name: local }", "authentication.connector_name"),
            ("authentication: { type: local, second_factor: sms }", "authentication.second_factor"),
            ("authentication: { type: local, locking_mode: lax }", "authentication.locking_mode"),
            ("client_idle_timeout: soon", "client_idle_timeout"),
            ("session_recording: proxy", "session_recording"),
        ] {
            let cause = config(bad).unwrap_err();
            assert!(cause.contains(said), "{said}: {cause}");
        }
    }
}
