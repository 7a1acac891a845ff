//! Web apps behind the access plane. So far: `axum::serve` over a service of an agent (feature `axum`). Browser sessions, signed identity
//! and HTTP forwarding have their place here and are not built.

#[cfg(feature = "axum")]
mod listener;

#[cfg(feature = "axum")]
pub use listener::{AxumCaller, AxumListener};
