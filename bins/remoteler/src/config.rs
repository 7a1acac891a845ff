//! What the daemon is told: the config file, the flags, and the checked settings made of both. Reads files named by the
//! administrator and nothing else; starts nothing.

mod audit;
mod cluster;
mod file;
mod join;
mod keys;
mod labels;
mod settings;
mod sign_on;
mod template;
mod tunnel;
mod yaml;

pub use audit::{Audit, AuditSettings, AuditSpool, Ship, ShipPlace, SyslogPlace, WitnessPlace};
pub use file::{
    AppEntry, AppServiceConfig, AuthService, Authentication, Common, ConfigFile, IdentityProviders, JoinParams,
    KeyPairFiles, KubernetesJoin, KubernetesService, LabelCommand, Log, LogFormatConfig, OneOrMany, ProxyService,
    SshService, StorageConfig,
};
pub use join::{JoinSettings, JoinToken};
pub use keys::{CaKeyParams, KeySettings, Pkcs11, SuiteName, TokenName, TokenSettings};
pub use labels::parse_labels;
pub use settings::{
    App, AppSettings, AuthSettings, CommandLabel, ConfigError, Flags, KubeSettings, LogFormat, LogSettings,
    NodeSettings, ProxySettings, Settings, WebCertificate,
};
pub use sign_on::SignOnSettings;
pub use template::commented_config;
pub use tunnel::TunnelSettings;
pub(crate) use yaml::to_yaml;
