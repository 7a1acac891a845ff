//! The smallest agent: a device lets users of a cluster reach one address of its own, and opens no port for that. `cargo xtask size` says how
//! large it is. Without arguments it says how it is called.

use std::io::Read;

use anyhow::Context;
use remoteler_client::sdk::{Agent, Join};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [proxy, pin, name, service, to] = arguments.as_slice() else {
        println!("smallest_agent PROXY:PORT CA_PIN NAME SERVICE HOST:PORT < TOKEN");
        return Ok(());
    };
    let mut token = String::new();
    std::io::stdin().read_to_string(&mut token).context("the join token cannot be read from standard input")?;

    let join = Join::token(&token).pin(pin);
    let agent = Agent::builder(proxy).join(join).name(name).state("state").build().await?;
    let _forward = agent.forward(service, to)?;
    agent.connected().await;
    println!("{service}@{name} leads to {to}");
    std::future::pending().await
}
