//! A proxy makes way for its next process while the connections under its agents' links are lost: the links go on in the process that has them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use remoteler_tests::{Cluster, ClusterOptions, EchoSession, Edge, Proxy, User, eventually_within, need};

const SECONDS: Duration = Duration::from_secs(60);

/// Passes connections on to one address, until they are lost.
struct Path {
    address: SocketAddr,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Path {
    fn to(proxy: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, proxy) = (listener.local_addr().unwrap(), proxy.to_owned());
        let sockets: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let kept = sockets.clone();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(&proxy)) else { continue };
                let pair = [(near.try_clone(), far.try_clone()), (far.try_clone(), near.try_clone())];
                kept.lock().unwrap().extend([near, far]);
                for (from, to) in pair {
                    let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { address, sockets }
    }

    /// Ends all connections; how many.
    fn lose(&self) -> usize {
        let sockets = std::mem::take(&mut *self.sockets.lock().unwrap());
        let ends = |socket: &&TcpStream| socket.shutdown(Shutdown::Both).is_ok();
        // The second of a pair may have ended with the first already.
        sockets.chunks(2).filter(|pair| pair.iter().filter(ends).count() > 0).count()
    }
}

#[test]
fn sessions_in_a_process_that_makes_way_live_through_the_loss_of_their_links_connection() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start_with(ClusterOptions { roles: "auth,node".into(), ..ClusterOptions::default() });
    let mut proxy = Proxy::join(&cluster, "proxy-1");
    let path = Path::to(proxy.address());
    let edge = Edge::launch(&cluster, "edge-1", &path.address.to_string(), &[], &[]);
    edge.wait_connected();
    let ann = User::create_at(&cluster, "ann", "access", proxy.address());
    eventually_within(SECONDS, "the edge node is known", || {
        let out = remoteler_tests::run(ann.openssh("ssh").args(["-o", "BatchMode=yes", "edge-1", "true"]));
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    let mut session = EchoSession::open(&ann, "edge-1");
    assert!(path.lose() > 0);
    session.says_again("after a loss");

    proxy.make_way();
    assert!(path.lose() > 0);
    session.says_again("after a loss while the next process serves");

    // The process that has the session is two before the one that serves now.
    proxy.make_way();
    assert!(path.lose() > 0);
    session.says_again("after a loss while the one after that serves");

    session.end();
    assert_eq!(proxy.process().wait(2 * SECONDS), Some(0), "the process before has ended in order");
}
