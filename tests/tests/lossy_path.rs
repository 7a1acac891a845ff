//! The connection between an edge node and its proxy is lost again and again: stock `ssh` and `scp` do not notice.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use remoteler_tests::{Cluster, Edge, need, run};

/// Octets of the copy that arrive between two cuts of it, at least.
const BETWEEN_CUTS: u64 = 1024 * 1024;
const MOST_CUTS: usize = 40;
const COPY_LIMIT: Duration = Duration::from_secs(120);

/// Carries connections to an address, and can lose all of them at once.
struct LossyRelay {
    address: SocketAddr,
    carried: Arc<Mutex<Vec<TcpStream>>>,
}

impl LossyRelay {
    fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let carried: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let kept = carried.clone();
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(&to) else { continue };
                for (from, into) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut into);
                        let _ = into.shutdown(Shutdown::Both);
                    });
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Self { address, carried }
    }

    fn cut(&self) {
        for socket in self.carried.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_session_and_a_copy_by_stock_clients_live_through_the_loss_of_the_tunnels_connections() {
    if !need(&["ssh", "scp"]) {
        return;
    }
    let cluster = Cluster::start();
    let relay = LossyRelay::start(cluster.proxy().to_owned());
    let edge = Edge::launch(&cluster, "edge-1", &relay.address.to_string(), &[], &[]);
    edge.wait_connected();
    let ann = cluster.user("ann", "access");
    let mut ssh = ann.openssh("ssh");
    let session = ssh.args(["-o", "BatchMode=yes", "edge-1", "cat"]);
    let mut session = session.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (session.stdin.take().unwrap(), BufReader::new(session.stdout.take().unwrap()));
    let mut waits = Vec::new();
    for round in 0..20 {
        let line = format!("line {round}\n");
        if round > 0 {
            relay.cut();
        }
        let since = Instant::now();
        to.write_all(line.as_bytes()).unwrap();
        let mut heard = String::new();
        from.read_line(&mut heard).unwrap();
        assert_eq!(heard, line, "after {round} cuts\n{}", edge.status().unwrap());
        waits.push(since.elapsed());
    }
    waits.sort();
    println!("echo after a cut: median {:?}, longest {:?}", waits[waits.len() / 2], waits[waits.len() - 1]);

    // A copy of random octets, cut again and again while it gets on.
    let (source, copy) = (cluster.dir().join("source"), cluster.dir().join("copy"));
    let make = format!("head -c 64M /dev/urandom > {}", source.display());
    run(Command::new("sh").args(["-c", &make])).ok();
    let mut scp = ann.openssh("scp");
    let scp = scp.args(["-q", "-o", "BatchMode=yes"]).arg(&source).arg(format!("edge-1:{}", copy.display()));
    let mut copying = scp.spawn().unwrap();
    let (mut cuts, mut size_at_cut, end) = (0, 0, Instant::now() + COPY_LIMIT);
    let status = loop {
        if let Some(status) = copying.try_wait().unwrap() {
            break status;
        }
        let size = fs::metadata(&copy).map_or(0, |found| found.len());
        if Instant::now() > end {
            let _ = copying.kill();
            let _ = copying.wait();
            panic!("scp has copied {size} octets after {COPY_LIMIT:?} and {cuts} cuts");
        }
        // Never before something has arrived since the last one: on a slow machine nothing ever would.
        if cuts < MOST_CUTS && size >= size_at_cut + BETWEEN_CUTS {
            relay.cut();
            (cuts, size_at_cut) = (cuts + 1, size);
        }
        std::thread::sleep(Duration::from_millis(10)); // the time between two looks
    };
    assert!(status.success(), "scp failed after {cuts} cuts");
    assert!(cuts >= 3, "only {cuts} cuts during the copy");
    println!("{cuts} cuts during the copy");
    run(Command::new("cmp").arg(&source).arg(&copy)).ok();

    drop(to);
    assert!(session.wait().unwrap().success());
    let links = cluster.events("tunnel.connect");
    assert_eq!(links.len(), 1, "one link all the time: {links:?}");
}
