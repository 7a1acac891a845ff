//! What a link makes of the silence of its connection.

use super::*;
use crate::link::DOUBT_AFTER;

/// What the client says goes into the void: how long after it last heard anything it doubts its connection, or else gives it up.
fn doubted_after(pair: &mut Pair, id: u32) -> Result<Duration, Duration> {
    let since = pair.now;
    pair.now += Duration::from_millis(5);
    pair.client.mux.write(id, b"into the void").unwrap();
    while pair.client.mux.doubted_since().is_none() {
        pair.client.transmit(pair.now); // and none of it arrives
        pair.now = pair.client.mux.poll_timeout().unwrap();
        if pair.client.mux.handle_timeout(pair.now).is_err() {
            return Err(pair.now - since);
        }
    }
    Ok(pair.now - since)
}

fn pair_whose_server(leaves: bool) -> (Pair, u32) {
    let mut pair = Pair::resumable(Limits::client());
    let id = pair.stream();
    if leaves {
        pair.server.mux.go_away(Code::GoingAway, "the proxy restarts");
    }
    pair.run();
    assert_eq!(pair.client.mux.peer_going_away().is_some(), leaves);
    (pair, id)
}

#[test]
fn a_silent_connection_is_doubted_soon_and_that_of_a_peer_that_has_said_that_it_leaves_is_given_its_time() {
    let (mut pair, id) = pair_whose_server(false);
    assert!(doubted_after(&mut pair, id).is_ok_and(|after| after < DOUBT_AFTER / 4));
    let (mut pair, id) = pair_whose_server(true);
    let after = doubted_after(&mut pair, id);
    assert!(after.is_err_and(|after| after >= DOUBT_AFTER), "{after:?}, and nobody knows whether another reaches it");
}

#[test]
fn a_peer_that_leaves_is_doubted_as_soon_once_its_link_was_taken_up_elsewhere() {
    let (mut pair, id) = pair_whose_server(true);
    pair.cut();
    pair.run();
    let after = doubted_after(&mut pair, id);
    assert!(after.is_ok_and(|after| after < DOUBT_AFTER / 4), "{after:?}");
}

#[test]
fn that_a_link_was_taken_up_before_its_peer_said_that_it_leaves_shows_nothing() {
    let mut pair = Pair::resumable(Limits::client());
    let id = pair.stream();
    pair.cut();
    pair.server.mux.go_away(Code::GoingAway, "the proxy restarts");
    pair.run();
    assert!(doubted_after(&mut pair, id).is_err_and(|after| after >= DOUBT_AFTER));
}
