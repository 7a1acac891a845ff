//! Flags of the commands about connectors.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum SsoCommand {
    /// Log in by the connector of a file, which need not be stored; shows each claim and the roles it gives, and issues nothing
    #[command(after_help = "Example: tctl sso test okta.yaml")]
    Test {
        /// File of one connector; - is standard input. Without client_secret that of the stored connector of this name is used
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}
