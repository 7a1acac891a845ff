//! A cluster in memory for tests: authorities, proxies and agents over a network whose links are delayed, cut, reordered, re-addressed or
//! fall silent when the test says so. Everything runs under tokio's paused time, so days pass in seconds. Owns no socket and no thread.
//!
//! ```
//! use remoteler_tunnel::testkit::{Echo, TestCluster};
//! use std::sync::Arc;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let cluster = TestCluster::new(1);
//! let proxy = cluster.start_proxy("p1");
//! let device = cluster.net().machine("192.0.2.7");
//! let agent = cluster.start_agent("edge", proxy.address(), &device, Arc::new(Echo));
//! cluster.connected(&agent).await;
//!
//! let mut stream = proxy.dial("edge").await.unwrap();
//! stream.write_all(b"before").await.unwrap();
//! device.cut();                       // every TCP connection of the device is reset
//! device.readdress("198.51.100.9");   // and it is in another network now
//! stream.write_all(b" and after").await.unwrap();
//! let mut back = [0; 16];
//! stream.read_exact(&mut back).await.unwrap();
//! assert_eq!(&back, b"before and after");
//! # }
//! ```

mod cluster;
mod identities;
mod net;

pub use cluster::{Echo, TestCluster, TestProxy};
pub use identities::Authorities;
pub use net::{Arrival, Machine, Net, NetListener, Traffic};
