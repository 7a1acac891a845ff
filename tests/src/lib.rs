//! What whole-cluster tests share: the built binaries, clusters of real processes in directories of their own, real clients
//! of other projects, and waiting for things to become true.

mod apiserver;
mod bins;
mod chromium;
mod clients;
mod cluster;
mod draw;
mod echo_session;
mod edge;
mod faketime;
mod kube;
mod kube_cluster;
mod oidc_provider;
mod path;
mod process;
mod proxy;
mod real_apiserver;
mod rotation;
mod saml;
mod second_factor;
mod small_disk;
mod token;
mod user;
mod wait;

pub use apiserver::{ApiServer, Expected, Seen};
pub use bins::binary;
pub use chromium::Chromium;
pub use clients::{Client, client, need};
pub use cluster::{Cluster, ClusterOptions};
pub use draw::Draw;
pub use echo_session::EchoSession;
pub use edge::Edge;
pub use faketime::{FakeClock, faketime_library};
pub use kube::{Certificate, Issue, KubeFixture, RecordedAudit, Signer};
pub use kube_cluster::KubeCluster;
pub use oidc_provider::{Browser, OidcProvider, ProviderFiles, attribute, need_oidc_provider};
pub use path::Path;
pub use process::{Outcome, Process, run, run_with_input};
pub use proxy::Proxy;
pub use real_apiserver::RealApiServer;
pub use saml::{SamlClients, SamlProvider, form_field};
pub use second_factor::{AuthenticatorApp, answer_code, ends, on_terminal};
pub use small_disk::SmallDisk;
pub use token::SoftHsm;
pub use user::{User, os_login};
pub use wait::{eventually, eventually_within};
