//! `tsh`, the user's client; called as `ssh` it takes the command line of ssh(1). Parses, runs, reports: exit code 0, 1, or 2 for wrong
//! usage; `ssh` returns the remote exit status, and 255 when the connection failed.

mod cli;
mod commands;
mod context;
mod dial;
mod openssh;
mod output;
mod password;
mod session_mfa;
mod stdio;
mod terminal;
mod trust;
mod usage;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use clap::{CommandFactory, Parser};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use cli::{Apps, Cli, Command, FactorType, Kube, Mfa, ProxyTarget, Recordings};
use commands::ssh::CalledAs;
use context::Context;
use remoteler_client::on_parser_stack;

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    // What answers is not trusted to be harmless to parse.
    exit(on_parser_stack(|| run_as_called(args)).unwrap_or_else(|cause| report(Err(cause.into()))))
}

fn run_as_called(args: Vec<OsString>) -> u8 {
    let called_as_ssh = args.first().and_then(|path| Path::new(path).file_name()).is_some_and(|name| name == "ssh");
    if called_as_ssh {
        // The words are those of ssh; the environment is ours.
        return match Cli::try_parse_from(["tsh"]) {
            Ok(cli) => commands::ssh::main(args.get(1..).unwrap_or_default(), cli.common, CalledAs::Ssh),
            Err(refusal) => {
                usage::show("tsh", &refusal);
                commands::ssh::CONNECTION_FAILED
            }
        };
    }
    let cli = match Cli::try_parse_from(args).and_then(Cli::checked) {
        Ok(cli) => cli,
        Err(refusal) => return usage::show("tsh", &refusal),
    };
    let Some(command) = cli.command.filter(|_| !cli.version) else {
        if cli.version {
            return report(commands::version::run(output::Format::Text));
        }
        output::say(&Cli::command().render_help().to_string());
        return 2;
    };
    run(command, cli.common)
}

fn run(command: Command, common: cli::Common) -> u8 {
    // `ssh` counts failures of its own, and needs no profile to explain itself.
    if let Command::Ssh(passed) = command {
        return commands::ssh::main(&passed.args, common, CalledAs::Tsh);
    }
    verbose(common.debug.into());
    let context = match Context::new(common) {
        Ok(context) => context,
        Err(error) => return report(Err(error)),
    };
    if let Err(error) = context.may_run(&command) {
        return report(Err(error));
    }
    report(match command {
        Command::Ssh(_) => Ok(()),
        Command::Login(login) => commands::login::run(&context, &login),
        Command::Signup { link } => commands::signup::run(&context, link),
        Command::Logout => commands::logout::run(&context),
        Command::Status(formatted) => commands::status::run(&context, formatted.format),
        Command::Clusters(formatted) => commands::clusters::run(&context, formatted.format),
        Command::Ls(ls) => commands::ls::run(&context, &ls),
        Command::Explain(explain) => commands::explain::run(&context, &explain),
        Command::Scp(scp) => commands::scp::run(&context, &scp),
        Command::Config(config) => commands::config::run(&context, &config),
        Command::Proxy { target: ProxyTarget::Ssh { target } } => commands::proxy::run(&context, &target),
        Command::Proxy { target: ProxyTarget::App { name, port } } => commands::apps::proxy(&context, &name, port),
        Command::Apps { command } => match command {
            Apps::Ls(formatted) => commands::apps::list(&context, formatted.format),
            Apps::Login { name } => commands::apps::login(&context, &name),
        },
        Command::Kube { command } => match command {
            Kube::Ls(formatted) => commands::kube::list(&context, formatted.format),
            Kube::Login { name } => commands::kube::login(&context, &name),
            Kube::Credentials { kube_cluster } => commands::kube::credentials(&context, &kube_cluster),
        },
        Command::Mfa { command } => match command {
            Mfa::Ls(formatted) => commands::mfa::list(&context, formatted.format),
            Mfa::Add { name, kind: FactorType::Totp } => commands::mfa::add(&context, name),
            Mfa::Add { name: _, kind: FactorType::Webauthn } => commands::mfa::add_in_browser(&context),
            Mfa::Rm { name } => commands::mfa::remove(&context, name),
        },
        Command::Recordings { command: Recordings::Ls(formatted) } => {
            commands::recordings::run(&context, formatted.format)
        }
        Command::Play(play) => commands::play::run(&context, &play),
        Command::Version(formatted) => commands::version::run(formatted.format),
    })
}

/// 0, or 1 after one line about what failed.
fn report(result: anyhow::Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            output::say(&format!("tsh: {}", output::one_line(&error)));
            1
        }
    }
}

/// Ends the process without waiting for threads that read standard input: they would wait for a key.
fn exit(code: u8) -> ExitCode {
    std::process::exit(code.into())
}

/// Says on standard error what is going on; never keys, tokens or what is carried. 1: our own steps; 2: those of the SSH and TLS
/// libraries too; more: everything.
pub(crate) fn verbose(level: u8) {
    let filter = match level {
        0 => return,
        1 => ours(LevelFilter::WARN),
        2 => ours(LevelFilter::INFO).with_targets(["russh", "rustls"].map(|target| (target, LevelFilter::DEBUG))),
        _ => Targets::new().with_default(LevelFilter::DEBUG),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal::may_colour())
        .with_timer(tracing_subscriber::fmt::time::uptime())
        .with_target(level > 1);
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// Everything of ours, and of others what is at least as grave as `others`.
fn ours(others: LevelFilter) -> Targets {
    Targets::new().with_default(others).with_targets(OURS.map(|target| (target, LevelFilter::DEBUG)))
}

const OURS: [&str; 4] = ["tsh", "remoteler_ssh", "remoteler_tunnel", "remoteler_client"];
