//! The table of states and the octets in `docs/protocol.md` are what the machine does.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use remoteler_tunnel::{Code, FrameType, Header, Limits, Mux, Outbox, Payload, ReadOutcome, Side};

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap()
}

/// A machine whose peer is this test.
struct Machine {
    mux: Mux,
    now: Instant,
    /// Octets of sequenced frames that the peer has sent.
    sequence: u32,
}

impl Machine {
    /// With the peer's hello, if it was said.
    fn new(side: Side, hello: bool) -> Self {
        let now = Instant::now();
        let limits = if side == Side::Client { Limits::client() } else { Limits::server() };
        let mut machine = Self { mux: Mux::new(side, limits, now), now, sequence: 0 };
        if hello {
            let mut peer = Mux::new(if side == Side::Client { Side::Server } else { Side::Client }, limits, now);
            machine.mux.handle_input(&mut octets(&mut peer, now), now).unwrap();
        }
        machine
    }

    /// Lets the peer send a frame; whether the link lives on.
    fn hear(&mut self, stream: u32, payload: Payload) -> bool {
        let mut wire = BytesMut::new();
        let kind = payload.kind();
        let sequence = if kind.is_sequenced() { self.sequence } else { 0 };
        Header { kind, length: payload.wire_len(), stream, sequence }.put(&mut wire);
        payload.put(&mut wire);
        if kind.is_sequenced() {
            self.sequence += wire.len() as u32;
        }
        self.mux.handle_input(&mut wire, self.now).is_ok()
    }
}

fn octets(mux: &mut Mux, now: Instant) -> BytesMut {
    let mut out = Outbox::default();
    mux.poll_transmit(&mut out, 64 * 1024, now);
    let mut slices = [std::io::IoSlice::new(&[]); 64];
    let used = out.fill(&mut slices);
    slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect()
}

fn frame(kind: FrameType) -> Payload {
    match kind {
        FrameType::Open => Payload::Open(Bytes::from_static(b"m")),
        FrameType::Accept => Payload::Accept,
        FrameType::Reject => Payload::Reject(Code::Busy.number(), "busy".into()),
        FrameType::Data => Payload::Data(Bytes::from_static(b"octets")),
        FrameType::Window => Payload::Window(1),
        FrameType::Fin => Payload::Fin,
        FrameType::Reset => Payload::Reset(Code::Cancelled.number()),
        FrameType::GoAway | FrameType::Ack | FrameType::Ping | FrameType::Pong => unreachable!("for the link"),
    }
}

const FRAMES: [FrameType; 7] = [
    FrameType::Open,
    FrameType::Accept,
    FrameType::Reject,
    FrameType::Data,
    FrameType::Window,
    FrameType::Fin,
    FrameType::Reset,
];

/// A client's machine with a stream in the state that the table names, and the stream's number.
fn in_state(state: &str) -> (Machine, u32) {
    let mut machine = Machine::new(Side::Client, true);
    let now = machine.now;
    let own = |machine: &mut Machine, accepted: bool| {
        let id = machine.mux.open(Bytes::from_static(b"m"), now).unwrap();
        let sent = octets(&mut machine.mux, now);
        assert!(!sent.is_empty() && (!accepted || machine.hear(id, Payload::Accept)));
        id
    };
    let id = match state {
        "never opened, the peer's number" => 2,
        "never opened, an own number" => 1,
        "asked: opened here, not answered" => own(&mut machine, false),
        "open, opened here" => own(&mut machine, true),
        "finished by the peer, opened here" => {
            let id = own(&mut machine, true);
            assert!(machine.hear(id, Payload::Fin));
            id
        }
        "offered or open, opened by the peer" => {
            assert!(machine.hear(2, frame(FrameType::Open)));
            2
        }
        "finished by the peer, opened by it" => {
            assert!(machine.hear(2, frame(FrameType::Open)) && machine.hear(2, Payload::Fin));
            2
        }
        "over" => {
            let id = own(&mut machine, true);
            machine.mux.reset(id, Code::Cancelled.number());
            id
        }
        other => panic!("the table has a state that is not known here: {other}"),
    };
    (machine, id)
}

fn outcome(state: &str, kind: FrameType) -> &'static str {
    let (mut machine, id) = in_state(state);
    let answered = machine.mux.answer(id);
    if !machine.hear(id, frame(kind)) {
        return "ends the link";
    }
    if state == "over" {
        return "dropped";
    }
    let now = machine.now;
    match (machine.mux.read(id, 100, now, &mut |_| {}), kind) {
        (Err(_), _) => "over",
        (Ok(ReadOutcome::End), FrameType::Reset) => "over", // the end that was sent before is still told
        (Ok(_), FrameType::Open) => "offered",
        (Ok(_), FrameType::Accept) if machine.mux.answer(id) != answered => "open",
        (Ok(_), FrameType::Fin) => "finished by the peer",
        (Ok(_), _) => "taken",
    }
}

// I25
#[test]
fn the_table_of_states_is_the_machine_s() {
    let text = document();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("| state of the stream |"));
    let names: Vec<&str> = FRAMES.iter().map(|kind| kind.name()).collect();
    assert_eq!(cells(lines.next().unwrap())[1..], names[..]);
    let rows: Vec<_> = lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect();
    assert_eq!(rows.len(), 8, "states in the document");
    for row in rows {
        let did: Vec<&str> = FRAMES.iter().map(|kind| outcome(row[0], *kind)).collect();
        assert_eq!(row[1..], did[..], "{}: | {} |", row[0], did.join(" | "));
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_octets_of_a_short_link_are_the_machines() {
    let now = Instant::now();
    let mut client = Mux::new(Side::Client, Limits::client(), now);
    let mut server = Mux::new(Side::Server, Limits { metered: false, ..Limits::server() }, now);
    let id = client.open(Bytes::from_static(br#"{"v":1}"#), now).unwrap();
    let mut said = Vec::new();
    for turn in 0..4 {
        for (who, from, to) in [("client", true, false), ("server", false, true)] {
            let (from, to) = if from && !to { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let mut wire = octets(from, now);
            if !wire.is_empty() {
                said.push(format!("{who}: {}", hex(&wire)));
            }
            to.handle_input(&mut wire, now).unwrap_or_else(|e| panic!("{who} {turn} {e} {said:?}"));
        }
        match turn {
            0 => {
                assert_eq!(client.write(id, b"ping").unwrap(), 4);
                client.finish(id);
            }
            1 => {
                let (taken, _) = server.next_incoming().unwrap();
                server.accept(taken).unwrap();
                let mut heard = Vec::new();
                server.read(taken, 100, now, &mut |piece| heard.extend_from_slice(piece)).unwrap();
                assert_eq!(heard, b"ping");
                assert_eq!(server.write(taken, b"pong").unwrap(), 4);
                server.finish(taken);
            }
            2 => client.go_away(Code::GoingAway, "done"),
            _ => {}
        }
    }
    let shown = said.join("\n");
    let flat = |text: &str| text.split_whitespace().collect::<String>();
    assert!(flat(&document()).contains(&flat(&shown)), "the document does not have:\n{shown}");
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
