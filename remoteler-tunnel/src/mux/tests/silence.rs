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

#[test]
fn a_silent_connection_is_doubted_soon_whether_or_not_its_peer_has_said_that_it_leaves() {
    for leaves in [false, true] {
        let mut pair = Pair::resumable(Limits::client());
        let id = pair.stream();
        if leaves {
            pair.server.mux.go_away(Code::GoingAway, "the proxy restarts");
        }
        pair.run();
        assert_eq!(pair.client.mux.peer_going_away().is_some(), leaves);
        let after = doubted_after(&mut pair, id);
        assert!(after.is_ok_and(|after| after < DOUBT_AFTER / 4), "{after:?}");
    }
}
