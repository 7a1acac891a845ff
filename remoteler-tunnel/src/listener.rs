//! The listeners of the cluster: how a connection is accepted, how long it may stay nobody, and on the one port how its first
//! octets choose who serves it. Owns the budgets of the unauthenticated. Never decides who anybody is (I13).

mod accept;
mod admission;
mod client_hello;
mod gate;
mod one_port;
mod route;

pub use accept::{Connection, Serve, serve, until_somebody};
pub use admission::{Admission, AdmissionLimits, Admissions};
pub use client_hello::{Greeting, HelloError, MAX_CLIENT_HELLO, read_client_hello};
pub use one_port::{OnePort, Refusal, RouteHandler, Routed, Socket};
pub use route::{ALPN_AUTH, ALPN_AUTH_RELAY, ALPN_SSH, ALPN_TUNNEL, Route, RouteError, route};
