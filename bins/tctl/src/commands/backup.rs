//! `tctl backup`: the auth service's database as one file. Owns that the file is whole, its owner's alone, and never put over another unasked.

use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, builder::BoolishValueParser};
use remoteler_core::{AuthApi, BackupStatus};
use ring::digest::{Context as Hash, SHA256};
use serde_json::json;

use crate::output::Report;

/// Where to.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// File to write, mode 0600
    pub(crate) out: PathBuf,
    /// Replace what is there already
    #[arg(long, env = "REMOTELER_BACKUP_OVERWRITE", value_parser = BoolishValueParser::new())]
    pub(crate) overwrite: bool,
}

/// How often it is asked whether the backup is made.
const ASK: Duration = Duration::from_millis(100);

/// Makes a backup and fetches it.
pub(crate) async fn write(api: &dyn AuthApi, args: &BackupArgs) -> anyhow::Result<Report> {
    let BackupArgs { out, overwrite } = args;
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if out.is_dir() {
        bail!(
            "{} is a directory; name the file to write, such as {}",
            out.display(),
            out.join("remoteler.backup").display()
        );
    }
    if !overwrite && out.symlink_metadata().is_ok() {
        bail!("{} is there already; use --overwrite to replace it, or name another", out.display());
    }
    let failed = || format!("{} was not written", out.display());
    // Mode 0600, and gone if this ends before it is whole.
    let mut file = tempfile::Builder::new().prefix(".backup-").tempfile_in(dir).with_context(failed)?;
    let BackupStatus { id, size, sha256, clear_keys } = made(api).await?;
    let (mut hash, mut length) = (Hash::new(&SHA256), 0);
    loop {
        let octets = api.read_backup(id.clone(), length).await?;
        if octets.is_empty() {
            break;
        }
        length += u64::try_from(octets.len()).unwrap_or(u64::MAX);
        hash.update(&octets);
        file.write_all(&octets).with_context(failed)?;
    }
    let found: String = hash.finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    if Some(length) != size || Some(&found) != sha256.as_ref() {
        bail!("what arrived is not what the auth service sent; nothing was written, try again");
    }
    file.as_file().sync_all().with_context(failed)?;
    let put = if *overwrite { file.persist(out) } else { file.persist_noclobber(out) };
    match put {
        Err(cause) if cause.error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; use --overwrite to replace it, or name another", out.display())
        }
        put => put.with_context(failed)?,
    };
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).with_context(failed)?;
    let keys = if clear_keys {
        "The private keys of the certificate authorities lie in it in the clear: whoever reads it is the cluster. Keep it as you keep them.\n"
    } else {
        "The private keys of the certificate authorities in it are sealed: to restore it, their key or token is needed as well.\n"
    };
    let text = format!(
        "The auth service was backed up to {} ({length} octets, SHA-256 {found}).\n{keys}Recordings, the configuration and a key file are not in it.\n",
        out.display()
    );
    let value = json!({ "file": out, "size": length, "sha256": found, "clear_keys": clear_keys });
    Report::new(text, &value)
}

/// Waits until it is made, as long as that takes.
async fn made(api: &dyn AuthApi) -> anyhow::Result<BackupStatus> {
    let mut status = api.start_backup().await?;
    while status.size.is_none() {
        tokio::time::sleep(ASK).await;
        status = api.backup(status.id).await?;
    }
    Ok(status)
}
