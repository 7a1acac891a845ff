//! `tctl auth rotate`: takes steps of rotations, and tells what comes next and who is waited for.

use std::time::Duration;

use anyhow::Context;
use remoteler_core::{
    AuthApi, RotateRequest, RotationKind, RotationPhase, RotationPlan, RotationStatus, ServiceContact,
};

use super::Ttl;
use crate::{
    cli::{PhaseName, RotateKind},
    output::{Report, Table},
};

/// What is asked for.
pub(crate) enum Rotate {
    /// All phases by themselves.
    Automatic {
        /// How long that takes at least.
        grace: Ttl,
    },
    /// This phase.
    Manual {
        /// Which.
        phase: PhaseName,
        /// Over services that have not followed.
        force: bool,
    },
}

/// Begins a rotation, or takes its next step.
pub(crate) async fn rotate(api: &dyn AuthApi, kind: RotateKind, wanted: Rotate) -> anyhow::Result<Report> {
    let (phase, plan, force) = match wanted {
        Rotate::Automatic { grace } => {
            (RotationPhase::Init, RotationPlan::Automatic { grace_seconds: grace.0.as_secs() }, false)
        }
        Rotate::Manual { phase, force } => (phase.into(), RotationPlan::Manual, force),
    };
    let mut done: Vec<RotationStatus> = Vec::new();
    for kind in kinds(kind) {
        let step = api.rotate(RotateRequest { kind: *kind, phase, plan, force }).await;
        done.push(step.with_context(|| match done.first() {
            None => "nothing was changed".to_owned(),
            Some(first) => format!(
                "the {} authority is in phase {} now, and no more was changed",
                first.kind.as_str(),
                first.phase
            ),
        })?);
    }
    let text: String = done.iter().map(|status| format!("{}\n{}", headline(status), next(status))).collect();
    Report::new(text, &done)
}

const fn kinds(kind: RotateKind) -> &'static [RotationKind] {
    match kind {
        RotateKind::User => &[RotationKind::User],
        RotateKind::Host => &[RotationKind::Host],
        RotateKind::Token => &[RotationKind::Token],
        RotateKind::All => &RotationKind::ALL,
    }
}

/// The phase, and who is waited for: for `tctl auth status`.
pub(crate) fn shown(statuses: &[RotationStatus]) -> String {
    let mut text = String::new();
    for status in statuses {
        text.push_str(&headline(status));
        let mut table = Table::new(["WAITING FOR", "HOST ID", "LAST HEARD OF", "STATE"]);
        let mut rows = 0;
        for (services, state) in [(&status.waiting, "in contact"), (&status.offline, "offline")] {
            for ServiceContact { name, host_id, last_contact, .. } in services {
                table.row([name.to_string(), host_id.to_string(), last_contact.to_string(), state.to_owned()]);
                rows += 1;
            }
        }
        if rows > 0 {
            text.push_str(&table.render());
        }
    }
    text
}

fn headline(status: &RotationStatus) -> String {
    let what = match status.kind {
        RotationKind::User => "Authority of users",
        RotationKind::Host => "Authority of hosts",
        RotationKind::Token => "Keys of identity tokens",
    };
    let plan = match status.plan {
        _ if status.phase == RotationPhase::Standby => return format!("{what}: no rotation.\n"),
        RotationPlan::Manual => "by hand".to_owned(),
        RotationPlan::Automatic { grace_seconds } => {
            let grace = humantime::format_duration(Duration::from_secs(grace_seconds)).to_string();
            format!("automatic, {} at least", grace.replace("day", " day"))
        }
    };
    format!("{what}: phase {} since {}, {plan}.\n", status.phase, status.since)
}

/// What the administrator does next.
fn next(status: &RotationStatus) -> String {
    let kind = status.kind.as_str();
    let step = |phase: &str| format!("tctl auth rotate --type {kind} --manual --phase {phase}");
    let back = step("rollback");
    match (status.phase, status.plan) {
        (RotationPhase::Standby, _) => "Certificates of the authority that is gone are refused from now on.\n".into(),
        (_, RotationPlan::Automatic { .. }) => {
            format!("It goes on by itself; watch it with: tctl auth status; undo it with: {back}\n")
        }
        (RotationPhase::Init, RotationPlan::Manual) => format!(
            "The new authority is being made known. When `tctl auth status` waits for nobody: {}; or undo it: {back}\n",
            step("update_clients")
        ),
        (RotationPhase::UpdateClients, RotationPlan::Manual) => format!(
            "The new authority signs. When everybody has logged in anew and nobody is waited for: {}; or undo it: {back}\n",
            step("update_servers")
        ),
        (RotationPhase::UpdateServers, RotationPlan::Manual) => format!(
            "Servers show the new authority. When nobody is waited for: {}; or undo it: {back}\n",
            step("standby")
        ),
        (RotationPhase::Rollback, RotationPlan::Manual) => {
            format!("The old authority signs again. When nobody is waited for: {}\n", step("standby"))
        }
    }
}

impl From<PhaseName> for RotationPhase {
    fn from(name: PhaseName) -> Self {
        match name {
            PhaseName::Init => Self::Init,
            PhaseName::UpdateClients => Self::UpdateClients,
            PhaseName::UpdateServers => Self::UpdateServers,
            PhaseName::Standby => Self::Standby,
            PhaseName::Rollback => Self::Rollback,
        }
    }
}
