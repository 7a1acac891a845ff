//! Two machines with one identity: a disk that was cloned, a snapshot that was put back. Owns the judgement which of them is the host, as a
//! pure machine over what is on record of it. Reads no clock, writes no record.
//!
//! Each renewal of a host's certificates raises their generation, so whoever shows an older one than others have shown runs on a copy.
//! Within a generation the runs of the daemon are told apart: one run speaks for the host until it has been silent for [`Heartbeat::silence`], and
//! another that appears meanwhile is the second claimant as soon as the first is heard again. The first is told to renew then, which
//! leaves the second behind by a generation for good, whatever its disk says.

use std::time::Duration;

use remoteler_core::{Heartbeat, InstanceId, Timestamp};
use serde::{Deserialize, Serialize};

/// What is on record of a host's certificates and of who shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The newest generation that somebody has shown.
    generation: u64,
    /// Certificates of the next one are issued; nobody has shown them yet. Who lost them asks again with the present ones.
    #[serde(default)]
    pending: bool,
    /// When the last were issued that were of a generation of their own.
    #[serde(default)]
    renewed: Option<Timestamp>,
    /// The run that speaks for the host.
    #[serde(default)]
    holder: Option<Claimant>,
    /// A run that appeared while the holder was heard of.
    #[serde(default)]
    challenger: Option<Challenger>,
    /// A run that was found to be a copy, until its certificates are older than the host's.
    #[serde(default)]
    outcast: Option<Claimant>,
    /// Serials of what was issued, so that what a copy has can be revoked. The newest come last.
    #[serde(default)]
    issued: Vec<IssuedSerials>,
}

/// One run of a daemon, and from where it was heard first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claimant {
    pub(crate) instance: InstanceId,
    #[serde(default)]
    pub(crate) remote: Option<String>,
    /// How often it speaks, as it said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeat: Option<Heartbeat>,
}

/// A run that may turn out to be a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Challenger {
    claimant: Claimant,
    since: Timestamp,
}

/// Serials of a host's certificates, as they stand in audit events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IssuedSerials {
    pub(crate) generation: u64,
    pub(crate) ssh: String,
    pub(crate) tls: Vec<String>,
}

/// What a host's word is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is the host's.
    Host {
        /// It shall renew its certificates.
        renew: bool,
        /// A copy that was just found: it appeared while this one was the host.
        found: Option<Claimant>,
        /// Everything older than the present generation is to be revoked, for a copy has it.
        revoke: bool,
    },
    /// A run that appears while another is heard of: a daemon that was started anew, or a copy. The next word of the other one tells.
    Newcomer,
    /// It is a copy's.
    Copy(CopyReason),
}

/// How a copy is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyReason {
    /// Its certificates are older than those of the host.
    Older,
    /// It is the second of two that run at the same time.
    Second,
}

impl CopyReason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Older => "its certificates are older than those that the host has shown since",
            Self::Second => "it appeared while the host was running elsewhere",
        }
    }
}

impl Standing {
    /// Somebody speaks as the host with certificates of generation `shown`; `heard` is when the holder was heard last.
    pub(crate) fn hear(&mut self, shown: u64, who: Option<Claimant>, heard: Timestamp, now: Timestamp) -> Word {
        let mut revoke = false;
        if shown > self.generation {
            // What was issued has arrived; or this record is older than the certificates, after a backup was put back.
            self.generation = shown;
            self.pending = false;
            revoke = self.outcast.take().is_some();
        }
        if shown < self.generation {
            return Word::Copy(CopyReason::Older);
        }
        // A program that does not tell its runs apart.
        let Some(who) = who else { return Word::Host { renew: false, found: None, revoke } };
        let is = |claimant: &Option<Claimant>| claimant.as_ref().is_some_and(|one| one.instance == who.instance);
        if is(&self.outcast) {
            return Word::Copy(CopyReason::Second);
        }
        if is(&self.holder) {
            let told = self.challenger.take_if(|challenger| now.since(challenger.since) >= LATE_WORD);
            let found = told.map(|challenger| challenger.claimant);
            if found.is_some() {
                self.outcast.clone_from(&found);
            }
            if let Some(holder) = &mut self.holder
                && who.heartbeat.is_some()
            {
                holder.heartbeat = who.heartbeat;
            }
            let renew = self.outcast.is_some() || self.is_due(now);
            return Word::Host { renew, found, revoke };
        }
        if !self.silence_left(heard, now).is_zero() {
            if self.challenger.as_ref().is_none_or(|challenger| challenger.claimant.instance != who.instance) {
                self.challenger = Some(Challenger { claimant: who, since: now });
            }
            return Word::Newcomer;
        }
        // Nobody speaks for the host: from now on this one does, with certificates that no copy of what was has.
        let renew = self.holder.is_some() || self.is_due(now);
        self.holder = Some(who);
        self.challenger = None;
        Word::Host { renew, found: None, revoke }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.renewed.is_none_or(|renewed| now < renewed || now.since(renewed) >= RENEWAL)
    }

    /// For how long the run that speaks for the host may be silent yet, before another one may speak for it; `heard` is when it was heard last.
    pub(crate) fn silence_left(&self, heard: Timestamp, now: Timestamp) -> Duration {
        let silence = self.holder.as_ref().map(|holder| holder.heartbeat.unwrap_or_default().silence());
        silence.unwrap_or_default().saturating_sub(now.since(heard))
    }

    /// The generation of certificates that are issued to one who shows `shown`: the next one if it speaks for the host.
    pub(crate) fn next_generation(&mut self, speaks: bool, now: Timestamp) -> u64 {
        if !speaks {
            return self.generation;
        }
        self.pending = true;
        self.renewed = Some(now);
        self.generation.saturating_add(1)
    }

    /// The host was let in: it has certificates that nobody else has, so that it need not renew them at once. The generation it gets.
    pub(crate) fn admit(&mut self, now: Timestamp) -> u64 {
        self.renewed = Some(now);
        self.generation
    }

    /// The host was let in anew: whatever was issued before is a copy's, and nobody speaks for it yet. The generation it gets.
    pub(crate) fn readmit(&mut self, now: Timestamp) -> u64 {
        // The first that was certainly never issued.
        self.generation = self.generation.saturating_add(1).saturating_add(u64::from(self.pending));
        self.pending = false;
        self.renewed = Some(now);
        (self.holder, self.challenger, self.outcast) = (None, None, None);
        self.generation
    }

    /// Remembers what was issued.
    pub(crate) fn issued(&mut self, serials: IssuedSerials) {
        if self.issued.len() >= MAX_ISSUED {
            self.issued.remove(0);
        }
        self.issued.push(serials);
    }

    /// Takes out the serials of everything older than the present generation.
    pub(crate) fn take_older(&mut self) -> Vec<IssuedSerials> {
        let newest = self.generation;
        let (older, kept) = self.issued.drain(..).partition(|serials| serials.generation < newest);
        self.issued = kept;
        older
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Who speaks for the host.
    pub(crate) const fn holder(&self) -> Option<&Claimant> {
        self.holder.as_ref()
    }
}

/// What the holder says so soon after a challenger appeared it may have said before it ended, and the word was on its way.
const LATE_WORD: Duration = Duration::from_secs(10);
/// How often a host's certificates are renewed, so that older copies of its disk are known by them.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// Serials that are remembered of one host.
const MAX_ISSUED: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const START: Timestamp = Timestamp::from_unix_seconds(1_000_000);

    fn run(number: u128) -> Option<Claimant> {
        Some(Claimant { instance: InstanceId::from_uuid(Uuid::from_u128(number)), remote: None, heartbeat: None })
    }

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    fn host(renew: bool) -> Word {
        Word::Host { renew, found: None, revoke: false }
    }

    /// A host that has spoken once and renewed, at generation 1.
    fn settled() -> Standing {
        let mut standing = Standing::default();
        assert_eq!(standing.hear(0, run(1), at(0), at(0)), host(true));
        assert_eq!(standing.next_generation(true, at(0)), 1);
        assert_eq!(standing.hear(1, run(1), at(0), at(0)), host(false));
        standing
    }

    // I28
    #[test]
    fn of_two_that_run_at_the_same_time_the_second_is_the_copy() {
        let mut standing = settled();
        assert_eq!(standing.hear(1, run(2), at(20), at(30)), Word::Newcomer);
        let Word::Host { renew: true, found: Some(found), revoke: false } = standing.hear(1, run(1), at(20), at(50))
        else {
            panic!("the first is not the host any more")
        };
        assert_eq!(Some(found), run(2));
        assert_eq!(standing.hear(1, run(2), at(50), at(60)), Word::Copy(CopyReason::Second));
        // The first renews, and from then on nothing of the old generation is worth anything, whoever shows it.
        assert_eq!(standing.next_generation(true, at(60)), 2);
        assert_eq!(standing.hear(2, run(1), at(50), at(61)), Word::Host { renew: false, found: None, revoke: true });
        for number in [2, 3] {
            assert_eq!(standing.hear(1, run(number), at(61), at(5000)), Word::Copy(CopyReason::Older));
        }
    }

    #[test]
    fn a_daemon_that_is_started_again_is_no_copy_and_speaks_for_the_host_after_a_while() {
        let mut standing = settled();
        for seconds in [31, 61, 91] {
            assert_eq!(standing.hear(1, run(2), at(30), at(seconds)), Word::Newcomer);
        }
        assert_eq!(standing.hear(1, run(2), at(30), at(121)), host(true));
        // It is started again and again, faster than anybody falls silent.
        let mut standing = settled();
        for number in 2..50 {
            assert_eq!(standing.hear(1, run(number), at(30), at(31)), Word::Newcomer);
        }
        assert_eq!(standing.hear(1, run(50), at(30), at(105)), host(true));
    }

    #[test]
    fn a_run_that_speaks_seldom_speaks_for_the_host_for_as_much_longer_and_its_last_word_says_when_that_ends() {
        let seldom =
            |number, seconds| run(number).map(|run| Claimant { heartbeat: Some(Heartbeat::from(seconds)), ..run });
        let mut standing = settled();
        assert_eq!(standing.hear(1, seldom(1, 600), at(0), at(30)), host(false));
        let mut challenged = standing.clone();
        for seconds in [900, 959] {
            assert_eq!(challenged.hear(1, run(2), at(30), at(seconds)), Word::Newcomer);
        }
        assert_eq!(challenged.clone().hear(1, run(2), at(30), at(960)), host(true));
        let found = Word::Host { renew: true, found: run(2), revoke: false };
        assert_eq!(challenged.hear(1, seldom(1, 600), at(30), at(959)), found);
        // What it asks for besides does not say when it speaks again.
        assert_eq!(standing.hear(1, run(1), at(30), at(40)), host(false));
        assert_eq!(standing.clone().hear(1, run(2), at(40), at(969)), Word::Newcomer);
        assert_eq!(standing.hear(1, seldom(1, 30), at(40), at(500)), host(false));
        assert_eq!(standing.clone().hear(1, run(2), at(500), at(574)), Word::Newcomer);
        assert_eq!(standing.hear(1, run(2), at(500), at(575)), host(true));
    }

    // I28
    #[test]
    fn a_run_that_claims_its_host_for_hours_holds_it_for_no_longer_than_any_may() {
        let greedy = run(1).map(|run| Claimant { heartbeat: serde_json::from_str("36000").unwrap(), ..run });
        let mut standing = settled();
        assert_eq!(standing.hear(1, greedy, at(0), at(30)), host(false));
        assert_eq!(standing.clone().hear(1, run(2), at(30), at(30 + 2729)), Word::Newcomer);
        assert_eq!(standing.hear(1, run(2), at(30), at(30 + 2730)), host(true));
    }

    #[test]
    fn a_last_word_that_was_on_its_way_makes_no_copy_of_the_daemon_that_follows() {
        let mut standing = settled();
        assert_eq!(standing.hear(1, run(2), at(30), at(31)), Word::Newcomer);
        assert_eq!(standing.hear(1, run(1), at(30), at(33)), host(false));
        assert_eq!(standing.hear(1, run(2), at(33), at(61)), Word::Newcomer);
        assert_eq!(standing.hear(1, run(2), at(33), at(121)), host(true));
    }

    #[test]
    fn a_copy_that_takes_over_while_the_host_is_away_makes_the_host_the_older_one() {
        let mut standing = settled();
        assert_eq!(standing.hear(1, run(2), at(30), at(500)), host(true));
        assert_eq!(standing.next_generation(true, at(500)), 2);
        assert_eq!(standing.hear(2, run(2), at(500), at(501)), host(false));
        assert_eq!(standing.hear(1, run(1), at(501), at(502)), Word::Copy(CopyReason::Older));
        // An administrator lets it in anew: now the other one is behind, also with what it was issued last.
        let _never_shown = standing.next_generation(true, at(510));
        assert_eq!(standing.readmit(at(520)), 4);
        assert_eq!(standing.hear(4, run(3), at(520), at(521)), host(false));
        for shown in [1, 2, 3] {
            assert_eq!(standing.hear(shown, run(2), at(521), at(522)), Word::Copy(CopyReason::Older));
        }
    }

    #[test]
    fn an_answer_that_was_lost_is_asked_for_again_and_locks_nobody_out() {
        let mut standing = settled();
        for lost in 0..5 {
            assert_eq!(standing.next_generation(true, at(lost)), 2);
            assert_eq!(standing.hear(1, run(1), at(lost), at(lost + 1)), host(false));
        }
        // Nor after a power loss, when another run shows what the one before had.
        assert_eq!(standing.hear(1, run(2), at(5), at(90)), host(true));
        assert_eq!(standing.next_generation(true, at(90)), 2);
        assert_eq!(standing.hear(2, run(2), at(90), at(91)), host(false));
    }

    #[test]
    fn certificates_newer_than_the_record_are_believed_for_the_record_was_put_back() {
        let mut standing = settled();
        assert_eq!(standing.hear(9, run(1), at(0), at(1)), host(false));
        assert_eq!(standing.generation(), 9);
        assert_eq!(standing.hear(8, run(1), at(1), at(2)), Word::Copy(CopyReason::Older));
    }

    #[test]
    fn a_host_renews_once_a_day() {
        let mut standing = settled();
        let day = RENEWAL.as_secs();
        assert_eq!(standing.hear(1, run(1), at(day - 31), at(day - 1)), host(false));
        assert_eq!(standing.hear(1, run(1), at(day - 1), at(day)), host(true));
    }

    #[test]
    fn a_program_that_does_not_tell_its_runs_apart_is_judged_by_its_certificates_alone() {
        let mut standing = Standing::default();
        for seconds in 0..100 {
            assert_eq!(standing.hear(0, None, at(seconds), at(seconds)), host(false));
        }
        assert_eq!(standing.next_generation(false, at(100)), 0);
        assert_eq!(standing.hear(1, run(1), at(100), at(100)), host(true));
        assert_eq!(standing.hear(0, None, at(100), at(100)), Word::Copy(CopyReason::Older));
    }

    #[test]
    fn what_was_issued_is_remembered_in_bounds_and_given_out_when_it_is_old() {
        let mut standing = settled();
        let serials = |generation| IssuedSerials { generation, ssh: "1".into(), tls: vec!["2".into()] };
        for _ in 0..100 {
            standing.issued(serials(0));
        }
        standing.issued(serials(1));
        standing.issued(serials(2));
        let older = standing.take_older();
        assert_eq!((older.len(), standing.issued.len()), (MAX_ISSUED - 2, 2));
        assert!(older.iter().all(|serials| serials.generation == 0) && standing.take_older().is_empty());
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// One of two machines speaks, and says when it will again; it renews when told so, and the answer may be lost.
        Speak { machine: usize, lost: bool, again: u64 },
        /// Its daemon is started again.
        Restart { machine: usize },
        /// Nothing happens for so many seconds.
        Wait { seconds: u64 },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0..2_usize, any::<bool>(), prop_oneof![Just(30), Just(300), Just(1800)])
                .prop_map(|(machine, lost, again)| Event::Speak { machine, lost, again }),
            1 => (0..2_usize).prop_map(|machine| Event::Restart { machine }),
            3 => (1..100_u64).prop_map(|seconds| Event::Wait { seconds }),
        ]
    }

    /// One machine, with what its disk holds.
    struct Machine {
        shown: u64,
        run: u128,
        out: bool,
    }

    struct World {
        standing: Standing,
        heard: Timestamp,
        now: Timestamp,
        runs: u128,
    }

    impl World {
        fn speak(&mut self, machine: &mut Machine, lost: bool, again: u64) {
            let who = run(machine.run).map(|run| Claimant { heartbeat: Some(again.into()), ..run });
            match self.standing.hear(machine.shown, who, self.heard, self.now) {
                Word::Host { renew, .. } => {
                    self.heard = self.now;
                    if renew {
                        let next = self.standing.next_generation(true, self.now);
                        if !lost {
                            machine.shown = next;
                        }
                    }
                }
                Word::Newcomer => {}
                Word::Copy(_) => machine.out = true,
            }
        }

        fn restart(&mut self, machine: &mut Machine) {
            self.runs += 1;
            machine.run = self.runs;
        }
    }

    proptest! {
        // R5: whatever is lost and however often it is started, a device that nobody copied is never taken for a copy.
        #[test]
        fn a_host_without_a_copy_is_never_refused(events in proptest::collection::vec(event(), 1..200)) {
            let mut world = World { standing: Standing::default(), heard: START, now: START, runs: 1 };
            let mut machine = Machine { shown: 0, run: 1, out: false };
            for event in events {
                match event {
                    Event::Speak { lost, again, .. } => world.speak(&mut machine, lost, again),
                    Event::Restart { .. } => world.restart(&mut machine),
                    Event::Wait { seconds } => world.now = world.now.plus(Duration::from_secs(seconds)),
                }
                prop_assert!(!machine.out);
            }
        }

        // I28: of two machines with one disk, at the latest one is out when both have spoken in turn for a while, and one stays in.
        #[test]
        fn of_a_host_and_its_copy_one_is_refused_and_one_is_not(events in proptest::collection::vec(event(), 0..60)) {
            let mut world = World { standing: Standing::default(), heard: START, now: START, runs: 2 };
            let mut machines = [Machine { shown: 0, run: 1, out: false }, Machine { shown: 0, run: 2, out: false }];
            for event in events {
                match event {
                    Event::Speak { machine, lost, again } => {
                        let machine = &mut machines[machine];
                        if !machine.out {
                            world.speak(machine, lost, again);
                        }
                    }
                    Event::Restart { machine } => world.restart(&mut machines[machine]),
                    Event::Wait { seconds } => world.now = world.now.plus(Duration::from_secs(seconds)),
                }
                prop_assert!(!(machines[0].out && machines[1].out));
            }
            // Until a run that spoke each half hour and ended would be heard no more, and then five times.
            for _ in 0..Heartbeat::LONGEST.silence().as_secs() / 30 + 5 {
                for machine in &mut machines {
                    world.now = world.now.plus(Duration::from_secs(15));
                    if !machine.out {
                        world.speak(machine, false, 30);
                    }
                }
            }
            prop_assert!(machines[0].out != machines[1].out);
        }
    }
}
