//! What keeps the audit log of an auth service in this process: checkpoints and their witnesses, retention, and shipping. Owns when these happen;
//! what is signed and what may be removed the auth service decides. Nothing that is audited waits for any of it.

mod file;
mod http;
mod syslog;
mod witness;

use std::time::Duration;

use async_trait::async_trait;
use remoteler_auth::{AuthService, ShippedEvent, Shipper};
use remoteler_core::with_causes;
use tokio::io::AsyncWriteExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    file::FileShipper,
    http::{HttpShipper, Poster},
    syslog::SyslogShipper,
    witness::Witness,
};
use crate::config::{AuditSettings, ShipPlace};

/// Starts all of it in `tasks`; it ends with `stop`, after a last checkpoint.
pub(crate) fn start(
    service: &AuthService,
    settings: &AuditSettings,
    hostname: &str,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let witnesses = settings.witnesses.iter().map(Witness::new).collect::<anyhow::Result<Vec<_>>>()?;
    tasks.spawn(checkpoints(service.clone(), witnesses, stop.clone()));
    if let Some(retention) = settings.retention {
        let service = service.clone();
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(remove_old(service, retention)).await });
    }
    for place in &settings.ships {
        let mut shipper: Box<dyn Shipper> = match place {
            ShipPlace::Stdout => Box::new(Stdout),
            ShipPlace::File { path, max_size, keep } => Box::new(FileShipper::new(path.clone(), *max_size, *keep)),
            ShipPlace::Syslog(place) => Box::new(SyslogShipper::new(place.clone(), hostname)),
            ShipPlace::Http { url, token_file } => Box::new(HttpShipper(Poster::new(url, token_file.clone())?)),
        };
        let (service, name, stop) = (service.clone(), place.name(), stop.clone());
        tasks.spawn(async move { service.ship(&name, &mut *shipper, stop).await });
    }
    Ok(())
}

/// Signs checkpoints and shows them to the witnesses, at once, each minute, and at the end.
async fn checkpoints(service: AuthService, mut witnesses: Vec<Witness>, stop: CancellationToken) {
    loop {
        sign(&service, &mut witnesses).await;
        if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return sign(&service, &mut witnesses).await;
        }
    }
}

async fn sign(service: &AuthService, witnesses: &mut [Witness]) {
    let note = match service.sign_checkpoint().await {
        Ok(note) => note,
        Err(cause) => return tracing::error!(cause = with_causes(&cause), "no checkpoint of the audit log was signed"),
    };
    for witness in witnesses {
        witness.show(&note).await;
    }
}

/// Removes what is older than it is kept, looking once an hour.
async fn remove_old(service: AuthService, retention: Duration) {
    loop {
        match service.remove_old_events(retention).await {
            // There may be more.
            Ok(removed) if removed > 0 => tracing::info!(removed, "old audit events were removed"),
            Ok(_) => tokio::time::sleep(LOOK_FOR_OLD).await,
            Err(cause) => {
                tracing::error!(cause = with_causes(&cause), "old audit events were not removed");
                tokio::time::sleep(LOOK_FOR_OLD).await;
            }
        }
    }
}

/// Lines of JSON on standard output.
struct Stdout;

#[async_trait]
impl Shipper for Stdout {
    async fn ship(&mut self, batch: &[ShippedEvent]) -> Result<(), String> {
        let mut out = tokio::io::stdout();
        let written = async {
            out.write_all(&lines(batch)).await?;
            out.flush().await
        };
        written.await.map_err(|cause| format!("standard output cannot be written: {cause}"))
    }
}

/// Events as lines of JSON.
fn lines(batch: &[ShippedEvent]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(batch.iter().map(|event| event.text.len() + 1).sum());
    for event in batch {
        lines.extend_from_slice(event.text.as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// Events that tests ship.
#[cfg(test)]
fn events(numbers: std::ops::RangeInclusive<u64>) -> Vec<ShippedEvent> {
    let event = |seq| ShippedEvent {
        seq,
        time: remoteler_core::Timestamp::from_unix_millis(1_772_366_400_123),
        event: "user.login".into(),
        failed: seq % 2 == 0,
        text: format!("{{\"event\":\"user.login\",\"uid\":{seq}}}"),
    };
    numbers.map(event).collect()
}

/// How often a checkpoint is signed.
const EVERY: Duration = Duration::from_secs(60);
/// How often it is looked for old events.
const LOOK_FOR_OLD: Duration = Duration::from_secs(3600);
