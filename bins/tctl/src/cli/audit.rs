//! Flags of `tctl audit export` and `verify`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::commands::Moment;

/// What is exported, and where to.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Not before: RFC 3339 time, date, or so long ago
    #[arg(long, env = "REMOTELER_AUDIT_FROM", value_name = "TIME|DURATION")]
    pub(crate) from: Option<Moment>,
    /// Before: RFC 3339 time, date, or so long ago
    #[arg(long, env = "REMOTELER_AUDIT_TO", value_name = "TIME|DURATION")]
    pub(crate) to: Option<Moment>,
    /// The file, which must not exist; standard output when none is named
    #[arg(short = 'o', long = "out", env = "REMOTELER_AUDIT_OUT", value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// What is checked, and by what.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// An export; `-`: standard input
    pub(crate) file: PathBuf,
    /// The log's public key, or a file with it, as `tctl auth export --type audit` prints it; without one the key in the file is taken, which proves nothing
    /// about who made the file
    #[arg(long, env = "REMOTELER_AUDIT_KEY", value_name = "KEY|FILE")]
    pub(crate) key: Vec<String>,
    /// A file of checkpoints that a witness has seen
    #[arg(long, env = "REMOTELER_AUDIT_WITNESS", value_name = "FILE")]
    pub(crate) witness: Option<PathBuf>,
}

/// Whether what an event tells of worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Outcome {
    /// It did
    Success,
    /// It failed, or was refused
    Failure,
}
