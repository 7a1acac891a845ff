//! HTTP by hand: a connection on which a test writes octets as they are, and reads answers one by one. What no client would send is the point.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub struct RawHttp {
    stream: Box<dyn Stream>,
    /// What came and was not taken yet.
    heard: Vec<u8>,
}

/// An answer of HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAnswer {
    /// From the status line to the empty one.
    pub head: String,
    /// Without the lengths of its chunks.
    pub body: String,
}

trait Stream: Read + Write + Send {
    /// Says that nothing more is to be sent.
    fn finish(&mut self);
}

impl Stream for TcpStream {
    fn finish(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn finish(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
        let _ = self.sock.shutdown(Shutdown::Write);
    }
}

/// A TLS client that believes the certificates in `believed`, shows that of two files, certificate and key, if there are any, and speaks `alpn`.
///
/// # Panics
/// When a file holds something else.
#[must_use]
pub fn tls_client(believed: &Path, shown: Option<(&Path, &Path)>, alpn: &str) -> ClientConfig {
    let read = |file: &Path| -> Vec<_> {
        let certificates = CertificateDer::pem_file_iter(file).expect("a file of certificates");
        certificates.map(|certificate| certificate.expect("a certificate")).collect()
    };
    let mut roots = RootCertStore::empty();
    for certificate in read(believed) {
        roots.add(certificate).expect("a certificate that can be believed");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions")
        .with_root_certificates(roots);
    let mut config = match shown {
        Some((certificate, key)) => builder
            .with_client_auth_cert(read(certificate), PrivateKeyDer::from_pem_file(key).expect("a key"))
            .expect("they belong together"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config
}

impl RawHttp {
    /// Connects without TLS.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    #[track_caller]
    pub fn plain(address: &str) -> Self {
        Self { stream: Box::new(tcp(address)), heard: Vec::new() }
    }

    /// Connects and asks for `server_name`.
    ///
    /// # Panics
    /// When there is no TLS.
    #[must_use]
    #[track_caller]
    pub fn tls(address: &str, server_name: &str, config: ClientConfig) -> Self {
        let name = ServerName::try_from(server_name.to_owned()).expect("a server name");
        let mut connection = ClientConnection::new(Arc::new(config), name).expect("a good configuration");
        let mut tcp = tcp(address);
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp).expect("a TLS handshake");
        }
        Self { stream: Box::new(StreamOwned::new(connection, tcp)), heard: Vec::new() }
    }

    /// Writes. Who does not want to hear it may hang up.
    pub fn write(&mut self, octets: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(octets.as_ref()).and_then(|()| self.stream.flush());
    }

    /// Reads one answer, but those before the last one (100 to 199, without 101). `None` when the connection has ended before its end.
    ///
    /// # Panics
    /// When nothing comes for half a minute, or no HTTP.
    #[must_use]
    #[track_caller]
    pub fn answer(&mut self) -> Option<RawAnswer> {
        let end = self.until(|heard| heard.windows(4).position(|four| four == b"\r\n\r\n"))?;
        let head = self.take(end + 4);
        let mut answer = RawAnswer { head, body: String::new() };
        match answer.status() {
            100 | 102..=199 => return self.answer(),
            101 | 204 | 304 => return Some(answer),
            _ => {}
        }
        if answer.values("transfer-encoding") == ["chunked"] {
            loop {
                let end = self.until(|heard| heard.windows(2).position(|two| two == b"\r\n"))?;
                let line = self.take(end + 2);
                let length = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("a length: {line:?}"));
                self.until(|heard| (heard.len() >= length + 2).then_some(()))?;
                let chunk = self.take(length + 2);
                answer.body.push_str(chunk.get(..chunk.len() - 2).expect("its end"));
                if length == 0 {
                    return Some(answer);
                }
            }
        }
        match answer.values("content-length").first() {
            Some(length) => {
                let length: usize = length.parse().expect("a length");
                self.until(|heard| (heard.len() >= length).then_some(()))?;
                answer.body = self.take(length);
            }
            None => answer.body = self.rest(),
        }
        Some(answer)
    }

    /// Waits for so many octets. `None` when the connection has ended before.
    #[must_use]
    #[track_caller]
    pub fn read(&mut self, count: usize) -> Option<Vec<u8>> {
        self.until(|heard| (heard.len() >= count).then_some(()))?;
        Some(self.heard.drain(..count).collect())
    }

    /// Says that nothing more is sent, and reads to the end.
    #[must_use]
    #[track_caller]
    pub fn rest(&mut self) -> String {
        self.stream.finish();
        let never: Option<()> = self.until(|_| None);
        assert!(never.is_none());
        self.take(self.heard.len())
    }

    fn take(&mut self, count: usize) -> String {
        let octets: Vec<u8> = self.heard.drain(..count).collect();
        String::from_utf8_lossy(&octets).into_owned()
    }

    #[track_caller]
    fn until<T>(&mut self, found: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(found) = found(&self.heard) {
                return Some(found);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.heard.extend_from_slice(buffer.get(..count).expect("it was read")),
                Err(cause) if matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("nothing came within {PATIENCE:?}, after {:?}", String::from_utf8_lossy(&self.heard))
                }
                // Reset, or ended without a word in TLS.
                Err(_) => return None,
            }
        }
    }
}

#[track_caller]
fn tcp(address: &str) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap_or_else(|cause| panic!("{address}: {cause}"));
    tcp.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    tcp.set_nodelay(true).expect("a socket can be told");
    tcp
}

impl RawAnswer {
    /// Of the status line.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no answer of HTTP: {self:?}"))
    }

    /// Of all headers of this name, which is written in lower case.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}
