use proptest::prelude::*;
use remoteler_core::{Heartbeat, HostId, NodeName};

use super::*;
use RotationPhase::{Init, Rollback, Standby, UpdateClients, UpdateServers};

const MANUAL: RotationPlan = RotationPlan::Manual;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000 + seconds)
}

fn service(number: u8, generation: u64, last_contact: Timestamp) -> ServiceContact {
    ServiceContact {
        host_id: format!("00000000-0000-4000-8000-0000000000{number:02}").parse::<HostId>().unwrap(),
        name: NodeName::new(format!("node-{number}")).unwrap(),
        roles: [].into(),
        generation,
        last_contact,
        heartbeat: Heartbeat::default(),
    }
}

fn standby() -> Rotation {
    Rotation::standby(RotationKind::Host, 1, at(0))
}

/// Goes there with nobody to wait for.
fn reach(phases: &[RotationPhase]) -> Rotation {
    phases.iter().fold(standby(), |rotation, phase| {
        let generation = rotation.generation() + 1;
        rotation.step(*phase, MANUAL, &[], false, generation, at(0)).unwrap().next
    })
}

fn paths() -> [(RotationPhase, Vec<RotationPhase>); 5] {
    [
        (Standby, vec![]),
        (Init, vec![Init]),
        (UpdateClients, vec![Init, UpdateClients]),
        (UpdateServers, vec![Init, UpdateClients, UpdateServers]),
        (Rollback, vec![Init, UpdateClients, Rollback]),
    ]
}

#[test]
fn each_phase_is_followed_by_those_of_the_plan_and_no_others() {
    let allowed = [
        (Standby, Init, KeyMove::Generate),
        (Init, UpdateClients, KeyMove::Swap),
        (Init, Rollback, KeyMove::Keep),
        (UpdateClients, UpdateServers, KeyMove::Keep),
        (UpdateClients, Rollback, KeyMove::Swap),
        (UpdateServers, Standby, KeyMove::Retire),
        (UpdateServers, Rollback, KeyMove::Swap),
        (Rollback, Standby, KeyMove::Retire),
    ];
    for (present, path) in paths() {
        for wanted in [Standby, Init, UpdateClients, UpdateServers, Rollback] {
            let rotation = reach(&path);
            let expected = allowed.iter().find(|(from, to, _)| (*from, *to) == (present, wanted));
            // Force passes over services, never over the order.
            let found = rotation.step(wanted, MANUAL, &[], true, 99, at(1));
            assert_eq!(
                found.as_ref().ok().map(Step::keys),
                expected.map(|(_, _, keys)| *keys),
                "{present} to {wanted}"
            );
            match found {
                Ok(step) => assert_eq!((step.next.phase(), step.next.generation()), (wanted, 99)),
                Err(refused) => {
                    assert!(refused.to_string().contains(&format!("{wanted} cannot follow")), "{refused}");
                }
            }
        }
    }
}

#[test]
fn a_phase_waits_for_every_service_and_names_who_is_missing() {
    let rotation = reach(&[Init]);
    let late = service(7, rotation.generation() - 1, at(-600));
    let there = service(8, rotation.generation(), at(0));
    let refused =
        rotation.step(UpdateClients, MANUAL, &[late.clone(), there.clone()], false, 9, at(1)).unwrap_err().to_string();
    assert!(refused.contains("node-7 (last heard of at 2027-01-15T07:50:00"), "{refused}");
    assert!(!refused.contains("node-8"), "{refused}");

    let forced = rotation.step(UpdateClients, MANUAL, &[late.clone(), there], true, 9, at(1)).unwrap();
    assert_eq!(forced.passed_over(), [late]);
}

#[test]
fn rolling_back_waits_for_nobody_and_its_end_waits_for_everybody() {
    for (present, path) in paths() {
        if !matches!(present, Init | UpdateClients | UpdateServers) {
            continue;
        }
        let rotation = reach(&path);
        let nobody_followed = [service(1, 0, at(0))];
        let back = rotation.step(Rollback, MANUAL, &nobody_followed, false, 9, at(1)).unwrap();
        assert!(back.passed_over().is_empty());
        let end = back.next.step(Standby, MANUAL, &nobody_followed, false, 10, at(2));
        assert!(matches!(end, Err(RotationError::Unacknowledged { .. })), "from {present}");
        assert!(back.next.step(Standby, MANUAL, &[service(1, 9, at(0))], false, 10, at(2)).is_ok());
    }
}

#[test]
fn a_rotation_begins_whoever_is_away() {
    let step = standby().step(Init, MANUAL, &[service(1, 0, at(-9_999_999))], false, 2, at(0)).unwrap();
    assert!(step.passed_over().is_empty());
}

#[test]
fn an_automatic_rotation_goes_through_its_phases_in_thirds_of_the_grace_period() {
    let plan = RotationPlan::Automatic { grace_seconds: 300 };
    let mut rotation = standby().step(Init, plan, &[], false, 2, at(0)).unwrap().next;
    let mut seen = vec![rotation.phase()];
    for second in 0..=300 {
        // This one acknowledges at once, that one was switched off long ago.
        let services = [service(1, rotation.generation(), at(second)), service(2, 0, at(-9000))];
        if let Some(step) = rotation.due(&services, rotation.generation() + 1, at(second)) {
            assert_eq!(second % 100, 0, "{:?}", step.next);
            assert_eq!(step.passed_over().len(), 1);
            rotation = step.next;
            seen.push(rotation.phase());
        }
    }
    assert_eq!(seen, [Init, UpdateClients, UpdateServers, Standby]);
    assert_eq!(rotation.due(&[], 99, at(99_999)), None, "a rotation that is over begins no other");
}

#[test]
fn an_automatic_rotation_waits_for_a_service_that_is_in_contact_however_long() {
    let plan = RotationPlan::Automatic { grace_seconds: 300 };
    let rotation = standby().step(Init, plan, &[], false, 2, at(0)).unwrap().next;
    let slow = |now| [service(1, 1, now)];
    assert_eq!(rotation.due(&slow(at(100_000)), 3, at(100_000)), None);
    assert!(rotation.due(&slow(at(0)), 3, at(100_000)).is_some(), "it was switched off meanwhile");
    let status = rotation.status(&slow(at(100_000)), at(100_000));
    assert_eq!((status.waiting.len(), status.offline.len()), (1, 0));
    let status = rotation.status(&slow(at(0)), at(100_000));
    assert_eq!((status.waiting.len(), status.offline.len()), (0, 1));
}

#[test]
fn a_service_that_speaks_seldom_is_waited_for_until_another_run_may_speak_for_it() {
    let plan = RotationPlan::Automatic { grace_seconds: 300 };
    let rotation = standby().step(Init, plan, &[], false, 2, at(0)).unwrap().next;
    for (heartbeat, silence) in [(30, 90), (300, 480), (1800, 2730)] {
        let services = [ServiceContact { heartbeat: Heartbeat::from(heartbeat), ..service(1, 1, at(10_000)) }];
        for (seconds, waited_for) in [(200.min(silence), true), (silence, true), (silence + 1, false)] {
            let now = at(10_000 + seconds);
            assert_eq!(rotation.due(&services, 3, now).is_none(), waited_for, "{heartbeat} {seconds}");
            let status = rotation.status(&services, now);
            let expected = if waited_for { (1, 0) } else { (0, 1) };
            assert_eq!((status.waiting.len(), status.offline.len()), expected, "{heartbeat} {seconds}");
        }
    }
}

#[test]
fn a_manual_step_makes_the_rest_of_an_automatic_rotation_manual() {
    let plan = RotationPlan::Automatic { grace_seconds: 300 };
    let rotation = standby().step(Init, plan, &[], false, 2, at(0)).unwrap().next;
    let taken_over = rotation.step(UpdateClients, MANUAL, &[], false, 3, at(1)).unwrap().next;
    assert_eq!(taken_over.due(&[], 4, at(99_999)), None);
}

#[test]
fn a_grace_period_outside_of_its_limits_is_refused() {
    for seconds in [0, 2, 90 * 86_400 + 1, u64::MAX] {
        let plan = RotationPlan::Automatic { grace_seconds: seconds };
        let refused = standby().step(Init, plan, &[], false, 2, at(0)).unwrap_err();
        assert_eq!(refused, RotationError::Grace { seconds });
    }
    let late = reach(&[Init]).step(UpdateClients, RotationPlan::Automatic { grace_seconds: 300 }, &[], false, 3, at(0));
    assert!(matches!(late, Err(RotationError::Automatic { .. })));
}

/// What a key of the authority can be, followed through a run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Keys {
    signs: u32,
    other: Option<u32>,
}

fn moved(keys: Keys, how: KeyMove, fresh: u32) -> Keys {
    match how {
        KeyMove::Generate => Keys { other: Some(fresh), ..keys },
        KeyMove::Swap => Keys { signs: keys.other.expect("there are two"), other: Some(keys.signs) },
        KeyMove::Keep => keys,
        KeyMove::Retire => Keys { other: None, ..keys },
    }
}

proptest! {
    /// Whatever is asked for, in whatever order: a service that follows each generation never meets a signature of a key that it does
    /// not believe, and after each return to standby one key is left.
    #[test]
    fn who_follows_is_never_locked_out(wanted in prop::collection::vec(0_usize..5, 0..60)) {
        let phases = [Standby, Init, UpdateClients, UpdateServers, Rollback];
        let mut rotation = standby();
        let mut keys = Keys { signs: 0, other: None };
        let mut believed = vec![0];
        for (number, choice) in wanted.into_iter().enumerate() {
            let follower = [service(1, rotation.generation(), at(0))];
            let generation = rotation.generation() + 1;
            let Ok(step) = rotation.step(phases[choice], MANUAL, &follower, false, generation, at(0)) else { continue };
            keys = moved(keys, step.keys(), u32::try_from(number).unwrap() + 1);
            // What signs after the step was believed before the step.
            prop_assert!(believed.contains(&keys.signs), "{:?} {:?}", step, believed);
            believed = std::iter::once(keys.signs).chain(keys.other).collect();
            rotation = step.next;
            prop_assert_eq!(rotation.phase() == Standby, keys.other.is_none());
            prop_assert_eq!(rotation.generation(), generation);
        }
    }
}

#[test]
fn what_signed_before_a_rotation_is_gone_when_it_is_completed_and_not_when_it_is_rolled_back() {
    let go = |rotation: Rotation, phase, second| {
        rotation.step(phase, MANUAL, &[], false, rotation.generation() + 1, at(second)).unwrap().next
    };
    let mut rotation = go(standby(), Init, 10);
    for (second, phase) in [(20, UpdateClients), (30, UpdateServers)] {
        rotation = go(rotation, phase, second);
        assert_eq!((rotation.begun(), rotation.retired_before()), (Some(at(10)), None), "{phase}");
    }
    let done = go(rotation.clone(), Standby, 40);
    assert_eq!((done.begun(), done.retired_before()), (None, Some(at(10))));
    let back = go(go(rotation, Rollback, 40), Standby, 50);
    assert_eq!((back.begun(), back.retired_before()), (None, None));
    // Records of before there was such a time are read, and what is read is what was written.
    assert!(!serde_json::to_string(&standby()).unwrap().contains("begun"));
    let again: Rotation = serde_json::from_str(&serde_json::to_string(&done).unwrap()).unwrap();
    assert_eq!(again, done);
}
