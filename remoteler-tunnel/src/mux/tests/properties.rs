//! What holds for every sequence of actions and every cutting of the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{Pair, server_of_a_forger};
use crate::frame::{FrameType, HEADER_LEN};
use crate::mux::ReadOutcome;
use crate::mux::limits::Limits;

/// Something one side does.
#[derive(Clone, Debug)]
enum Action {
    Open(bool),
    Write(bool, usize, usize),
    Read(bool, usize, usize),
    Finish(bool, usize),
    Move(usize),
    Wait(u64),
    Cut,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        1 => any::<bool>().prop_map(Action::Open),
        6 => (any::<bool>(), 0usize..6, 1usize..100_000).prop_map(|(client, at, size)| Action::Write(client, at, size)),
        6 => (any::<bool>(), 0usize..6, 1usize..100_000).prop_map(|(client, at, size)| Action::Read(client, at, size)),
        1 => (any::<bool>(), 0usize..6).prop_map(|(client, at)| Action::Finish(client, at)),
        8 => (1usize..40_000).prop_map(Action::Move),
        1 => (0u64..20).prop_map(Action::Wait),
        1 => Just(Action::Cut),
    ];
    proptest::collection::vec(action, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    // I25, I27
    #[test]
    fn whatever_is_done_in_whatever_pieces_over_whatever_connections_every_octet_arrives_in_order(actions in actions()) {
        let limits = Limits { link_window: 300_000, link_send_buffer: 200_000, max_unacked: 270_000, ..Limits::server() };
        let mut pair = Pair::resumable(limits);
        let mut ids = vec![pair.client.mux.open(Bytes::from_static(b"m"), pair.now).unwrap()];
        let mut written: BTreeMap<(bool, u32), Vec<u8>> = BTreeMap::new();
        let mut read: BTreeMap<(bool, u32), Vec<u8>> = BTreeMap::new();
        let mut octet = 0u8;

        let take_incoming = |pair: &mut Pair| {
            for end in [&mut pair.client, &mut pair.server] {
                while let Some((id, _)) = end.mux.next_incoming() {
                    end.mux.accept(id).unwrap();
                }
            }
        };
        for action in actions {
            take_incoming(&mut pair);
            let now = pair.now;
            match action {
                Action::Open(client) => {
                    let end = if client { &mut pair.client } else { &mut pair.server };
                    ids.push(end.mux.open(Bytes::from_static(b"m"), now).unwrap());
                }
                Action::Write(client, at, size) => {
                    let Some(id) = ids.get(at) else { continue };
                    let end = if client { &mut pair.client } else { &mut pair.server };
                    let octets: Vec<u8> = (0..size).map(|_| { octet = octet.wrapping_add(31); octet }).collect();
                    if let Ok(taken) = end.mux.write(*id, &octets) {
                        written.entry((client, *id)).or_default().extend_from_slice(&octets[..taken]);
                    }
                }
                Action::Read(client, at, size) => {
                    let Some(id) = ids.get(at) else { continue };
                    let end = if client { &mut pair.client } else { &mut pair.server };
                    let into = read.entry((!client, *id)).or_default();
                    let _ = end.mux.read(*id, size, now, &mut |piece| into.extend_from_slice(piece));
                }
                Action::Finish(client, at) => {
                    let Some(id) = ids.get(at) else { continue };
                    if client { pair.client.mux.finish(*id) } else { pair.server.mux.finish(*id) }
                }
                Action::Move(piece) => {
                    pair.step(piece);
                    prop_assert!(pair.client.mux.received_unread() <= 300_000);
                    prop_assert!(pair.server.mux.received_unread() <= 300_000);
                }
                Action::Wait(millis) => pair.now += Duration::from_millis(millis),
                // A link whose hellos have not both arrived is not taken up again.
                Action::Cut if pair.client.mux.is_resumable() && pair.server.mux.is_resumable() => pair.cut(),
                Action::Cut => {}
            }
        }
        for _ in 0..100_000 {
            take_incoming(&mut pair);
            let moved = pair.step(5000);
            for id in &ids {
                read.entry((false, *id)).or_default().extend(pair.client.read_all(*id, pair.now));
                read.entry((true, *id)).or_default().extend(pair.server.read_all(*id, pair.now));
                pair.client.mux.finish(*id);
                pair.server.mux.finish(*id);
            }
            if !moved && !pair.client.mux.wants_transmit() && !pair.server.mux.wants_transmit() {
                break;
            }
        }

        for (key, octets) in &written {
            prop_assert!(read.get(key) == Some(octets), "stream {:?}: {} octets were written", key, octets.len());
        }
        for id in ids {
            prop_assert_eq!(pair.client.mux.read(id, 1, pair.now, &mut |_| {}), Ok(ReadOutcome::End));
            prop_assert_eq!(pair.server.mux.read(id, 1, pair.now, &mut |_| {}), Ok(ReadOutcome::End));
            pair.client.mux.release(id);
            pair.server.mux.release(id);
        }
        prop_assert!(pair.client.mux.is_idle() && pair.server.mux.is_idle());
        prop_assert_eq!(pair.client.mux.received_unread() + pair.server.mux.received_unread(), 0);
    }

    // I25
    #[test]
    fn no_octets_make_the_machine_panic(
        frames in proptest::collection::vec((0u8..20, any::<u8>(), 0u16..40, 0u32..6, 0u32..60, any::<[u8; 40]>()), 0..60),
        cut in 1usize..50,
    ) {
        let (mut server, now) = server_of_a_forger(Limits::server());
        let own = server.mux.open(Bytes::from_static(b"m"), now).unwrap();
        server.transmit(now);
        let mut wire = BytesMut::new();
        let mut sequence = 0;
        for (kind, reserved, length, stream, jitter, body) in frames {
            let header = [&[kind, reserved / 200][..], &length.to_be_bytes(), &stream.to_be_bytes()].concat();
            wire.extend_from_slice(&header);
            let sequenced = FrameType::ALL.iter().any(|known| *known as u8 == kind && known.is_sequenced());
            let number = if sequenced { sequence + jitter / 59 } else { 0 };
            wire.extend_from_slice(&number.to_be_bytes());
            wire.extend_from_slice(&body[..usize::from(length)]);
            sequence += (HEADER_LEN + usize::from(length)) as u32 * u32::from(sequenced);
        }
        for piece in wire.chunks(cut) {
            if server.receive(piece, now).is_err() {
                server.mux.close(&"malformed".into());
                break;
            }
            if let Some((id, _)) = server.mux.next_incoming() {
                let _ = server.mux.accept(id);
                server.mux.release(id);
            }
            server.transmit(now);
        }
        let _ = server.mux.write(own, b"x");
        server.mux.release(own);
    }
}
