//! When a path asks, doubts and gives up, step by step.

use super::*;
use crate::frame::FrameType;

fn sequence(now: Instant) -> Sequence {
    Sequence::new(Keepalive::CLIENT, 1000, now)
}

fn data(sequence: u32, length: usize) -> Header {
    Header { kind: FrameType::Data, length, stream: 1, sequence, prompt: false }
}

#[test]
fn a_gap_and_a_repetition_are_refused() {
    let mut path = sequence(Instant::now());
    path.received(&data(0, 88)).unwrap();

    assert!(matches!(path.received(&data(0, 88)), Err(LinkError::Gap { expected: 100, .. })));
    assert!(matches!(path.received(&data(200, 88)), Err(LinkError::Gap { expected: 100, .. })));
    path.received(&data(100, 88)).unwrap();
}

#[test]
fn the_sequence_goes_on_past_32_bits() {
    let mut path = sequence(Instant::now());
    path.received = u64::from(u32::MAX) - 11;
    path.sent = u64::from(u32::MAX) - 11;
    path.acked = path.sent;

    path.received(&data(u32::MAX - 11, 0)).unwrap();
    path.received(&data(0, 0)).unwrap();
    path.next(0);
    path.next(0);

    assert_eq!(path.acknowledged(12), Ok(24));
    assert_eq!(path.acknowledged(12), Ok(0));
}

#[test]
fn acknowledgements_go_neither_back_nor_ahead() {
    let mut path = sequence(Instant::now());
    path.next(88);
    path.next(88);

    assert_eq!(path.acknowledged(100), Ok(100));
    assert!(path.acknowledged(99).is_err());
    assert!(path.acknowledged(201).is_err());
    assert_eq!(path.room(), 900);
}

#[test]
fn a_silent_peer_is_asked_once_and_then_given_up() {
    let start = Instant::now();
    let mut path = sequence(start);
    let ping_at = path.poll_timeout();
    path.handle_timeout(ping_at).unwrap();

    assert!(matches!(path.poll_output(ping_at), Some(Payload::Ping(1, 0))));
    assert_eq!(path.poll_output(ping_at), None);
    let dead_at = path.poll_timeout();

    assert_eq!(dead_at, start + Duration::from_secs(30));
    assert!(matches!(path.handle_timeout(dead_at), Err(LinkError::Silent { .. })));
}

#[test]
fn without_traffic_a_silent_peer_is_given_up_after_thirty_seconds_however_long_its_answers_take() {
    for (watches, keepalive) in [(true, Keepalive::CLIENT), (false, Keepalive::SERVER)] {
        for round_trip in [5, 300, 600, 900, 1_200, 2_500, 4_000, 4_900].map(Duration::from_millis) {
            let start = Instant::now();
            let mut path = Sequence::new(keepalive, 1000, start);
            path.make_resumable(watches);
            let mut heard = start;
            for _ in 0..3 {
                path.probe(heard);
                path.poll_output(heard);
                let Ping::Sent { nonce, .. } = path.ping else { panic!("it was to ask") };
                let answered = heard + round_trip;
                while path.poll_timeout() < answered {
                    path.handle_timeout(path.poll_timeout()).unwrap();
                }
                path.heard(answered);
                assert!(path.ponged(nonce, answered));
                heard = answered + Duration::from_secs(2);
                path.heard(heard);
            }
            let (mut asked, mut doubted) = (None, false);
            let given_up = loop {
                let now = path.poll_timeout();
                if path.handle_timeout(now).is_err() {
                    break now - heard;
                }
                doubted |= path.is_doubted();
                if let Some(Payload::Ping(..)) = path.poll_output(now) {
                    asked = Some(now - heard);
                }
            };
            let asked = asked.expect("nobody is given up unasked");
            assert_eq!(given_up, keepalive.dead_after, "{watches}, round trips of {round_trip:?}");
            assert!(given_up - asked >= round_trip, "asked after {asked:?}, which {round_trip:?} is too late");
            let usual = if round_trip <= Duration::from_millis(500) { keepalive.ping_after } else { Duration::ZERO };
            assert!((usual..=keepalive.ping_after).contains(&asked), "asked after {asked:?} with {round_trip:?}");
            assert_eq!(doubted, watches && given_up - asked > path.round_trip.patience(), "{round_trip:?}");
        }
    }
}

#[test]
fn what_goes_out_again_is_begun_before_a_question_and_not_ended() {
    let (start, mut path) = (Instant::now(), sequence(Instant::now()));
    path.make_resumable(true);
    path.next(588);
    path.next(288);
    path.suspend();
    path.resume(0, start).unwrap();
    path.goes_again(900);
    path.pinged(7);
    assert_eq!(path.poll_output(start), Some(Payload::Pong(7, 0)), "an answer waits for nothing");
    assert_eq!(path.poll_output(start), None);
    path.went_again(600);
    assert!(matches!(path.poll_output(start), Some(Payload::Ping(_, 0))));
    assert!(
        matches!(path.ping, Ping::Sent { sent: 600, ahead: 600, .. }),
        "behind the first frame alone: {:?}",
        path.ping
    );
}

#[test]
fn an_answered_ping_measures_the_distance_and_queues_do_not_count() {
    let start = Instant::now();
    let mut path = sequence(start);
    path.probe(start);
    path.poll_output(start);
    assert!(!path.ponged(7, start), "a PONG nobody asked for");
    assert!(path.ponged(1, start + Duration::from_millis(20)));

    let later = start + Duration::from_secs(2);
    path.probe(later);
    path.poll_output(later);
    path.ponged(2, later + Duration::from_millis(300));

    assert_eq!(path.round_trip(), Some(Duration::from_millis(20)));
}

#[test]
fn with_something_unacknowledged_silence_is_doubted_soon_if_the_link_outlives_the_connection() {
    let start = Instant::now();
    let mut path = sequence(start);
    path.make_resumable(false);
    path.next(88);
    path.transmitted(start);
    assert_eq!(path.poll_timeout(), start + ASK_WITHIN);
    path.handle_timeout(start + ASK_WITHIN).unwrap();
    assert!(matches!(path.poll_output(start + ASK_WITHIN), Some(Payload::Ping(..))));
    assert_eq!(path.poll_timeout(), start + DOUBT_AFTER);
    assert!(matches!(path.handle_timeout(start + DOUBT_AFTER), Err(LinkError::Silent { .. })));

    path.suspend();
    let later = start + Duration::from_secs(60);
    assert_eq!(path.resume(100, later), Ok(100));
    assert_eq!(path.poll_timeout(), later + Keepalive::CLIENT.ping_after, "nothing is unacknowledged now");
    assert!(path.resume(99, later).is_err() && path.resume(101, later).is_err());
}

/// A path that watches and has measured a round trip.
fn watchful(round_trip: Duration, start: Instant) -> Sequence {
    let mut path = sequence(start);
    path.make_resumable(true);
    path.probe(start);
    path.poll_output(start);
    while path.poll_timeout() < start + round_trip {
        path.handle_timeout(path.poll_timeout()).unwrap();
    }
    path.heard(start + round_trip);
    assert!(path.ponged(1, start + round_trip));
    path
}

#[test]
fn who_can_make_another_connection_doubts_this_one_by_the_round_trips_of_the_path() {
    for (round_trip, asked_after, doubted_after) in [(5, 250, 250), (300, 600, 1200), (4000, 3000, 5000)] {
        let [round_trip, asked_after, doubted_after] =
            [round_trip, asked_after, doubted_after].map(Duration::from_millis);
        let start = Instant::now();
        let mut path = watchful(round_trip, start);
        let written = start + Duration::from_secs(10);
        path.next(88);
        path.transmitted(written);

        assert_eq!(path.poll_timeout(), written + asked_after);
        path.handle_timeout(written + asked_after).unwrap();
        assert!(matches!(path.poll_output(written + asked_after), Some(Payload::Ping(2, 0))));
        let doubted_at = written + asked_after + doubted_after;
        assert_eq!(path.poll_timeout(), doubted_at.min(written + DOUBT_AFTER));
        path.handle_timeout(doubted_at - Duration::from_millis(1)).unwrap();
        assert!(!path.is_doubted());
        if path.handle_timeout(doubted_at).is_ok() {
            assert!(path.is_doubted());
            assert_eq!(path.poll_timeout(), written + DOUBT_AFTER, "the connection itself is given its time");
        }

        path.heard(doubted_at);
        assert!(!path.is_doubted(), "any octet is a sign of life");
    }
}

/// A path on which something was written a second after its start; and when.
fn written(start: Instant) -> (Sequence, Instant) {
    let (mut path, written) = (watchful(Duration::from_millis(5), start), start + Duration::from_secs(1));
    path.next(88);
    path.transmitted(written);
    (path, written)
}

#[test]
fn a_process_that_stood_still_asks_before_it_gives_anybody_up() {
    let start = Instant::now();
    for silent in [Duration::from_secs(9), Duration::from_secs(60)] {
        let (mut path, written) = written(start);
        let woken = written + silent;
        path.handle_timeout(woken).unwrap();
        assert!(!path.is_doubted());
        assert!(matches!(path.poll_output(woken), Some(Payload::Ping(2, 0))));
        assert_eq!(path.poll_timeout(), woken + SOONEST, "an answer has its time");
        assert!(matches!(path.handle_timeout(woken + SOONEST), Err(LinkError::Silent { .. })));
    }
}

#[test]
fn who_stood_still_after_asking_waits_for_the_answer_once_more() {
    let start = Instant::now();
    let (mut path, written) = written(start);
    path.handle_timeout(written + SOONEST).unwrap();
    assert!(matches!(path.poll_output(written + SOONEST), Some(Payload::Ping(2, 0))));
    // Nothing that came meanwhile has been read yet.
    let woken = written + Duration::from_secs(60);
    path.handle_timeout(woken).unwrap();
    assert!(!path.is_doubted());
    assert_eq!(path.poll_timeout(), woken + SOONEST);
    let again = woken + Duration::from_secs(60);
    assert!(matches!(path.handle_timeout(again), Err(LinkError::Silent { .. })), "not without end");
}

#[test]
fn an_answer_that_lay_there_while_this_process_stood_still_teaches_nothing() {
    let (mut path, written) = written(Instant::now());
    path.handle_timeout(written + SOONEST).unwrap();
    assert!(matches!(path.poll_output(written + SOONEST), Some(Payload::Ping(2, 0))));
    let woken = written + Duration::from_secs(60);
    path.heard(woken);
    path.acknowledged(100).unwrap();
    assert!(path.ponged(2, woken));
    assert_eq!(path.round_trip(), Some(Duration::from_millis(5)));
    assert!(matches!(path.poll_output(woken), Some(Payload::Ping(3, 0))), "what one takes is asked anew");
    path.heard(woken + Duration::from_millis(5));
    assert!(path.ponged(3, woken + Duration::from_millis(5)));
    let again = woken + Duration::from_secs(1);
    path.next(88);
    path.transmitted(again);
    path.handle_timeout(again + SOONEST).unwrap();
    path.poll_output(again + SOONEST);
    path.handle_timeout(again + 2 * SOONEST).unwrap();
    assert!(path.is_doubted(), "as soon as before");
}

#[test]
fn who_stood_still_before_the_question_was_sent_waits_for_it_once_more() {
    let start = Instant::now();
    let (mut path, written) = written(start);
    path.handle_timeout(written + SOONEST).unwrap(); // and the socket takes nothing
    let woken = written + Duration::from_secs(60);
    path.handle_timeout(woken).unwrap();
    assert!(!path.is_doubted());
    assert_eq!(path.poll_timeout(), woken + SOONEST);
    let taken = woken + Duration::from_millis(100);
    assert!(matches!(path.poll_output(taken), Some(Payload::Ping(2, 0))));
    assert_eq!(path.poll_timeout(), taken + SOONEST, "an answer has its time");
    assert!(matches!(path.handle_timeout(taken + SOONEST), Err(LinkError::Silent { .. })));
}

#[test]
fn a_question_that_the_socket_does_not_take_has_its_time_too() {
    let start = Instant::now();
    for silent in [Duration::from_secs(9), Duration::from_secs(60)] {
        let (mut path, written) = written(start);
        let woken = written + silent;
        path.handle_timeout(woken).unwrap(); // asks, and the socket takes nothing
        assert_eq!(path.poll_timeout(), woken + SOONEST);
        path.handle_timeout(woken + SOONEST - Duration::from_millis(1)).unwrap();
        assert!(matches!(path.handle_timeout(woken + SOONEST), Err(LinkError::Silent { .. })));
    }
}

#[test]
fn that_streams_have_come_to_rest_is_asked_about_once() {
    let start = Instant::now();
    let mut path = watchful(Duration::from_millis(5), start);
    let heard = start + Duration::from_secs(10);
    path.heard(heard);
    path.received(&data(0, 88)).unwrap();
    assert_eq!(path.poll_timeout(), heard + SOONEST);
    path.handle_timeout(heard + SOONEST).unwrap();
    assert!(matches!(path.poll_output(heard + SOONEST), Some(Payload::Ping(2, 100))));
    let answered = heard + SOONEST + Duration::from_millis(5);
    path.heard(answered);
    assert!(path.ponged(2, answered));
    assert_eq!(path.poll_timeout(), answered + Keepalive::CLIENT.ping_after, "and never again until they move");
}

#[test]
fn what_was_received_is_acknowledged_within_a_second() {
    let start = Instant::now();
    let mut path = sequence(start);
    path.received(&data(0, 88)).unwrap();
    assert_eq!(path.poll_output(start), None);
    assert_eq!(path.poll_timeout(), start + ACK_WITHIN);
    path.handle_timeout(start + ACK_WITHIN).unwrap();
    assert_eq!(path.poll_output(start + ACK_WITHIN), Some(Payload::Ack(100)));
    assert_eq!(path.poll_output(start + ACK_WITHIN), None);
    assert!(path.poll_timeout() > start + ACK_WITHIN);
}

#[test]
fn an_acknowledgement_of_a_keystroke_shows_no_pace() {
    let start = Instant::now();
    let mut path = watchful(Duration::from_millis(5), start);
    let pressed = start + Duration::from_secs(10);
    let after = |millis| pressed + Duration::from_millis(millis);
    path.next(20);
    path.transmitted(pressed);
    path.heard(after(200)); // the other side speaks, so that nothing is asked
    path.heard(after(400));
    path.next(8_000);
    path.transmitted(after(600));
    path.heard(after(650));
    path.acknowledged(32).unwrap();
    path.handle_timeout(after(900)).unwrap();
    assert!(matches!(path.poll_output(after(900)), Some(Payload::Ping(..))));
    let doubted_at = path.poll_timeout();
    assert!(doubted_at <= after(900) + 2 * ACK_WITHIN + SOONEST, "{:?} after the question", doubted_at - after(900));
}

// I26
#[test]
fn who_asks_to_be_acknowledged_at_each_octet_is_answered_once_in_8192() {
    let now = Instant::now();
    let mut path = sequence(now);
    let (mut sent, mut answers) = (0, 0);
    for _ in 0..10_000 {
        path.received(&Header { prompt: true, ..data(sent, 1) }).unwrap();
        sent += 13;
        answers += u64::from(path.poll_output(now).is_some());
    }
    assert_eq!(answers, u64::from(sent) / (PROMPT_LEAST + 5), "{sent} octets");
}

#[test]
fn an_acknowledgement_that_is_due_stays_due_while_more_arrives() {
    let start = Instant::now();
    let mut path = sequence(start);
    path.received(&data(0, 88)).unwrap();
    path.handle_timeout(start + ACK_WITHIN).unwrap(); // and the socket takes nothing
    path.heard(start + ACK_WITHIN);
    path.received(&data(100, 88)).unwrap();
    assert_eq!(path.poll_output(start + ACK_WITHIN), Some(Payload::Ack(200)));
    assert_eq!(path.poll_output(start + ACK_WITHIN), None);
}

/// When a path gives its connection up that has brought something to be sent, and nothing comes.
fn given_up_after(path: &mut Sequence, since: Instant) -> Duration {
    loop {
        let at = path.poll_timeout();
        if path.handle_timeout(at).is_err() {
            return at - since;
        }
        path.poll_output(at);
    }
}

#[test]
fn a_connection_after_one_that_brought_nothing_across_has_twice_the_time() {
    let start = Instant::now();
    let mut path = sequence(start);
    path.make_resumable(false);
    path.next(16_372);
    path.transmitted(start);
    assert_eq!(given_up_after(&mut path, start), DOUBT_AFTER);
    for (round, given) in
        [2 * DOUBT_AFTER, Keepalive::CLIENT.dead_after, Keepalive::CLIENT.dead_after].into_iter().enumerate()
    {
        let later = start + Duration::from_secs(60) * (1 + round as u32);
        path.suspend();
        path.resume(0, later).unwrap();
        assert_eq!(given_up_after(&mut path, later), given);
    }
    let again = start + Duration::from_secs(600);
    path.suspend();
    path.resume(0, again).unwrap();
    path.heard(again);
    path.acknowledged(16_384).unwrap();
    path.next(88);
    path.transmitted(again);
    assert_eq!(given_up_after(&mut path, again), DOUBT_AFTER, "something has come across");
}

#[test]
fn who_doubts_early_waits_longer_on_connections_after_ones_that_brought_nothing_across() {
    let start = Instant::now();
    let mut path = watchful(Duration::from_millis(5), start);
    path.next(16_372);
    path.transmitted(start + Duration::from_secs(1));
    let mut doubted_after = |round| {
        let later = start + Duration::from_secs(60) * round;
        path.suspend();
        path.resume(0, later).unwrap();
        path.poll_output(later);
        loop {
            let at = path.poll_timeout();
            if path.handle_timeout(at).is_err() || path.is_doubted() {
                return at - later;
            }
        }
    };
    // A frame at 2,000 octets a second, and its acknowledgement.
    let needed = Duration::from_millis(8_192) + ACK_WITHIN;
    let waits: Vec<_> = (1..=6).map(&mut doubted_after).collect();
    assert!(waits[0] < 3 * ACK_WITHIN && waits[5] > needed, "{waits:?}");
}

#[test]
fn of_a_connection_that_was_silent_for_long_no_pace_is_believed_on_the_next() {
    const MEBIBYTE: u64 = 1 << 20;
    for (silent, believed) in [(1, true), (29, true), (31, false), (540, false)] {
        let start = Instant::now();
        let mut path = watchful(Duration::from_millis(5), start);
        let (wrote, silent) = (start + Duration::from_secs(1), Duration::from_secs(silent));
        path.next(MEBIBYTE as usize - HEADER_LEN);
        path.transmitted(wrote);
        path.heard(wrote + Duration::from_millis(10));
        assert_eq!(path.acknowledged(MEBIBYTE as u32), Ok(MEBIBYTE));
        path.next(MEBIBYTE as usize - HEADER_LEN);
        path.transmitted(wrote + Duration::from_millis(10));
        path.suspend();
        let later = wrote + Duration::from_millis(10) + silent;
        path.resume(MEBIBYTE + MEBIBYTE / 2, later).unwrap(); // half of that was here
        path.goes_again(MEBIBYTE / 2);
        path.went_again(MEBIBYTE / 2);
        path.poll_output(later);
        let doubted_at = loop {
            let at = path.poll_timeout();
            path.handle_timeout(at).unwrap();
            if path.is_doubted() {
                break at;
            }
        };
        let found = doubted_at - later;
        assert_eq!(found < ACK_WITHIN, believed, "after {silent:?}: {found:?}");
    }
}

#[test]
fn the_first_answer_on_a_connection_may_take_what_that_took_to_be_made() {
    let (start, took) = (Instant::now(), Duration::from_millis(1400));
    let mut path = watchful(Duration::from_millis(5), start);
    let later = start + Duration::from_secs(1);
    path.suspend();
    path.resume(0, later).unwrap();
    path.made_within(took);
    assert_eq!(path.patience(), took);
    assert!(matches!(path.poll_output(later), Some(Payload::Ping(..))));
    let Ping::Sent { nonce, .. } = path.ping else { panic!("it was to ask") };
    path.handle_timeout(later + took - Duration::from_millis(1)).unwrap();
    assert!(!path.is_doubted());
    path.heard(later + Duration::from_millis(5));
    assert!(path.ponged(nonce, later + Duration::from_millis(5)));
    assert_eq!(path.patience(), SOONEST);
}

#[test]
fn an_answer_that_came_behind_a_download_is_forgotten_with_it() {
    let start = Instant::now();
    let mut path = watchful(Duration::from_millis(5), start);
    let asked = start + Duration::from_secs(2);
    path.probe(asked);
    assert!(matches!(path.poll_output(asked), Some(Payload::Ping(2, _))));
    for number in 1..=40 {
        let now = asked + Duration::from_millis(100) * number;
        path.heard(now);
        path.received(&data(1012 * (number - 1), 1000)).unwrap();
        path.handle_timeout(now).unwrap();
        path.poll_output(now); // what is due is said
    }
    let answered = asked + Duration::from_secs(4);
    assert!(path.ponged(2, answered));
    let again = answered + Duration::from_secs(2);
    path.probe(again);
    assert!(matches!(path.poll_output(again), Some(Payload::Ping(3, _))));
    path.heard(again + Duration::from_millis(5));
    assert!(path.ponged(3, again + Duration::from_millis(5)));
    assert_eq!(path.round_trip.patience(), SOONEST);
}

#[test]
fn an_answer_behind_a_queue_that_was_thought_shorter_teaches_nothing() {
    let start = Instant::now();
    let mut path = watchful(Duration::from_millis(20), start);
    let fast = start + Duration::from_secs(1);
    let after = |millis| fast + Duration::from_millis(millis);
    path.next(256 * 1024);
    path.transmitted(fast);
    path.heard(after(256)); // a megabyte a second
    path.acknowledged(256 * 1024 + HEADER_LEN as u32).unwrap();
    path.next(256 * 1024);
    path.transmitted(after(256));
    path.handle_timeout(after(506)).unwrap();
    assert!(matches!(path.poll_output(after(506)), Some(Payload::Ping(2, _))));
    let asked = after(506 + 2_580); // a tenth of that by now
    while path.poll_timeout() < asked {
        path.handle_timeout(path.poll_timeout()).unwrap();
    }
    path.heard(asked);
    path.acknowledged(2 * (256 * 1024 + HEADER_LEN as u32)).unwrap();
    assert!(path.ponged(2, asked));
    assert!(matches!(path.poll_output(asked), Some(Payload::Ping(3, _))), "it is asked again, behind nothing");
    path.heard(asked + Duration::from_millis(20));
    assert!(path.ponged(3, asked + Duration::from_millis(20)));
    assert_eq!(path.round_trip.patience(), SOONEST);
}

#[test]
fn an_idle_day_costs_less_than_a_megabyte() {
    // PING and PONG: frame, TLS record of 22 octets more, TCP and IPv6 with timestamps; plus one bare TCP ACK.
    let packet = HEADER_LEN + 12 + 22 + 72;
    let per_ping = 2 * packet + 72;
    let per_day = per_ping as u64 * (86_400 / Keepalive::CLIENT.ping_after.as_secs());

    assert!(per_day < 1_000_000, "{per_day} octets");
}
