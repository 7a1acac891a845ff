//! The auth service: users and their login, roles, join tokens, certificates, the audit log and recordings, in process
//! ([`AuthService::as_caller`]) and over HTTP. Owns the data directory and both authorities; opens no network socket itself and
//! terminates no TLS: who calls, it is told.

mod account;
mod admission;
mod api;
mod app_sessions;
mod authorities;
mod backups;
mod blocking;
mod breached;
mod caller;
mod ceremonies;
mod cluster_settings;
mod copies;
mod database;
mod event_log;
mod evidence;
mod explain;
mod factors;
mod failure;
mod form_token;
mod fresh_logins;
mod host_standing;
mod http;
mod identity_token;
mod identity_token_keys;
mod inventory;
mod inventory_watch;
mod issue;
mod join;
mod join_rules;
mod key_file;
mod key_params;
mod leases;
mod limiter;
mod local_login;
mod locks;
mod login;
mod login_turns;
mod mfa;
mod parsed;
mod password;
mod policy_change;
mod policy_tests;
mod policy_watch;
mod quota;
mod recorded;
mod recordings;
mod records;
mod rejoin;
mod resources;
mod revocations;
mod roles;
mod rotation;
#[cfg(feature = "saml")]
pub mod saml;
mod secret_hash;
mod security_keys;
mod service;
mod session_mfa;
mod session_touch;
mod sessions;
mod shipping;
mod sign;
mod sso;
mod storage;
#[cfg(feature = "pkcs11")]
mod token_config;
mod tokens;
mod users;
mod waiting;
mod web;
mod web_sessions;

pub use breached::{BreachedListError, BreachedPasswords};
pub use caller::Caller;
pub use database::{Database, DatabaseError, OpenError};
pub use event_log::{AuditLog, BreakNotice, EventLog, EventLogError};
pub use evidence::EvidenceError;
pub use http::{AdminSocketError, HttpApi, ServeError, bind_admin_socket, openapi_document};
pub use join::LocalHost;
pub use join_rules::{TokenReviewError, TokenReviewer};
pub use key_file::KeyFileError;
pub use key_params::{KeyParams, NewKeys};
pub use password::PasswordError;
pub use quota::HostQuotas;
pub use recordings::{RecordingFiles, RecordingState};
pub use records::RecordError;
pub use service::{AuthConfig, AuthService, StartError};
pub use shipping::{ShippedEvent, Shipper};
pub use sso::{FetchError, Fetcher, SsoConfig};
#[cfg(feature = "storage-contract")]
pub use storage::contract as storage_contract;
pub use storage::{MemoryStorage, SqliteStorage};
#[cfg(feature = "pkcs11")]
pub use token_config::{TokenConfig, TokenConfigError};
pub use web::{ApiForAddress, RemoteAddr, WebNames, crl_router, web_router};
