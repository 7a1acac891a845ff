//! Ends of reverse tunnels for measurements of whole processes: a proxy's port with nothing else behind it, and many agents in one
//! process, with identities made on the spot or by joining a real cluster. Owns no measurement: who runs it looks at the processes.

mod agents;
mod identities;
mod proxy;
mod source;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

/// Ends of reverse tunnels, to be measured.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a cluster's authorities and writes the identities of a proxy and of hosts into a directory.
    Identities {
        /// Where to.
        #[arg(long)]
        dir: PathBuf,
        /// How many hosts.
        #[arg(long)]
        count: usize,
    },
    /// A proxy with its one port, and a plain port whose connections go through the link of the first host. Prints AGENTS and how many have
    /// their tunnels, whenever that has changed.
    Proxy {
        /// Where the identities are.
        #[arg(long)]
        dir: PathBuf,
        /// The one port.
        #[arg(long)]
        listen: SocketAddr,
        /// The plain port.
        #[arg(long)]
        entry: SocketAddr,
    },
    /// Agents of the hosts of a directory; prints READY when all have their tunnels.
    Agents {
        /// Where the identities are.
        #[arg(long)]
        dir: PathBuf,
        /// The proxy's one port.
        #[arg(long)]
        proxy: SocketAddr,
        /// The first of the hosts, from 0.
        #[arg(long, default_value_t = 0)]
        first: usize,
        /// How many of the hosts.
        #[arg(long, default_value_t = 1)]
        count: usize,
        /// Where streams go; without it they are closed.
        #[arg(long)]
        target: Option<SocketAddr>,
    },
    /// Agents of hosts that join a real cluster; the join token is read from standard input. Prints READY when all have their tunnels, and UP and how
    /// many have, whenever that has changed.
    Join {
        /// The proxy.
        #[arg(long)]
        proxy: String,
        /// Pin of the host authority.
        #[arg(long)]
        ca_pin: String,
        /// Number of the first one; their names have it.
        #[arg(long, default_value_t = 0)]
        first: usize,
        /// How many hosts.
        #[arg(long)]
        count: usize,
        /// Fetch the rules and announce nodes as the daemon does: each agent then has a connection to the auth service besides its link.
        #[arg(long)]
        api: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match Args::parse().command {
            Command::Identities { dir, count } => identities::write(&dir, count),
            Command::Proxy { dir, listen, entry } => proxy::run(&dir, listen, entry).await,
            Command::Agents { dir, proxy, first, count, target } => {
                agents::of_directory(&dir, proxy, first..first + count, target).await
            }
            Command::Join { proxy, ca_pin, first, count, api } => {
                agents::joining(&proxy, &ca_pin, first..first + count, api).await
            }
        }
    })
}
