//! Copies files over SFTP. Owns the safety of what is written: names that a server sends never leave the target directory, and
//! nothing below it is reached through a symbolic link that was there before.

mod download;
mod glob;
mod name;
mod upload;

use std::{io, path::PathBuf};

use russh_sftp::client::{Config, SftpSession, error::Error as SftpError};
use tokio::io::{AsyncRead, AsyncWrite};

pub use download::download;
pub use upload::upload;

/// How to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Directories with all that is in them.
    pub recursive: bool,
    /// Keep modification times and permission bits.
    pub preserve: bool,
}

/// Is told how the copy goes on. Calls come from the task that copies and must not block.
pub trait Progress: Send {
    /// A file of `size` octets begins; its name is printable.
    fn begin(&mut self, name: &str, size: u64);
    /// So many octets more.
    fn advance(&mut self, octets: u64);
    /// The file is complete.
    fn end(&mut self);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&mut self, _name: &str, _size: u64) {}
    fn advance(&mut self, _octets: u64) {}
    fn end(&mut self) {}
}

/// Why something was not copied. What was copied before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The server does not do it.
    #[error("remote {path}: {}", sftp_text(.cause))]
    Remote {
        /// Where, made printable.
        path: String,
        /// What it said. In the message already, because it is made printable there.
        cause: SftpError,
    },
    /// This machine does not do it.
    #[error("{}: {source}", path.display())]
    Local {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, but not asked for with all that is in it.
    #[error("{0} is a directory; give -r to copy directories")]
    IsDirectory(String),
    /// Neither file nor directory.
    #[error("{0} is neither a file nor a directory; it is not copied")]
    Special(String),
    /// Several sources, or a directory, onto a file.
    #[error("{0} is no directory")]
    TargetNotDirectory(String),
    /// The server sent a name that could lead elsewhere. Nothing of that directory was written.
    #[error("the server sent the file name \"{0}\", which is refused")]
    UnsafeName(String),
    /// A path without a name to copy to.
    #[error("{0} has no file name")]
    NoName(String),
    /// The name cannot be sent over SFTP.
    #[error("{} is not UTF-8; such names cannot be copied", .0.display())]
    NotUtf8(PathBuf),
    /// Deeper than any honest tree.
    #[error("{0} is nested deeper than {MAX_DEPTH} directories")]
    TooDeep(String),
}

fn sftp_text(error: &SftpError) -> String {
    match error {
        SftpError::Status(status) if status.error_message.is_empty() => status.status_code.to_string(),
        SftpError::Status(status) => crate::player::printable(&status.error_message),
        SftpError::IO(text) | SftpError::Limited(text) | SftpError::UnexpectedBehavior(text) => {
            crate::player::printable(text)
        }
        SftpError::Timeout => "the server did not answer in time".into(),
        SftpError::UnexpectedPacket => "the server broke the protocol".into(),
    }
}

/// Starts the SFTP protocol over the streams of an `sftp` subsystem.
///
/// # Errors
/// The server does not speak SFTP version 3.
pub async fn sftp_session<S>(stream: S) -> Result<SftpSession, CopyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = Config {
        max_concurrent_reads: CONCURRENCY,
        max_concurrent_writes: CONCURRENCY,
        max_write_packet_len: WRITE,
        request_timeout_secs: 60,
        ..Config::default()
    };
    SftpSession::new_with_config(stream, config).await.map_err(|cause| CopyError::Remote { path: "sftp".into(), cause })
}

/// Requests under way at once: 32 of 32 KiB fill 1 MiB, which is enough for 100 ms at 10 MiB/s.
const CONCURRENCY: usize = 64;
/// OpenSSH's own client writes 32 KiB a request; every server takes that.
const WRITE: u32 = 32 * 1024 + 1024;
const BUFFER: usize = 256 * 1024;
const MAX_DEPTH: usize = 64;
/// Permission bits that are copied: no setuid, setgid or sticky (I64).
const MODE: u32 = 0o777;
