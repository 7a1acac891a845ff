//! SSH: the node that serves sessions, their recordings, and files over SFTP; the client and the player of recordings.
//!
//! Who a certificate stands for and what they may do is decided by `remoteler-core`; this crate acts on those decisions. It never
//! decrypts what it only passes on, and never opens a file that a user names in the server's own process.

mod client;
mod node;
mod player;
mod process;
mod pty;
mod recorder;
mod scp;
mod sftp_server;
mod upload;

pub use client::{
    Answerer, Answering, ClientConfig, ConnectError, Control, EscapeAction, EscapeFilter, Exit, ForwardSpec,
    ForwardSpecError, Program, PtyRequest, Question, Session, SessionError, SessionIo, SessionRequest, SshClient,
    TerminalSize, serve_local_forward,
};
pub use node::{Node, NodeConfig, NodeError, NodeLimits, SecondFactors, SessionProving};
pub use player::{
    CastError, CastEvent, CastHeader, CastReader, Clockwork, PlainText, Speed, SpeedError, TimedEvent, printable,
};
pub use recorder::{RecordingHeader, RecordingOwner};
pub use scp::{CopyError, CopyOptions, NoProgress, Progress, download, sftp_session, upload};
pub use sftp_server::sftp_serve_stdio;
pub use upload::{UploadError, Uploader};
