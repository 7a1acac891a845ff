//! Files that a command writes for others to use: keys and certificates beside each other. Owns the promise that nothing is overwritten
//! unasked, and that each file is whole and its owner's alone (I67).

use std::path::{Path, PathBuf};

use crate::files::{FileError, Privacy, PrivateDir};

/// Why the files were not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// One is there already.
    #[error("{} is there already; use --overwrite to replace it, or name another", .0.display())]
    Exists(PathBuf),
    /// No name for a file.
    #[error("{:?} is no path of a file", .0)]
    Name(PathBuf),
    /// The directory is not there.
    #[error("the directory {} is not there; make it first", .0.display())]
    NoDirectory(PathBuf),
    /// A file or the directory.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Names in one directory that were found free, or may be replaced.
#[derive(Debug)]
pub struct OutputFiles {
    dir: PrivateDir,
    names: Vec<String>,
}

impl OutputFiles {
    /// Looks whether the files `out` followed by each of `endings` can be written: in a directory of ours that nobody else can write to,
    /// and where nothing is there yet unless `overwrite`. Nothing is made.
    ///
    /// # Errors
    /// [`OutputError`] with the first reason.
    pub fn check(out: &Path, endings: &[&str], overwrite: bool) -> Result<Self, OutputError> {
        let unusable = || OutputError::Name(out.to_owned());
        let base = out.file_name().and_then(|name| name.to_str()).ok_or_else(unusable)?;
        // "dir/" would become "dir.key" beside it.
        if out.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(unusable());
        }
        let parent = out.parent().unwrap_or(Path::new("."));
        let dir = PrivateDir::open(parent, Privacy::Keep)?.ok_or_else(|| OutputError::NoDirectory(parent.into()))?;
        let names: Vec<String> = endings.iter().map(|ending| format!("{base}{ending}")).collect();
        for name in &names {
            let path = dir.path().join(name);
            match std::fs::symlink_metadata(&path) {
                Ok(_) if !overwrite => return Err(OutputError::Exists(path)),
                Ok(found) if !found.is_file() => {
                    return Err(FileError::Kind { path, expected: "regular file" }.into());
                }
                Ok(_) => {}
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(FileError::Io { action: "examine", path, source }.into()),
            }
        }
        Ok(Self { dir, names })
    }

    /// Writes a content for each ending, in the order of [`OutputFiles::check`]; their paths. Each file is replaced as a whole, mode 0600.
    ///
    /// # Errors
    /// [`OutputError::File`]; what was written before stays.
    pub fn write(self, contents: &[&[u8]]) -> Result<Vec<PathBuf>, OutputError> {
        let written = self.names.iter().zip(contents).map(|(name, content)| {
            self.dir.write(name, content)?;
            Ok(self.dir.path().join(name))
        });
        written.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn nothing_that_is_there_is_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("db");
        fs::write(dir.path().join("db.crt"), "old").unwrap();
        let refused = OutputFiles::check(&out, &[".key", ".crt"], false).unwrap_err();
        assert!(matches!(&refused, OutputError::Exists(path) if path.ends_with("db.crt")), "{refused}");
        assert!(!dir.path().join("db.key").exists());

        let files = OutputFiles::check(&out, &[".key", ".crt"], true).unwrap();
        let written = files.write(&[b"key", b"new"]).unwrap();
        assert_eq!(written, [dir.path().join("db.key"), dir.path().join("db.crt")]);
        for (path, content) in written.iter().zip(["key", "new"]) {
            assert_eq!(fs::read_to_string(path).unwrap(), content);
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600); // I67
        }
    }

    // I67
    #[test]
    fn symlinks_are_not_followed_and_directories_of_all_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let aim = dir.path().join("aim");
        std::os::unix::fs::symlink(&aim, dir.path().join("out")).unwrap();
        assert!(matches!(OutputFiles::check(&dir.path().join("out"), &[""], false), Err(OutputError::Exists(_))));
        assert!(OutputFiles::check(&dir.path().join("out"), &[""], true).is_err());
        for unusable in ["/", "..", "a/.."] {
            assert!(matches!(OutputFiles::check(Path::new(unusable), &[""], true), Err(OutputError::Name(_))));
        }
        let missing = dir.path().join("missing/out");
        assert!(matches!(OutputFiles::check(&missing, &[""], false), Err(OutputError::NoDirectory(_))));
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(OutputFiles::check(&open.join("out"), &[""], false).is_err());
    }
}
