//! A device forwards the MQTT broker on its own loopback under the name `mqtt`: users of the cluster reach it, nobody else does. Which
//! address that is, the device alone says.

use std::time::Duration;

use anyhow::{Context, ensure};
use remoteler_tunnel::testkit::TestCluster;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

/// CONNECT of client `a`, MQTT 3.1.1 (OASIS, section 3.1), and the CONNACK that accepts it (section 3.2).
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
const CONNACK: &[u8] = b"\x20\x02\x00\x00";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // A broker that says yes, on loopback.
    let broker = TcpListener::bind("127.0.0.1:0").await?;
    let address = broker.local_addr()?.to_string();
    tokio::spawn(async move {
        let (mut socket, _) = broker.accept().await?;
        let mut connect = [0; CONNECT.len()];
        socket.read_exact(&mut connect).await?;
        socket.write_all(CONNACK).await
    });

    let cluster = TestCluster::new(1);
    let proxy = cluster.start_proxy("p1");
    let device = cluster.net().machine("192.0.2.7");
    let (agent, services) = cluster.start_services("edge-1", proxy.address(), &device);
    // With the SDK's agent: `let forward = agent.forward("mqtt", "127.0.0.1:1883")?;`
    tokio::spawn(services.forward("mqtt", &address)?);
    cluster.connected(&agent).await;

    let ann = cluster.dialer("ann", proxy.address(), &cluster.net().machine("203.0.113.5"));
    let mut mqtt = ann.dial("mqtt@edge-1").await?;
    mqtt.write_all(CONNECT).await?;
    mqtt.flush().await?;
    let mut answer = [0; CONNACK.len()];
    timeout(Duration::from_secs(10), mqtt.read_exact(&mut answer)).await.context("the broker is silent")??;
    ensure!(answer == CONNACK, "the broker refuses: {answer:?}");
    println!("connected to the broker behind edge-1");
    Ok(())
}
