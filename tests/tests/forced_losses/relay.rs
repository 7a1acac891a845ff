//! A path between agents and proxy whose connections can be lost in three ways. Owns the sockets of both sides.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use remoteler_tests::run;
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

/// How a connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Both ends get a reset.
    Reset,
    /// The agent's socket is ended by its own system (`ss -K`).
    Killed,
    /// Nothing arrives any more, and nobody is told.
    BlackHole,
}

/// Passes connections on to one address.
pub(crate) struct Relay {
    address: SocketAddr,
    carried: Arc<Mutex<Vec<watch::Sender<Option<Loss>>>>>,
    lost: AtomicUsize,
}

impl Relay {
    pub(crate) async fn start(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let carried: Arc<Mutex<Vec<watch::Sender<Option<Loss>>>>> = Arc::default();
        let (kept, to) = (carried.clone(), to.to_owned());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&to).await else { continue };
                let (lose, lost) = watch::channel(None);
                kept.lock().unwrap().push(lose);
                tokio::spawn(carry(near, far, lost));
            }
        });
        Self { address, carried, lost: AtomicUsize::new(0) }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many connections were lost so far.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    /// Loses all connections that there are now.
    pub(crate) async fn lose(&self, loss: Loss) {
        let carried: Vec<_> = self.carried.lock().unwrap().drain(..).filter(|lose| !lose.is_closed()).collect();
        self.lost.fetch_add(carried.len(), Ordering::Relaxed);
        if loss == Loss::Killed {
            let port = self.address.port();
            tokio::task::spawn_blocking(move || kill_sockets(port)).await.unwrap();
            return;
        }
        for lose in carried {
            lose.send_replace(Some(loss));
        }
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, mut lost: watch::Receiver<Option<Loss>>) {
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let loss = tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => return,
        // Without a sender nobody loses it: it was dropped with the list.
        loss = lost.wait_for(Option::is_some) => loss.ok().and_then(|loss| *loss),
    };
    match loss {
        Some(Loss::BlackHole) => {
            // Held open, read by nobody, for longer than anybody waits for it.
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Some(Loss::Reset) => {
            let _ = (near.set_zero_linger(), far.set_zero_linger());
        }
        Some(Loss::Killed) | None => {
            let _ = copy_bidirectional(&mut near, &mut far).await;
        }
    }
}

fn kill_sockets(port: u16) -> bool {
    run(std::process::Command::new("ss").args(["-K", "-n", "-t", &format!("dport = :{port}")])).code == Some(0)
}

/// Whether this system ends sockets on demand.
pub(crate) async fn can_kill() -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut near = TcpStream::connect(address).await.unwrap();
    let _far = listener.accept().await.unwrap();
    kill_sockets(address.port());
    let mut nothing = [0];
    let ended = timeout(Duration::from_secs(2), near.read(&mut nothing)).await;
    let able = matches!(ended, Ok(Err(_) | Ok(0)));
    if !able {
        println!("sockets are not ended by `ss -K` here: those connections are reset instead");
    }
    able
}
