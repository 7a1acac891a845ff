//! `tctl auth revoke`, `revoked`, `unrevoke`, `krl` and `crl`: what is refused before its end, here and at servers that are not ours.

use std::{fs::Permissions, io::Write, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, bail};
use pem::Pem;
use remoteler_core::{
    AuthApi, CaKind, NewRevocation, Revocation, RevocationList, RevocationListFormat, RevocationListName,
    RevocationTarget, printable,
};
use serde_json::json;

use crate::{
    cli::{ListArgs, RevokeArgs, RevokedWhat},
    output::{Report, Table},
};

/// Largest file read for a key: an RSA certificate with 256 principals is smaller.
const MAX_KEY_FILE: u64 = 128 * 1024;

/// What the flags name. Files are read here, before anybody is asked.
pub(crate) fn wanted(args: &RevokeArgs) -> anyhow::Result<NewRevocation> {
    let RevokeArgs { what, kind, reason, comment, ttl } = args;
    let authority = kind.map_or(CaKind::User, CaKind::from);
    let target = match what {
        RevokedWhat { ssh_serial: Some(serial), .. } => RevocationTarget::ssh_serial(authority, *serial)?,
        RevokedWhat { tls_serial: Some(serial), .. } => RevocationTarget::TlsSerial { authority, serial: *serial },
        RevokedWhat { key: Some(key), .. } => of_key(key)?,
        RevokedWhat { .. } => bail!("nothing to revoke was named; give --ssh-serial, --tls-serial or --key"),
    };
    let ttl_seconds = ttl.map(|ttl| ttl.0.as_secs());
    Ok(NewRevocation { target, reason: (*reason).into(), comment: comment.clone(), ttl_seconds })
}

fn of_key(key: &str) -> anyhow::Result<RevocationTarget> {
    if key.starts_with("SHA256:") || key.starts_with("sha256:") {
        return Ok(RevocationTarget::key(key)?);
    }
    let length = std::fs::metadata(key).with_context(|| format!("{key} cannot be read"))?.len();
    if length > MAX_KEY_FILE {
        bail!("{key} has {length} octets, which is no public key");
    }
    let text = std::fs::read_to_string(key).with_context(|| format!("{key} cannot be read"))?;
    RevocationTarget::key(&text).with_context(|| format!("{key} cannot be used"))
}

/// Revokes.
pub(crate) async fn revoke(api: &dyn AuthApi, wanted: NewRevocation) -> anyhow::Result<Report> {
    let done = api.revoke(wanted).await?;
    let until = done.until.map_or("until it is taken back".to_owned(), |until| format!("until {until}"));
    let text = format!(
        "{} is revoked {until}.\nServices of the cluster refuse it at once, and what runs by it ends. For servers that are not ours, fetch the lists\n\
         anew: tctl auth krl, tctl auth crl. To take it back: tctl auth unrevoke {}\n",
        done.target, done.target
    );
    Report::new(text, &done)
}

/// Lists what is revoked.
pub(crate) async fn list(api: &dyn AuthApi) -> anyhow::Result<Report> {
    shown(&api.revocations().await?)
}

fn shown(revoked: &[Revocation]) -> anyhow::Result<Report> {
    let mut table = Table::new(["NAME", "REASON", "SINCE", "UNTIL", "BY", "COMMENT"]);
    for each in revoked {
        table.row([
            each.target.to_string(),
            each.reason.as_str().to_owned(),
            each.since.to_string(),
            each.until.map_or("-".to_owned(), |until| until.to_string()),
            printable(&each.revoked_by),
            printable(&each.comment),
        ]);
    }
    Report::new(table.render(), &revoked)
}

/// Takes a revocation back.
pub(crate) async fn unrevoke(api: &dyn AuthApi, target: RevocationTarget) -> anyhow::Result<Report> {
    api.unrevoke(target).await?;
    let text = format!("{target} is believed again.\n");
    Report::new(text, &json!({ "kind": "revocation", "name": target, "removed": true }))
}

/// Writes a list into a file.
pub(crate) async fn write(api: &dyn AuthApi, format: RevocationListFormat, args: &ListArgs) -> anyhow::Result<Report> {
    let list = api.revocation_list(RevocationListName { authority: args.kind.into(), format }).await?;
    let octets = content(&list)?;
    replace(&args.out, &octets).with_context(|| format!("{} was not written", args.out.display()))?;
    let text = format!("{} number {} was written to {}.\n", list.name, list.number, args.out.display());
    let value = json!({
        "name": list.name,
        "number": list.number,
        "made": list.made,
        "next_update": list.next_update,
        "file": args.out,
    });
    Report::new(text, &value)
}

/// OpenSSH's list as it is; X.509 ones as PEM, one for each key of the authority.
fn content(list: &RevocationList) -> anyhow::Result<Vec<u8>> {
    match (list.name.format, list.files.as_slice()) {
        (_, []) => bail!("the auth service sent no list; compare the versions"),
        (RevocationListFormat::Krl, [krl, ..]) => Ok(krl.clone()),
        (RevocationListFormat::Crl, lists) => {
            let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
            let blocks = lists.iter().map(|der| pem::encode_config(&Pem::new("X509 CRL", der.as_slice()), config));
            Ok(blocks.collect::<String>().into_bytes())
        }
    }
}

/// Puts a file that everybody may read in the place of another: a server that looks meanwhile sees one or the other, whole.
fn replace(path: &Path, octets: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(".revoked-").permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
    file.write_all(octets)?;
    // The process's umask has cut the mode.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use remoteler_core::{RevocationReason, Timestamp};

    use super::*;
    use crate::{
        cli::{AuthCommand, Cli, Command},
        output::Format,
    };

    fn parsed(args: &[&str]) -> NewRevocation {
        let cli = Cli::parse_from(["tctl", "auth", "revoke"].iter().chain(args));
        let Command::Auth(AuthCommand::Revoke(args)) = cli.command else { panic!("not auth revoke") };
        wanted(&args).unwrap()
    }

    #[test]
    fn flags_name_a_serial_of_a_user_or_host_or_a_key() {
        assert_eq!(parsed(&["--ssh-serial", "42"]).target.to_string(), "ssh-user-42");
        assert_eq!(parsed(&["--ssh-serial", "42", "--type", "host"]).target.to_string(), "ssh-host-42");
        let tls = parsed(&["--tls-serial", "4F:01", "--reason", "key-compromise", "--ttl", "2h", "--comment", "lost"]);
        assert_eq!(tls.target.to_string(), "tls-user-4f01");
        assert_eq!((tls.reason, tls.ttl_seconds), (RevocationReason::KeyCompromise, Some(7200)));
        let pin = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(parsed(&["--key", &pin]).target, RevocationTarget::TlsKey([0xab; 32]));
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti ann@laptop\n";
        std::fs::write(file.path(), line).unwrap();
        assert_eq!(parsed(&["--key", file.path().to_str().unwrap()]).target, RevocationTarget::key(line).unwrap());
    }

    #[test]
    fn nothing_or_two_things_to_revoke_are_wrong_usage() {
        for wrong in [
            &[][..],
            &["--ssh-serial", "1", "--tls-serial", "4f"],
            &["--ssh-serial", "0"],
            &["--tls-serial", "xyz"],
            &["--key", "SHA256:x", "--type", "host"],
            &["--ssh-serial", "1", "--reason", "hunch"],
        ] {
            let args = ["tctl", "auth", "revoke"].iter().chain(wrong);
            assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "canary").unwrap();
        let path = file.path().to_str().unwrap();
        let refused = format!("{:#}", of_key(path).unwrap_err());
        assert!(refused.contains(path) && !refused.contains("canary"), "{refused}"); // I76
        assert!(of_key("/nowhere/key.pub").is_err());
    }

    #[test]
    fn a_list_takes_the_place_of_the_old_one_and_everybody_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked");
        std::fs::write(&path, "old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    // I72
    #[test]
    fn a_comment_cannot_write_on_the_terminal() {
        let revoked = Revocation {
            target: "ssh-user-1".parse().unwrap(),
            reason: RevocationReason::Superseded,
            comment: "\u{1b}[2J".into(),
            revoked_by: "ann".into(),
            since: Timestamp::default(),
            until: None,
        };
        let text = shown(&[revoked]).unwrap().render(Format::Text).unwrap();
        assert!(text.contains("ssh-user-1") && !text.contains('\u{1b}'), "{text}");
    }
}
