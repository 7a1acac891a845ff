//! A wire tap: passes connections on, octet by octet, and keeps a copy of everything.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

/// What has crossed so far.
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<Vec<u8>>>);

impl Tap {
    /// Taps a TCP port; where to connect instead of there.
    pub(crate) fn tcp(&self, to: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tap, to) = (self.clone(), to.to_owned());
        thread::spawn(move || {
            for client in listener.incoming() {
                // Whoever is refused there is refused here.
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(&to)) {
                    tap.pass(client.try_clone().unwrap(), server.try_clone().unwrap());
                    tap.pass(server, client);
                }
            }
        });
        address
    }

    /// Taps a socket of the file system.
    pub(crate) fn unix(&self, from: &Path, to: &Path) {
        let listener = UnixListener::bind(from).unwrap();
        let (tap, to) = (self.clone(), to.to_owned());
        thread::spawn(move || {
            for client in listener.incoming() {
                if let (Ok(client), Ok(server)) = (client, UnixStream::connect(&to)) {
                    tap.pass(client.try_clone().unwrap(), server.try_clone().unwrap());
                    tap.pass(server, client);
                }
            }
        });
    }

    fn pass<R: Read + Send + 'static, W: Write + End + Send + 'static>(&self, mut from: R, mut to: W) {
        let tap = self.0.clone();
        thread::spawn(move || {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = from.read(&mut piece) {
                tap.lock().unwrap().extend_from_slice(&piece[..read]);
                if to.write_all(&piece[..read]).is_err() {
                    break;
                }
            }
            to.end();
        });
    }

    /// All of it.
    pub(crate) fn octets(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

/// A side that can say that no more comes.
trait End {
    fn end(&self);
}

impl End for TcpStream {
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl End for UnixStream {
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}
