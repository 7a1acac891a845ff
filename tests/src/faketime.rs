//! Other times for programs under test, by libfaketime. Its library is preloaded without the wrapper program, which gives up where a killed process of the same id has left a semaphore; the library goes on.

use std::path::PathBuf;

use crate::need;

/// The library for programs of several threads; `None`, said aloud, where it is missing.
///
/// # Panics
/// When the program is there and its library is not.
#[must_use]
pub fn faketime_library() -> Option<PathBuf> {
    if !need(&["faketime"]) {
        return None;
    }
    let places = ["/usr/lib", "/usr"].into_iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
    let mut named = places.map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
    Some(named.find(|path| path.exists()).expect("faketime has its library"))
}

/// A clock that programs are started under, and that is set while they run.
#[derive(Debug)]
pub struct FakeClock {
    dir: tempfile::TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// Says the right time. `None`, said aloud, where the library for it is missing.
    ///
    /// # Panics
    /// When it cannot be kept in a file.
    #[must_use]
    pub fn new() -> Option<Self> {
        let library = faketime_library()?;
        let clock = Self { dir: tempfile::tempdir().expect("a directory can be made"), library };
        clock.set(0);
        Some(clock)
    }

    /// So many minutes ahead of the real time, from the next second on.
    ///
    /// # Panics
    /// When it cannot be kept in a file.
    pub fn set(&self, minutes: u32) {
        let file = self.dir.path().join("new");
        std::fs::write(&file, format!("+{minutes}m\n")).expect("the clock's file can be written");
        std::fs::rename(file, self.file()).expect("the clock's file can be renamed");
    }

    /// What a program that goes by it has in its environment.
    ///
    /// # Panics
    /// When its path is no text.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_str().expect("a path of text").to_owned();
        vec![
            ("LD_PRELOAD".into(), text(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE".into(), text(self.file())),
            ("FAKETIME_CACHE_DURATION".into(), "1".into()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }
}
