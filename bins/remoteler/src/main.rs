//! The daemon's command line: parses, runs, reports. Exit codes: 0 success, 1 failure, 2 wrong usage.

use std::process::ExitCode;

use clap::Parser;
use remoteler::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return remoteler::usage::show("remoteler", &refusal).into(),
    };
    match run(cli) {
        Ok(code) => code,
        Err(cause) => {
            remoteler::say(&format!("remoteler: {}", remoteler::one_line(&cause)));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Start(args) => remoteler::start::start(args),
        // What answers is not trusted to be harmless to parse.
        Command::Rejoin(args) => remoteler_client::on_parser_stack(|| remoteler::rejoin::rejoin(&args))?,
        #[cfg(feature = "server")]
        Command::Demo(args) => remoteler::demo::demo(args),
        Command::Configure(args) => remoteler::configure::configure(&args),
        Command::Status(args) => remoteler::status::status(&args),
        Command::Version => {
            remoteler::print(&format!("{}\n", remoteler::version_line()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::SftpServer => Ok(remoteler::sftp_server()),
    }
}
