//! One module for each family of commands. Each asks the auth service and makes a report; none prints.

mod audit;
mod authorities;
mod backup;
mod documents;
mod evidence;
mod explain;
mod host_pattern;
mod input;
mod inventory;
mod locks;
mod policy_tests;
mod resources;
mod revocations;
mod rotation;
mod sign;
mod sso;
mod status;
mod tokens;
mod users;

use anyhow::Context;
use remoteler_core::{AuthApi, Clock, RevocationListFormat, SystemClock};

pub(crate) use self::backup::BackupArgs;
pub(crate) use self::host_pattern::HostPattern;
pub(crate) use self::input::{Moment, ResourceRef, Trait, Ttl, span};
use self::rotation::Rotate;
use crate::{
    cli::{
        AuditCommand, AuthCommand, Cli, Command, ListCommand, NodesCommand, SsoCommand, TokensCommand, UsersCommand,
    },
    connect::connect,
    output::Report,
    secret_input,
};

/// Does what the command line says. Files and passwords are read before anybody is asked.
pub(crate) async fn run(cli: &Cli) -> anyhow::Result<Report> {
    if let Command::Test(args) = &cli.command {
        return policy_tests::run(&args.files);
    }
    let mut documents = Vec::new();
    if let Command::Create { file, .. } = &cli.command {
        documents = resources::read(file.as_deref())?;
    }
    if let Command::Sso(SsoCommand::Test { file }) = &cli.command {
        documents = resources::read(Some(file))?;
    }
    let mut password = None;
    if let Command::Users(UsersCommand::Passwd { name }) = &cli.command {
        password = Some(secret_input::new_password(name.as_str())?);
    }
    let mut order = None;
    if let (Command::Auth(AuthCommand::Sign(args)), Some(format)) = (&cli.command, cli.sign_format()) {
        order = Some(sign::Order::new(args, format)?);
    }
    if let Command::Audit(AuditCommand::Verify(args)) = &cli.command {
        return evidence::verify(args);
    }
    let api = connect(&cli.connection)?;
    let api: &dyn AuthApi = api.as_ref();
    match &cli.command {
        Command::Status => status::status(api).await,
        Command::Users(UsersCommand::Add { name, roles, logins, traits }) => {
            users::add(api, users::new_user(name, roles, logins, traits)).await
        }
        Command::Users(UsersCommand::Ls) => users::list(api).await,
        Command::Users(UsersCommand::Rm { name }) => users::remove(api, name).await,
        Command::Users(UsersCommand::Reset { name }) => users::reset(api, name).await,
        Command::Users(UsersCommand::Passwd { name }) => users::set_password(api, name, password).await,
        Command::Tokens(TokensCommand::Add { roles, ttl, value, uses, single_use, names, labels }) => {
            let uses = if *single_use { Some(1) } else { *uses };
            let scope = tokens::scope(roles, names.as_deref(), labels)?;
            tokens::add(api, scope, *ttl, value.as_deref(), uses).await
        }
        Command::Tokens(TokensCommand::Ls) => tokens::list(api).await,
        Command::Tokens(TokensCommand::Rm { token }) => tokens::remove(api, token).await,
        Command::Get { resource, with_secrets } => resources::get(api, resource, *with_secrets).await,
        Command::Create { force, .. } => resources::create(api, documents, *force).await,
        Command::Rm { resource } => resources::remove(api, resource).await,
        Command::Lock(args) => locks::lock(api, args).await,
        Command::Locks(ListCommand::Ls) => locks::list(api).await,
        Command::Explain(args) => explain::explain(api, args).await,
        Command::Test(args) => policy_tests::run(&args.files),
        Command::Sso(SsoCommand::Test { .. }) => sso::test(api, documents).await,
        Command::Nodes(NodesCommand::Ls) => inventory::nodes(api).await,
        Command::Nodes(NodesCommand::Rejoin { node }) => tokens::rejoin(api, node).await,
        Command::Kube(ListCommand::Ls) => inventory::kube_clusters(api).await,
        Command::Apps(ListCommand::Ls) => inventory::apps(api).await,
        Command::Auth(AuthCommand::Export { kind, hosts }) => authorities::export(api, *kind, hosts).await,
        Command::Auth(AuthCommand::Sign(_)) => sign::sign(api, order.context("no order was made")?).await,
        Command::Auth(AuthCommand::Status) => authorities::status(api).await,
        Command::Auth(AuthCommand::Rotate { kind, grace_period, manual: _, phase, force }) => {
            let wanted = match phase {
                Some(phase) => Rotate::Manual { phase: *phase, force: *force },
                None => Rotate::Automatic { grace: *grace_period },
            };
            rotation::rotate(api, *kind, wanted).await
        }
        Command::Auth(AuthCommand::Revoke(args)) => revocations::revoke(api, revocations::wanted(args)?).await,
        Command::Auth(AuthCommand::Revoked) => revocations::list(api).await,
        Command::Auth(AuthCommand::Unrevoke(args)) => revocations::unrevoke(api, args.name).await,
        Command::Auth(AuthCommand::Krl(args)) => revocations::write(api, RevocationListFormat::Krl, args).await,
        Command::Auth(AuthCommand::Crl(args)) => revocations::write(api, RevocationListFormat::Crl, args).await,
        Command::Backup(args) => backup::write(api, args).await,
        Command::Audit(AuditCommand::Ls { from, to, event, user, limit, target, outcome, before }) => {
            let now = SystemClock.now();
            let query = audit::query(*from, *to, event.as_deref(), user.as_deref(), *limit, now)?;
            audit::list(api, audit::narrowed(query, target.as_deref(), *outcome, *before)).await
        }
        Command::Audit(AuditCommand::Export(args)) => evidence::export(api, args, SystemClock.now()).await,
        // Done above, without anybody to ask.
        Command::Audit(AuditCommand::Verify(args)) => evidence::verify(args),
    }
}
