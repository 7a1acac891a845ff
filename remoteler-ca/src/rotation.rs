//! The rotation of one authority as a pure machine: which phase may follow which, what it does to the keys, and for whom it waits.
//! Holds no key, reads no clock, writes nothing: `now` and what is known of the services come in, the next state goes out.
//!
//! ```text
//!            generate        swap               -                retire
//!  standby ──────────▶ init ──────▶ update_clients ──▶ update_servers ──────▶ standby
//!                       │ -               │ swap             │ swap              ▲
//!                       └────────────────▶└────▶ rollback ◀──┘      ─────────────┘ retire
//! ```

use std::time::Duration;

use remoteler_core::{RotationKind, RotationPhase, RotationPlan, RotationStatus, ServiceContact, Timestamp};
use serde::{Deserialize, Serialize};

/// A service that says every 30 s that it is there is offline when it was not heard of for this long; one that says so more seldom when another
/// run may speak for its host ([`remoteler_core::Heartbeat::silence`]).
pub const CONTACT: Duration = Duration::from_secs(90);
/// Shortest grace period of an automatic rotation.
pub const MIN_GRACE: Duration = Duration::from_secs(3);
/// Longest grace period of an automatic rotation: 90 days.
pub const MAX_GRACE: Duration = Duration::from_secs(90 * 86_400);

/// The state of one authority's rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    kind: RotationKind,
    phase: RotationPhase,
    since: Timestamp,
    plan: RotationPlan,
    generation: u64,
    /// When the rotation that goes on began; in standby the last one that was completed, unless it was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<Timestamp>,
}

/// What a step does to the two keys of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMove {
    /// A new key is made; it is believed, and does not sign yet.
    Generate,
    /// The key that signs and the other one change places.
    Swap,
    /// Both stay as they are.
    Keep,
    /// The key that does not sign is believed no longer, and destroyed.
    Retire,
}

/// A step that may be taken: made by [`Rotation::step`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    next: Rotation,
    keys: KeyMove,
    passed_over: Vec<ServiceContact>,
}

impl Step {
    /// The state afterwards.
    #[must_use]
    pub const fn next(&self) -> &Rotation {
        &self.next
    }

    /// What becomes of the keys.
    #[must_use]
    pub const fn keys(&self) -> KeyMove {
        self.keys
    }

    /// Services that have not acknowledged the phase before, and may be locked out.
    #[must_use]
    pub fn passed_over(&self) -> &[ServiceContact] {
        &self.passed_over
    }
}

/// Why a step is not taken. Nothing has changed in any of these cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// The phase does not follow the present one.
    #[error("the {} authority is in phase {present}; {wanted} cannot follow, {} can", .kind.as_str(), alternatives(.present))]
    Order {
        /// Which authority.
        kind: RotationKind,
        /// Where it stands.
        present: RotationPhase,
        /// What was asked for.
        wanted: RotationPhase,
    },
    /// Services do not act by the present phase yet.
    #[error(
        "phase {present} of the {} authority is not acknowledged by {}; wait for them, or pass over them with --force, which may lock them out",
        .kind.as_str(), names(.missing)
    )]
    Unacknowledged {
        /// Which authority.
        kind: RotationKind,
        /// Where it stands.
        present: RotationPhase,
        /// Who is missing.
        missing: Vec<ServiceContact>,
    },
    /// A grace period that is none.
    #[error("a grace period of {seconds} seconds is refused; {} seconds to {} days are allowed", MIN_GRACE.as_secs(), MAX_GRACE.as_secs() / 86_400)]
    Grace {
        /// What was asked for.
        seconds: u64,
    },
    /// An automatic rotation can only be begun.
    #[error("an automatic rotation begins with phase {}; the {} authority is in phase {present}", RotationPhase::Init, .kind.as_str())]
    Automatic {
        /// Which authority.
        kind: RotationKind,
        /// Where it stands.
        present: RotationPhase,
    },
}

impl Rotation {
    /// Nothing going on.
    #[must_use]
    pub const fn standby(kind: RotationKind, generation: u64, now: Timestamp) -> Self {
        Self { kind, phase: RotationPhase::Standby, since: now, plan: RotationPlan::Manual, generation, begun: None }
    }

    /// Which authority.
    #[must_use]
    pub const fn kind(&self) -> RotationKind {
        self.kind
    }

    /// Where it stands.
    #[must_use]
    pub const fn phase(&self) -> RotationPhase {
        self.phase
    }

    /// What services must acknowledge before it goes on.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// When the rotation that goes on began: who signed before then was not the new authority.
    #[must_use]
    pub fn begun(&self) -> Option<Timestamp> {
        self.begun.filter(|_| self.phase != RotationPhase::Standby)
    }

    /// Whoever signed before this time is believed no longer: the begin of the last rotation that was completed. Unknown while one goes on.
    #[must_use]
    pub fn retired_before(&self) -> Option<Timestamp> {
        self.begun.filter(|_| self.phase == RotationPhase::Standby)
    }

    /// Checks a step that somebody asks for. `generation` is the one that the cluster will have afterwards, greater than all before.
    ///
    /// Forward steps, and the end of a rollback, need the acknowledgement of every service in `services`, or `force`. Rolling back
    /// needs none: it goes back to what everybody believes.
    ///
    /// # Errors
    /// [`RotationError`] says what stands against it.
    pub fn step(
        &self,
        wanted: RotationPhase,
        plan: RotationPlan,
        services: &[ServiceContact],
        force: bool,
        generation: u64,
        now: Timestamp,
    ) -> Result<Step, RotationError> {
        if let RotationPlan::Automatic { grace_seconds } = plan {
            if wanted != RotationPhase::Init {
                return Err(RotationError::Automatic { kind: self.kind, present: self.phase });
            }
            if !(MIN_GRACE..=MAX_GRACE).contains(&Duration::from_secs(grace_seconds)) {
                return Err(RotationError::Grace { seconds: grace_seconds });
            }
        }
        let missing: Vec<_> = if wanted == RotationPhase::Rollback { Vec::new() } else { self.missing(services) };
        let step = self.to(wanted, plan, missing, generation, now)?;
        if !force && !step.passed_over.is_empty() {
            return Err(RotationError::Unacknowledged {
                kind: self.kind,
                present: self.phase,
                missing: step.passed_over,
            });
        }
        Ok(step)
    }

    /// The step that an automatic rotation takes by itself at `now`, if one is due: a third of the grace period is over and every
    /// service that is in contact has acknowledged. Those that are not in contact are passed over. A rollback ends as soon as
    /// everybody in contact is back.
    #[must_use]
    pub fn due(&self, services: &[ServiceContact], generation: u64, now: Timestamp) -> Option<Step> {
        let RotationPlan::Automatic { grace_seconds } = self.plan else { return None };
        let next = forward(self.phase)?;
        let share = match self.phase {
            RotationPhase::Rollback => Duration::ZERO,
            RotationPhase::Standby
            | RotationPhase::Init
            | RotationPhase::UpdateClients
            | RotationPhase::UpdateServers => Duration::from_secs(grace_seconds) / 3,
        };
        if self.phase == RotationPhase::Standby || now.since(self.since) < share {
            return None;
        }
        let (connected, offline): (Vec<_>, Vec<_>) =
            self.missing(services).into_iter().partition(|service| in_contact(service, now));
        if !connected.is_empty() {
            return None;
        }
        self.to(next, self.plan, offline, generation, now).ok()
    }

    /// What an administrator is shown; where the keys lie is for whoever has them to add.
    #[must_use]
    pub fn status(&self, services: &[ServiceContact], now: Timestamp) -> RotationStatus {
        let missing = if self.phase == RotationPhase::Standby { Vec::new() } else { self.missing(services) };
        let (waiting, offline) = missing.into_iter().partition(|service| in_contact(service, now));
        RotationStatus {
            kind: self.kind,
            phase: self.phase,
            since: self.since,
            plan: self.plan,
            generation: self.generation,
            waiting,
            offline,
            keys: Vec::new(),
        }
    }

    fn to(
        &self,
        wanted: RotationPhase,
        plan: RotationPlan,
        passed_over: Vec<ServiceContact>,
        generation: u64,
        now: Timestamp,
    ) -> Result<Step, RotationError> {
        use RotationPhase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
        let keys = match (self.phase, wanted) {
            (Standby, Init) => KeyMove::Generate,
            (Init, UpdateClients) | (UpdateClients | UpdateServers, Rollback) => KeyMove::Swap,
            (UpdateClients, UpdateServers) | (Init, Rollback) => KeyMove::Keep,
            (UpdateServers | Rollback, Standby) => KeyMove::Retire,
            (Standby, Standby | UpdateClients | UpdateServers | Rollback)
            | (Init, Standby | Init | UpdateServers)
            | (UpdateClients, Standby | Init | UpdateClients)
            | (UpdateServers, Init | UpdateClients | UpdateServers)
            | (Rollback, Init | UpdateClients | UpdateServers | Rollback) => {
                return Err(RotationError::Order { kind: self.kind, present: self.phase, wanted });
            }
        };
        let plan = if wanted == Standby { RotationPlan::Manual } else { plan };
        // Nobody waits for a service to believe less: what is missing at the begin of a rotation is of the one before.
        let passed_over = if self.phase == Standby { Vec::new() } else { passed_over };
        let begun = match (self.phase, wanted) {
            (Standby, _) => Some(now),
            // The authority of before is still there.
            (Rollback, Standby) => None,
            (Rollback | Init | UpdateClients | UpdateServers, _) => self.begun,
        };
        let next = Self { kind: self.kind, phase: wanted, since: now, plan, generation, begun };
        Ok(Step { next, keys, passed_over })
    }

    fn missing(&self, services: &[ServiceContact]) -> Vec<ServiceContact> {
        services.iter().filter(|service| service.generation < self.generation).cloned().collect()
    }
}

fn in_contact(service: &ServiceContact, now: Timestamp) -> bool {
    now.since(service.last_contact) <= service.heartbeat.silence().max(CONTACT)
}

const fn forward(phase: RotationPhase) -> Option<RotationPhase> {
    match phase {
        RotationPhase::Standby => None,
        RotationPhase::Init => Some(RotationPhase::UpdateClients),
        RotationPhase::UpdateClients => Some(RotationPhase::UpdateServers),
        RotationPhase::UpdateServers | RotationPhase::Rollback => Some(RotationPhase::Standby),
    }
}

fn alternatives(phase: &RotationPhase) -> &'static str {
    match phase {
        RotationPhase::Standby => "init",
        RotationPhase::Init => "update_clients or rollback",
        RotationPhase::UpdateClients => "update_servers or rollback",
        RotationPhase::UpdateServers => "standby or rollback",
        RotationPhase::Rollback => "standby",
    }
}

/// Names for one line: at most ten.
fn names(services: &[ServiceContact]) -> String {
    const SHOWN: usize = 10;
    let mut text = services
        .iter()
        .take(SHOWN)
        .map(|service| format!("{} (last heard of at {})", service.name, service.last_contact))
        .collect::<Vec<_>>()
        .join(", ");
    if services.len() > SHOWN {
        text.push_str(&format!(" and {} more", services.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests;
