//! Commands run to their end, a directory for a run, and free ports.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// Runs `command` with `input` on standard input; its standard output, if it succeeded.
pub(super) fn output(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{name} does not start"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input says itself what is wrong.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("{name} cannot be waited for"))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        bail!("`{name} {}` ended with {}: {}", words.join(" "), output.status, text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// `command` in a place where the user's `~/.bashrc` is empty, so that what a person's shell does at its start is in no figure. That
/// needs root and `unshare`; without them `command` is given back as it is, and the row on the shell's own start says what it costs.
pub(super) fn quiet_shell(command: Command) -> Command {
    // The owner of a process's own directory in /proc is its effective user.
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root || !Path::new("/usr/bin/unshare").is_file() {
        return command;
    }
    let mut wrapped = Command::new("/usr/bin/unshare");
    // Each step replaces the process before it, so that its id stays.
    let script = "[ ! -f ~/.bashrc ] || mount --bind /dev/null ~/.bashrc; exec \"$@\"";
    wrapped.args(["--mount", "sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Tries `attempt` until it succeeds, for 30 s.
pub(super) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(cause) if Instant::now() > end => {
                return Err(cause).with_context(|| format!("within 30 s it did not come true that {what}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(30)),
        }
    }
}

/// A port that was free a moment ago, for a program that does not say which one it took.
pub(super) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).trim().to_owned()
}

/// A new directory, removed at the end. Its path is short: sockets in it have at most 107 octets.
pub(super) struct ScratchDir(PathBuf);

impl ScratchDir {
    pub(super) fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("rt-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = fs::remove_dir_all(&self.0);
    }
}
