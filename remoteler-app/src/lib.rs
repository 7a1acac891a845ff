//! Web apps behind the access plane. So far: `axum::serve` over a service of an agent (feature `axum`)
//! and tonic's `serve_with_incoming` (feature `tonic`). Browser sessions, signed identity
//! and HTTP forwarding have their place here and are not built.

#[cfg(feature = "tonic")]
mod grpc;
#[cfg(feature = "axum")]
mod listener;

#[cfg(feature = "tonic")]
pub use grpc::{GrpcCaller, GrpcConnection, GrpcIncoming};
#[cfg(feature = "axum")]
pub use listener::{AxumCaller, AxumListener};
