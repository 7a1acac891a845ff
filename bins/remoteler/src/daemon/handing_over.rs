//! How a running daemon makes way for the next process of itself: that one takes the port and serves everybody new, this one goes on with
//! what it copies until that ends. Owns the order, and the way back when the next process comes to nothing.

use std::{os::fd::AsFd, path::Path};

use anyhow::Context;

use super::{
    Daemon,
    base::{LentKeeper, LentSpool},
};
#[cfg(feature = "server")]
use crate::handover::{LINKS, MOST_EARLIER, links};
use crate::{
    handover::{Ports, Successor},
    status_board,
};

/// What a process that only runs a proxy can hand over.
pub(super) struct Estate {
    pub(super) spool: std::sync::Arc<LentSpool>,
    pub(super) keeper: std::sync::Arc<LentKeeper>,
}

impl Daemon {
    /// Starts `program` as the next process and gives it the ports; returns its process id when it serves. This process is to drain then.
    ///
    /// # Errors
    /// Nothing is handed over: this process has other services than the proxy, or the next one did not start. This one goes on as before.
    pub async fn hand_over(&self, program: &Path) -> anyhow::Result<u32> {
        let estate = self.estate.as_ref().context(
            "only a process that runs the proxy alone makes way for the next one; an auth service, a node or a Kubernetes service is restarted",
        )?;
        let instance = estate.keeper.instance().context("this host has no run that could go on")?;
        #[cfg(feature = "server")]
        let links = self.take_links_back().context("links cannot go on beyond this process")?;
        let mut next = {
            let ports = self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            #[cfg(feature = "server")]
            let handed = with_links(&ports, &links);
            #[cfg(not(feature = "server"))]
            let handed: Vec<_> = ports.iter().map(|(name, fd)| (name.as_str(), fd.as_fd())).collect();
            Successor::start(program, &handed, instance)?
        };
        let id = next.id();
        if let Err(cause) = next.wants_to_take_over().await {
            next.end();
            return Err(cause);
        }
        let given = async {
            estate.keeper.lend().await;
            estate.spool.lend().await?;
            self.data_dir.lend().context("the data directory is not let go")?;
            next.takes_over().await
        };
        let given = given.await;
        if let Err(cause) = given {
            next.end();
            self.take_back(estate).await.context("the state cannot be taken back")?;
            return Err(cause);
        }
        Ok(id)
    }

    async fn take_back(&self, estate: &Estate) -> anyhow::Result<()> {
        // Whatever of it fails, certificates are renewed again.
        estate.keeper.take_back().await;
        self.data_dir.take_back()?;
        estate.spool.take_back().await?;
        // The next process may have put its own socket there.
        let socket = status_board::bind_local_socket(&self.data_dir.status_socket())?;
        tokio::spawn(super::until(self.stop.clone(), status_board::serve(socket, self.board.clone())));
        Ok(())
    }

    /// Keeps a second hold on a port, to be handed over.
    #[cfg(feature = "server")]
    pub(super) fn keep_port(&self, service: &str, listener: &tokio::net::TcpListener) -> anyhow::Result<()> {
        let fd = listener.as_fd().try_clone_to_owned().context("a port cannot be held twice")?;
        self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((service.to_owned(), fd));
        Ok(())
    }

    /// Takes connections for links that stay here from now on; returns what the next process passes them back by.
    #[cfg(feature = "server")]
    fn take_links_back(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        if let Some((tunnels, tls)) = self.servers.tunnels() {
            tokio::spawn(super::until(self.stop.clone(), async move {
                if let Err(cause) = links::take(near, tunnels, tls).await {
                    tracing::warn!(%cause, "links that lose their connection do not go on in this process any more");
                }
            }));
        }
        Ok(far.into())
    }

    /// The processes before that still carry links; their sockets are handed on as well.
    #[cfg(feature = "server")]
    pub(super) fn earlier_processes(
        &self,
        sockets: Vec<std::os::fd::OwnedFd>,
    ) -> std::io::Result<Vec<std::sync::Arc<dyn remoteler_tunnel::EarlierProcess>>> {
        let mut ports = self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut processes = Vec::<std::sync::Arc<dyn remoteler_tunnel::EarlierProcess>>::new();
        for socket in sockets {
            ports.push((LINKS.to_owned(), socket.try_clone()?));
            processes.push(std::sync::Arc::new(links::Earlier::new(socket)?));
        }
        Ok(processes)
    }

    /// Lets the ports go: nothing is handed over any more.
    pub(super) fn let_ports_go(&self) {
        let ports: Ports = std::mem::take(&mut *self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        drop(ports);
    }
}

/// The ports, and behind them what this process and those before it take connections by, the latest first.
#[cfg(feature = "server")]
fn with_links<'a>(ports: &'a Ports, own: &'a std::os::fd::OwnedFd) -> Vec<(&'a str, std::os::fd::BorrowedFd<'a>)> {
    let (earlier, mut handed): (Vec<_>, Vec<_>) =
        ports.iter().map(|(name, fd)| (name.as_str(), fd.as_fd())).partition(|(name, _)| *name == LINKS);
    handed.push((LINKS, own.as_fd()));
    handed.extend(earlier.into_iter().filter(|(_, socket)| links::is_there(*socket)).take(MOST_EARLIER - 1));
    handed
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use std::{
        io::{Read, Write},
        os::{
            fd::{BorrowedFd, OwnedFd},
            unix::net::UnixStream,
        },
    };

    use remoteler_core::InstanceId;

    use super::*;
    use crate::handover::Predecessor;

    #[tokio::test]
    async fn three_handovers_later_the_latest_process_is_still_asked_first() {
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ports: Ports = vec![("crl".to_owned(), port().into()), ("proxy".to_owned(), port().into())];
        // What each process takes connections by, and still lives.
        let mut processes = Vec::new();
        for _ in 0..3 {
            let (near, own) = UnixStream::pair().unwrap();
            processes.push(near);
            let own = OwnedFd::from(own);
            let handed = with_links(&ports, &own);
            let kept = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
            let handed = handed.iter().map(|(name, fd)| ((*name).to_owned(), kept(fd))).collect();

            let (words, _other) = tokio::net::UnixStream::pair().unwrap();
            let next =
                Predecessor::with(words, "00000000-0000-4000-8000-000000000001".parse::<InstanceId>().unwrap(), handed);
            ports = Vec::new();
            for service in ["crl", "proxy"] {
                ports.push((service.to_owned(), next.port(service).unwrap().unwrap().into_std().unwrap().into()));
            }
            ports.extend(next.links().into_iter().map(|fd| (LINKS.to_owned(), fd)));
        }
        for (at, process) in (0_u8..).zip(&mut processes) {
            process.write_all(&[at]).unwrap();
        }
        let mut order = Vec::new();
        for (name, fd) in ports {
            if name == LINKS {
                let mut said = [0];
                UnixStream::from(fd).read_exact(&mut said).unwrap();
                order.extend(said);
            }
        }
        assert_eq!(order, [2, 1, 0]);
    }
}
