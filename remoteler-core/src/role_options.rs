//! The options of roles: as written, checked, and merged over the roles of one user. Merging is a pure function that is commutative,
//! associative and idempotent, so that neither the order nor the number of roles that say the same matters. Owns no decision about who
//! may go where. An option that nobody enforces is refused, never ignored.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::role::parse_duration;

/// Why an option is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// No duration.
    #[error("{value:?} is no duration such as 30s, 12h or 7d")]
    Duration {
        /// As written.
        value: String,
    },
    /// This product does what `only` says and nothing else.
    #[error("{value:?} is not supported; only {only} is, which is what happens without the option")]
    OnlyAs {
        /// As written.
        value: String,
        /// The value that changes nothing.
        only: &'static str,
    },
    /// None of the words there are.
    #[error("{value:?} is not supported; there are {known}")]
    Unknown {
        /// As written.
        value: String,
        /// All of them.
        known: &'static str,
    },
    /// Said twice, and the two could differ.
    #[error("port_forwarding with local or remote says the same as ssh_port_forwarding; keep one of them")]
    Twice,
}

/// `options` as written. What is absent has the default that stands beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptionsSpec {
    /// Longest life of a certificate, for example `8h`. Default 12h. The shortest of all roles wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_session_ttl: Option<String>,
    /// Whether the user's ssh-agent may be forwarded. Default no. One role that says yes is enough.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "yes_or_no")]
    pub forward_agent: Option<bool>,
    /// Whether ports may be forwarded: `true`, `false` or `{ local: { enabled: … }, remote: { enabled: … } }`. Default yes. Of roles with
    /// `true` and `false` one `true` is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_forwarding: Option<PortForwardingSpec>,
    /// The same for each way. One role that says no here is enough to forbid it, whatever others say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_port_forwarding: Option<PortForwardingEach>,
    /// Whether files may be copied with scp and sftp. Default yes. One role that says no is enough to forbid it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "yes_or_no")]
    pub ssh_file_copy: Option<bool>,
    /// How long a session may be silent, for example `15m`; `never` or `0s` is no limit, and the default. The shortest wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_idle_timeout: Option<String>,
    /// Whether what runs ends with the certificate it began with. One role that says yes is enough; what no role says, the cluster does.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "yes_or_no")]
    pub disconnect_expired_cert: Option<bool>,
    /// Most sessions in one SSH connection; 0 is no limit, and the default. The lowest wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// Most SSH connections of one user at a time; 0 is no limit, and the default. The lowest wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Most connections of one user to Kubernetes clusters at a time; 0 is no limit, and the default. The lowest wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_kubernetes_connections: Option<u32>,
    /// What a service does whose knowledge of locks is old. `strict` wins; what no role says, the cluster does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockMode>,
    /// Only `false`: X11 is never forwarded.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "yes_or_no")]
    pub permit_x11_forwarding: Option<bool>,
    /// Only `false`: certificates count from every address.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "yes_or_no")]
    pub pin_source_ip: Option<bool>,
    /// Only `false`: accounts are never made on nodes.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "yes_or_no")]
    pub create_host_user: Option<bool>,
    /// Only `off`: accounts are never made on nodes.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "word")]
    pub create_host_user_mode: Option<String>,
    /// Whether each session needs a second factor of its own: `yes` or `no`, the default. One role that allows the session and says yes is enough.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "word")]
    pub require_session_mfa: Option<String>,
    /// Only `off` or `optional`: devices are not attested.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "word")]
    pub device_trust_mode: Option<String>,
    /// Only `optional`: there are no access requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_access: Option<String>,
    /// Only `standard`: SSH certificates are those of OpenSSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_format: Option<String>,
}

/// `port_forwarding` as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false, or local and remote with enabled each")]
pub enum PortForwardingSpec {
    /// Both ways at once.
    All(bool),
    /// Each way.
    Each(PortForwardingEach),
}

/// Each way of forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortForwardingEach {
    /// `ssh -L`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<EnabledSpec>,
    /// `ssh -R`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<EnabledSpec>,
}

/// `{ enabled: true }`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnabledSpec {
    /// Whether it is.
    pub enabled: bool,
}

/// What a service does with a user whose locks it may not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// It goes by what it knew last.
    #[default]
    BestEffort,
    /// It denies when what it knows is older than the limit.
    Strict,
}

/// What roles say of one way of forwarding ports. Ordered by who wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forwarding {
    /// `port_forwarding: false`, which any role that allows it outweighs.
    Off,
    /// `port_forwarding: true`, or nothing said.
    On,
    /// Refused for this way by name, which nothing outweighs.
    Refused,
}

impl Forwarding {
    /// Whether it may be done.
    #[must_use]
    pub const fn allowed(self) -> bool {
        matches!(self, Self::On)
    }
}

/// What may be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortForwarding {
    /// `ssh -L`.
    pub local: Forwarding,
    /// `ssh -R`.
    pub remote: Forwarding,
}

/// Checked options of one role, or of several merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoleOptions {
    /// Longest life of a certificate.
    pub max_session_ttl: Duration,
    /// Whether the agent may be forwarded.
    pub forward_agent: bool,
    /// What may be forwarded.
    pub port_forwarding: PortForwarding,
    /// Whether files may be copied with scp and sftp.
    pub ssh_file_copy: bool,
    /// How long a session may be silent; `None` for ever.
    pub client_idle_timeout: Option<Duration>,
    /// Whether what runs ends with the certificate, also where the cluster's own setting says no.
    pub disconnect_expired_cert: bool,
    /// Most sessions in one SSH connection; `None` without limit.
    pub max_sessions: Option<u32>,
    /// Most SSH connections of the user at a time; `None` without limit.
    pub max_connections: Option<u32>,
    /// Most connections of the user to Kubernetes clusters at a time; `None` without limit.
    pub max_kubernetes_connections: Option<u32>,
    /// What to do when locks may not be known; `None` where no role says, so that the cluster's own setting counts.
    pub lock: Option<LockMode>,
    /// Whether each session that it allows needs a second factor of its own, also where the cluster's own setting says no.
    pub session_mfa: bool,
}

/// Longest certificate life of a role that does not say.
const DEFAULT_TTL: Duration = Duration::from_secs(12 * 3600);

impl Default for RoleOptions {
    fn default() -> Self {
        Self {
            max_session_ttl: DEFAULT_TTL,
            forward_agent: false,
            port_forwarding: PortForwarding { local: Forwarding::On, remote: Forwarding::On },
            ssh_file_copy: true,
            client_idle_timeout: None,
            disconnect_expired_cert: false,
            max_sessions: None,
            max_connections: None,
            max_kubernetes_connections: None,
            lock: None,
            session_mfa: false,
        }
    }
}

impl RoleOptions {
    /// Checks the options of one role. An error comes with the name of the option.
    pub(crate) fn new(spec: &OptionsSpec) -> Result<Self, (&'static str, OptionError)> {
        only_what_is_built(spec)?;
        let default = Self::default();
        let max_session_ttl = match &spec.max_session_ttl {
            None => default.max_session_ttl,
            Some(text) => duration(text).map_err(|cause| ("max_session_ttl", cause))?,
        };
        let client_idle_timeout = match spec.client_idle_timeout.as_deref().map(str::trim) {
            None | Some("never" | "0" | "0s" | "0m" | "0h") => None,
            Some(text) => Some(duration(text).map_err(|cause| ("client_idle_timeout", cause))?),
        };
        Ok(Self {
            max_session_ttl,
            forward_agent: spec.forward_agent.unwrap_or(default.forward_agent),
            port_forwarding: port_forwarding(spec)?,
            ssh_file_copy: spec.ssh_file_copy.unwrap_or(default.ssh_file_copy),
            client_idle_timeout,
            disconnect_expired_cert: spec.disconnect_expired_cert.unwrap_or(default.disconnect_expired_cert),
            max_sessions: limit(spec.max_sessions),
            max_connections: limit(spec.max_connections),
            max_kubernetes_connections: limit(spec.max_kubernetes_connections),
            lock: spec.lock,
            session_mfa: session_mfa(spec)?,
        })
    }

    /// The options of a user who holds both roles, where both allow what is done: a limit is the tighter one, an ability needs one role,
    /// and what a role refuses by name is refused.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let limits = self.limited_by(other);
        Self {
            forward_agent: self.forward_agent || other.forward_agent,
            port_forwarding: PortForwarding {
                local: self.port_forwarding.local.max(other.port_forwarding.local),
                remote: self.port_forwarding.remote.max(other.port_forwarding.remote),
            },
            session_mfa: self.session_mfa || other.session_mfa,
            ..limits
        }
    }

    /// The same, with the limits of `other`, a role of the same user that does not allow what is done: it takes away and gives nothing.
    #[must_use]
    pub fn limited_by(self, other: Self) -> Self {
        let way = |own: Forwarding, other| if other == Forwarding::Refused { other } else { own };
        Self {
            max_session_ttl: self.max_session_ttl.min(other.max_session_ttl),
            forward_agent: self.forward_agent,
            port_forwarding: PortForwarding {
                local: way(self.port_forwarding.local, other.port_forwarding.local),
                remote: way(self.port_forwarding.remote, other.port_forwarding.remote),
            },
            ssh_file_copy: self.ssh_file_copy && other.ssh_file_copy,
            client_idle_timeout: lowest(self.client_idle_timeout, other.client_idle_timeout),
            disconnect_expired_cert: self.disconnect_expired_cert || other.disconnect_expired_cert,
            max_sessions: lowest(self.max_sessions, other.max_sessions),
            max_connections: lowest(self.max_connections, other.max_connections),
            max_kubernetes_connections: lowest(self.max_kubernetes_connections, other.max_kubernetes_connections),
            lock: self.lock.max(other.lock),
            // Of what a role does not allow, it does not say how.
            session_mfa: self.session_mfa,
        }
    }
}

fn duration(text: &str) -> Result<Duration, OptionError> {
    parse_duration(text).ok_or_else(|| OptionError::Duration { value: short(text) })
}

/// 0 is how "no limit" is written.
const fn limit(written: Option<u32>) -> Option<u32> {
    match written {
        None | Some(0) => None,
        Some(_) => written,
    }
}

/// The lower of two limits, where `None` is none.
fn lowest<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}

fn port_forwarding(spec: &OptionsSpec) -> Result<PortForwarding, (&'static str, OptionError)> {
    let both = |way| PortForwarding { local: way, remote: way };
    let each = match (&spec.port_forwarding, &spec.ssh_port_forwarding) {
        (Some(PortForwardingSpec::Each(_)), Some(_)) => return Err(("port_forwarding", OptionError::Twice)),
        (Some(PortForwardingSpec::Each(each)), None) | (None | Some(PortForwardingSpec::All(_)), Some(each)) => each,
        (Some(PortForwardingSpec::All(true)) | None, None) => return Ok(both(Forwarding::On)),
        (Some(PortForwardingSpec::All(false)), None) => return Ok(both(Forwarding::Off)),
    };
    let unsaid = match &spec.port_forwarding {
        Some(PortForwardingSpec::All(false)) => Forwarding::Off,
        Some(PortForwardingSpec::All(true) | PortForwardingSpec::Each(_)) | None => Forwarding::On,
    };
    let way = |said: &Option<EnabledSpec>| match said {
        None => unsaid,
        Some(EnabledSpec { enabled: true }) => Forwarding::On,
        Some(EnabledSpec { enabled: false }) => Forwarding::Refused,
    };
    Ok(PortForwarding { local: way(&each.local), remote: way(&each.remote) })
}

/// Kinds of keys that must be touched are not told apart, so that no role may demand one.
fn session_mfa(spec: &OptionsSpec) -> Result<bool, (&'static str, OptionError)> {
    match spec.require_session_mfa.as_deref() {
        None | Some("no" | "off" | "false") => Ok(false),
        Some("yes" | "on" | "true" | "session") => Ok(true),
        Some(other) => Err(("require_session_mfa", OptionError::Unknown { value: short(other), known: "yes and no" })),
    }
}

/// Options that documents of Teleport hold at the value that says "not used". Any other value would be a promise that nobody keeps.
fn only_what_is_built(spec: &OptionsSpec) -> Result<(), (&'static str, OptionError)> {
    let flags = [
        ("permit_x11_forwarding", spec.permit_x11_forwarding),
        ("pin_source_ip", spec.pin_source_ip),
        ("create_host_user", spec.create_host_user),
    ];
    for (name, value) in flags {
        if value == Some(true) {
            return Err((name, OptionError::OnlyAs { value: "true".into(), only: "false" }));
        }
    }
    let words: [(_, _, &[&str], _); 4] = [
        ("create_host_user_mode", &spec.create_host_user_mode, &["off", "false", "no"], "off"),
        ("device_trust_mode", &spec.device_trust_mode, &["off", "optional", "false", "no", ""], "off or optional"),
        ("request_access", &spec.request_access, &["optional"], "optional"),
        ("cert_format", &spec.cert_format, &["standard"], "standard"),
    ];
    for (name, value, harmless, only) in words {
        if let Some(value) = value.as_ref().filter(|value| !harmless.contains(&value.as_str())) {
            return Err((name, OptionError::OnlyAs { value: short(value), only }));
        }
    }
    Ok(())
}

/// `true`, `false`, and the words that YAML 1.1 reads as such, which documents of Teleport use.
fn yes_or_no<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    match Option::<FlagOrWord>::deserialize(deserializer)? {
        None => Ok(None),
        Some(FlagOrWord::Flag(flag)) => Ok(Some(flag)),
        Some(FlagOrWord::Word(word)) => match word.as_str() {
            "yes" | "on" | "true" => Ok(Some(true)),
            "no" | "off" | "false" => Ok(Some(false)),
            other => Err(de::Error::custom(format_args!("{:?} is neither true nor false", short(other)))),
        },
    }
}

/// A word that readers of YAML may have taken for a flag.
fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<FlagOrWord>::deserialize(deserializer)?.map(|value| match value {
        FlagOrWord::Flag(flag) => flag.to_string(),
        FlagOrWord::Word(word) => word,
    }))
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true, false or a word")]
enum FlagOrWord {
    Flag(bool),
    Word(String),
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
