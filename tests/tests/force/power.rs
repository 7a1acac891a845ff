//! A disk that loses power: made again from a log of every call, up to any point of it. What was synced is there. Of what was not, any part may be: each write or none,
//! the last of them torn at a sector, a new name or the one before.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use remoteler_tests::Draw;

use super::scenarios::Scenario;

/// One call that changes something, or an acknowledgement that was said.
#[derive(Debug)]
enum Call {
    /// A file is there, empty or cut off.
    Create {
        path: PathBuf,
        cut: bool,
    },
    Write {
        path: PathBuf,
        at: Option<usize>,
        octets: Vec<u8>,
    },
    Truncate {
        path: PathBuf,
        length: usize,
    },
    Sync {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    Mkdir,
    Ack(usize),
}

/// What is done to a file and may be lost.
#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, octets: Vec<u8> },
    Truncate(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    synced: Vec<u8>,
    pending: Vec<Change>,
    /// With all that is pending: where the next octet goes.
    length: usize,
}

/// A change of names that may be lost.
#[derive(Clone, Debug)]
enum Naming {
    Put(PathBuf, usize),
    Remove(PathBuf),
}

/// Files by number, and names for them: as all see it, and as the disk has it.
#[derive(Clone, Debug, Default)]
struct Disk {
    files: Vec<File>,
    seen: BTreeMap<PathBuf, usize>,
    synced: BTreeMap<PathBuf, usize>,
    pending: Vec<Naming>,
}

const SECTOR: usize = 512;

/// Cuts the power at `drawn` points of the log and, if `each` is set, at each point there is, and checks what a start finds.
pub(crate) fn cut(scenario: &Scenario, before: &Path, run: &Path, log: &Path, (drawn, each): (usize, bool)) {
    let log = std::fs::read_to_string(log).unwrap();
    let calls = parse(&log, &run.join("data"));
    assert!(calls.iter().filter(|call| matches!(call, Call::Ack(_))).count() == scenario.acks, "{}", scenario.name);
    assert!(calls.iter().any(|call| matches!(call, Call::Sync { .. })), "{}: nothing is ever synced", scenario.name);
    let seed = std::env::var("REMOTELER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let mut random = Draw::new(seed);
    // At the last point too: nothing that was acknowledged waits for a sync that comes with the end of the process.
    let mut points = vec![calls.len()];
    points.extend((1..drawn).map(|_| random.below(calls.len() + 1)));
    if each {
        points.extend(0..calls.len());
    }
    let cuts = points.len();
    for point in points {
        let mut disk = Disk::from_dir(&before.join("data"));
        let mut acks = Vec::new();
        for call in &calls[..point] {
            if let Call::Ack(number) = call {
                acks.push(*number);
            }
            disk.apply(call);
        }
        let dir = super::copied(before);
        std::fs::remove_dir_all(dir.path().join("data")).unwrap();
        disk.write(&dir.path().join("data"), &mut random);
        std::panic::catch_unwind(|| (scenario.check)(dir.path(), &acks)).unwrap_or_else(|cause| {
            let last: Vec<String> =
                calls[point.saturating_sub(6)..point].iter().map(|call| format!("{call:.90?}")).collect();
            eprintln!(
                "{}: power was cut after call {point} of {}, seed {seed}, acknowledged {acks:?}:\n{last:#?}",
                scenario.name,
                calls.len()
            );
            std::panic::resume_unwind(cause)
        });
    }
    eprintln!("{}: {cuts} cuts of power among {} calls, seed {seed}", scenario.name, calls.len());
}

impl Disk {
    fn from_dir(dir: &Path) -> Self {
        let mut disk = Self::default();
        disk.take(dir, Path::new(""));
        disk
    }

    fn take(&mut self, dir: &Path, below: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = below.join(entry.file_name());
            if entry.path().is_dir() {
                self.take(&entry.path(), &name);
                continue;
            }
            let synced = std::fs::read(entry.path()).unwrap();
            self.files.push(File { length: synced.len(), synced, pending: Vec::new() });
            self.seen.insert(name.clone(), self.files.len() - 1);
            self.synced.insert(name, self.files.len() - 1);
        }
    }

    fn apply(&mut self, call: &Call) {
        match call {
            Call::Create { path, cut } => match self.seen.get(path) {
                Some(number) if *cut => self.files[*number].change(Change::Truncate(0)),
                Some(_) => {}
                None => {
                    self.files.push(File::default());
                    self.seen.insert(path.clone(), self.files.len() - 1);
                    self.pending.push(Naming::Put(path.clone(), self.files.len() - 1));
                }
            },
            Call::Write { path, at, octets } => {
                if let Some(number) = self.seen.get(path) {
                    let file = &mut self.files[*number];
                    let at = at.unwrap_or(file.length);
                    file.change(Change::Write { at, octets: octets.clone() });
                }
            }
            Call::Truncate { path, length } => {
                if let Some(number) = self.seen.get(path) {
                    self.files[*number].change(Change::Truncate(*length));
                }
            }
            Call::Sync { path } => match self.seen.get(path) {
                Some(number) => self.files[*number].sync(),
                None => {
                    // A directory: its names are on disk now.
                    let (here, elsewhere) = std::mem::take(&mut self.pending).into_iter().partition(|naming| {
                        let (Naming::Put(name, _) | Naming::Remove(name)) = naming;
                        name.parent() == Some(path)
                    });
                    self.pending = elsewhere;
                    let here: Vec<Naming> = here;
                    here.into_iter().for_each(|naming| name(&mut self.synced, naming));
                }
            },
            Call::Rename { from, to } => {
                if let Some(number) = self.seen.remove(from) {
                    self.seen.insert(to.clone(), number);
                    self.pending.push(Naming::Put(to.clone(), number));
                    self.pending.push(Naming::Remove(from.clone()));
                }
            }
            Call::Unlink { path } => {
                if self.seen.remove(path).is_some() {
                    self.pending.push(Naming::Remove(path.clone()));
                }
            }
            // A directory that is lost takes no acknowledged file with it: those are in it by a sync of the directory, which is above all that is below.
            Call::Mkdir | Call::Ack(_) => {}
        }
    }

    /// The disk as it may be after the power went.
    fn write(&self, dir: &Path, random: &mut Draw) {
        std::fs::create_dir(dir).unwrap();
        let mut names = self.synced.clone();
        let kept = random.below(self.pending.len() + 1);
        self.pending[..kept].iter().for_each(|naming| name(&mut names, naming.clone()));
        for (path, number) in names {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, self.files[number].lost(random)).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
    }
}

fn name(names: &mut BTreeMap<PathBuf, usize>, naming: Naming) {
    match naming {
        Naming::Put(path, number) => drop(names.insert(path, number)),
        Naming::Remove(path) => drop(names.remove(&path)),
    }
}

impl File {
    fn change(&mut self, change: Change) {
        self.length = match &change {
            Change::Write { at, octets } => self.length.max(at + octets.len()),
            Change::Truncate(length) => *length,
        };
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            apply(&mut self.synced, &change, usize::MAX);
        }
    }

    /// What may be left: each change or not, and one of them in part.
    fn lost(&self, random: &mut Draw) -> Vec<u8> {
        let mut octets = self.synced.clone();
        let (all, torn) = (random.below(3), random.below(self.pending.len() + 1));
        for (number, change) in self.pending.iter().enumerate() {
            // A third each: all that was written, nothing of it, some of it.
            let kept = match all {
                0 => true,
                1 => false,
                _ => random.below(2) == 0,
            };
            if number == torn && all != 1 {
                apply(&mut octets, change, random.below(9) * SECTOR);
            } else if kept {
                apply(&mut octets, change, usize::MAX);
            }
        }
        octets
    }
}

fn apply(file: &mut Vec<u8>, change: &Change, most: usize) {
    match change {
        Change::Write { at, octets } => {
            let octets = &octets[..octets.len().min(most)];
            if file.len() < at + octets.len() {
                file.resize(at + octets.len(), 0);
            }
            file[*at..at + octets.len()].copy_from_slice(octets);
        }
        Change::Truncate(length) => file.resize(*length, 0),
    }
}

/// Calls on what is below `root`, by names relative to it, in their order. Those that failed did nothing.
fn parse(log: &str, root: &Path) -> Vec<Call> {
    let mut calls = Vec::new();
    // A call that other threads' calls stand in the midst of is written in two lines; it counts when it began, which is the earlier of what may be.
    let mut begun: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in log.lines().enumerate() {
        let Some((thread, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(start) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (number, start.to_owned()));
        } else if let Some((_, rest)) = line.strip_prefix("<... ").and_then(|line| line.split_once(" resumed>")) {
            if let Some((began, start)) = begun.remove(thread) {
                // A sync counts when it is done, everything else when it began.
                let at = if start.starts_with("fsync") || start.starts_with("fdatasync") { number } else { began };
                lines.push((at, format!("{start}{rest}")));
            }
        } else {
            lines.push((number, line.to_owned()));
        }
    }
    lines.sort_by_key(|(number, _)| *number);
    for (_, line) in lines {
        // What stands in two lines is filled up with blanks before its result.
        let Some((line, result)) = line.rsplit_once(" = ") else { continue };
        let Some(line) = line.trim_end().strip_suffix(')') else { continue };
        if result.starts_with('-') {
            continue;
        }
        let Some((call, arguments)) = line.split_once('(') else { continue };
        let arguments: Vec<&str> = arguments.split(", ").collect();
        let inside = |path: Option<PathBuf>| path.and_then(|path| path.strip_prefix(root).ok().map(Path::to_owned));
        let descriptor = |number: usize| inside(arguments.get(number).and_then(|text| place(text)));
        let named = |dir: usize, name: usize| {
            let text = PathBuf::from(String::from_utf8(octets(arguments.get(name)?)).ok()?);
            let path = if text.is_absolute() { text } else { place(arguments.get(dir)?)?.join(text) };
            inside(Some(path))
        };
        let number = |at: usize| arguments.get(at).and_then(|text| text.trim().parse().ok());
        let found = match call {
            "write" if arguments.first().is_some_and(|text| text.starts_with("1<")) => {
                let said = String::from_utf8_lossy(&octets(arguments[1])).into_owned();
                said.trim_end().rsplit_once("ack ").and_then(|(_, number)| number.parse().ok()).map(Call::Ack)
            }
            "write" => descriptor(0).map(|path| Call::Write { path, at: None, octets: octets(arguments[1]) }),
            "pwrite64" => descriptor(0).map(|path| Call::Write { path, at: number(3), octets: octets(arguments[1]) }),
            "ftruncate" => descriptor(0).zip(number(1)).map(|(path, length)| Call::Truncate { path, length }),
            "fsync" | "fdatasync" => descriptor(0).map(|path| Call::Sync { path }),
            "openat" if line.contains("O_CREAT") => {
                named(0, 1).map(|path| Call::Create { path, cut: line.contains("O_TRUNC") })
            }
            "renameat" | "renameat2" => named(0, 1).zip(named(2, 3)).map(|(from, to)| Call::Rename { from, to }),
            "rename" => named(9, 0).zip(named(9, 1)).map(|(from, to)| Call::Rename { from, to }),
            "unlinkat" => named(0, 1).map(|path| Call::Unlink { path }),
            "unlink" => named(9, 0).map(|path| Call::Unlink { path }),
            "mkdir" | "mkdirat" => Some(Call::Mkdir),
            _ => None,
        };
        // The index of the log is memory that processes share; it is made anew by whoever comes first.
        let index = |path: &Path| path.to_string_lossy().ends_with("-shm");
        calls.extend(found.filter(|call| match call {
            Call::Create { path, .. }
            | Call::Write { path, .. }
            | Call::Truncate { path, .. }
            | Call::Sync { path }
            | Call::Unlink { path } => !index(path),
            Call::Rename { .. } | Call::Mkdir | Call::Ack(_) => true,
        }));
    }
    calls
}

/// The path that stands with a descriptor: `7<\x2f\x74…>`.
fn place(text: &str) -> Option<PathBuf> {
    let (_, path) = text.trim_end_matches('>').split_once('<')?;
    Some(PathBuf::from(String::from_utf8(octets(path)).ok()?))
}

/// `"\x61\x62"` as octets.
fn octets(text: &str) -> Vec<u8> {
    let digits = text.trim_matches('"').split("\\x").filter(|pair| !pair.is_empty());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("no octet: {pair:.20}"))).collect()
}
