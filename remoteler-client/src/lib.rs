//! What a user's or a device's machine does to take part in a cluster: keys made here, login and join, the profile and the files of a
//! login, the auth service over HTTP, the audit spool and the view of the rules, ssh-agent, kubeconfig, known_hosts and ssh_config.
//!
//! Nothing here decides about access, listens on a socket, or reads the environment (but for `SSL_CERT_FILE`, which the loader of the
//! system's root certificates honours): paths and addresses are arguments.

mod agent;
mod connector;
mod direct_audit;
mod files;
mod host_clock;
mod host_keeper;
mod host_state;
mod http;
mod identity_file;
mod join;
mod keys;
mod known_hosts;
mod kubeconfig;
mod kubeconfig_file;
mod leases;
mod output_files;
mod parser_stack;
mod pending_keys;
mod policy;
mod profile;
mod remote;
pub mod sdk;
mod spool;
mod ssh_config;
mod standing;
mod state_store;
mod store;
mod usage;
mod ways_file;
mod web;
mod yaml;

pub use agent::{AgentError, SshAgent};
pub use connector::{AuthTrust, ConnectError, LateLinks, Peer, WebTrust, probe, probe_by};
pub use direct_audit::DirectAudit;
pub use files::FileError;
pub use host_clock::{HostClock, TimeError, align_clock, correct_clock};
pub use host_keeper::{HostIdentities, HostKeeper, KeeperError, SshHostKey};
pub use host_state::{HostState, HostStateError};
pub use identity_file::{IdentityAuthError, IdentityFile, IdentityFileError, IdentityMistake};
pub use join::{JoinError, JoinParams, RejoinParams, first_trust, join, rejoin};
pub use keys::{KeyError, KeyPairs};
pub use known_hosts::HostScope;
pub use kubeconfig::{KubeEntry, Kubeconfig, KubeconfigError};
pub use kubeconfig_file::KubeconfigFile;
pub use leases::LeaseKeeper;
pub use output_files::{OutputError, OutputFiles};
pub use parser_stack::on_parser_stack;
pub use pending_keys::PendingKeys;
pub use policy::{PolicyError, PolicyRefresher};
pub use profile::{Profile, ProfileError, ProxyAddr, ProxyAddrError};
pub use remote::RemoteAuth;
pub use spool::{SpoolLimits, SpooledAudit, WhenFull};
pub use ssh_config::{SshConfig, UnsafeValue};
pub use standing::ShutOut;
pub use state_store::{DirStore, MemoryStore, StateStore};
pub use store::{KubeCredential, KubeSession, Store, StoreError, StoredLogin, pem_certificates};
pub use usage::usage_mistake;
pub use ways_file::WaysFile;
pub use web::WebClient;
pub use yaml::YamlError;
