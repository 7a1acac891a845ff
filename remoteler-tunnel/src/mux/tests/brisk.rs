//! Bulk data beside somebody who types.

use super::*;

/// With so much credit that only what is unacknowledged holds a sender back.
fn roomy() -> Pair {
    Pair::new(Limits { stream_window: 4 << 20, ..Limits::server() })
}

/// Writes and sends on `id` as long as something goes; how many octets are then under way.
fn fill(pair: &mut Pair, id: u32) -> usize {
    loop {
        while pair.client.mux.write(id, &[0; 16384]).unwrap() > 0 {}
        let before = pair.client.sent.len();
        pair.client.transmit(pair.now);
        if pair.client.sent.len() == before {
            return before;
        }
    }
}

fn type_on(pair: &mut Pair, id: u32) {
    for _ in 0..2 {
        pair.client.mux.write(id, b"k").unwrap();
        pair.run();
    }
}

const LEAST: usize = 128 * 1024;

#[test]
fn while_somebody_types_bulk_data_leaves_the_path_free_and_is_acknowledged_sooner() {
    let mut pair = roomy();
    let [bulk, shell] = [pair.stream(), pair.stream()];
    assert!(fill(&mut pair, bulk) > 2 << 20, "nobody types");
    pair.run();
    pair.server.read_all(bulk, pair.now);
    type_on(&mut pair, shell);

    for _ in 0..20 {
        let under_way = fill(&mut pair, bulk);
        assert!((LEAST / 2..=LEAST).contains(&under_way), "{under_way}");
        pair.client.mux.write(shell, b"k").unwrap();
        pair.client.transmit(pair.now);
        assert_eq!(pair.client.sent.len(), under_way + HEADER_LEN + 1, "a keystroke goes all the same");
        pair.run(); // within no time
        assert!(pair.server.read_all(shell, pair.now).ends_with(b"k"));
        pair.server.read_all(bulk, pair.now);
    }

    pair.now += Duration::from_secs(2);
    assert!(fill(&mut pair, bulk) > 1 << 20, "nobody types any more");
}

#[test]
fn bulk_data_that_was_under_way_before_somebody_typed_stops_nothing_for_longer_than_its_acknowledgement() {
    let mut pair = roomy();
    let [bulk, shell] = [pair.stream(), pair.stream()];
    type_on(&mut pair, shell);
    pair.now += Duration::from_secs(2);
    // So much that the end of it is acknowledged after a second only.
    while pair.client.sent.len() < 200_000 && pair.client.mux.write(bulk, &[0; 16384]).unwrap() > 0 {
        pair.client.transmit(pair.now);
    }
    pair.client.mux.write(shell, b"k").unwrap();
    pair.client.transmit(pair.now);

    let under_way = fill(&mut pair, bulk);
    pair.run();

    assert!(under_way < 250_000, "less than is acknowledged unasked: {under_way}");
    assert_eq!(fill(&mut pair, bulk) / LEAST, 0, "it goes on at once, and no further than it may");
    assert!(!pair.client.sent.is_empty());
}

#[test]
fn while_bulk_data_waits_neither_the_next_keystroke_nor_the_end_of_a_stream_waits_behind_it() {
    let mut pair = roomy();
    let [bulk, other, shell, ending] = [pair.stream(), pair.stream(), pair.stream(), pair.stream()];
    type_on(&mut pair, shell);
    type_on(&mut pair, ending);
    fill(&mut pair, other);
    pair.run();
    let under_way = fill(&mut pair, bulk);
    for again in 1..=3 {
        pair.client.mux.write(shell, b"k").unwrap();
        pair.client.transmit(pair.now);
        assert_eq!(pair.client.sent.len(), under_way + again * (HEADER_LEN + 1), "the {again}. keystroke");
    }
    pair.client.mux.finish(ending);
    pair.client.transmit(pair.now);

    assert_eq!(pair.client.sent.len(), under_way + 3 * (HEADER_LEN + 1) + HEADER_LEN, "and an end");
}

#[test]
fn what_begins_with_little_and_goes_on_with_much_is_no_typing() {
    let mut pair = roomy();
    let bulk = pair.stream();
    type_on(&mut pair, bulk);

    assert!(fill(&mut pair, bulk) > 2 << 20);
}
