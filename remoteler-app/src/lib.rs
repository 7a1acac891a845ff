//! Web apps behind the access plane. So far: `axum::serve` over a service of an agent (feature `axum`)
//! tonic's `serve_with_incoming` (feature `tonic`) and any tower service of HTTP requests (feature `hyper`). Browser sessions, signed identity
//! and HTTP forwarding have their place here and are not built.

#[cfg(feature = "tonic")]
mod grpc;
#[cfg(feature = "hyper")]
mod http;
#[cfg(feature = "axum")]
mod listener;

#[cfg(feature = "tonic")]
pub use grpc::{GrpcCaller, GrpcConnection, GrpcIncoming};
#[cfg(feature = "hyper")]
pub use http::{HttpCaller, serve_http};
#[cfg(feature = "axum")]
pub use listener::{AxumCaller, AxumListener};
