//! What goes out again after a connection was lost, and what goes between it.

use std::iter::from_fn;

use super::*;
use crate::frame::FrameType;
use crate::link::ACK_WITHIN;

const BATCH: usize = 64 * 1024;

/// The frames of the next batch that this end sends.
fn batch(end: &mut End, now: Instant) -> Vec<(Header, Payload)> {
    end.transmit(now);
    let mut wire = end.sent.split();
    assert!(wire.len() < BATCH + HEADER_LEN + DATA_LEN, "{} octets at once", wire.len());
    from_fn(|| {
        let header = Header::peek(&wire).unwrap()?;
        let frame = wire.split_to(HEADER_LEN + header.length).freeze();
        let payload = Payload::decode(header.kind, frame.slice(HEADER_LEN..)).unwrap();
        Some((header, payload))
    })
    .collect()
}

/// A link whose client has as much unacknowledged as it may have, in frames of so many octets, when its connection is lost; the last stream is the
/// server's to speak on.
fn full_of(length: usize) -> (Pair, Vec<u32>) {
    let mut pair = Pair::resumable(Limits::client());
    let streams: Vec<u32> = (0..80).map(|_| pair.stream()).collect();
    let room = pair.client.mux.room();
    'full: loop {
        for id in &streams {
            let octets = vec![*id as u8; length];
            if pair.client.mux.write(*id, &octets).unwrap() == 0 {
                break 'full;
            }
            pair.client.transmit(pair.now);
        }
    }
    while pair.client.mux.wants_transmit() && pair.client.mux.room() > HEADER_LEN + 2 {
        pair.client.transmit(pair.now);
    }
    assert!(room > 4_000_000 && pair.client.mux.room() < BATCH, "{} of {room} octets are left", pair.client.mux.room());
    pair.cut();
    (pair, streams)
}

#[test]
fn an_answer_and_an_acknowledgement_that_is_due_go_out_within_a_batch_though_mebibytes_go_out_again() {
    for length in [200, 4000, 16_000] {
        let (mut pair, streams) = full_of(length);
        let spoken = *streams.last().unwrap();
        assert_eq!(pair.server.mux.write(spoken, b"are you there?").unwrap(), 14);
        pair.server.mux.link.probe(pair.now + Duration::from_secs(5));
        pair.server.transmit(pair.now);
        let said = pair.server.sent.split();
        pair.client.receive(&said, pair.now).unwrap();
        let first = batch(&mut pair.client, pair.now);
        let pong = first.iter().find(|(header, _)| header.kind == FrameType::Pong);
        let received = pair.client.mux.received_octets() as u32;
        assert!(matches!(pong, Some((_, Payload::Pong(_, ack))) if *ack == received), "{length}: {pong:?}");
        let two: Vec<_> = first.into_iter().chain(batch(&mut pair.client, pair.now)).collect();
        let asked = two.iter().position(|(header, _)| header.kind == FrameType::Ping);
        assert_eq!(asked, Some(2), "{length}: behind the answer and the first of them alone");

        assert_eq!(pair.server.mux.write(spoken, b"still?").unwrap(), 6);
        pair.server.transmit(pair.now);
        let said = pair.server.sent.split();
        pair.client.receive(&said, pair.now).unwrap();
        pair.now += ACK_WITHIN;
        pair.client.mux.handle_timeout(pair.now).unwrap();
        let first = batch(&mut pair.client, pair.now).remove(0).1;
        assert_eq!(first, Payload::Ack(pair.client.mux.received_octets() as u32), "{length}");
        let left = from_fn(|| Some(batch(&mut pair.client, pair.now)).filter(|batch| !batch.is_empty())).flatten();
        let left: usize = left.map(|(header, _)| HEADER_LEN + header.length).sum();
        assert!(left > 3 << 20, "much was still to go out again: {left} octets");
    }
}

#[test]
fn whatever_goes_between_what_goes_out_again_every_octet_arrives_once_and_in_order() {
    let (mut pair, streams) = full_of(4000);
    let sent = pair.client.mux.sent_octets();
    let mut heard = vec![0; streams.len()];
    for round in 0.. {
        assert!(round < 10_000, "it comes to no end");
        pair.now += Duration::from_millis(50);
        for end in [&mut pair.client, &mut pair.server] {
            end.mux.link.probe(pair.now);
            end.mux.handle_timeout(pair.now).unwrap();
        }
        let moved = pair.step(20_000);
        if round % 40 == 39 && round < 400 {
            pair.cut();
        }
        for (id, heard) in streams.iter().zip(&mut heard) {
            let octets = pair.server.read_all(*id, pair.now);
            assert!(octets.iter().all(|octet| *octet == *id as u8));
            *heard += octets.len();
        }
        if !moved && round > 400 {
            break;
        }
    }
    assert!(pair.server.mux.received_octets() >= sent);
    assert_eq!(pair.client.mux.received_octets(), pair.server.mux.sent_octets());
    assert_eq!(pair.client.mux.sent_octets(), pair.server.mux.received_octets());
    assert!(heard.iter().sum::<usize>() > 3 << 20);
}

// I26
#[test]
fn a_link_that_is_cut_hundreds_of_times_at_once_is_not_ended_for_its_questions() {
    let mut pair = Pair::resumable(Limits::client());
    let id = pair.stream();
    for _ in 0..500 {
        pair.cut();
        pair.run(); // whoever was taken up asks at once
    }
    assert_eq!(pair.client.mux.write(id, b"here").unwrap(), 4);
    pair.run();
    assert_eq!(pair.server.read_all(id, pair.now), b"here");
}

// I26
#[test]
fn resumptions_save_up_no_more_questions_than_a_link_begins_with() {
    let mut pair = Pair::resumable(Limits::client());
    pair.run();
    (0..500).for_each(|_| pair.cut());
    let mut nonces = 1000..2000;
    let cut_off = nonces.find_map(|nonce| pair.server.receive(&frame(0, 0, &Payload::Ping(nonce, 0)), pair.now).err());
    assert_eq!(cut_off, Some(ProtocolError::Flood { what: "PING or PONG frames" }));
    assert!(nonces.start <= 1000 + 64 + 1, "after {} of them", nonces.start - 1000);
}
