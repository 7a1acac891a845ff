//! What the task that owns a connection learns from the SSH session inside it: that somebody logged in, or that it is time to go.

use std::pin::Pin;

use remoteler_core::{EndReason, LiveSignal};
use tokio::{
    sync::watch,
    time::{Instant, Sleep},
};

use crate::node::source_cap::Place;

#[derive(Clone, Debug)]
enum Phase {
    LoggingIn,
    /// A certificate was shown, and the user has until then to show a second factor.
    Proving(Instant),
    In(LiveSignal),
    Leaving,
}

/// Why a connection has to end.
#[derive(Debug)]
pub(super) enum Leave {
    /// It was refused, or nobody logged in.
    Refused,
    /// The rules ended it.
    Ended(EndReason),
}

/// The session's end. Holds the connection's place among those not logged in until it has.
pub(super) struct Gate {
    phase: watch::Sender<Phase>,
    waiting: Option<Place>,
}

/// The owner's end.
pub(super) struct Progress(watch::Receiver<Phase>);

pub(super) fn gate(waiting: Place) -> (Gate, Progress) {
    let (phase, progress) = watch::channel(Phase::LoggingIn);
    (Gate { phase, waiting: Some(waiting) }, Progress(progress))
}

impl Gate {
    pub(super) fn logged_in(&mut self, live: LiveSignal) {
        self.waiting = None;
        self.phase.send_replace(Phase::In(live));
    }

    pub(super) fn proving(&self, until: Instant) {
        self.phase.send_replace(Phase::Proving(until));
    }

    pub(super) fn leaving(&self) {
        self.phase.send_replace(Phase::Leaving);
    }
}

impl Progress {
    /// Waits until the connection has to end: it was refused, nobody logged in before `grace` was over, or the rules end it.
    pub(super) async fn must_leave(&mut self, grace: &mut Pin<&mut Sleep>) -> Leave {
        loop {
            let phase = self.0.borrow_and_update().clone();
            match phase {
                Phase::LoggingIn => tokio::select! {
                    () = &mut *grace => return Leave::Refused,
                    changed = self.0.changed() => if changed.is_err() { return std::future::pending().await },
                },
                Phase::Proving(until) => {
                    grace.as_mut().reset(until);
                    tokio::select! {
                        () = &mut *grace => return Leave::Refused,
                        changed = self.0.changed() => if changed.is_err() { return std::future::pending().await },
                    }
                }
                Phase::In(live) => tokio::select! {
                    reason = live.ended() => return Leave::Ended(reason),
                    changed = self.0.changed() => if changed.is_err() { return Leave::Ended(live.ended().await) },
                },
                Phase::Leaving => return Leave::Refused,
            }
        }
    }
}
