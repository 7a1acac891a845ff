//! A path to a proxy that a test has in its hand: connections over it can be lost, and it can be closed.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

/// Passes connections on to one address, until they are lost.
#[derive(Debug)]
pub struct Path {
    address: SocketAddr,
    way: Arc<Way>,
}

#[derive(Debug, Default)]
struct Way {
    sockets: Mutex<Vec<TcpStream>>,
    closed: AtomicBool,
    taken: AtomicUsize,
    carried: AtomicU64,
}

impl Path {
    /// From a free port of 127.0.0.1 to `proxy`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn to(proxy: &str) -> Self {
        Self::between(SocketAddr::from(([127, 0, 0, 1], 0)), proxy)
    }

    /// From `address` to `proxy`.
    ///
    /// # Panics
    /// When `address` cannot be listened on.
    #[must_use]
    pub fn between(address: SocketAddr, proxy: &str) -> Self {
        let listener = TcpListener::bind(address).expect("it can be listened on");
        let address = listener.local_addr().expect("it is bound");
        let (way, proxy) = (Arc::<Way>::default(), proxy.to_owned());
        let kept = way.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                kept.pass(near, &proxy);
            }
        });
        Self { address, way }
    }

    /// Where it begins.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has passed on.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.way.taken.load(Ordering::SeqCst)
    }

    /// How many octets it has passed on, both ways.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.way.carried.load(Ordering::SeqCst)
    }

    /// Ends all connections; how many.
    #[must_use]
    pub fn lose(&self) -> usize {
        let sockets = std::mem::take(&mut *self.way.sockets.lock().expect("nobody panics with it"));
        let ends = |socket: &&TcpStream| socket.shutdown(Shutdown::Both).is_ok();
        // The second of a pair may have ended with the first already.
        sockets.chunks(2).filter(|pair| pair.iter().filter(ends).count() > 0).count()
    }

    /// Ends all connections, and those that come from now on; how many there were.
    #[must_use]
    pub fn close(&self) -> usize {
        self.way.closed.store(true, Ordering::SeqCst);
        self.lose()
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.way.closed.store(false, Ordering::SeqCst);
    }
}

impl Way {
    fn pass(self: &Arc<Self>, near: TcpStream, proxy: &str) {
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        let Ok(far) = TcpStream::connect(proxy) else { return };
        self.taken.fetch_add(1, Ordering::SeqCst);
        let pair = [(near.try_clone(), far.try_clone()), (far.try_clone(), near.try_clone())];
        {
            let mut sockets = self.sockets.lock().expect("nobody panics with it");
            sockets.extend([near, far]);
        }
        for (from, to) in pair {
            let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
            let way = self.clone();
            std::thread::spawn(move || {
                let mut piece = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from.read(&mut piece) {
                    way.carried.fetch_add(length as u64, Ordering::SeqCst);
                    if to.write_all(&piece[..length]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        if self.closed.load(Ordering::SeqCst) {
            // It was closed while this one was made.
            let sockets = std::mem::take(&mut *self.sockets.lock().expect("nobody panics with it"));
            sockets.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
        }
    }
}
