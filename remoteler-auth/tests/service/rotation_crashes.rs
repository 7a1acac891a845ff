//! The auth service dies at each write that a step of a rotation makes, before it or after it: the next start is in the old phase or in
//! the new one, with the keys of that phase, and the rotation goes on from there.

use remoteler_auth::{AuthService, Caller};
use remoteler_core::{RotateRequest, RotationKind, RotationPhase, RotationPlan, TrustBundle};

use crate::mortal::{Death, Machine};

use RotationPhase::{Init, Rollback, Standby, UpdateClients, UpdateServers};

async fn step(service: &AuthService, kind: RotationKind, phase: RotationPhase) -> bool {
    let request = RotateRequest { kind, phase, plan: RotationPlan::Manual, force: false };
    service.as_caller(Caller::LocalAdmin).rotate(request).await.is_ok()
}

fn phase(trust: &TrustBundle, kind: RotationKind) -> RotationPhase {
    match kind {
        RotationKind::User => trust.rotation.user,
        RotationKind::Host => trust.rotation.host,
        RotationKind::Token => trust.rotation.token,
    }
}

fn keys(trust: &TrustBundle, kind: RotationKind) -> Vec<String> {
    let set = |set: &remoteler_core::CaSet| {
        assert_eq!(set.ssh.len(), set.x509.len());
        set.ssh.iter().map(|key| key.to_openssh().unwrap()).collect()
    };
    match kind {
        RotationKind::User => set(&trust.user),
        RotationKind::Host => set(&trust.host),
        RotationKind::Token => trust.tokens.iter().map(|key| key.key_id().to_owned()).collect(),
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_write_of_a_step_is_in_one_phase_afterwards_and_goes_on() {
    let ways: [&[RotationPhase]; 2] =
        [&[Init, UpdateClients, UpdateServers, Standby], &[Init, UpdateClients, Rollback, Standby]];
    for kind in RotationKind::ALL {
        for way in ways {
            let machine = Machine::new();
            let first = machine.start().await;
            let original = keys(&first.trust_bundle(), kind);
            drop(first);
            for (number, wanted) in way.iter().enumerate() {
                let present = if number == 0 { Standby } else { way[number - 1] };
                let mut deaths = 0;
                // As many writes as the step makes: until one is counted that it does not come to.
                for write in 0.. {
                    let before = machine.start().await.trust_bundle();
                    let mut done = false;
                    for death in [Death::Before(write), Death::After(write)] {
                        let service = machine.start_to_die(death).await;
                        if step(&service, kind, *wanted).await {
                            done = true;
                            break;
                        }
                        deaths += 1;
                        drop(service);
                        let again = machine.start().await;
                        let trust = again.trust_bundle();
                        let there = phase(&trust, kind);
                        assert!([present, *wanted].contains(&there), "{kind:?} {wanted} {death:?}: {there}");
                        let number_of_keys = if there == Standby { 1 } else { 2 };
                        assert_eq!(keys(&trust, kind).len(), number_of_keys, "{kind:?} {there}");
                        if there == present {
                            assert_eq!(trust, before, "nothing of a step that was not taken");
                        } else {
                            done = true;
                            break;
                        }
                    }
                    if done {
                        break;
                    }
                }
                assert!(deaths > 0, "no write was found to die at");
                let again = machine.start().await;
                assert_eq!(phase(&again.trust_bundle(), kind), *wanted);
            }
            let last = machine.start().await;
            let is_back = keys(&last.trust_bundle(), kind) == original;
            assert_eq!(is_back, way.contains(&Rollback), "{kind:?}");
        }
    }
}
