//! `tsh recordings ls`: recorded sessions that the user may see.

use remoteler_core::{AuthApi, RecordingInfo};

use crate::{
    context::{Context, block_on, remote_auth},
    output::{self, Format, Table},
};

pub(crate) fn run(context: &Context, format: Format) -> anyhow::Result<()> {
    let login = context.login()?;
    let mut recordings = block_on(async { anyhow::Ok(remote_auth(&login)?.recordings().await?) })??;
    recordings.sort_by_key(|recording| recording.started);
    output::print(format, &recordings[..], text)
}

fn text(recordings: &[RecordingInfo]) -> String {
    let mut table = Table::new(&["SESSION", "USER", "LOGIN", "NODE", "STARTED", "SIZE"]);
    for recording in recordings {
        let size = if recording.complete { recording.size.to_string() } else { format!("{} (live)", recording.size) };
        table.row([
            recording.session_id.to_string(),
            recording.user.clone(),
            recording.login.clone(),
            recording.node.clone(),
            recording.started.to_string(),
            size,
        ]);
    }
    table.into_text()
}
