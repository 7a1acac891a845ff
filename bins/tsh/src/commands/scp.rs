//! `tsh scp`: copies files from or to one server, over SFTP.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use remoteler_core::Login;
use remoteler_ssh::{CopyOptions, NoProgress, Progress, download, sftp_session, upload};

use super::{
    connect::{How, connect},
    login,
};
use crate::{
    cli,
    context::{Context, block_on},
    openssh::Family,
    terminal,
};

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    Local(PathBuf),
    Remote { account: Option<Login>, host: String, path: String },
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Copy {
    Upload { from: Vec<PathBuf>, account: Option<Login>, host: String, to: String },
    Download { account: Option<Login>, host: String, from: Vec<String>, to: PathBuf },
}

pub(crate) fn run(context: &Context, options: &cli::Scp) -> anyhow::Result<()> {
    let copy = plan(&options.paths)?;
    block_on(async {
        let login = login::ensure(context, false).await?;
        let cluster = context.cluster(&login)?;
        let how = How {
            family: Family::Any,
            timeout: None,
            keepalive: None,
            keepalive_max: None,
            quiet: options.quiet,
            batch: false,
            agent: None,
        };
        let (account, host) = match &copy {
            Copy::Upload { account, host, .. } | Copy::Download { account, host, .. } => (account.clone(), host),
        };
        let client = connect(context, &login, &cluster, host, account, how).await?;
        let sftp = sftp_session(client.subsystem("sftp").await?).await?;
        let copying = CopyOptions { recursive: options.recursive, preserve: options.preserve };
        let mut progress: Box<dyn Progress> =
            if options.quiet || !terminal::stdout_is_terminal() { Box::new(NoProgress) } else { Box::new(Bar::new()) };
        let copied = match &copy {
            Copy::Upload { from, to, .. } => upload(&sftp, from, to, copying, &mut *progress).await,
            Copy::Download { from, to, .. } => download(&sftp, from, to, copying, &mut *progress).await,
        };
        drop(progress);
        let _ = sftp.close().await;
        client.disconnect().await;
        anyhow::Ok(copied?)
    })?
}

fn plan(paths: &[PathBuf]) -> anyhow::Result<Copy> {
    let (target, sources) = paths.split_last().context("a source and a target are needed")?;
    let sources = sources.iter().map(|path| side(path)).collect::<anyhow::Result<Vec<_>>>()?;
    match side(target)? {
        Side::Remote { account, host, path: to } => {
            let mut from = Vec::new();
            for source in sources {
                let Side::Local(path) = source else {
                    bail!("copies from one server to another are not made; copy to this machine first");
                };
                from.push(path);
            }
            Ok(Copy::Upload { from, account, host, to })
        }
        Side::Local(to) => {
            let mut paths = Vec::new();
            let mut server: Option<(Option<Login>, String)> = None;
            for source in sources {
                let Side::Remote { account, host, path } = source else {
                    bail!("neither side is remote; write a remote path as [user@]host:path");
                };
                match &server {
                    Some(known) if *known != (account.clone(), host.clone()) => {
                        bail!("all sources must be on one server; copy from {host} in a second call");
                    }
                    _ => server = Some((account, host)),
                }
                paths.push(path);
            }
            let (account, host) = server.context("a source is needed")?;
            Ok(Copy::Download { account, host, from: paths, to })
        }
    }
}

/// Remote is what has a `:` before any `/`, as for scp(1).
fn side(path: &Path) -> anyhow::Result<Side> {
    let local = || Ok(Side::Local(path.to_owned()));
    let Some(text) = path.to_str() else { return local() };
    if text.starts_with("scp://") {
        bail!("{text}: URLs are not read; write [user@]host:path");
    }
    let colon = match text.strip_prefix('[') {
        Some(_) => text.find("]:").map(|at| at + 1),
        None => text.find(':'),
    };
    let Some(colon) = colon.filter(|at| !text.get(..*at).unwrap_or_default().contains('/')) else { return local() };
    let (server, path) = (text.get(..colon).unwrap_or_default(), text.get(colon + 1..).unwrap_or_default());
    let (account, host) = match server.rsplit_once('@') {
        Some((account, host)) => (Some(Login::new(account).with_context(|| format!("{text:?} names no login"))?), host),
        None => (None, server),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.starts_with('-') {
        bail!("{text:?} names no host; write a local path as ./{text}");
    }
    Ok(Side::Remote { account, host: host.to_owned(), path: path.to_owned() })
}

/// A progress bar: one line for each file, rewritten at most ten times a second.
struct Bar {
    name: String,
    size: u64,
    done: u64,
    begun: Instant,
    shown: Instant,
}

impl Bar {
    fn new() -> Self {
        let now = Instant::now();
        Self { name: String::new(), size: 0, done: 0, begun: now, shown: now }
    }

    fn show(&mut self, last: bool) {
        let now = Instant::now();
        self.shown = now;
        let width = usize::try_from(terminal::size().cols).unwrap_or(80).max(40);
        let figures = figures(self.done, self.size, now.duration_since(self.begun));
        let room = width.saturating_sub(figures.chars().count() + 2);
        let name: String = self.name.chars().take(room).collect();
        let end = if last { "\n" } else { "" };
        let mut out = io::stdout().lock();
        let _ = write!(out, "\r{name:<room$} {figures}{end}").and_then(|()| out.flush());
    }
}

impl Progress for Bar {
    fn begin(&mut self, name: &str, size: u64) {
        *self = Self { name: name.to_owned(), size, ..Self::new() };
        self.show(false);
    }

    fn advance(&mut self, octets: u64) {
        self.done += octets;
        if self.shown.elapsed() >= Duration::from_millis(100) {
            self.show(false);
        }
    }

    fn end(&mut self) {
        self.show(true);
    }
}

/// ` 42%  1.5 MiB  12.0 MiB/s`
fn figures(done: u64, size: u64, elapsed: Duration) -> String {
    let percent = if size == 0 { 100 } else { (u128::from(done) * 100 / u128::from(size)).min(100) };
    #[expect(clippy::cast_precision_loss, reason = "it is shown with two digits")]
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "it is shown with two digits")]
    let done = done as f64;
    format!("{percent:>3}% {:>10} {:>10}/s", octets(done), octets(rate))
}

fn octets(count: f64) -> String {
    let mut count = count;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if count < 1024.0 {
            break;
        }
        count /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{count:.0} B") } else { format!("{count:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(account: Option<&str>, host: &str, path: &str) -> Side {
        Side::Remote {
            account: account.map(|account| Login::new(account).unwrap()),
            host: host.into(),
            path: path.into(),
        }
    }

    #[test]
    fn remote_is_what_has_a_colon_before_any_slash() {
        assert_eq!(side(Path::new("root@n:/etc/x:y")).unwrap(), remote(Some("root"), "n", "/etc/x:y"));
        assert_eq!(side(Path::new("n:")).unwrap(), remote(None, "n", ""));
        assert_eq!(side(Path::new("./a:b")).unwrap(), Side::Local("./a:b".into()));
        assert!(side(Path::new(":x")).is_err());
        assert!(side(Path::new("-oProxyCommand=x:y")).is_err());
    }

    #[test]
    fn a_copy_has_one_server() {
        let plan_of = |words: &[&str]| plan(&words.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert!(matches!(plan_of(&["a", "b", "n:dir"]).unwrap(), Copy::Upload { from, .. } if from.len() == 2));
        assert!(matches!(plan_of(&["n:a", "n:b", "."]).unwrap(), Copy::Download { from, .. } if from == ["a", "b"]));
        for wrong in [&["a", "b"][..], &["n:a", "m:b"], &["n:a", "m:b", "."], &["a", "n:b", "."]] {
            assert!(plan_of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn progress_is_shown_in_figures_people_read() {
        assert_eq!(figures(1_572_864, 3_145_728, Duration::from_secs(1)), " 50%    1.5 MiB    1.5 MiB/s");
        assert_eq!(figures(0, 0, Duration::ZERO), "100%        0 B        0 B/s");
    }
}
