//! Processes under measurement: started, looked at through `/proc`, and ended with their owner. Linux only.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};

/// A process in the background with its output in a file. Killed when dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(super) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Self { child: child.with_context(|| format!("{name} does not start"))?, log: log.to_owned() })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error with what it said, if it has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait()?.is_some();
        ensure!(!ended, "a daemon ended: {}", fs::read_to_string(&self.log).unwrap_or_default().trim());
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time, user and system, that a process and its children that were waited for have used so far (proc(5), `stat`).
pub(super) fn cpu(id: u32) -> anyhow::Result<Duration> {
    let fields = stat(id)?;
    let ticks = fields.iter().skip(11).take(4).map(|field| field.parse::<u64>()).sum::<Result<u64, _>>()?;
    Ok(ticks * TICK)
}

/// CPU time of all children of this process that ended: of the clients that were measured.
pub(super) fn cpu_of_ended_children() -> anyhow::Result<Duration> {
    let fields = stat(std::process::id())?;
    let ticks = fields.iter().skip(13).take(2).map(|field| field.parse::<u64>()).sum::<Result<u64, _>>()?;
    Ok(ticks * TICK)
}

/// Memory of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident set in KiB: shared pages count in full.
    pub(super) rss: u64,
    /// Proportional set in KiB: shared pages count by their share.
    pub(super) pss: u64,
}

pub(super) fn memory(id: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{id}/smaps_rollup");
    Ok(parse_memory(&fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?))
}

fn parse_memory(text: &str) -> Memory {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Memory { rss: value("Rss:").unwrap_or_default(), pss: value("Pss:").unwrap_or_default() }
}

/// File descriptors that a process has open.
pub(super) fn open_files(id: u32) -> anyhow::Result<usize> {
    let path = format!("/proc/{id}/fd");
    Ok(fs::read_dir(&path).with_context(|| format!("{path} cannot be read"))?.count())
}

/// Proportional memory in KiB of a process and everything below it, without what is called one of `except` and what is below that.
pub(super) fn tree_pss(root: u32, except: &[&str]) -> anyhow::Result<u64> {
    let mut children: BTreeMap<u32, Vec<(u32, String)>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while this looks at it.
        let (Ok(fields), Ok(name)) = (stat(id), fs::read_to_string(format!("/proc/{id}/comm"))) else { continue };
        let Some(parent) = fields.get(1).and_then(|field| field.parse().ok()) else { continue };
        children.entry(parent).or_default().push((id, name.trim().to_owned()));
    }
    let (mut sum, mut left) = (0, vec![root]);
    while let Some(id) = left.pop() {
        sum += memory(id).unwrap_or_default().pss;
        let below = children.get(&id).into_iter().flatten();
        left.extend(below.filter(|(_, name)| !except.contains(&name.as_str())).map(|(id, _)| *id));
    }
    Ok(sum)
}

/// The fields of `/proc/ID/stat` after the name of the program, which may itself hold spaces and parentheses.
fn stat(id: u32) -> anyhow::Result<Vec<String>> {
    let path = format!("/proc/{id}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    let (_, fields) = text.rsplit_once(')').with_context(|| format!("{path} has no name in it"))?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// `USER_HZ` is 100 on every architecture that Linux shows to programs today.
const TICK: TickLength = TickLength(Duration::from_millis(10));

#[derive(Clone, Copy)]
struct TickLength(Duration);

impl std::ops::Mul<TickLength> for u64 {
    type Output = Duration;

    fn mul(self, tick: TickLength) -> Duration {
        tick.0.saturating_mul(u32::try_from(self).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kibibytes() {
        let text = "5500-7fff ---p 00000000 00:00 0 [rollup]\nRss:     7392 kB\nPss:      3571 kB\nPss_Dirty:  10 kB\n";
        assert_eq!(parse_memory(text), Memory { rss: 7392, pss: 3571 });
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let id = std::process::id();
        assert!(memory(id).unwrap().rss > 0);
        assert!(open_files(id).unwrap() > 2);
        assert!(tree_pss(id, &[]).unwrap() > 0);
        assert!(cpu(id).is_ok() && cpu_of_ended_children().is_ok());
    }
}
