//! Web apps behind the access plane. With the feature `service` the app service, which stands before web apps: it ends the user's TLS connection, decides,
//! records and forwards. And services of agents as others take them: `axum::serve` (feature `axum`), tonic's `serve_with_incoming` (feature `tonic`) and any tower
//! service of HTTP requests (feature `hyper`).

#[cfg(feature = "tonic")]
mod grpc;
#[cfg(feature = "service")]
mod headers;
#[cfg(feature = "hyper")]
mod http;
#[cfg(feature = "axum")]
mod listener;
#[cfg(feature = "service")]
mod origin;
#[cfg(feature = "service")]
mod service;

#[cfg(feature = "hyper")]
pub use self::http::{HttpCaller, serve_http};
#[cfg(feature = "tonic")]
pub use grpc::{GrpcCaller, GrpcConnection, GrpcIncoming};
#[cfg(feature = "service")]
pub use headers::{ASSERTION, Told, keep_body, keep_redirect_inside, strip_request, strip_response, tell};
#[cfg(feature = "axum")]
pub use listener::{AxumCaller, AxumListener};
#[cfg(feature = "service")]
pub use origin::{OriginError, Silence, check_origin};
#[cfg(feature = "service")]
pub use service::{
    AppConfig, AppService, AppServiceConfig, AppServiceError, AppUri, AppUriError, Assertions, AuthQuestions,
    EndedSessions, ServeError,
};
