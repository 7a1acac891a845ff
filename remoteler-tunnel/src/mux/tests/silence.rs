//! What a link makes of the silence of its connection.

use super::*;
use crate::link::DOUBT_AFTER;

#[test]
fn a_silent_connection_is_doubted_as_soon_when_the_peer_has_said_that_it_leaves() {
    for leaves in [false, true] {
        let mut pair = Pair::resumable(Limits::client());
        let id = pair.stream();
        if leaves {
            pair.server.mux.go_away(Code::GoingAway, "the proxy restarts");
        }
        pair.run();
        assert_eq!(pair.client.mux.peer_going_away().is_some(), leaves);
        pair.now += Duration::from_millis(5);
        pair.client.mux.write(id, b"into the void").unwrap();
        let since = pair.now;
        while pair.client.mux.doubted_since().is_none() {
            pair.client.transmit(pair.now); // and none of it arrives
            pair.now = pair.client.mux.poll_timeout().unwrap();
            assert!(pair.now - since < DOUBT_AFTER / 4, "after {:?}", pair.now - since);
            pair.client.mux.handle_timeout(pair.now).unwrap();
        }
    }
}
