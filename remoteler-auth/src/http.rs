//! The API over HTTP: one router over [`AuthApi`] and the server shells that give each connection its caller.
//! Terminates no TLS: it takes streams that are authenticated already.

mod body;
mod openapi;
mod routes;
mod schemas;
mod serve;
mod unix;

pub(crate) use body::{Failure, Input, json};
pub use openapi::openapi_document;
pub use serve::{HttpApi, ServeError};
pub use unix::{AdminSocketError, bind_admin_socket};
