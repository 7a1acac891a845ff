//! Events to a syslog server, as RFC 5424 has them: to a socket of this machine, by UDP (RFC 5426), or by TCP with the length before each message
//! (RFC 6587). Owns the form and the connection. Datagrams are not answered: what the network loses is not sent again.

use std::time::Duration;

use async_trait::async_trait;
use remoteler_auth::{ShippedEvent, Shipper};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket, UnixDatagram},
    time::timeout,
};

use crate::config::SyslogPlace;

/// Facility 13 (log audit) with severity 6 (informational), and with 4 (warning).
const INFO: u8 = 13 * 8 + 6;
const WARNING: u8 = 13 * 8 + 4;
/// Octets of a message in a datagram: IPv4 has room for no more than 65,507.
const MAX_DATAGRAM: usize = 60_000;
/// How long one batch may take.
const WITHIN: Duration = Duration::from_secs(30);

/// A syslog server.
pub(super) struct SyslogShipper {
    place: SyslogPlace,
    hostname: String,
    connection: Option<Connection>,
}

enum Connection {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl SyslogShipper {
    pub(super) fn new(place: SyslogPlace, hostname: &str) -> Self {
        // PRINTUSASCII, at most 255.
        let hostname: String = hostname.chars().filter(char::is_ascii_graphic).take(255).collect();
        let hostname = if hostname.is_empty() { "-".to_owned() } else { hostname };
        Self { place, hostname, connection: None }
    }

    async fn connect(&self) -> std::io::Result<Connection> {
        Ok(match &self.place {
            SyslogPlace::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Connection::Unix(socket)
            }
            SyslogPlace::Udp(addr) => {
                let mut last = std::io::Error::other("the name has no address");
                for addr in tokio::net::lookup_host(addr).await? {
                    let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    let socket = UdpSocket::bind(any).await?;
                    match socket.connect(addr).await {
                        Ok(()) => return Ok(Connection::Udp(socket)),
                        Err(cause) => last = cause,
                    }
                }
                return Err(last);
            }
            SyslogPlace::Tcp(addr) => Connection::Tcp(TcpStream::connect(addr).await?),
        })
    }

    async fn send(&mut self, batch: &[ShippedEvent]) -> std::io::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        match &mut connection {
            Connection::Tcp(stream) => {
                let mut octets = Vec::new();
                for event in batch {
                    let message = message(event, &self.hostname);
                    octets.extend_from_slice(format!("{} ", message.len()).as_bytes());
                    octets.extend_from_slice(message.as_bytes());
                }
                stream.write_all(&octets).await?;
                stream.flush().await?;
            }
            Connection::Unix(socket) => {
                for event in batch {
                    socket.send(cut(&message(event, &self.hostname))).await?;
                }
            }
            Connection::Udp(socket) => {
                for event in batch {
                    socket.send(cut(&message(event, &self.hostname))).await?;
                }
            }
        }
        // Kept only when all went well: what is half sent is sent again on a new one.
        self.connection = Some(connection);
        Ok(())
    }
}

#[async_trait]
impl Shipper for SyslogShipper {
    async fn ship(&mut self, batch: &[ShippedEvent]) -> Result<(), String> {
        match timeout(WITHIN, self.send(batch)).await {
            Ok(sent) => sent.map_err(|cause| format!("the syslog server does not take messages: {cause}")),
            Err(_) => Err(format!("the syslog server took no messages within {} s", WITHIN.as_secs())),
        }
    }
}

/// A message (RFC 5424 section 6): its MSGID is the event's kind, its MSG the JSON.
fn message(event: &ShippedEvent, hostname: &str) -> String {
    let priority = if event.failed { WARNING } else { INFO };
    let kind: String = event.event.chars().filter(char::is_ascii_graphic).take(32).collect();
    format!("<{priority}>1 {} {hostname} remoteler - {kind} - {}", event.time, event.text)
}

fn cut(message: &str) -> &[u8] {
    let end = (0..=MAX_DATAGRAM.min(message.len())).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    message.get(..end).unwrap_or_default().as_bytes()
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::{super::events, *};

    const FIRST: &str =
        "<110>1 2026-03-01T12:00:00.123Z node-a remoteler - user.login - {\"event\":\"user.login\",\"uid\":1}";

    #[tokio::test]
    async fn datagrams_hold_one_message_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let unix = UnixDatagram::bind(&path).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = udp.local_addr().unwrap().to_string();
        let mut octets = [0; 70_000];
        SyslogShipper::new(SyslogPlace::Unix(path), "node-a").ship(&events(1..=2)).await.unwrap();
        let length = unix.recv(&mut octets).await.unwrap();
        assert_eq!(std::str::from_utf8(&octets[..length]).unwrap(), FIRST);
        let length = unix.recv(&mut octets).await.unwrap();
        assert!(octets[..length].starts_with(b"<108>1 "), "what failed is a warning");

        let mut large = events(1..=1);
        large[0].text = "ü".repeat(32_000);
        let mut shipper = SyslogShipper::new(SyslogPlace::Udp(addr), "no de-a\n");
        shipper.ship(&events(1..=1)).await.unwrap();
        let length = udp.recv(&mut octets).await.unwrap();
        assert_eq!(std::str::from_utf8(&octets[..length]).unwrap(), FIRST);
        shipper.ship(&large).await.unwrap();
        let length = udp.recv(&mut octets).await.unwrap();
        assert!(length <= MAX_DATAGRAM && std::str::from_utf8(&octets[..length]).is_ok());
    }

    #[tokio::test]
    async fn a_stream_has_lengths_before_messages_and_is_opened_anew_when_it_breaks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let mut shipper = SyslogShipper::new(SyslogPlace::Tcp(addr), "node-a");
        let mut octets = vec![0; FIRST.len() + 3];
        for _ in 0..2 {
            let (shipped, accepted) = tokio::join!(shipper.send(&[]), async {
                let (stream, _) = listener.accept().await.unwrap();
                stream
            });
            shipped.unwrap();
            let mut stream = accepted;
            shipper.ship(&events(1..=1)).await.unwrap();
            stream.read_exact(&mut octets).await.unwrap();
            assert_eq!(std::str::from_utf8(&octets).unwrap(), format!("{} {FIRST}", FIRST.len()));
            drop(stream);
            let end = tokio::time::Instant::now() + Duration::from_secs(20);
            while shipper.ship(&events(1..=1)).await.is_ok() {
                assert!(tokio::time::Instant::now() < end, "that the stream broke is never seen");
                tokio::task::yield_now().await;
            }
        }
    }
}
