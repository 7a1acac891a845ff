//! Room that is kept back for when the disk is full: a file that is removed then, so that people can still log in and an administrator can still act. Owns that file and the word
//! on whether there is room for more than that.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::data_dir::private_file;

/// Kept back on a disk that is large enough: some ten thousand logins with their events.
const MOST: u64 = 8 * 1024 * 1024;
/// On a smaller one: this part of it.
const PART: u64 = 16;
const NAME: &str = "auth.reserve";

/// The room that is kept back in a data directory.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    size: u64,
    /// Whether it had to be given up, or never could be kept.
    tight: AtomicBool,
    turn: Mutex<()>,
}

impl Reserve {
    /// Keeps room in `dir`, if there is any. Without it the service works all the same, until the disk is full.
    pub(super) fn keep(dir: &Path) -> Self {
        let whole = statvfs(dir).map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        let reserve = Self {
            path: dir.join(NAME),
            size: MOST.min(whole / PART),
            tight: AtomicBool::new(true),
            turn: Mutex::new(()),
        };
        reserve.look();
        reserve
    }

    /// Looks at the disk: gives the room up when there is hardly any other left, and takes it again when there is much. Whether there is room for what services send:
    /// that can wait where it is, what people do cannot.
    pub(super) fn look(&self) -> bool {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(free) = self.free() else { return true };
        let is_kept = fs::metadata(&self.path).is_ok_and(|file| file.len() >= self.size);
        if is_kept && free < self.size / 2 {
            tracing::error!(path = %self.path.display(), "the disk is full: what was kept back is used for logins and administration, and services must keep their events and recordings; free some space");
            self.tight.store(true, Ordering::SeqCst);
            if let Err(cause) = fs::remove_file(&self.path) {
                tracing::error!(%cause, "what was kept back cannot be used");
            }
        } else if is_kept {
            self.tight.store(false, Ordering::SeqCst);
        } else if free >= self.size.saturating_mul(3) {
            match self.allocate() {
                Ok(()) => self.tight.store(false, Ordering::SeqCst),
                Err(cause) => {
                    // Not every file system can promise room. Then there is room as long as there is some.
                    tracing::debug!(%cause, "no room can be kept back");
                    let _ = fs::remove_file(&self.path);
                    self.tight.store(false, Ordering::SeqCst);
                }
            }
        } else if free < self.size {
            self.tight.store(true, Ordering::SeqCst);
        }
        !self.tight.load(Ordering::SeqCst)
    }

    fn free(&self) -> Option<u64> {
        let dir = self.path.parent()?;
        statvfs(dir).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn allocate(&self) -> io::Result<()> {
        let file = private_file(&self.path).map_err(io::Error::other)?;
        fallocate(&file, FallocateFlags::empty(), 0, self.size)?;
        Ok(())
    }
}
