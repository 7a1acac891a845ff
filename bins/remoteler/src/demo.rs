//! `remoteler demo`: a cluster in this process, an edge node in another, a user, sessions on both, and the story of it.
//! Everything goes the way it goes for users; nothing is faked and nothing outside the demo's directory is written.

mod cluster;
mod edge;
mod kube;
mod story;
mod visitor;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use remoteler_core::{AuditEvent, AuthApi, EventQuery, SSH_PARSER_STACK, SessionId};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use self::{cluster::DemoCluster, edge::EdgeProcess, story::Story, visitor::Visitor};
use crate::cli::DemoArgs;

/// Runs the command.
///
/// # Errors
/// The first step of the story that did not work.
pub fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    crate::logging::init(crate::config::LogSettings {
        level: tracing::level_filters::LevelFilter::WARN,
        format: crate::config::LogFormat::Text,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(SSH_PARSER_STACK)
        .build()
        .context("no threads can be started")?;
    runtime.block_on(run(args))
}

async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let place = Place::new(args.data_dir.clone())?;
    let mut story = Story::new(&place.dir);
    let [mut interrupt, mut terminate, mut hang_up] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    // However it is ended, the edge node ends with it and the directory goes.
    tokio::select! {
        told = tell(&args, &place, &mut story) => told?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn tell(args: &DemoArgs, place: &Place, story: &mut Story) -> anyhow::Result<()> {
    let cluster =
        DemoCluster::start(&place.dir, args.kubeconfig.as_deref()).await.context("the cluster did not start")?;
    story.cluster(&cluster);

    let edge = EdgeProcess::start(&cluster, &place.dir).await.context("the edge node did not start")?;
    edge.wait_connected().await.context("the edge node did not connect")?;
    story.edge(&edge);

    let ann = Visitor::create(&cluster, &place.dir).await.context("the user could not log in")?;
    story.user(&ann);

    for node in [DemoCluster::NODE, EdgeProcess::NAME] {
        let command = "uname -sr; id -un";
        let (status, output) =
            ann.run(node, command, false).await.with_context(|| format!("the command on {node} failed"))?;
        anyhow::ensure!(status == 0, "the command on {node} ended with status {status}: {output}");
        story.command(node, command, &output);
    }
    let command = "echo \"this terminal is recorded, $(id -un)\"; tty";
    let (status, output) = ann.run(EdgeProcess::NAME, command, true).await.context("the terminal session failed")?;
    anyhow::ensure!(status == 0, "the terminal session ended with status {status}: {output}");
    story.terminal(EdgeProcess::NAME, command, &output);

    if args.kubeconfig.is_some() {
        let pods = kube::pods(&cluster, &ann).await.context("the pods could not be listed")?;
        story.pods(&pods);
    }

    let recording = recording(&*cluster.admin).await?;
    story.recording(&recording.0, &recording.1);
    let events = events(&*cluster.admin).await?;
    story.events(&events);

    if args.once {
        story.done();
    } else {
        story.try_it(&cluster, &edge, &ann)?;
        std::future::pending::<()>().await;
    }
    edge.stop().await;
    cluster.stop().await;
    Ok(())
}

/// Waits until the recording of the edge node's session has arrived; its id and text.
async fn recording(admin: &dyn AuthApi) -> anyhow::Result<(SessionId, String)> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(info) = admin.recordings().await?.into_iter().find(|info| info.complete) {
            let cast = admin.read_recording(info.session_id, 0).await?;
            return Ok((info.session_id, story::plain_text(&cast)?));
        }
        anyhow::ensure!(Instant::now() < end, "the recording did not arrive within 20 s");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the events of the three sessions' ends have arrived; all events.
async fn events(admin: &dyn AuthApi) -> anyhow::Result<Vec<AuditEvent>> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let events = admin.events(EventQuery { limit: Some(60), ..EventQuery::default() }).await?;
        if events.iter().filter(|event| event.name() == "session.end").count() >= 3 {
            return Ok(events);
        }
        anyhow::ensure!(Instant::now() < end, "the audit events did not arrive within 20 s");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Where the demo lives: a directory that was named, or one that goes with the demo.
struct Place {
    dir: PathBuf,
    temporary: bool,
}

impl Place {
    fn new(named: Option<PathBuf>) -> anyhow::Result<Self> {
        match named {
            Some(dir) => {
                std::fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
                Ok(Self { dir: std::fs::canonicalize(dir)?, temporary: false })
            }
            None => {
                // Short, because the paths of local sockets in it have at most 107 octets.
                let dir = std::env::temp_dir().join(format!("remoteler-demo-{}", std::process::id()));
                std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
                    .create(&dir)
                    .with_context(|| format!("{} cannot be made", dir.display()))?;
                Ok(Self { dir, temporary: true })
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary {
            // What is left is in the system's temporary directory.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
