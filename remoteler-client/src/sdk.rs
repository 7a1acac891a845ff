//! For programs that take part in a cluster themselves: a device that serves without listening, and a client that reaches it. Owns
//! nothing global: each agent and each client has its own identity, rules and connections.
//!
//! ```no_run
//! use remoteler_client::sdk::{Agent, Join};
//! use tokio::io::AsyncWriteExt;
//!
//! # async fn device() -> Result<(), Box<dyn std::error::Error>> {
//! let join = Join::token("the token that `tctl tokens add --type node` printed").pin("sha256:…");
//! let agent = Agent::builder("proxy.example.com:3080").join(join).name("edge-1").state("/var/lib/device").build().await?;
//! let mut greeter = agent.listen("greeter")?;
//! while let Some(mut connection) = greeter.accept().await {
//!     let caller = connection.peer().clone();
//!     connection.write_all(format!("hello {}\n", caller.user()).as_bytes()).await?;
//!     connection.shutdown().await?;
//! }
//! # Ok(())
//! # }
//! ```

mod agent;
mod builder;
mod client;
mod joining;

pub use agent::{Agent, Counters, TunnelState};
pub use builder::{AgentBuilder, BuildError};
pub use client::{Client, ClientError, PooledStream, ServiceConnector};
pub use joining::Join;
