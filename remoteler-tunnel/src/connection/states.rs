//! The states of a link, as `docs/protocol.md` has them: every row of its table is played to a client's link by a peer of a few octets.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;
use crate::frame::{FrameType, Header, Payload};
use crate::handshake::RESUME;
use crate::replay::ReplayBudget;
use crate::resume::{ResumeKeys, refusal};

/// What was agreed on when the link came up.
fn keys() -> ResumeKeys {
    ResumeKeys::new(&[1; 48])
}

const CHANNEL: [u8; 32] = [7; 32];

/// A link with a stream in it, and what its peer holds of the connection.
struct Course {
    link: Link,
    stream: MuxStream,
    peer: DuplexStream,
    /// Sequenced octets that the peer has sent.
    sent: u32,
}

impl Course {
    fn start() -> Self {
        let (near, peer) = duplex(65_536);
        let link = Link::start_resumable(Box::new(near), Side::Client, Limits::client(), ReplayBudget::default());
        let stream = link.open(&b"{}"[..]).unwrap();
        Self { link, stream, peer, sent: 0 }
    }

    async fn say(&mut self, payload: Payload) {
        let (mut wire, kind) = (BytesMut::new(), payload.kind());
        Header { kind, length: payload.wire_len(), stream: 0, sequence: self.sent, prompt: false }.put(&mut wire);
        payload.put(&mut wire);
        self.sent += if kind.is_sequenced() { wire.len() as u32 } else { 0 };
        self.peer.write_all(&wire).await.unwrap();
    }

    async fn greet(&mut self, features: u64) {
        let mut hello = BytesMut::new();
        Limits::server().hello(features).put(&mut hello);
        self.peer.write_all(&hello).await.unwrap();
        self.link.ready().await.unwrap();
    }

    async fn go_away(&mut self) {
        self.say(Payload::GoAway(Code::GoingAway.number(), "bye".into())).await;
        self.link.going_away().await;
    }

    /// A link in the state of the table, up with so many features.
    async fn in_state(state: &str, features: u64) -> Self {
        let mut course = Self::start();
        match state {
            "handshaking" => return course,
            "up" | "suspended" => course.greet(features).await,
            "going away" | "suspended, was going away" => {
                course.greet(features).await;
                course.go_away().await;
            }
            other => panic!("the table has a state that is not known here: {other}"),
        }
        if state.starts_with("suspended") {
            assert!(course.link.suspend().await);
        }
        course
    }

    /// The server answers a request to take the link up.
    async fn answer(&mut self, answer: &[u8]) -> Result<(), TakeUpError> {
        let (near, mut peer) = duplex(65_536);
        let (keys, served) = (keys(), async {
            peer.read_exact(&mut [0; 68]).await.unwrap();
            peer.write_all(answer).await.unwrap();
        });
        let (taken, ()) = tokio::join!(self.link.take_up(Box::new(near), &keys, 1, &CHANNEL, Duration::ZERO), served);
        self.peer = peer;
        taken
    }

    async fn happens(&mut self, event: &str) {
        let wait = match event {
            "10 s pass" => 11,
            "10 min pass" => 601,
            _ => 1,
        };
        match event {
            "10 s pass" | "10 min pass" => {}
            "the peer's hello" => self.greet(RESUME).await,
            "a frame before the hello" => self.say(Payload::Ack(0)).await,
            "GOAWAY is sent" => self.link.drain("bye"),
            "GOAWAY arrives" => self.go_away().await,
            "the connection breaks" | "the connection ends in order" => self.peer = duplex(1).0,
            "nothing is heard any more" => {
                timeout(Duration::from_secs(60), self.link.suspended()).await.unwrap();
            }
            "a frame that ends the link" => {
                self.peer.write_all(&[0x7f; 12]).await.unwrap();
            }
            "the server takes it up" => self.answer(&keys().answer(0, &CHANNEL)).await.unwrap(),
            "the server does not take it up" => {
                let Err(TakeUpError::Resume(cause)) = self.answer(&refusal("it was restarted")).await else {
                    panic!("a refusal is one")
                };
                self.link.give_up(&cause.to_string()); // as the agent does
            }
            other => panic!("the table has an event that is not known here: {other}"),
        }
        let _ = timeout(Duration::from_secs(wait), self.link.closed()).await;
    }

    fn state(&self) -> &'static str {
        match self.link.state() {
            LinkState::Handshaking => "handshaking",
            LinkState::Up if self.link.is_open() => "up",
            LinkState::Up | LinkState::GoingAway { .. } => "going away",
            LinkState::Suspended { .. } => "suspended",
            LinkState::Closed(_) => "closed",
        }
    }
}

// I25
#[tokio::test(start_paused = true)]
async fn the_table_of_a_link_s_states_is_the_link_s() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| state of the link |")).skip(2);
    let rows: Vec<Vec<&str>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 18, "{rows:?}");
    for row in rows {
        let (state, features) = match row[0].strip_suffix(", without feature 1") {
            Some(state) => (state, 0),
            None => (row[0], RESUME),
        };
        let mut course = Course::in_state(state, features).await;
        course.happens(row[1]).await;

        assert_eq!(course.state(), row[2], "{} and {}: {:?}", row[0], row[1], course.link.state());
        let mut octet = [0];
        let read = timeout(Duration::from_millis(1), course.stream.read(&mut octet)).await;
        match row[2] {
            "closed" => assert!(!read.unwrap().unwrap_err().to_string().is_empty(), "its streams say why"),
            _ => assert!(read.is_err(), "its streams go on: {read:?}"),
        }
    }
    assert_eq!(FrameType::ALL.len(), 11, "a frame that is new may have a row");
}
