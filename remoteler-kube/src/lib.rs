//! Kubernetes for Remoteler: the service that stands before an API server. It ends the user's TLS connection, verifies the
//! certificate, decides by role, and forwards with the service's own credential and the user's impersonation headers.
//!
//! A request passes one tower stack, read top to bottom in [`KubeService`]'s connection code; each layer hands the next a
//! value that only it can make, so that nothing is sent without a verified user, a decision and a recorded event.
//! Never speaks to the cluster's auth service itself: roles and trust come from a [`remoteler_core::PolicySource`], events go to
//! a [`remoteler_core::AuditSink`].

mod act_as;
mod audit;
mod authenticate;
mod authorise;
mod body;
mod connection;
mod credential;
mod farewell;
mod forward;
mod headers;
mod impersonate;
mod kubeconfig;
mod limit;
mod path;
mod pool;
mod refusal;
mod relay;
mod request;
mod route;
mod service;
mod status;
mod token_review;
mod upgrade;
mod upstream;

pub use connection::ServeError;
pub use impersonate::{Impersonate, ImpersonateError, Impersonated, impersonate};
pub use kubeconfig::KubeconfigError;
pub use path::{ApiPath, KubePath, PathError};
pub use service::{KubeClusterConfig, KubeService, KubeServiceConfig, KubeServiceError};
pub use token_review::TokenReviewError;
pub use upstream::{Upstream, UpstreamError};
