//! From this machine to the server. Symbolic links are followed, as scp(1) does.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use russh_sftp::{
    client::{SftpSession, error::Error as SftpError},
    protocol::{FileAttributes, OpenFlags, StatusCode},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BUFFER, CopyError, CopyOptions, MAX_DEPTH, MODE, Progress, name};
use crate::player::printable;

/// Copies `sources` to `target` at the server: into it when it is a directory, otherwise under that name.
///
/// # Errors
/// The first [`CopyError`].
pub async fn upload(
    sftp: &SftpSession,
    sources: &[PathBuf],
    target: &str,
    options: CopyOptions,
    progress: &mut dyn Progress,
) -> Result<(), CopyError> {
    let target_path = name::remote_path(target);
    let into_directory = match sftp.metadata(target_path.as_str()).await {
        Ok(found) => found.is_dir(),
        Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => false,
        Err(source) => return Err(remote(&target_path, source)),
    };
    if !into_directory && (sources.len() > 1 || target.ends_with('/')) {
        return Err(CopyError::TargetNotDirectory(printable(target)));
    }
    let mut upload = Upload { sftp, options, progress, buffer: vec![0; BUFFER] };
    for source in sources {
        let destination = if into_directory {
            let file_name = source.file_name().ok_or_else(|| CopyError::NoName(source.display().to_string()))?;
            name::join(&target_path, file_name.to_str().ok_or_else(|| CopyError::NotUtf8(source.clone()))?)
        } else {
            target_path.clone()
        };
        upload.entry(source, &destination).await?;
    }
    Ok(())
}

struct Upload<'a> {
    sftp: &'a SftpSession,
    options: CopyOptions,
    progress: &'a mut dyn Progress,
    buffer: Vec<u8>,
}

impl Upload<'_> {
    /// Copies a file or a tree; without recursion, because the depth is the user's disk's.
    async fn entry(&mut self, source: &Path, destination: &str) -> Result<(), CopyError> {
        let mut work = vec![Step::Copy(source.to_owned(), destination.to_owned(), 0)];
        while let Some(step) = work.pop() {
            match step {
                Step::Copy(source, destination, depth) => {
                    let found = tokio::fs::metadata(&source).await.map_err(|cause| local(&source, cause))?;
                    if found.is_file() {
                        self.file(&source, &destination, &found).await?;
                    } else if found.is_dir() {
                        if !self.options.recursive {
                            return Err(CopyError::IsDirectory(source.display().to_string()));
                        }
                        if depth >= MAX_DEPTH {
                            return Err(CopyError::TooDeep(source.display().to_string()));
                        }
                        self.directory(&destination).await?;
                        work.push(Step::Attributes(destination.clone(), found));
                        for child in children(&source).await? {
                            let file_name = child.file_name().and_then(|name| name.to_str());
                            let file_name = file_name.ok_or_else(|| CopyError::NotUtf8(child.clone()))?;
                            let below = name::join(&destination, file_name);
                            work.push(Step::Copy(child, below, depth + 1));
                        }
                    } else {
                        return Err(CopyError::Special(source.display().to_string()));
                    }
                }
                Step::Attributes(destination, found) => {
                    if self.options.preserve {
                        let attributes = attributes(&found, true);
                        self.sftp
                            .set_metadata(destination.as_str(), attributes)
                            .await
                            .map_err(|cause| remote(&destination, cause))?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn directory(&mut self, destination: &str) -> Result<(), CopyError> {
        match self.sftp.create_dir(destination).await {
            Ok(()) => Ok(()),
            // It may be there already.
            Err(cause) => match self.sftp.metadata(destination).await {
                Ok(found) if found.is_dir() => Ok(()),
                Ok(_) => Err(CopyError::TargetNotDirectory(printable(destination))),
                Err(_) => Err(remote(destination, cause)),
            },
        }
    }

    async fn file(&mut self, source: &Path, destination: &str, found: &Metadata) -> Result<(), CopyError> {
        let mut from = tokio::fs::File::open(source).await.map_err(|cause| local(source, cause))?;
        let mut to = self
            .sftp
            .open_with_flags_and_attributes(
                destination,
                OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::WRITE,
                attributes(found, false),
            )
            .await
            .map_err(|cause| remote(destination, cause))?;
        self.progress.begin(&printable(&source.to_string_lossy()), found.len());
        loop {
            let count = from.read(&mut self.buffer).await.map_err(|cause| local(source, cause))?;
            let Some(octets) = self.buffer.get(..count).filter(|octets| !octets.is_empty()) else { break };
            to.write_all(octets).await.map_err(|cause| remote_io(destination, cause))?;
            self.progress.advance(octets.len() as u64);
        }
        if self.options.preserve {
            to.set_metadata(attributes(found, true)).await.map_err(|cause| remote(destination, cause))?;
        }
        to.close().await.map_err(|cause| remote_io(destination, cause))?;
        self.progress.end();
        Ok(())
    }
}

enum Step {
    Copy(PathBuf, String, usize),
    Attributes(String, Metadata),
}

async fn children(directory: &Path) -> Result<Vec<PathBuf>, CopyError> {
    let failed = |cause| local(directory, cause);
    let mut entries = tokio::fs::read_dir(directory).await.map_err(failed)?;
    let mut children = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        children.push(entry.path());
    }
    children.sort_unstable_by(|first, second| second.cmp(first)); // taken from the end
    Ok(children)
}

fn attributes(found: &Metadata, times: bool) -> FileAttributes {
    let mut attributes = FileAttributes::empty();
    attributes.permissions = Some(found.permissions().mode() & MODE);
    if times {
        let seconds = |at: i64| u32::try_from(at.max(0)).unwrap_or(u32::MAX);
        attributes.atime = Some(seconds(found.atime()));
        attributes.mtime = Some(seconds(found.mtime()));
    }
    attributes
}

fn local(path: &Path, source: io::Error) -> CopyError {
    CopyError::Local { path: path.to_owned(), source }
}

pub(super) fn remote(path: &str, cause: SftpError) -> CopyError {
    CopyError::Remote { path: printable(path), cause }
}

pub(super) fn remote_io(path: &str, source: io::Error) -> CopyError {
    remote(path, source.into())
}
