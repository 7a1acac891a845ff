//! A small file system in memory over one directory, that can be filled to the last octet and emptied again.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `size` MiB over `dir`, which is made if it is not there. `None` where that is not allowed.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn mount(dir: &Path, size: u32) -> Option<Self> {
        std::fs::create_dir_all(dir).expect("a directory can be made");
        let options = format!("size={size}m,mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(dir.to_owned()))
    }

    /// Whether file systems may be mounted here. When not: says so, and fails in the full check (`REMOTELER_FULL_CHECK` set).
    ///
    /// # Panics
    /// In the full check, when they may not.
    #[must_use]
    pub fn is_possible() -> bool {
        let dir = tempfile::tempdir().expect("a directory can be made");
        if Self::mount(dir.path(), 1).is_some() {
            return true;
        }
        let said = "needs the right to mount file systems, which this user does not have here";
        assert!(std::env::var_os("REMOTELER_FULL_CHECK").is_none(), "{said}");
        eprintln!("SKIPPED: {said}");
        false
    }

    /// Fills it to the last octet.
    ///
    /// # Panics
    /// When it is full of files already.
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).expect("the filler can be made");
        let mut octets = vec![7; 64 * 1024];
        while !octets.is_empty() {
            if file.write_all(&octets).is_err() {
                octets.truncate(octets.len() / 2);
            }
        }
    }

    /// Gives all room back that [`SmallDisk::fill`] took.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
