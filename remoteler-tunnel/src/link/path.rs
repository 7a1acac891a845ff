//! What the path to a peer is like: how long an octet and its answer take, and how fast what waits in front of them drains. Owns the estimates.
//! Never decides what follows from them.

use std::time::{Duration, Instant};

use super::{ACK_EVERY, ACK_WITHIN, ASK_WITHIN, DOUBT_AFTER, SOONEST};
use crate::frame::{DATA_LEN, HEADER_LEN};

/// The lowest round-trip time of late: queues that our own bulk data builds up do not count as distance. And what answers take, queues and
/// unevenness included, for who waits for one: that is kept when the link goes on over another connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    least: Option<(Duration, Instant)>,
    /// The same of this connection alone.
    here: Option<(Duration, Instant)>,
    /// The last one, queues included: what an answer takes as things are.
    last: Option<Duration>,
    /// Whether a good part of that was spent behind octets of our own.
    behind_queue: bool,
    measured: Option<Instant>,
    /// Without queues of this link: smoothed, and how far from it they lie (RFC 6298 section 2).
    smoothed: Option<(Duration, Duration)>,
    /// How often an answer has been overdue since the last one.
    overdue: u32,
    /// What this connection took to be made, until it has brought an answer: its path may be longer than the one before.
    made_within: Duration,
}

impl RoundTrip {
    /// An answer took so long. How much of that was a queue's, nobody knows: of one behind a queue nothing is learnt of the path itself (as of an
    /// ambiguous one by RFC 6298 section 3, Karn's rule).
    pub(super) fn measured(&mut self, sample: Duration, behind: Behind, now: Instant) {
        let before = self.measured.replace(now);
        self.last = Some(sample);
        self.behind_queue = behind == Behind::Ours && sample > SOONEST;
        self.overdue = 0;
        self.made_within = Duration::ZERO;
        if behind == Behind::Nothing {
            let rare = before.is_none_or(|at| now.saturating_duration_since(at) >= RARE);
            self.learn(sample.min(LONGEST), rare);
        }
        // A queue of ours that stands for longer than that is no distance either.
        let own = self.smoothed.filter(|_| behind == Behind::Ours).map_or(sample.min(LONGEST), |(time, _)| time);
        for kept in [&mut self.least, &mut self.here] {
            match *kept {
                Some((least, _)) if sample <= least => *kept = Some((sample, now)),
                Some((_, at)) if now.saturating_duration_since(at) < LEAST_HOLDS => {}
                Some(_) | None => *kept = Some((own, now)),
            }
        }
    }

    /// What follows is another connection's.
    pub(super) fn elsewhere(&mut self) {
        self.here = None;
    }

    /// A round trip over this connection with no queue of its own: as it usually is of late, if it is not twice the least. Nothing while none was measured.
    pub(super) fn usual(&self) -> Option<Duration> {
        let (least, _) = self.here?;
        let smoothed = self.smoothed.map_or(least, |(time, _)| time);
        Some(smoothed.clamp(least, 2 * least))
    }

    fn learn(&mut self, own: Duration, rare: bool) {
        self.smoothed = Some(match self.smoothed {
            Some((time, variation)) if own < time => fallen(own, time, variation, rare),
            Some((time, variation)) => {
                let off = own - time;
                // What grows is followed sooner than by a quarter: the next one may have grown as much.
                let variation = if off > variation { (variation + off) / 2 } else { (3 * variation + off) / 4 };
                ((7 * time + own) / 8, variation)
            }
            None => (own, own / 2),
        });
    }

    /// Whether the last answer had waited behind octets of our own, so that it says little of one that need not.
    pub(super) fn was_behind_queue(&self) -> bool {
        self.behind_queue
    }

    pub(super) fn measured_at(&self) -> Option<Instant> {
        self.measured
    }

    pub(super) fn least(&self) -> Option<Duration> {
        self.least.map(|(least, _)| least)
    }

    /// Silence, with something unacknowledged or after streams have moved, after which the side that watches asks.
    pub(super) fn rest(&self) -> Duration {
        self.least().map_or(UNMEASURED, |time| 2 * time).clamp(SOONEST, ASK_WITHIN)
    }

    /// An answer took longer than [`patience`](Self::patience). Until one is measured the next may take twice as long (RFC 6298 section 5.5), for a
    /// time that grew is only learnt from an answer that was waited for.
    pub(super) fn overdue(&mut self) {
        self.overdue = (self.overdue + 1).min(MOST_DOUBLINGS);
    }

    /// A connection follows that took so long to be made: two round trips at least, and what its peer is busy with.
    pub(super) fn made_within(&mut self, took: Duration) {
        self.made_within = took;
    }

    /// What an answer may take before the side that watches looks for another connection: what it took last, queues included, and three times the
    /// path; or what answers take that are as uneven as those of late; or, while there was none on this connection, what that took to be made.
    pub(super) fn patience(&self) -> Duration {
        let usual = self.last.zip(self.least()).map_or(UNMEASURED, |(last, least)| last + 3 * least);
        let uneven = self.smoothed.map_or(UNMEASURED, |(time, variation)| time + 4 * variation);
        (usual.max(uneven).max(self.made_within).max(SOONEST) * 2_u32.pow(self.overdue)).min(LONGEST)
    }
}

/// What a question or its answer waited behind, more of it than [`UNQUEUED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    Nothing,
    /// Octets of this side, the peer's besides or not.
    Ours,
    /// The peer's.
    Theirs,
}

/// The smoothed time and its variation after an answer that took less. A fall is no reason to wait longer; one by far, or after a rest in which much
/// may have changed, is followed sooner than a rise.
fn fallen(own: Duration, time: Duration, variation: Duration, rare: bool) -> (Duration, Duration) {
    if rare {
        return (own, variation / 2);
    }
    let smoothed = if 4 * own < time { (time + own) / 2 } else { (7 * time + own) / 8 };
    (smoothed, (3 * variation + (time - own).min(variation)) / 4)
}

/// How fast the path takes what is sent into it, while more is sent than it takes: what waits in front of a question makes its answer late. Recent
/// acknowledgements count more than those before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drain {
    here: Pace,
    few: Pace,
    /// Octets of which all that is made.
    shown: u64,
    /// Of a connection before this one, while this one has shown little, and nothing against that.
    before: Option<Pace>,
    /// Until when none of that is believed.
    distrusted: Option<Instant>,
}

/// So many octets in so long.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    octets: u64,
    time: Duration,
}

impl Drain {
    /// So many octets were acknowledged after so long, and there was a queue. Few of them show how long an acknowledgement waits, and no pace: they
    /// count with those that follow.
    pub(super) fn measured(&mut self, octets: u64, time: Duration) {
        let pace = Pace { octets: self.few.octets + octets, time: self.few.time + time };
        if pace.octets <= UNQUEUED {
            self.few = pace;
            return;
        }
        self.few = Pace::default();
        self.shown += pace.octets;
        self.here.octets = self.here.octets - self.here.octets / 8 + pace.octets;
        self.here.time = self.here.time - self.here.time / 8 + pace.time;
        // The first acknowledgements have a round trip in them.
        self.before.take_if(|before| self.shown > ACK_EVERY || pace.time > before.takes(pace.octets, SLOWER) + SOONEST);
    }

    /// Another connection follows. Its path may be a slower one, and is taken for one until it shows more.
    pub(super) fn carried_over(self) -> Self {
        let before = self.before.or(Some(self.here)).filter(Pace::is_known);
        Self { before, ..Self::default() }
    }

    /// Of the one that follows nothing is believed until then: its first octets are no sign of what those behind them take.
    pub(super) fn distrusted_until(at: Instant) -> Self {
        Self { distrusted: Some(at), ..Self::default() }
    }

    /// When a question has left that was asked at `asked` behind so many octets, which at the pace that is [believed](Self::takes) have left at `clears`; or a
    /// sign of life must have come before. When a whole frame has arrived, an acknowledgement comes at the latest after [`ACK_WITHIN`], however long the rest takes.
    pub(super) fn left_by(&self, octets: u64, clears: Instant, asked: Instant) -> Instant {
        if octets <= UNQUEUED {
            return asked;
        }
        let known = self.is_known() && self.distrusted.is_none_or(|until| asked >= until);
        let frame = if known { self.takes(octets.min(FRAME)).min(ACK_WITHIN) } else { ACK_WITHIN };
        let most = asked + ACK_WITHIN + frame;
        if known { clears.clamp(asked, most) } else { most }
    }

    /// Octets that the path takes in so long, by what this connection has shown of late.
    pub(super) fn taken_in(&self, time: Duration) -> u64 {
        let octets = u128::from(self.here.octets) * time.as_nanos();
        u64::try_from(octets.checked_div(self.here.time.as_nanos()).unwrap_or_default()).unwrap_or(u64::MAX)
    }

    fn is_known(&self) -> bool {
        self.here.is_known() || self.before.is_some()
    }

    /// What so many octets take: as they did of late, or as they would at a twelfth of the pace of the connection before while that counts and is less;
    /// nothing while neither is known.
    pub(super) fn takes(&self, octets: u64) -> Duration {
        let here = self.here.takes(octets, 1);
        match self.before.map(|before| before.takes(octets, SLOWER)) {
            Some(before) if !self.here.is_known() => before,
            Some(before) => here.min(before),
            None => here,
        }
    }
}

impl Pace {
    fn is_known(&self) -> bool {
        self.octets > 0
    }

    /// What so many octets take, so many times slower.
    fn takes(&self, octets: u64, slower: u32) -> Duration {
        let nanos = (self.time.as_nanos() * u128::from(slower)).saturating_mul(u128::from(octets));
        let nanos = nanos.checked_div(u128::from(self.octets)).unwrap_or_default();
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(LONGEST)
    }
}

/// While no round trip was measured.
const UNMEASURED: Duration = Duration::from_secs(1);
/// Octets that are no queue: on a path that takes them in more than [`SOONEST`], a round trip is as long.
pub(super) const UNQUEUED: u64 = 4 * 1024;
/// The path of another connection is waited for as one that is ten times slower than the one before, TLS and TCP besides.
const SLOWER: u32 = 12;
/// The longest frame.
pub(super) const FRAME: u64 = (HEADER_LEN + DATA_LEN) as u64;
/// No answer is waited for longer than that, so nothing is learnt from how much longer one took.
const LONGEST: Duration = DOUBT_AFTER.saturating_sub(ASK_WITHIN);
/// Answers that are as far apart are those of a link that rests.
const RARE: Duration = Duration::from_secs(10);
const LEAST_HOLDS: Duration = Duration::from_secs(30);
const MOST_DOUBLINGS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_takes_as_long_as_its_octets_did_of_late_but_not_longer_than_an_acknowledgement_may() {
        let (mut drain, now) = (Drain::default(), Instant::now());
        let waits = |drain: &Drain, octets| drain.left_by(octets, now + drain.takes(octets), now) - now;
        assert_eq!(waits(&drain, UNQUEUED), Duration::ZERO);
        assert_eq!(waits(&drain, UNQUEUED + 1), 2 * ACK_WITHIN, "nothing is known yet");
        for _ in 0..50 {
            drain.measured(1_000_000, Duration::from_millis(100));
        }
        assert!(waits(&drain, 1_000_000).as_millis().abs_diff(100) <= 1, "{:?}", waits(&drain, 1_000_000));
        assert!(waits(&drain, 4 << 30) - ACK_WITHIN <= Duration::from_millis(2), "{:?}", waits(&drain, 4 << 30));
        for _ in 0..50 {
            drain.measured(64 * 1024, Duration::from_secs(1));
        }
        assert!(waits(&drain, 32 * 1024).as_millis() > 450, "{:?}", waits(&drain, 32 * 1024));
    }

    #[test]
    fn a_pace_that_only_shows_how_long_an_acknowledgement_waits_is_waited_for_no_longer_than_two_of_them() {
        let (mut drain, now) = (Drain::default(), Instant::now());
        drain.measured(5_000, ACK_WITHIN);
        let waits = drain.left_by(1 << 20, now + drain.takes(1 << 20), now) - now;
        assert!(waits <= 2 * ACK_WITHIN, "{waits:?}");
    }

    #[test]
    fn of_a_pace_a_twelfth_is_believed_on_the_next_connection_until_that_has_shown_its_own() {
        let second = Duration::from_secs(1);
        let mut drain = Drain::default();
        drain.measured(12 << 20, second);
        let mut next = drain.carried_over();
        assert_eq!(next.takes(1 << 20), second);
        assert_eq!(next.carried_over().takes(1 << 20), second, "and no less on the one after that");
        next.measured(16 << 10, second / 10);
        assert_eq!(next.takes(1 << 20), second, "a round trip is no pace");
        next.measured(ACK_EVERY, second);
        assert!(next.takes(1 << 20) > second, "it shows its own");
        let mut slow = drain.carried_over();
        slow.measured(16 << 10, second);
        assert!(slow.takes(16 << 10) == second, "it is slower than was thought");
        let mut fast = drain.carried_over();
        fast.measured(64 << 10, second / 100);
        assert!(fast.takes(1 << 20) < second / 5, "and faster");
    }

    #[test]
    fn a_connection_that_carries_little_at_a_time_shows_its_own_pace_too() {
        let mut drain = Drain::default();
        drain.measured(1 << 20, Duration::from_millis(10));
        let mut next = drain.carried_over();
        for _ in 0..1000 {
            next.measured(16 << 10, Duration::from_millis(100));
        }
        let after_it = next.carried_over().takes(16 << 10).as_millis();
        assert!(after_it.abs_diff(u128::from(SLOWER) * 100) <= 10, "not that of the one before: {after_it} ms");
    }

    #[test]
    fn what_has_left_while_it_was_written_waits_no_more() {
        let (mut drain, now) = (Drain::default(), Instant::now());
        drain.measured(25_000, Duration::from_millis(250));
        let asked = now + Duration::from_millis(250);
        let left_by = |octets| drain.left_by(octets, now + drain.takes(octets), asked);
        assert_eq!(left_by(25_000), asked);
        assert_eq!(left_by(35_000), asked + Duration::from_millis(100), "more than it has shown to take");
    }

    #[test]
    fn an_answer_may_take_what_the_last_one_took_and_three_times_the_path() {
        let (mut path, now) = (RoundTrip::default(), Instant::now());
        assert_eq!((path.rest(), path.patience()), (UNMEASURED, UNMEASURED));
        for _ in 0..20 {
            path.measured(Duration::from_millis(10), Behind::Nothing, now);
        }
        assert_eq!((path.rest(), path.patience()), (SOONEST, SOONEST));
        for _ in 0..80 {
            path.measured(Duration::from_millis(900), Behind::Nothing, now);
        }
        let patience = path.patience().as_millis();
        assert!(path.rest() == SOONEST && patience.abs_diff(930) <= 5, "{patience} ms");
        for _ in 0..80 {
            path.measured(Duration::from_millis(200), Behind::Nothing, now + LEAST_HOLDS);
        }
        assert_eq!((path.rest(), path.patience()), (Duration::from_millis(400), Duration::from_millis(800)));
    }

    #[test]
    fn uneven_answers_are_waited_for_as_long_as_they_are_uneven() {
        let (mut path, now) = (RoundTrip::default(), Instant::now());
        for round in 0..40 {
            path.measured(Duration::from_millis(if round % 2 == 0 { 20 } else { 500 }), Behind::Nothing, now);
        }
        assert!(path.patience() > Duration::from_millis(1000), "{:?}", path.patience());
        for _ in 0..40 {
            path.measured(Duration::from_millis(20), Behind::Nothing, now);
        }
        assert_eq!(path.patience(), SOONEST);
    }

    #[test]
    fn what_our_own_octets_take_is_no_unevenness() {
        let (mut path, now, trip) = (RoundTrip::default(), Instant::now(), Duration::from_millis(20));
        for round in 0..40 {
            let (queued, behind) = if round % 2 == 0 { (0, Behind::Nothing) } else { (900, Behind::Ours) };
            path.measured(trip + Duration::from_millis(queued), behind, now);
        }
        assert_eq!(path.patience(), Duration::from_millis(920) + 3 * trip);
    }

    #[test]
    fn an_answer_behind_a_queue_teaches_nothing_and_one_behind_a_queue_of_others_is_forgotten_by_the_first_after_a_rest()
     {
        let (mut path, now) = (RoundTrip::default(), Instant::now());
        (0..20).for_each(|_| path.measured(Duration::from_millis(20), Behind::Nothing, now));
        for _ in 0..20 {
            path.measured(Duration::from_secs(16), Behind::Theirs, now);
            path.measured(Duration::from_millis(2_580), Behind::Ours, now);
        }
        assert_eq!(path.smoothed.unwrap().0, Duration::from_millis(20), "nothing was learnt");
        for _ in 0..20 {
            path.measured(Duration::from_secs(16), Behind::Nothing, now);
        }
        assert_eq!(path.patience(), LONGEST);
        path.measured(Duration::from_millis(20), Behind::Nothing, now + RARE);
        assert_eq!(path.smoothed.unwrap().0, Duration::from_millis(20));
    }

    #[test]
    fn times_that_fall_by_far_are_followed_within_few_answers() {
        let (mut path, now) = (RoundTrip::default(), Instant::now());
        path.measured(Duration::from_millis(20), Behind::Nothing, now);
        (0..20).for_each(|_| path.measured(Duration::from_secs(4), Behind::Nothing, now));
        let answers = (1..).find(|_| {
            path.measured(Duration::from_millis(20), Behind::Nothing, now);
            path.patience() < Duration::from_secs(1)
        });
        assert!(answers.is_some_and(|answers| answers <= 12), "{answers:?}");
    }

    #[test]
    fn a_queue_that_stands_is_no_distance() {
        let (mut path, now) = (RoundTrip::default(), Instant::now());
        path.measured(Duration::from_millis(20), Behind::Nothing, now);
        path.measured(Duration::from_secs(16), Behind::Ours, now + LEAST_HOLDS);
        assert_eq!((path.least(), path.rest()), (Some(Duration::from_millis(20)), SOONEST));
        assert!(path.was_behind_queue());
    }

    #[test]
    fn after_an_answer_that_was_overdue_the_next_is_waited_for_twice_as_long_until_it_is_there() {
        let (mut path, now) = (RoundTrip::default(), Instant::now());
        (0..20).for_each(|_| path.measured(Duration::from_millis(10), Behind::Nothing, now));
        for doublings in 1..10 {
            path.overdue();
            assert_eq!(path.patience(), (SOONEST * 2_u32.pow(doublings.min(5))).min(DOUBT_AFTER - ASK_WITHIN));
        }
        path.measured(Duration::from_millis(10), Behind::Nothing, now);
        assert_eq!(path.patience(), SOONEST);
    }
}
