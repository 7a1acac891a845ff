//! The table of states and the octets in `docs/protocol.md` are what the machine does.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use remoteler_tunnel::{
    Code, FrameType, Header, Limits, MAJOR, MINOR, Mux, Outbox, Payload, RESUME_MAGIC, ReadOutcome, ReplayBudget,
    ResumeError, ResumeKeys, Side,
};

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
        Header { kind, length: payload.wire_len(), stream, sequence, prompt: false }.put(&mut wire);
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

fn said(who: &str, wire: &[u8]) -> String {
    format!("{who}: {}", hex(wire))
}

fn shows(lines: &[String]) {
    let flat = |text: &str| text.split_whitespace().collect::<String>();
    let shown = lines.join("\n");
    assert!(flat(&document()).contains(&flat(&shown)), "the document does not have:\n{shown}");
}

#[test]
fn the_octets_of_each_other_frame_are_the_codes() {
    let frame = |name: &str, stream, sequence, payload: Payload| {
        let mut wire = BytesMut::new();
        Header { kind: payload.kind(), length: payload.wire_len(), stream, sequence, prompt: false }.put(&mut wire);
        payload.put(&mut wire);
        let mut read = wire.clone().split_off(12).freeze();
        assert_eq!(Payload::decode(payload.kind(), read.split_to(payload.wire_len())).unwrap(), payload);
        said(name, &wire)
    };
    let (mut prompt, data) = (BytesMut::new(), Payload::Data(Bytes::from_static(b"y")));
    Header { kind: data.kind(), length: data.wire_len(), stream: 1, sequence: 72, prompt: true }.put(&mut prompt);
    data.put(&mut prompt);
    assert!(Header::peek(&prompt).unwrap().unwrap().prompt);
    shows(&[
        frame("REJECT", 1, 0, Payload::Reject(Code::NotOffered.number(), "no".into())),
        frame("WINDOW", 1, 16, Payload::Window(65_536)),
        frame("WINDOW", 0, 32, Payload::Window(1_048_576)),
        frame("RESET", 3, 48, Payload::Reset(Code::Cancelled.number())),
        frame("ACK", 0, 0, Payload::Ack(62)),
        said("DATA that asks to be acknowledged", &prompt),
    ]);
}

/// Both ends of a link that can be taken up, after their hellos and whatever those bring.
fn resumable(now: Instant) -> [Mux; 2] {
    let limits = [Limits::client(), Limits { metered: false, ..Limits::server() }];
    let mut ends = [Side::Client, Side::Server].map(|side| Mux::new(side, limits[side as usize], now));
    ends.iter_mut().for_each(|end| end.make_resumable(ReplayBudget::default()));
    let [client, server] = &mut ends;
    for _ in 0..3 {
        server.handle_input(&mut octets(client, now), now).unwrap();
        client.handle_input(&mut octets(server, now), now).unwrap();
    }
    ends
}

#[test]
fn the_octets_of_a_link_that_goes_on_over_another_connection_are_the_machines() {
    let now = Instant::now();
    let [mut client, mut server] = resumable(now);
    let id = client.open(Bytes::from_static(br#"{"v":1}"#), now).unwrap();
    assert_eq!(client.write(id, b"ping").unwrap(), 4);
    let lost = octets(&mut client, now);
    let mut arrived = BytesMut::from(&lost[..25]); // the OPEN, and half a header
    server.handle_input(&mut arrived, now).unwrap();
    let (taken, _) = server.next_incoming().unwrap();
    server.accept(taken).unwrap();
    let unheard = octets(&mut server, now);
    client.suspend();
    server.suspend();

    let (keys, channel) = (ResumeKeys::new(&[1; 48]), [7; 32]);
    let (sent, received) = (client.received_octets(), server.received_octets());
    assert_eq!((sent, received, unheard.is_empty()), (0, 19, false));
    let request = keys.request(1, sent, &channel);
    let answer = keys.answer(received, &channel);
    assert_eq!(keys.accepted(&answer[8..], &channel), Ok(received));
    client.resume(received, now).unwrap();
    server.resume(sent, now).unwrap();
    let mut wires = [octets(&mut client, now), octets(&mut server, now)];
    shows(&[said("client", &request), said("server", &answer), said("client", &wires[0]), said("server", &wires[1])]);

    server.handle_input(&mut wires[0], now).unwrap();
    client.handle_input(&mut wires[1], now).unwrap();
    let mut heard = Vec::new();
    server.read(taken, 100, now, &mut |piece| heard.extend_from_slice(piece)).unwrap();
    assert_eq!((heard.as_slice(), client.answer(id)), (&b"ping"[..], Some(Ok(()))));
}

#[test]
fn the_octets_of_an_answer_that_does_not_take_a_link_up_are_read_as_that() {
    let reason = "it may have been restarted";
    let mut answer = RESUME_MAGIC.to_vec();
    answer.extend([MAJOR, MINOR, 0, 1 + reason.len() as u8, 1]);
    answer.extend(reason.as_bytes());
    let read = ResumeKeys::new(&[1; 48]).accepted(&answer[8..], &[7; 32]);
    assert_eq!(read, Err(ResumeError::Refused { reason: reason.into() }));
    shows(&[said("server", &answer)]);
}
