//! Properties of the doubt about a silent connection, over a path with a rate, a distance and a queue: a path that works is never doubted, however its
//! writer writes, and one that is lost is found by the path's times, however slow its writer is.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::another::MOST_FUTILE;
use super::*;
use crate::frame::{DATA_LEN, FrameType};

/// What is under way: its last octet arrives then.
type Pipe = VecDeque<(Instant, Frame)>;

enum Frame {
    Data(Header),
    Link(Payload),
}

/// Two ends with a path between them: to the server it has a rate and a queue, back only where a test says so.
struct Path {
    client: Sequence,
    server: Sequence,
    /// Octets a second.
    rate: u64,
    rate_back: u64,
    one_way: Duration,
    there: Pipe,
    back: Pipe,
    leaves: Instant,
    leaves_back: Instant,
    now: Instant,
    lost: bool,
    /// What the client has sent and was not told of.
    kept: VecDeque<Header>,
    /// What of it goes out again.
    again: VecDeque<Header>,
}

impl Path {
    fn new(rate: u64, one_way: Duration) -> Self {
        let now = Instant::now();
        let (mut client, mut server) =
            (Sequence::new(Keepalive::CLIENT, 4 << 20, now), Sequence::new(Keepalive::SERVER, 4 << 20, now));
        client.make_resumable(true);
        client.probe(now); // as a link does that comes up
        server.make_resumable(false);
        let (there, back) = (Pipe::new(), Pipe::new());
        Self {
            client,
            server,
            rate,
            rate_back: u64::MAX,
            one_way,
            there,
            back,
            leaves: now,
            leaves_back: now,
            now,
            lost: false,
            kept: VecDeque::new(),
            again: VecDeque::new(),
        }
    }

    /// Octets that wait in front of the path.
    fn queued(&self) -> u64 {
        let waits = self.leaves.saturating_duration_since(self.now).as_micros();
        u64::try_from(waits).unwrap() * self.rate / 1_000_000
    }

    fn send(&mut self, length: usize, frame: Frame) {
        self.leaves = self.leaves.max(self.now) + takes(length, self.rate);
        self.there.push_back((self.leaves + self.one_way, frame));
    }

    fn send_back(&mut self, length: usize, frame: Frame) {
        self.leaves_back = self.leaves_back.max(self.now) + takes(length, self.rate_back);
        self.back.push_back((self.leaves_back + self.one_way, frame));
    }

    /// The server has more to say than the path takes, and a socket of 256 KiB.
    fn fill_the_way_back(&mut self) {
        while self.leaves_back.saturating_duration_since(self.now) < takes(256 * 1024, self.rate_back) {
            let sequence = self.server.next(DATA_LEN);
            let header = Header { kind: FrameType::Data, length: DATA_LEN, stream: 1, sequence, prompt: false };
            self.send_back(HEADER_LEN + DATA_LEN, Frame::Data(header));
        }
        self.server.transmitted(self.now);
    }

    /// Writes so many octets, as far as a socket of 256 KiB takes them; the rest is given up.
    fn write(&mut self, octets: usize) {
        let room = (256 * 1024_u64).saturating_sub(self.queued());
        let mut left = octets.min(usize::try_from(room).unwrap());
        while left > 0 {
            let length = left.min(DATA_LEN);
            left -= length;
            let sequence = self.client.next(length);
            let header = Header { kind: FrameType::Data, length, stream: 1, sequence, prompt: false };
            self.kept.push_back(header);
            self.send(HEADER_LEN + length, Frame::Data(header));
        }
        self.client.transmitted(self.now);
    }

    /// Another connection takes the place of this one, over a path with this rate, made within two round trips; what is lost with it goes out again.
    fn resume(&mut self, rate: u64) {
        (self.rate, self.lost) = (rate, false);
        (self.there, self.back) = (Pipe::new(), Pipe::new());
        (self.leaves, self.leaves_back) = (self.now, self.now);
        let (told, heard) = (self.server.received_octets(), self.client.received_octets());
        self.client.suspend();
        self.server.suspend();
        self.client.resume(told, self.now).unwrap();
        self.server.resume(heard, self.now).unwrap();
        self.client.made_within(4 * self.one_way);
        self.forget_acknowledged();
        self.again = self.kept.clone();
        self.client.goes_again(self.client.sent - self.client.acked);
    }

    fn forget_acknowledged(&mut self) {
        let unacked = self.client.sent - self.client.acked;
        let of = |header: &Header| u64::from((self.client.sent as u32).wrapping_sub(header.sequence));
        while self.kept.pop_front_if(|header| of(header) > unacked).is_some() {}
    }

    /// As far as a socket of 256 KiB takes it.
    fn send_again(&mut self) {
        while self.queued() < 256 * 1024
            && let Some(header) = self.again.pop_front()
        {
            self.send(HEADER_LEN + header.length, Frame::Data(header));
            self.client.went_again((HEADER_LEN + header.length) as u64);
            self.ask();
        }
        self.client.transmitted(self.now);
    }

    fn ask(&mut self) {
        while let Some(payload) = self.client.poll_output(self.now) {
            self.send(HEADER_LEN + payload.wire_len(), Frame::Link(payload));
        }
    }

    /// A millisecond passes.
    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let now = self.now;
        while let Some((_, frame)) = self.there.pop_front_if(|(at, _)| *at <= now && !self.lost) {
            self.server.heard(now);
            match frame {
                Frame::Data(header) => self.server.received(&header).unwrap(),
                Frame::Link(payload) => take(&mut self.server, &payload, now),
            }
        }
        while let Some((_, frame)) = self.back.pop_front_if(|(at, _)| *at <= now && !self.lost) {
            self.client.heard(now);
            match frame {
                Frame::Data(header) => self.client.received(&header).unwrap(),
                Frame::Link(payload) => take(&mut self.client, &payload, now),
            }
        }
        for end in [&mut self.client, &mut self.server] {
            if end.poll_timeout() <= now {
                end.handle_timeout(now).unwrap();
            }
        }
        self.ask();
        self.send_again();
        self.forget_acknowledged();
        while let Some(payload) = self.server.poll_output(now) {
            self.send_back(HEADER_LEN + payload.wire_len(), Frame::Link(payload));
        }
    }
}

fn takes(octets: usize, rate: u64) -> Duration {
    Duration::from_micros((octets as u64 * 1_000_000).div_ceil(rate))
}

fn take(end: &mut Sequence, payload: &Payload, now: Instant) {
    let (Payload::Ack(ack) | Payload::Ping(_, ack) | Payload::Pong(_, ack)) = *payload else {
        panic!("{payload:?} is none of this layer's")
    };
    end.acknowledged(ack).unwrap();
    if let Payload::Ping(nonce, _) = *payload {
        end.pinged(nonce);
    } else if let Payload::Pong(nonce, _) = *payload {
        assert!(end.ponged(nonce, now));
    }
}

/// So many milliseconds pass on a path that works.
fn pass(path: &mut Path, time: u64, what: &str) {
    for _ in 0..time {
        path.step();
        assert!(!path.client.is_doubted(), "{what}: {} of {} octets are queued", path.queued(), path.client.sent);
    }
}

#[test]
fn a_frame_that_takes_half_a_second_is_waited_for() {
    for (rate, octets, one_way) in [(32_000, 16_000, 1), (32_400, 16_200, 20), (32_767, 16_384, 150)] {
        let mut path = Path::new(rate, Duration::from_millis(one_way));
        for rest in [1000, 3000, 20_000, 700, 1000] {
            pass(&mut path, rest, &format!("{octets} octets at {rate} a second"));
            path.write(octets);
        }
        pass(&mut path, 5000, &format!("{octets} octets at {rate} a second"));
    }
}

#[test]
fn pieces_that_an_uplink_takes_in_half_a_second_are_no_silence() {
    for every in [590, 700, 1000, 5000] {
        let mut path = Path::new(24_000, Duration::from_millis(20));
        pass(&mut path, 2000, "at rest");
        for _ in 0..60 {
            path.write(14_000);
            pass(&mut path, every, &format!("14,000 octets every {every} ms"));
        }
    }
}

#[test]
fn a_burst_in_front_of_a_question_is_waited_for_though_little_was_under_way_before_it() {
    let mut path = Path::new(151_662, Duration::from_millis(13));
    pass(&mut path, 1000, "at rest");
    for (octets, rest) in [(251_342, 978), (1, 736), (1, 249), (33_913, 1), (1, 1000)] {
        path.write(octets);
        pass(&mut path, rest, &format!("within {rest} ms after {octets} octets"));
    }
}

#[test]
fn while_a_writer_writes_evenly_the_round_trip_may_grow() {
    for within in [15_000, 60_000] {
        let mut path = Path::new(10_000_000, Duration::from_millis(25));
        for step in 0..within {
            path.one_way = Duration::from_micros(25_000 + 1_975_000 * step / within);
            if step % 50 == 0 {
                path.write(5000);
            }
            pass(&mut path, 1, &format!("the round trip grows within {within} ms"));
        }
        for _ in 0..40 {
            path.write(20);
            pass(&mut path, 900, "the writer has stopped");
        }
    }
}

#[test]
fn how_uneven_a_path_is_is_not_forgotten_while_a_writer_writes() {
    for (every, far) in [(97, 60), (97, 250), (437, 120), (437, 250), (613, 250), (1500, 120)] {
        let mut path = Path::new(10_000_000, Duration::from_millis(10));
        let uneven = |path: &mut Path, time: u64, rest: u64, octets| {
            let mut doubted = false;
            for step in 0..time {
                path.one_way = Duration::from_millis(if step / every % 2 == 0 { 10 } else { far });
                if step % rest == 0 {
                    path.write(octets);
                }
                path.step();
                doubted |= path.client.is_doubted();
            }
            doubted
        };
        uneven(&mut path, 20_000, 300, 20); // is learnt
        for (rest, octets) in [(300, 20), (50, 5000), (300, 20)] {
            let doubted = uneven(&mut path, 60_000, rest, octets);
            assert!(!doubted, "10 and {far} ms for {every} ms each, {octets} octets every {rest} ms");
        }
    }
}

/// The path is lost under what is under way, and what takes its place is lost too, `after` it was taken up. When that is doubted, and what was unacknowledged
/// when it was lost.
fn lost_again(path: &mut Path, after: u64) -> (Duration, u64) {
    (0..after).for_each(|_| path.step());
    path.lost = true;
    path.write(64 * 1024);
    let (since, unacked) = (path.now, path.client.sent - path.client.acked);
    while !path.client.is_doubted() && path.now - since < Duration::from_secs(60) {
        path.step();
    }
    (path.now - since, unacked)
}

/// The path is lost once under a writer that never rests, and each connection behind that stalls once for so long, when it has carried so much: how many
/// connections that takes within twenty seconds.
fn replaced(rate: u64, one_way: u64, stall: u64, carried: u64) -> u32 {
    let mut path = Path::new(rate, Duration::from_millis(one_way));
    let (mut replaced, mut began, mut stalls, mut stalled) = (0, 0, false, 0);
    for step in 0..23_000 {
        if path.again.is_empty() {
            path.write(256 * 1024);
        }
        if stalls && path.server.received_octets() - began >= carried {
            (stalls, stalled) = (false, stall);
        }
        path.lost = stalled > 0 || (3000 <= step && replaced == 0);
        if path.lost {
            path.leaves = path.leaves.max(path.now) + Duration::from_millis(1); // the socket is full meanwhile
        }
        stalled = stalled.saturating_sub(1);
        path.step();
        if path.client.is_doubted() {
            replaced += 1;
            path.resume(rate);
            (began, stalls, stalled) = (path.server.received_octets(), true, 0);
        }
    }
    replaced
}

#[test]
fn connections_that_stall_when_they_are_young_are_not_replaced_without_end() {
    for (rate, one_way) in [(4_000_000, 40), (10_000_000, 15), (60_000_000, 2)] {
        for (stall, carried) in [(800, 600), (2000, 16), (2000, 300), (2000, 1000)] {
            let replaced = replaced(rate, one_way, stall, carried * 1024);
            let case = format!("{rate} octets a second, stalls of {stall} ms after {carried} KiB");
            assert!((1..=4).contains(&replaced), "{case}: {replaced} connections");
        }
    }
}

/// Of the cases; `REMOTELER_PACE_SEED` gives others.
fn seed() -> u64 {
    std::env::var("REMOTELER_PACE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(6)
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(seed()), failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing is wrong with the path, on which a frame takes half a second at the most: pieces of all sizes at all times are never taken for silence.
    #[test]
    fn a_path_that_works_is_never_doubted(
        rate in 32_000_u64..4_000_000,
        one_way in 1_u64..200,
        writes in prop::collection::vec((0_usize..1_500, 1_usize..300_000, any::<bool>()), 1..40),
    ) {
        let mut path = Path::new(rate, Duration::from_millis(one_way));
        (0..1000).for_each(|_| path.step());
        for (rest, octets, little) in writes {
            path.write(if little { 1 + octets % 3000 } else { octets });
            for _ in 0..=rest {
                path.step();
                prop_assert!(!path.client.is_doubted(), "{rest} ms after {octets} octets, {} are queued", path.queued());
            }
        }
    }

    /// The path is lost while somebody writes evenly, and slower than it takes: it is doubted when a question and its answer have had their times,
    /// whatever the writer's pace.
    #[test]
    fn a_path_that_is_lost_under_a_slow_writer_is_doubted_by_its_own_times(
        rate in 32_000_u64..20_000_000,
        one_way in 1_u64..150,
        part in 2_u64..80,
        every in 2_u64..100,
        lost_after in 3_000_u64..12_000,
    ) {
        let mut path = Path::new(rate, Duration::from_millis(one_way));
        let piece = usize::try_from((rate * part / 100 * every / 1000).clamp(1, 200_000)).unwrap();
        let mut lost_at = None;
        for step in 0..lost_after + 20_000 {
            if step % every == 0 {
                path.write(piece);
            }
            if step == lost_after {
                path.lost = true;
                let trip = Duration::from_millis(2 * one_way) + Duration::from_millis(every);
                lost_at = Some((path.now, path.client.ask_within() + path.client.round_trip.patience() + 2 * trip));
            }
            path.step();
            if path.client.is_doubted() {
                break;
            }
        }
        let (at, within) = lost_at.expect("a path that works was doubted");
        prop_assert!(path.client.is_doubted() && path.now - at <= within, "after {:?}, not {within:?}", path.now - at);
    }

    /// A connection follows one that was lost under a writer that never rests, over a path that is up to ten times slower: it is not doubted.
    #[test]
    fn a_slower_path_behind_a_faster_one_is_never_doubted(
        before in 32_000_u64..100_000_000,
        slower in 1_u64..=10,
        one_way in 1_u64..150,
        lost_for in 1_u64..3000,
        rest in 1_u64..10_000,
    ) {
        let mut path = Path::new(before, Duration::from_millis(one_way));
        for _ in 0..3000 {
            path.write(256 * 1024);
            path.step();
        }
        path.lost = true;
        (0..lost_for).for_each(|_| path.step());
        path.resume((before / slower).max(32_000));
        for step in 0..rest {
            if path.again.is_empty() {
                path.write(256 * 1024);
            }
            path.step();
            prop_assert!(!path.client.is_doubted(), "{step} ms after it was taken up, {} are queued", path.queued());
        }
    }

    /// It is lost too, soon after it was taken up and without a word: who knew how fast the path was finds that out long before two acknowledgements are due.
    #[test]
    fn a_path_that_is_lost_again_is_doubted_sooner_than_one_of_which_nothing_is_known(
        rate in 4_000_000_u64..100_000_000,
        one_way in 1_u64..25,
        after in 0_u64..30,
    ) {
        let mut path = Path::new(rate, Duration::from_millis(one_way));
        (0..1000).for_each(|_| path.step());
        for _ in 0..3000 {
            path.write(256 * 1024);
            path.step();
        }
        path.lost = true;
        (0..500).for_each(|_| path.step());
        path.resume(rate);
        prop_assume!(path.client.futile == 0); // of one that brought nothing across nothing is believed
        let patience = path.client.round_trip.patience();
        let (found, unacked) = lost_again(&mut path, after);
        // All that is unacknowledged, at a twelfth of the rate, but no longer than an acknowledgement may wait and a frame take.
        let queue = takes(unacked as usize, rate / 12).min(ACK_WITHIN + takes(HEADER_LEN + DATA_LEN, rate / 12));
        let within = SOONEST + queue + patience + Duration::from_millis(2 * one_way + 2);
        prop_assert!(found <= within && within < 2 * ACK_WITHIN, "after {found:?}, not {within:?}");
    }

    /// The same behind a connection that brought nothing across: of that one no pace is believed, and an answer is waited for twice as long.
    #[test]
    fn a_path_that_is_lost_again_behind_one_that_brought_nothing_across_is_doubted_when_two_acknowledgements_were_due(
        rate in 4_000_000_u64..100_000_000,
        one_way in 1_u64..25,
        after in 0_u64..30,
        futile in 1_u32..4,
    ) {
        let mut path = Path::new(rate, Duration::from_millis(one_way));
        for _ in 0..3000 {
            path.write(256 * 1024);
            path.step();
        }
        path.lost = true;
        (0..500).for_each(|_| path.step());
        path.resume(rate);
        for _ in 0..futile {
            lost_again(&mut path, 0);
            prop_assert!(path.client.is_doubted());
            path.resume(rate);
        }
        prop_assert_eq!(path.client.futile, futile.min(MOST_FUTILE));
        let patience = path.client.round_trip.patience() * 2_u32.pow(path.client.futile);
        let (found, _) = lost_again(&mut path, after);
        let within = SOONEST + 2 * ACK_WITHIN + patience + Duration::from_millis(2 * one_way + 2);
        prop_assert!(found <= within, "after {found:?}, not {within:?}");
    }

    /// A connection follows over a path that is many times longer, and up to ten times slower: whoever writes there little or much, it is not doubted.
    #[test]
    fn a_longer_path_behind_a_shorter_one_is_never_doubted(
        before in 32_000_u64..100_000_000,
        slower in 1_u64..=10,
        one_way in 1_u64..150,
        then in 1_u64..600,
        piece in prop_oneof![1_usize..3000, Just(256 * 1024)],
        every in 1_u64..300,
        lost_for in 1_u64..3000,
        rest in 1_u64..10_000,
    ) {
        let mut path = Path::new(before, Duration::from_millis(one_way));
        let writes = |path: &mut Path, step: u64| if step.is_multiple_of(every) { path.write(piece) };
        for step in 0..3000 {
            writes(&mut path, step);
            path.step();
        }
        path.lost = true;
        (0..lost_for).for_each(|_| path.step());
        path.one_way = Duration::from_millis(then);
        path.resume((before / slower).max(32_000));
        for step in 0..rest {
            if path.again.is_empty() {
                writes(&mut path, step);
            }
            path.step();
            prop_assert!(!path.client.is_doubted(), "{step} ms after it was taken up, {} are queued", path.queued());
        }
    }

    /// A download fills the way down for some seconds: meanwhile nothing is doubted, and afterwards answers are waited for no longer than before.
    #[test]
    fn a_download_makes_nobody_slower_to_notice_afterwards(
        rate_back in 80_000_u64..4_000_000, // a frame takes less than a question is waited for at the least
        one_way in 1_u64..150,
        time in 1_000_u64..20_000,
        rest in 1_000_u64..10_000,
    ) {
        let mut path = Path::new(4_000_000, Duration::from_millis(one_way));
        path.rate_back = rate_back;
        pass(&mut path, 2000, "at rest");
        for _ in 0..time {
            path.fill_the_way_back();
            pass(&mut path, 1, "a download");
        }
        let drained = u64::try_from(takes(300_000, rate_back).as_millis()).unwrap();
        pass(&mut path, drained + rest, "after the download");
        let trip = Duration::from_millis(2 * one_way + 2);
        let patience = path.client.round_trip.patience();
        prop_assert!(patience <= SOONEST.max(5 * trip), "{patience:?} with round trips of {trip:?}");
    }
}
