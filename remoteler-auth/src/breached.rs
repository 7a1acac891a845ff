//! The list of passwords that were stolen elsewhere, in a file on this machine: SHA-1 in hex, one a line and in order, as Have I Been Pwned's downloader
//! writes it. Owns the search, which reads some forty lines however long the list is; nothing of a password leaves the process.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::AuthConfig;

/// A list of stolen passwords. Clones search the same file.
#[derive(Clone, Debug)]
pub struct BreachedPasswords {
    file: Arc<File>,
    length: u64,
}

/// Why a file is no list of stolen passwords.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BreachedListError {
    /// It cannot be read.
    #[error("the list of breached passwords {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is none, or the lines are not in order.
    #[error(
        "{path} is no list of breached passwords: give the SHA-1 list ordered by hash that Have I Been Pwned's downloader writes, one HASH:COUNT a line"
    )]
    Form {
        /// Which file.
        path: PathBuf,
    },
}

impl AuthConfig {
    /// Refuses new passwords that are in the list `file`. The file is opened once: a list that is put in its place is used after the next start.
    ///
    /// # Errors
    /// [`BreachedListError`]
    pub fn refusing_breached(mut self, file: &Path) -> Result<Self, BreachedListError> {
        self.breached = Some(BreachedPasswords::open(file)?);
        Ok(self)
    }
}

/// Hex digits of a SHA-1.
const DIGITS: usize = 40;
/// Longest line that is read: the hash, a colon, a count of 20 digits, CR and LF.
const MAX_LINE: usize = 64;
/// Lines that are looked at when the list is opened, to see that it is one.
const SAMPLES: u64 = 64;

impl BreachedPasswords {
    /// Opens a list, and looks at some lines of it.
    ///
    /// # Errors
    /// [`BreachedListError`]
    pub fn open(path: &Path) -> Result<Self, BreachedListError> {
        let failed = |source| BreachedListError::Read { path: path.to_owned(), source };
        let form = || BreachedListError::Form { path: path.to_owned() };
        let file = File::open(path).map_err(failed)?;
        let known = file.metadata().map_err(failed)?;
        if !known.is_file() || known.len() == 0 {
            return Err(form());
        }
        let list = Self { file: Arc::new(file), length: known.len() };
        let mut last = [b'0'; DIGITS];
        for sample in 0..SAMPLES {
            let at = list.length / SAMPLES * sample;
            let broken = |cause: io::Error| {
                if cause.kind() == io::ErrorKind::InvalidData { form() } else { failed(cause) }
            };
            let line = list.line_from(at).map_err(broken)?;
            match line {
                Some((_, hash)) if hash >= last => last = hash,
                Some(_) => return Err(form()),
                None if sample == 0 => return Err(form()),
                None => {}
            }
        }
        Ok(list)
    }

    /// Whether a password is in the list.
    ///
    /// # Errors
    /// The file cannot be read, or is not what it was.
    pub(crate) fn contains(&self, password: &str) -> io::Result<bool> {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let wanted: String = hash.as_ref().iter().map(|octet| format!("{octet:02X}")).collect();
        let wanted = wanted.as_bytes();
        // The line is among those that begin in here.
        let (mut from, mut to) = (0, self.length);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.line_from(middle)? {
                Some((_, hash)) if hash == wanted => return Ok(true),
                Some((next, hash)) if hash.as_slice() < wanted => from = next,
                // No line begins at or after the middle, or all of them are greater.
                Some(_) | None => to = middle,
            }
        }
        Ok(false)
    }

    /// The hash of the first line that begins at `at` or later, in capitals, and where the line after it begins.
    fn line_from(&self, at: u64) -> io::Result<Option<(u64, [u8; DIGITS])>> {
        let mut buffer = [0; 2 * MAX_LINE];
        // A line begins behind the end of another one, which may be the octet before.
        let begin = at.saturating_sub(1);
        let read = self.read_some(&mut buffer, begin)?;
        let seen = buffer.get(..read).unwrap_or_default();
        let skipped = if at == 0 {
            0
        } else {
            match seen.iter().position(|octet| *octet == b'\n') {
                Some(end) => end + 1,
                None if begin + read as u64 >= self.length => return Ok(None),
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        };
        let line = seen.get(skipped..).unwrap_or_default();
        if line.is_empty() {
            return Ok(None);
        }
        let length = line.iter().position(|octet| *octet == b'\n').map_or(line.len(), |end| end + 1);
        let hash = line.get(..DIGITS).and_then(|hash| <[u8; DIGITS]>::try_from(hash).ok());
        let ends = line.get(DIGITS).is_none_or(|octet| matches!(octet, b':' | b'\r' | b'\n'));
        match hash.map(|hash| hash.map(|octet| octet.to_ascii_uppercase())) {
            Some(hash) if ends && length <= MAX_LINE && hash.iter().all(u8::is_ascii_hexdigit) => {
                Ok(Some((begin + (skipped + length) as u64, hash)))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn read_some(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(password: &str, count: u64) -> String {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let hash: String = hash.as_ref().iter().map(|octet| format!("{octet:02X}")).collect();
        format!("{hash}:{count}")
    }

    fn list(lines: &[String], end: &str) -> (tempfile::NamedTempFile, Result<BreachedPasswords, BreachedListError>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for line in lines {
            write!(file, "{line}{end}").unwrap();
        }
        let list = BreachedPasswords::open(file.path());
        (file, list)
    }

    #[test]
    fn every_password_of_a_list_is_found_and_no_other() {
        for (count, end) in [(1, "\n"), (2, "\r\n"), (3, "\n"), (1000, "\r\n")] {
            let mut lines: Vec<String> =
                (0..count).map(|number| line(&format!("stolen {number}"), 10_u64.pow(number % 12))).collect();
            lines.sort();
            let (_file, list) = list(&lines, end);
            let list = list.unwrap();
            for number in 0..count {
                assert!(list.contains(&format!("stolen {number}")).unwrap(), "{number} of {count}");
            }
            for number in 0..1000 {
                assert!(!list.contains(&format!("mine {number}")).unwrap(), "{number} of {count}");
            }
        }
    }

    #[test]
    fn the_list_of_the_downloader_is_read_also_without_counts_and_in_small_letters() {
        // SHA-1 of "password".
        for text in ["5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:9545824", "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8"] {
            let (_file, list) = list(&[text.to_owned()], "");
            assert!(list.unwrap().contains("password").unwrap(), "{text}");
        }
    }

    #[test]
    fn what_is_no_ordered_list_is_refused_at_the_start() {
        let mut sorted: Vec<String> = (0..500).map(|number| line(&number.to_string(), 1)).collect();
        sorted.sort();
        let reversed: Vec<String> = sorted.iter().rev().cloned().collect();
        let plain = vec!["password".to_owned(), "letmein".to_owned()];
        let short = vec!["5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD:1".to_owned()];
        for wrong in [reversed, plain, short, Vec::new(), vec!["x".repeat(10_000)]] {
            let (_file, list) = list(&wrong, "\n");
            assert!(matches!(list, Err(BreachedListError::Form { .. })));
        }
        let nowhere = BreachedPasswords::open(Path::new("/nonexistent/list"));
        assert!(matches!(nowhere, Err(BreachedListError::Read { .. })));
        assert!(BreachedPasswords::open(Path::new("/")).is_err());
    }
}
