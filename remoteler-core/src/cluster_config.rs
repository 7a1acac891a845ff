//! Documents that set the cluster: `cluster_auth_preference`, `cluster_networking_config` and `session_recording_config`, one of each. Owns their
//! form, how what the configuration file says lies over what documents say, and the settings that follow. Never stores anything.

mod values;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use values::session_mfa;
pub use values::{
    AuthType, AuthTypeError, IdleTimeout, IdleTimeoutError, RecordingMode, SecondFactor, VerificationInterval,
    VerificationIntervalError,
};

use crate::{ClusterSettings, LockMode, Metadata, Resource, ResourceKind};

/// `spec` of a `cluster_auth_preference`. What is absent is as if there were no document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthPreferenceSpec {
    /// Where users prove who they are.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub auth_type: Option<AuthType>,
    /// Whether a second factor is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_factor: Option<SecondFactor>,
    /// How strict locks are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locking_mode: Option<LockMode>,
    /// Whether live work ends with its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disconnect_expired_cert: Option<bool>,
    /// Whether each session needs a second factor of its own, whatever roles say.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "session_mfa")]
    pub require_session_mfa: Option<bool>,
    /// How long a second factor counts that was shown for a Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfa_verification_interval: Option<VerificationInterval>,
    /// The connector that is used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector_name: Option<String>,
}

/// `spec` of a `cluster_networking_config`. What is absent is as if there were no document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkingSpec {
    /// How long nothing may happen in an SSH connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_idle_timeout: Option<IdleTimeout>,
}

/// `spec` of a `session_recording_config`. What is absent is as if there were no document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRecordingSpec {
    /// Whether terminal sessions are recorded, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RecordingMode>,
}

/// What one source says of the cluster: the configuration file, or the documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Login and locks.
    pub auth: AuthPreferenceSpec,
    /// Connections.
    pub networking: NetworkingSpec,
    /// Recordings.
    pub recording: SessionRecordingSpec,
}

/// Why a document that sets the cluster is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterConfigError {
    /// Of a kind that sets no cluster.
    #[error("documents of kind {0} do not set the cluster")]
    Kind(&'static str),
    /// Each kind has one document, under a name of its own.
    #[error("there is one document of kind {kind}, and its name is {name}; {given:?} is not")]
    Name {
        /// Kind.
        kind: &'static str,
        /// Its name.
        name: &'static str,
        /// As given.
        given: String,
    },
    /// It has something that these documents do not have.
    #[error("metadata.{field} of {name} is refused: there is one document of its kind, and it stays")]
    Metadata {
        /// Which.
        field: &'static str,
        /// Name.
        name: &'static str,
    },
    /// Not a spec of its kind.
    #[error("spec of {name} is refused: {reason}")]
    Spec {
        /// Name.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The configuration file says something else.
    #[error(
        "spec.{field} of {name} is {file} by the configuration file of the auth service ({place}); change it there, or take it out there and start the auth service again"
    )]
    InFile {
        /// Field.
        field: String,
        /// Name of the document.
        name: &'static str,
        /// As the file says.
        file: String,
        /// Where it stands there.
        place: &'static str,
    },
}

/// Label of a document that says where its settings come from.
pub const ORIGIN_LABEL: &str = "remoteler.dev/origin";

/// The documents that set the cluster.
#[derive(Clone, Copy)]
enum Document {
    Auth,
    Networking,
    Recording,
}

impl Document {
    const fn of(kind: ResourceKind) -> Option<Self> {
        match kind {
            ResourceKind::ClusterAuthPreference => Some(Self::Auth),
            ResourceKind::ClusterNetworkingConfig => Some(Self::Networking),
            ResourceKind::SessionRecordingConfig => Some(Self::Recording),
            ResourceKind::Role
            | ResourceKind::User
            | ResourceKind::Token
            | ResourceKind::Node
            | ResourceKind::KubeCluster
            | ResourceKind::App
            | ResourceKind::PolicyTest
            | ResourceKind::Lock
            | ResourceKind::Oidc
            | ResourceKind::Github
            | ResourceKind::Saml => None,
        }
    }

    /// This one and its name, or that documents of `kind` set no cluster.
    fn named(kind: ResourceKind) -> Result<(Self, &'static str), ClusterConfigError> {
        let document = Self::of(kind).ok_or(ClusterConfigError::Kind(kind.as_str()))?;
        Ok((document, document.name()))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Auth => "cluster-auth-preference",
            Self::Networking => "cluster-networking-config",
            Self::Recording => "session-recording-config",
        }
    }
}

/// The one name of a document of this kind; `None` for kinds that do not set the cluster.
#[must_use]
pub const fn singleton_name(kind: ResourceKind) -> Option<&'static str> {
    match Document::of(kind) {
        Some(document) => Some(document.name()),
        None => None,
    }
}

impl ClusterConfig {
    /// What this says, and of what it does not say, what `below` says.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let (auth, other) = (self.auth, below.auth);
        Self {
            auth: AuthPreferenceSpec {
                auth_type: auth.auth_type.or(other.auth_type),
                second_factor: auth.second_factor.or(other.second_factor),
                locking_mode: auth.locking_mode.or(other.locking_mode),
                disconnect_expired_cert: auth.disconnect_expired_cert.or(other.disconnect_expired_cert),
                require_session_mfa: auth.require_session_mfa.or(other.require_session_mfa),
                mfa_verification_interval: auth.mfa_verification_interval.or(other.mfa_verification_interval),
                connector_name: auth.connector_name.or(other.connector_name),
            },
            networking: NetworkingSpec {
                client_idle_timeout: self.networking.client_idle_timeout.or(below.networking.client_idle_timeout),
            },
            recording: SessionRecordingSpec { mode: self.recording.mode.or(below.recording.mode) },
        }
    }

    /// What holds where nobody says anything.
    #[must_use]
    pub fn defaults() -> Self {
        Self {
            auth: AuthPreferenceSpec {
                auth_type: Some(AuthType::default()),
                second_factor: Some(SecondFactor::default()),
                locking_mode: Some(LockMode::default()),
                disconnect_expired_cert: Some(false),
                require_session_mfa: Some(false),
                mfa_verification_interval: Some(VerificationInterval::default()),
                connector_name: None,
            },
            networking: NetworkingSpec { client_idle_timeout: Some(IdleTimeout::default()) },
            recording: SessionRecordingSpec { mode: Some(RecordingMode::default()) },
        }
    }

    /// The settings of a cluster of which only this is said.
    #[must_use]
    pub fn settings(self) -> ClusterSettings {
        let Self { auth, networking, recording } = self.over(Self::defaults());
        ClusterSettings {
            locking_mode: auth.locking_mode.unwrap_or_default(),
            client_idle_timeout_seconds: networking.client_idle_timeout.unwrap_or_default().seconds(),
            disconnect_expired_cert: auth.disconnect_expired_cert.unwrap_or_default(),
            second_factor: auth.second_factor.unwrap_or_default(),
            session_recording: recording.mode.unwrap_or_default(),
            require_session_mfa: auth.require_session_mfa.unwrap_or_default(),
            mfa_verification_interval: auth.mfa_verification_interval.unwrap_or_default(),
        }
    }

    /// The `spec` of the document of this kind.
    #[must_use]
    pub fn spec(&self, kind: ResourceKind) -> Value {
        let spec = match Document::of(kind) {
            Some(Document::Auth) => serde_json::to_value(&self.auth),
            Some(Document::Networking) => serde_json::to_value(self.networking),
            Some(Document::Recording) => serde_json::to_value(self.recording),
            None => Ok(Value::Null),
        };
        // Names, numbers and texts always encode.
        spec.unwrap_or(Value::Null)
    }

    /// This with what the `spec` of a document of this kind says in place of what was said in that document.
    ///
    /// # Errors
    /// [`ClusterConfigError::Spec`], [`ClusterConfigError::Kind`]
    pub fn with_spec(mut self, kind: ResourceKind, spec: Value) -> Result<Self, ClusterConfigError> {
        let (document, name) = Document::named(kind)?;
        let spec = if spec.is_null() { Value::Object(Map::new()) } else { spec };
        fn read<T: DeserializeOwned>(spec: Value, name: &'static str) -> Result<T, ClusterConfigError> {
            serde_json::from_value(spec).map_err(|cause| ClusterConfigError::Spec { name, reason: cause.to_string() })
        }
        match document {
            Document::Auth => self.auth = read(spec, name)?,
            Document::Networking => self.networking = read(spec, name)?,
            Document::Recording => self.recording = read(spec, name)?,
        }
        Ok(self)
    }

    /// This with what a document says in place of what was said in that document.
    ///
    /// # Errors
    /// [`ClusterConfigError`]
    pub fn with_document(self, kind: ResourceKind, document: Resource) -> Result<Self, ClusterConfigError> {
        let (_, name) = Document::named(kind)?;
        let Metadata { name: given, description: _, labels, expires } = document.metadata;
        if given != name {
            let given = given.chars().take(80).collect();
            return Err(ClusterConfigError::Name { kind: kind.as_str(), name, given });
        }
        if expires.is_some() {
            return Err(ClusterConfigError::Metadata { field: "expires", name });
        }
        // What `tctl get` shows is read again.
        if labels.keys().any(|label| label != ORIGIN_LABEL) {
            return Err(ClusterConfigError::Metadata { field: "labels", name });
        }
        self.with_spec(kind, document.spec)
    }

    /// Whether this, which a document is to say, agrees with what the configuration file says.
    ///
    /// # Errors
    /// [`ClusterConfigError::InFile`], of the first field that does not.
    pub fn agrees_with_file(&self, kind: ResourceKind, file: &Self) -> Result<(), ClusterConfigError> {
        let (_, name) = Document::named(kind)?;
        let (own, file) = (self.spec(kind), file.spec(kind));
        for (field, said) in file.as_object().into_iter().flatten() {
            if own.get(field).is_some_and(|own| own != said) {
                let file = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
                return Err(ClusterConfigError::InFile { field: field.clone(), name, file, place: place(field) });
            }
        }
        Ok(())
    }

    /// What is different in `after`, of documents of this kind: `locking_mode: best_effort -> strict`.
    #[must_use]
    pub fn changes(&self, kind: ResourceKind, after: &Self) -> Vec<String> {
        let (before, after) = (self.spec(kind), after.spec(kind));
        let shown = |value: Option<&Value>| match value {
            None => "unset".to_owned(),
            Some(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        };
        let mut fields: Vec<&String> =
            [&before, &after].into_iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
        fields.sort();
        fields.dedup();
        let changed = fields.into_iter().filter(|field| before.get(field) != after.get(field));
        changed.map(|field| format!("{field}: {} -> {}", shown(before.get(field)), shown(after.get(field)))).collect()
    }
}

/// Where the configuration file says what a document says in `field`.
fn place(field: &str) -> &'static str {
    match field {
        "type" => "auth_service.authentication.type",
        "connector_name" => "auth_service.authentication.connector_name",
        "second_factor" => "auth_service.authentication.second_factor",
        "locking_mode" => "auth_service.authentication.locking_mode",
        "disconnect_expired_cert" => "auth_service.disconnect_expired_cert",
        "client_idle_timeout" => "auth_service.client_idle_timeout",
        "mode" => "auth_service.session_recording",
        _ => "auth_service",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    const CAP: ResourceKind = ResourceKind::ClusterAuthPreference;

    fn document(name: &str, spec: Value) -> Resource {
        let metadata = Metadata { name: name.into(), description: None, labels: crate::Labels::new(), expires: None };
        Resource { kind: CAP.as_str().into(), version: "v2".into(), metadata, spec }
    }

    fn saying(spec: Value) -> ClusterConfig {
        ClusterConfig::default().with_document(CAP, document("cluster-auth-preference", spec)).unwrap()
    }

    #[test]
    fn what_the_file_says_lies_over_what_documents_say_and_both_over_the_defaults() {
        let file = saying(json!({ "locking_mode": "strict" }));
        let documents = saying(json!({ "locking_mode": "best_effort", "second_factor": "on" }));
        let settings = file.over(documents).settings();
        let expected = ClusterSettings {
            locking_mode: LockMode::Strict,
            second_factor: SecondFactor::On,
            ..ClusterSettings::default()
        };
        assert_eq!(settings, expected);
        assert_eq!(ClusterConfig::default().settings(), ClusterSettings::default());
        assert_eq!(ClusterConfig::defaults().settings(), ClusterSettings::default());
    }

    #[test]
    fn a_document_that_contradicts_the_file_is_refused_and_the_place_in_the_file_is_named() {
        let file = saying(json!({ "disconnect_expired_cert": true, "locking_mode": "strict" }));
        let agreeing = saying(json!({ "locking_mode": "strict", "second_factor": "on" }));
        assert_eq!(agreeing.agrees_with_file(CAP, &file), Ok(()));
        let other = saying(json!({ "disconnect_expired_cert": false }));
        let cause = other.agrees_with_file(CAP, &file).unwrap_err().to_string();
        assert!(cause.contains("disconnect_expired_cert of cluster-auth-preference is true"), "{cause}");
        assert!(cause.contains("(auth_service.disconnect_expired_cert)"), "{cause}");
    }

    // I80
    #[test]
    fn a_name_a_field_or_a_value_that_is_not_known_is_refused() {
        let given = |name: &str, spec| {
            ClusterConfig::default().with_document(CAP, document(name, spec)).unwrap_err().to_string()
        };
        assert!(given("mine", json!({})).contains("its name is cluster-auth-preference"));
        assert!(given("cluster-auth-preference", json!({ "webauthn": {} })).contains("unknown field `webauthn`"));
        assert!(given("cluster-auth-preference", json!({ "second_factor": "sms" })).contains("unknown variant `sms`"));
        let switched = |spec| saying(spec).settings().second_factor;
        assert_eq!(switched(json!({ "second_factor": true })), SecondFactor::On);
        assert_eq!(switched(json!({ "second_factor": false })), SecondFactor::Off);
        let mut labelled = document("cluster-auth-preference", json!({}));
        labelled.metadata.labels.insert("a".into(), "b".into());
        assert!(ClusterConfig::default().with_document(CAP, labelled).is_err());
    }

    #[test]
    fn a_second_factor_for_each_session_is_a_flag_and_its_interval_a_duration_up_to_an_hour() {
        let set = saying(json!({ "require_session_mfa": "yes", "mfa_verification_interval": "90s" })).settings();
        assert!(set.require_session_mfa);
        assert_eq!(set.mfa_verification_interval.duration(), Duration::from_secs(90));
        assert_eq!(ClusterSettings::default().mfa_verification_interval.duration(), Duration::from_secs(60));
        for wrong in [
            json!({ "require_session_mfa": "hardware_key_touch" }),
            json!({ "mfa_verification_interval": "0s" }),
            json!({ "mfa_verification_interval": "never" }),
            json!({ "mfa_verification_interval": "2h" }),
        ] {
            let document = document("cluster-auth-preference", wrong.clone());
            assert!(ClusterConfig::default().with_document(CAP, document).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_way_to_log_in_is_said_in_one_word_by_file_and_document() {
        for word in ["local", "oidc", "saml", "github"] {
            let by_document = saying(json!({ "type": word })).auth.auth_type;
            assert_eq!((by_document, word.parse().ok()), (word.parse().ok(), by_document));
            assert_eq!(by_document.map(AuthType::as_str), Some(word));
        }
        assert!("ldap".parse::<AuthType>().unwrap_err().to_string().contains("local, oidc, github and saml are"));
        let file = saying(json!({ "type": "oidc", "connector_name": "corp" }));
        let cause = saying(json!({ "connector_name": "idp" })).agrees_with_file(CAP, &file).unwrap_err().to_string();
        assert!(cause.contains("corp") && cause.contains("auth_service.authentication.connector_name"), "{cause}");
    }

    #[test]
    fn what_changes_is_said_field_by_field() {
        let before = saying(json!({ "locking_mode": "strict", "second_factor": "on" }));
        let after = saying(json!({ "disconnect_expired_cert": true, "second_factor": "off" }));
        let changes = before.changes(CAP, &after);
        let expected =
            ["disconnect_expired_cert: unset -> true", "locking_mode: strict -> unset", "second_factor: on -> off"];
        assert_eq!(changes, expected);
    }
}
