//! `tsh proxy ssh`: standard input and output are the connection to a node; the ProxyCommand of plain ssh. Nothing is read or loaded
//! that is not needed, because it runs once for each connection.

use std::{io, time::Duration};

use anyhow::{Context as _, bail};
use remoteler_tunnel::relay;

use crate::{
    context::{Context, block_on},
    dial,
    openssh::Family,
    stdio::Stdio,
    trust::Refresh,
};

pub(crate) fn run(context: &Context, target: &str) -> anyhow::Result<()> {
    let host = host_of(target)?;
    let login = context.login()?;
    let cluster = context.cluster(&login)?;
    let node = dial::node_name(host, &cluster)?;
    block_on(async {
        let refresh = Refresh::start(context, &login);
        let mut stream = dial::dial(&login, &cluster, &node, Family::Any, PATIENCE).await?;
        let relayed = relay(&mut Stdio::new(), &mut stream).await;
        refresh.finish().await;
        match relayed.error {
            // The node has sent everything, or whoever started us has gone.
            None => Ok(()),
            Some(cause) if matches!(cause.kind(), io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe) => Ok(()),
            Some(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => bail!("{}", cut_off(node.as_str())),
            Some(cause) => Err(cause).with_context(|| format!("the connection to {node} broke")),
        }
    })?
}

/// What is said when the proxy ended the connection otherwise than in order: in the middle of SSH it has no words of its own.
fn cut_off(node: &str) -> String {
    format!("the connection to {node} was cut off by the proxy: it was stopped or restarted, or has lost the node")
}

/// The host in `[USER@]HOST[:PORT]`.
fn host_of(target: &str) -> anyhow::Result<&str> {
    let host = target.rsplit_once('@').map_or(target, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => host,
    };
    if host.is_empty() {
        bail!("{target:?} names no host; write USER@HOST:PORT");
    }
    Ok(host)
}

const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_stands_between_user_and_port() {
        for target in ["root@node-a.root:22", "node-a.root:22", "root@node-a.root", "node-a.root", "a@b@node-a.root:0"]
        {
            assert_eq!(host_of(target).unwrap(), "node-a.root");
        }
        assert!(host_of("root@:22").is_err());
    }
}
