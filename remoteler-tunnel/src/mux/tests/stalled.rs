//! Streams that are given up because nobody reads them: what was dropped with them is never taken for an end in order, by neither side.

use super::*;

const STALLED: StreamError = StreamError::Stalled { after: Duration::from_secs(10) };
const TOLD: StreamError = StreamError::Reset { code: 7 };

/// A link that the client's octets fill, each stream with its end, and nobody reads at the server.
fn full() -> (Pair, Vec<u32>) {
    let mut pair = Pair::new(Limits { link_window: 256 * 1024, ..Limits::server() });
    let streams: Vec<u32> = (0..4).map(|_| pair.stream()).collect();
    for id in &streams {
        pair.client.mux.write(*id, &[0; 64 * 1024]).unwrap();
        pair.client.mux.finish(*id);
    }
    pair.run();
    (pair, streams)
}

impl Pair {
    /// The server gives up who was not read, before anything else is sent.
    fn give_up(&mut self) {
        self.pass(12);
    }

    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.server.mux.handle_timeout(self.now).unwrap();
        }
    }
}

fn read(end: &mut End, id: u32, now: Instant) -> Result<ReadOutcome, StreamError> {
    end.mux.read(id, 1, now, &mut |_| {})
}

#[test]
fn nobody_is_given_up_for_not_reading_while_this_process_stood_still() {
    let (mut pair, streams) = full();
    pair.now += Duration::from_secs(60);
    pair.server.mux.handle_timeout(pair.now).unwrap();
    pair.pass(9);

    assert_eq!(read(&mut pair.server, streams[3], pair.now), Ok(ReadOutcome::Read(1)));
    pair.pass(12);

    assert_eq!(read(&mut pair.server, streams[2], pair.now), Err(STALLED), "who still does not read is");
}

#[test]
fn the_end_behind_octets_that_were_dropped_is_none() {
    let (mut pair, streams) = full();

    pair.give_up();
    pair.run();

    let last = streams[3];
    assert_eq!(read(&mut pair.server, last, pair.now), Err(STALLED));
    assert_eq!(pair.client.mux.write(last, b""), Err(TOLD));
}

#[test]
fn a_side_that_gives_a_stream_up_sends_no_end_in_place_of_what_it_had_to_say() {
    let (mut pair, streams) = full();
    let last = streams[3];
    assert_eq!(pair.server.mux.write(last, b"an answer").unwrap(), 9);
    pair.server.mux.finish(last);

    pair.give_up();
    pair.run();

    assert_eq!(read(&mut pair.client, last, pair.now), Err(TOLD));
}

#[test]
fn what_the_peer_said_before_it_ended_a_stream_itself_can_be_dropped_and_is_missed_then() {
    let (mut pair, streams) = full();
    let last = streams[3];
    pair.client.mux.reset(last, 1000);
    pair.run();

    pair.give_up();
    pair.run();

    assert_eq!(read(&mut pair.server, last, pair.now), Err(STALLED));
}
