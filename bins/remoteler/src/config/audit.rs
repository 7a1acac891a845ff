//! What the configuration says about the audit log: how long events are kept, who witnesses it, where events are shipped to, and what happens
//! when a spool is full. Owns the checks of these values; opens no file and no socket.

use std::{path::PathBuf, time::Duration};

use remoteler_client::{SpoolLimits, WhenFull};
use remoteler_core::parse_duration;
use serde::Deserialize;

use super::{ConfigError, OneOrMany};

/// `audit_spool:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSpool {
    /// MiB of events that wait for the auth service.
    pub max_size_mb: Option<u64>,
    /// `deny` or `drop-and-say-so`
    pub when_full: Option<String>,
}

/// `audit:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// How long events are kept, such as `365d`.
    pub retention: Option<String>,
    /// Files and URLs that are given each checkpoint.
    pub witness: Option<OneOrMany>,
    /// Where events are shipped to.
    pub ship: Vec<Ship>,
}

/// One of `ship`.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ship {
    /// JSON lines on standard output.
    Stdout {},
    /// JSON lines in a file.
    File {
        /// The file.
        path: PathBuf,
        /// MiB after which another file is begun.
        #[serde(default)]
        max_size_mb: Option<u64>,
        /// Files that are kept besides the present one.
        #[serde(default)]
        keep: Option<u32>,
    },
    /// RFC 5424.
    Syslog {
        /// `unix:/dev/log`, `udp://host:port` or `tcp://host:port`
        address: String,
    },
    /// Batches of JSON lines.
    Http {
        /// Where they are posted to.
        url: String,
        /// File with the token that is shown as `Authorization: Bearer`.
        #[serde(default)]
        token_file: Option<PathBuf>,
    },
}

/// How the audit log is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditSettings {
    /// How long events are kept; absent: for ever.
    pub retention: Option<Duration>,
    /// Who is given each checkpoint.
    pub witnesses: Vec<WitnessPlace>,
    /// Where events are shipped to.
    pub ships: Vec<ShipPlace>,
}

/// Where checkpoints go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WitnessPlace {
    /// Lines of a file.
    File(PathBuf),
    /// Posted there.
    Url(String),
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShipPlace {
    /// Standard output.
    Stdout,
    /// A file.
    File {
        /// The file.
        path: PathBuf,
        /// Octets after which another is begun.
        max_size: u64,
        /// Files that are kept besides it.
        keep: u32,
    },
    /// A syslog server.
    Syslog(SyslogPlace),
    /// An HTTP server.
    Http {
        /// Where it listens.
        url: String,
        /// File with a bearer token.
        token_file: Option<PathBuf>,
    },
}

/// How a syslog server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogPlace {
    /// Datagrams to a socket of this machine.
    Unix(PathBuf),
    /// Datagrams (RFC 5426).
    Udp(String),
    /// A stream, with lengths before messages (RFC 6587).
    Tcp(String),
}

impl ShipPlace {
    /// Its name, by which its cursor is kept.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Stdout => "stdout".to_owned(),
            Self::File { path, .. } => format!("file:{}", path.display()),
            Self::Syslog(SyslogPlace::Unix(path)) => format!("syslog:unix:{}", path.display()),
            Self::Syslog(SyslogPlace::Udp(addr)) => format!("syslog:udp://{addr}"),
            Self::Syslog(SyslogPlace::Tcp(addr)) => format!("syslog:tcp://{addr}"),
            Self::Http { url, .. } => format!("http:{url}"),
        }
    }
}

impl AuditSettings {
    /// Checks what is written.
    pub(super) fn new(audit: Audit) -> Result<Self, ConfigError> {
        let retention = match audit.retention {
            None => None,
            Some(text) => {
                let parsed = parse_duration(&text).filter(|retention| *retention >= LEAST_RETENTION);
                Some(parsed.ok_or_else(|| {
                    refused(
                        "auth_service.audit.retention",
                        format!("{text:?} is no duration of two days or more, such as 365d"),
                    )
                })?)
            }
        };
        let witnesses = audit.witness.map(OneOrMany::into_vec).unwrap_or_default();
        let settings = Self {
            retention,
            witnesses: witnesses.into_iter().map(witness).collect::<Result<_, _>>()?,
            ships: audit.ship.into_iter().map(ship).collect::<Result<_, _>>()?,
        };
        let mut names: Vec<_> = settings.ships.iter().map(ShipPlace::name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(refused("auth_service.audit.ship", format!("{} stands there twice", twice.concat())));
        }
        Ok(settings)
    }
}

/// Checks what is written of the spool.
pub(super) fn spool(spool: Option<AuditSpool>) -> Result<SpoolLimits, ConfigError> {
    let AuditSpool { max_size_mb, when_full } = spool.unwrap_or_default();
    let mut limits = SpoolLimits::default();
    if let Some(size) = max_size_mb {
        if !(1..=1024 * 1024).contains(&size) {
            return Err(refused("audit_spool.max_size_mb", format!("{size} is not between 1 and 1048576")));
        }
        limits.max_total = size * MIB;
        limits.max_segment = limits.max_segment.min(limits.max_total / 4);
    }
    limits.when_full = match when_full.as_deref() {
        None | Some("deny") => WhenFull::Deny,
        Some("drop-and-say-so") => WhenFull::DropAndSaySo,
        Some(other) => {
            return Err(refused("audit_spool.when_full", format!("{other:?} is neither deny nor drop-and-say-so")));
        }
    };
    Ok(limits)
}

fn witness(text: String) -> Result<WitnessPlace, ConfigError> {
    const FIELD: &str = "auth_service.audit.witness";
    if text.contains("://") {
        return Ok(WitnessPlace::Url(url(FIELD, text)?));
    }
    absolute(FIELD, text.into()).map(WitnessPlace::File)
}

fn ship(ship: Ship) -> Result<ShipPlace, ConfigError> {
    const FIELD: &str = "auth_service.audit.ship";
    Ok(match ship {
        Ship::Stdout {} => ShipPlace::Stdout,
        Ship::File { path, max_size_mb, keep } => {
            let size = max_size_mb.unwrap_or(100);
            if !(1..=1024 * 1024).contains(&size) {
                return Err(refused(FIELD, format!("max_size_mb {size} is not between 1 and 1048576")));
            }
            ShipPlace::File { path: absolute(FIELD, path)?, max_size: size * MIB, keep: keep.unwrap_or(10).min(1000) }
        }
        Ship::Syslog { address } => {
            let place = if let Some(path) = address.strip_prefix("unix:") {
                SyslogPlace::Unix(absolute(FIELD, path.into())?)
            } else if let Some(addr) = address.strip_prefix("udp://") {
                SyslogPlace::Udp(super::settings::with_port(FIELD, addr, 514)?)
            } else if let Some(addr) = address.strip_prefix("tcp://") {
                SyslogPlace::Tcp(super::settings::with_port(FIELD, addr, 601)?)
            } else {
                let reason = format!(
                    "{address:?} is no address of a syslog server: unix:/dev/log, udp://HOST:PORT or tcp://HOST:PORT is expected"
                );
                return Err(refused(FIELD, reason));
            };
            ShipPlace::Syslog(place)
        }
        Ship::Http { url: text, token_file } => {
            let token_file = token_file.map(|path| absolute(FIELD, path)).transpose()?;
            ShipPlace::Http { url: url(FIELD, text)?, token_file }
        }
    })
}

fn absolute(field: &'static str, path: PathBuf) -> Result<PathBuf, ConfigError> {
    if path.is_absolute() { Ok(path) } else { Err(refused(field, format!("{} is no absolute path", path.display()))) }
}

/// An http or https URL without credentials: those would stand in logs.
fn url(field: &'static str, text: String) -> Result<String, ConfigError> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return Err(refused(field, "the URL begins with neither https:// nor http://")) };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    if host.is_empty() || host.contains('@') || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(refused(field, "the URL has no host, or credentials in it; put a token into token_file"));
    }
    Ok(text)
}

fn refused(field: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { field, reason: reason.into() }
}

const MIB: u64 = 1024 * 1024;
/// Certificates that are valid still are found in the log when their user is locked or removed: they live up to 30 hours.
const LEAST_RETENTION: Duration = Duration::from_secs(48 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Flags, Settings};

    fn settings(yaml: &str) -> Result<Settings, String> {
        Settings::new(ConfigFile::parse(yaml)?, Flags::default()).map_err(|cause| cause.to_string())
    }

    #[test]
    fn everything_about_the_audit_log_can_be_said() {
        let yaml = "
remoteler:
  audit_spool: { max_size_mb: 2, when_full: drop-and-say-so }
auth_service:
  audit:
    retention: 365d
    witness: [/var/lib/witness.jsonl, \"https://witness.example.com/add\"]
    ship:
      - { type: stdout }
      - { type: file, path: /var/log/audit.jsonl, max_size_mb: 1, keep: 2 }
      - { type: syslog, address: \"unix:/dev/log\" }
      - { type: syslog, address: \"udp://siem.example.com\" }
      - { type: http, url: \"https://siem.example.com/in\", token_file: /etc/siem.token }
";
        let settings = settings(yaml).unwrap();
        assert_eq!((settings.spool.max_total, settings.spool.when_full), (2 * MIB, WhenFull::DropAndSaySo));
        let audit = settings.auth.unwrap().audit;
        assert_eq!(audit.retention, Some(Duration::from_secs(365 * 24 * 3600)));
        assert_eq!(audit.witnesses.len(), 2);
        let names: Vec<_> = audit.ships.iter().map(ShipPlace::name).collect();
        let expected = [
            "stdout",
            "file:/var/log/audit.jsonl",
            "syslog:unix:/dev/log",
            "syslog:udp://siem.example.com:514",
            "http:https://siem.example.com/in",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_cannot_be_used_stops_the_start_with_one_line() {
        for (yaml, expected) in [
            ("auth_service: { audit: { retention: 5m } }", "retention: \"5m\" is no duration of two days or more"),
            ("auth_service: { audit: { witness: w.jsonl } }", "w.jsonl is no absolute path"),
            ("auth_service: { audit: { witness: \"ftp://x\" } }", "neither https:// nor http://"),
            ("auth_service: { audit: { ship: [{ type: http, url: \"https://u:p@x/\" }] } }", "credentials"),
            ("auth_service: { audit: { ship: [{ type: syslog, address: x }] } }", "no address of a syslog server"),
            ("auth_service: { audit: { ship: [{ type: stdout }, { type: stdout }] } }", "twice"),
            ("remoteler: { audit_spool: { when_full: forget } }", "neither deny nor drop-and-say-so"),
            ("remoteler: { audit_spool: { max_size_mb: 0 } }", "not between 1 and"),
        ] {
            let said = settings(yaml).unwrap_err();
            assert!(said.contains(expected) && said.lines().count() == 1 && !said.contains("u:p"), "{yaml}: {said}");
        }
    }
}
