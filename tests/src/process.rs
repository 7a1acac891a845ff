//! Child processes: started, fed, waited for with a deadline, and never left behind.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

impl Outcome {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// This, if it succeeded.
    ///
    /// # Panics
    /// When the exit code is not 0; shows everything it said.
    #[expect(clippy::must_use_candidate, reason = "often only the check is wanted")]
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.code == Some(0), "exit {:?}\nstdout: {}\nstderr: {}", self.code, self.text(), self.stderr);
        self
    }

    /// This, if it failed with exit code 1 and one line of explanation.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    #[track_caller]
    pub fn one_line_failure(self) -> String {
        assert_eq!(self.code, Some(1), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        let lines: Vec<_> =
            self.stderr.lines().filter(|line| !line.contains(" INFO ") && !line.contains(" WARN ")).collect();
        assert_eq!(lines.len(), 1, "one line was expected:\n{}", self.stderr);
        lines.concat()
    }
}

/// Runs to the end; two minutes at most.
///
/// # Panics
/// When it does not start or does not end.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    run_with_input(command, b"")
}

/// Runs to the end with `input` on standard input; two minutes at most.
///
/// # Panics
/// When it does not start or does not end.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|cause| panic!("{command:?} does not start: {cause}"));
    let (mut stdin, mut stdout, mut stderr) =
        (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let input = input.to_vec();
    // A child that does not read its input is no failure of the test.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let out = std::thread::spawn(move || {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).map(|_| all)
    });
    let err = std::thread::spawn(move || {
        let mut all = Vec::new();
        stderr.read_to_end(&mut all).map(|_| all)
    });
    let code = wait(&mut child, Duration::from_secs(120), command);
    feeder.join().expect("the feeder does not panic");
    let stdout = out.join().expect("the reader does not panic").expect("a pipe reads");
    let stderr = err.join().expect("the reader does not panic").expect("a pipe reads");
    Outcome { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

fn wait(child: &mut Child, limit: Duration, command: &Command) -> Option<i32> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status.code();
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process in the background, with its output in a file. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error going to `log`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log can be written");
        let copy = file.try_clone().expect("a file can be cloned");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
        let child = child.unwrap_or_else(|cause| panic!("{command:?} does not start: {cause}"));
        Self { child, log: log.to_owned() }
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits")), signal);
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub fn kill_hard(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; its exit code.
    ///
    /// # Panics
    /// When it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            assert!(Instant::now() < end, "it did not end within {limit:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_hard();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log());
        }
    }
}
