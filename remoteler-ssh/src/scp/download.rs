//! From the server to this machine. Below the target everything is opened relative to the directory just made, without following
//! symbolic links, so that neither the server's names nor links that appear meanwhile lead out of it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use russh_sftp::{
    client::{SftpSession, fs::Metadata},
    protocol::FileType,
};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, openat, statat},
    io::Errno,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    BUFFER, CopyError, CopyOptions, MAX_DEPTH, MODE, Progress, glob, name,
    upload::{remote, remote_io},
};
use crate::player::printable;

/// Copies `sources` at the server to `target`: into it when it is a directory, otherwise under that name. The last component of a
/// source may have the wildcards `*` and `?`.
///
/// # Errors
/// The first [`CopyError`].
pub async fn download(
    sftp: &SftpSession,
    sources: &[String],
    target: &Path,
    options: CopyOptions,
    progress: &mut dyn Progress,
) -> Result<(), CopyError> {
    let mut found = Vec::new();
    for source in sources {
        found.extend(expand(sftp, &name::remote_path(source)).await?);
    }
    let into_directory = target.is_dir();
    let named_as_directory = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    if !into_directory && (found.len() > 1 || named_as_directory) {
        return Err(CopyError::TargetNotDirectory(target.display().to_string()));
    }
    let mut download = Download { sftp, options, progress, buffer: vec![0; BUFFER] };
    for source in &found {
        // The user's own target may be a link: following it is what they want.
        let place = if into_directory {
            let directory = openat(CWD, target, DIRECTORY, Mode::empty()).map_err(|cause| local(target, cause))?;
            Place::Within(directory, target.to_owned(), name::last_component(source)?.to_owned())
        } else {
            Place::Named(target.to_owned())
        };
        let metadata = sftp.metadata(source.as_str()).await.map_err(|cause| remote(source, cause))?;
        download.entry(source, metadata, place).await?;
    }
    Ok(())
}

/// The sources that a path with wildcards stands for; the path itself without.
async fn expand(sftp: &SftpSession, path: &str) -> Result<Vec<String>, CopyError> {
    let (parent, pattern) = path.rsplit_once('/').map_or((None, path), |(parent, last)| (Some(parent), last));
    if !glob::is_pattern(pattern) || sftp.try_exists(path).await.unwrap_or(false) {
        return Ok(vec![path.to_owned()]);
    }
    let directory = match parent {
        None => ".",
        Some("") => "/",
        Some(parent) => parent,
    };
    let mut matching = Vec::new();
    for entry in sftp.read_dir(directory).await.map_err(|cause| remote(directory, cause))? {
        let file_name = entry.file_name();
        if glob::matches(pattern, &file_name) {
            let file_name = name::checked(&file_name)?;
            matching.push(parent.map_or_else(|| file_name.to_owned(), |parent| format!("{parent}/{file_name}")));
        }
    }
    matching.sort_unstable();
    if matching.is_empty() {
        // The server's own "no such file" for the path as it was given.
        return Ok(vec![path.to_owned()]);
    }
    Ok(matching)
}

/// Where an entry is put.
enum Place {
    /// Under exactly this path, which the user gave.
    Named(PathBuf),
    /// Under this checked name in an open directory; the path is for messages.
    Within(OwnedFd, PathBuf, String),
}

impl Place {
    fn path(&self) -> PathBuf {
        match self {
            Self::Named(path) => path.clone(),
            Self::Within(_, parent, name) => parent.join(name),
        }
    }

    fn create(&self, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOCTTY;
        match self {
            Self::Named(path) => openat(CWD, path, flags, mode),
            Self::Within(directory, _, name) => openat(directory, name, flags | OFlags::NOFOLLOW, mode),
        }
    }

    /// Makes the directory if it is not there, and opens it.
    fn directory(&self, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let (parent, path, flags) = match self {
            Self::Named(path) => (CWD, path.as_path(), DIRECTORY),
            Self::Within(directory, _, name) => (directory.as_fd(), Path::new(name), DIRECTORY | OFlags::NOFOLLOW),
        };
        match mkdirat(parent, path, mode) {
            Ok(()) | Err(Errno::EXIST) => openat(parent, path, flags, Mode::empty()),
            Err(cause) => Err(cause),
        }
    }

    /// Whether something that is no plain file is there: opening it could block or do harm.
    fn is_special(&self) -> bool {
        let (parent, path, flags) = match self {
            Self::Named(path) => (CWD, path.as_path(), AtFlags::empty()),
            Self::Within(directory, _, name) => (directory.as_fd(), Path::new(name), AtFlags::SYMLINK_NOFOLLOW),
        };
        // A device the user names, such as /dev/null, is what they want.
        matches!(self, Self::Within(..))
            && statat(parent, path, flags)
                .is_ok_and(|found| !rustix::fs::FileType::from_raw_mode(found.st_mode).is_file())
    }
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

struct Download<'a> {
    sftp: &'a SftpSession,
    options: CopyOptions,
    progress: &'a mut dyn Progress,
    buffer: Vec<u8>,
}

enum Step {
    Copy { source: String, metadata: Metadata, place: Place, depth: usize },
    Attributes { directory: OwnedFd, path: PathBuf, metadata: Metadata },
}

impl Download<'_> {
    async fn entry(&mut self, source: &str, metadata: Metadata, place: Place) -> Result<(), CopyError> {
        let mut work = vec![Step::Copy { source: source.to_owned(), metadata, place, depth: 0 }];
        while let Some(step) = work.pop() {
            match step {
                Step::Copy { source, metadata, place, depth } => match metadata.file_type() {
                    FileType::File => self.file(&source, &metadata, &place).await?,
                    FileType::Dir => {
                        let steps = self.directory(&source, metadata, &place, depth).await?;
                        work.extend(steps);
                    }
                    FileType::Symlink => {
                        // In a listing a link is shown as itself; what it points to is copied, as scp(1) does.
                        let target =
                            self.sftp.metadata(source.as_str()).await.map_err(|cause| remote(&source, cause))?;
                        if target.is_symlink() {
                            return Err(CopyError::Special(printable(&source)));
                        }
                        work.push(Step::Copy { source, metadata: target, place, depth });
                    }
                    FileType::Other => return Err(CopyError::Special(printable(&source))),
                },
                Step::Attributes { directory, path, metadata } => {
                    self.preserve(&directory, &metadata).map_err(|cause| local(&path, cause))?;
                }
            }
        }
        Ok(())
    }

    /// Makes the directory and lists what is to be copied into it. All names are checked before anything is written.
    async fn directory(
        &mut self,
        source: &str,
        metadata: Metadata,
        place: &Place,
        depth: usize,
    ) -> Result<Vec<Step>, CopyError> {
        if !self.options.recursive {
            return Err(CopyError::IsDirectory(printable(source)));
        }
        if depth >= MAX_DEPTH {
            return Err(CopyError::TooDeep(printable(source)));
        }
        let entries = self.sftp.read_dir(source).await.map_err(|cause| remote(source, cause))?;
        let mut children = Vec::new();
        for entry in entries {
            let file_name = entry.file_name();
            name::checked(&file_name)?;
            children.push((file_name, entry.metadata()));
        }
        let path = place.path();
        let failed = |cause| local(&path, cause);
        let mode = Mode::from_raw_mode(metadata.permissions.unwrap_or(0o755) & MODE);
        let directory = place.directory(mode | Mode::RWXU).map_err(failed)?;
        let mut steps = Vec::with_capacity(children.len() + 1);
        for (file_name, metadata) in children {
            let below = Place::Within(
                directory.try_clone().map_err(|source| CopyError::Local { path: path.clone(), source })?,
                path.clone(),
                file_name.clone(),
            );
            steps.push(Step::Copy { source: name::join(source, &file_name), metadata, place: below, depth: depth + 1 });
        }
        steps.sort_by(|first, second| second.name().cmp(first.name()));
        steps.insert(0, Step::Attributes { directory, path, metadata });
        Ok(steps)
    }

    async fn file(&mut self, source: &str, metadata: &Metadata, place: &Place) -> Result<(), CopyError> {
        let path = place.path();
        if place.is_special() {
            return Err(CopyError::Special(path.display().to_string()));
        }
        let mut from = self.sftp.open(source).await.map_err(|cause| remote(source, cause))?;
        let mode = Mode::from_raw_mode(metadata.permissions.unwrap_or(0o644) & MODE);
        let file = place.create(mode | Mode::WUSR).map_err(|cause| local(&path, cause))?;
        let mut to = tokio::fs::File::from_std(std::fs::File::from(file));
        to.set_max_buf_size(BUFFER);
        self.progress.begin(&printable(source), metadata.size.unwrap_or(0));
        let local_io = |cause| CopyError::Local { path: path.clone(), source: cause };
        loop {
            let count = from.read(&mut self.buffer).await.map_err(|cause| remote_io(source, cause))?;
            let Some(octets) = self.buffer.get(..count).filter(|octets| !octets.is_empty()) else { break };
            to.write_all(octets).await.map_err(local_io)?;
            self.progress.advance(octets.len() as u64);
        }
        to.flush().await.map_err(local_io)?;
        from.close().await.map_err(|cause| remote_io(source, cause))?;
        self.preserve(&to, metadata).map_err(|cause| local(&path, cause))?;
        self.progress.end();
        Ok(())
    }

    fn preserve(&self, file: impl AsFd, metadata: &Metadata) -> rustix::io::Result<()> {
        if !self.options.preserve {
            return Ok(());
        }
        if let (Some(atime), Some(mtime)) = (metadata.atime, metadata.mtime) {
            let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
            futimens(&file, &Timestamps { last_access: at(atime), last_modification: at(mtime) })?;
        }
        match metadata.permissions {
            Some(mode) => fchmod(&file, Mode::from_raw_mode(mode & MODE)),
            None => Ok(()),
        }
    }
}

impl Step {
    fn name(&self) -> &str {
        match self {
            Self::Copy { source, .. } => source,
            Self::Attributes { .. } => "",
        }
    }
}

fn local(path: &Path, cause: Errno) -> CopyError {
    CopyError::Local { path: path.to_owned(), source: io::Error::from(cause) }
}
