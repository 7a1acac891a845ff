//! What a new process does between fork and exec: signals, session, terminal, ids, directory, file descriptors (I68). The only unsafe
//! code of the crate: the standard library cannot set groups, and requires care of what runs after fork.
#![expect(unsafe_code, reason = "pre_exec, signal and close_range have no safe form")]

use std::{ffi::CString, io, os::unix::ffi::OsStrExt};

use nix::{
    libc,
    unistd::{Gid, Uid},
};
use tokio::process::Command;

use super::{Account, Terminal};

/// Ids to take on. Absent when this process is not root: it is that user already, which [`Account`] has checked.
struct Ids {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// Makes `command` run as `account`, as leader of a session of its own, in the account's home directory.
pub(super) fn prepare(command: &mut Command, account: &Account, terminal: Terminal) -> io::Result<()> {
    let home = CString::new(account.home().as_os_str().as_bytes())?;
    let ids = Uid::effective().is_root().then(|| Ids {
        uid: account.uid(),
        gid: account.gid(),
        groups: account.groups().to_vec(),
    });
    let in_child = move || {
        take_usual_signals();
        nix::unistd::setsid()?;
        // The daemon's own mask keeps its files private; a user's programs get the usual one.
        rustix::process::umask(UMASK);
        if terminal == Terminal::Standard {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if let Some(ids) = &ids {
            become_user(ids)?;
        }
        // After the change of user: the home directory is opened with the user's rights.
        if nix::unistd::chdir(home.as_c_str()).is_err() {
            nix::unistd::chdir(c"/")?;
        }
        close_files_on_exec();
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls may be made. `in_child` makes system calls on values that were
    // allocated before the fork; it allocates nothing, takes no lock and drops nothing.
    unsafe {
        command.pre_exec(in_child);
    }
    Ok(())
}

const UMASK: rustix::fs::Mode = rustix::fs::Mode::WGRP.union(rustix::fs::Mode::WOTH);

/// What the daemon was told to ignore is not ignored by a user's programs: started by `nohup` or behind an `&`, it would leave them running
/// when the client goes away, and deaf to Ctrl-C.
fn take_usual_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the call takes two integers, touches no memory of ours and is async-signal-safe. That it refuses SIGKILL and SIGSTOP is right.
        let _before = unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Groups, then group, then user; then makes sure that there is no way back (I68).
fn become_user(ids: &Ids) -> io::Result<()> {
    nix::unistd::setgroups(&ids.groups)?;
    nix::unistd::setresgid(ids.gid, ids.gid, ids.gid)?;
    nix::unistd::setresuid(ids.uid, ids.uid, ids.uid)?;
    let (users, groups) = (nix::unistd::getresuid()?, nix::unistd::getresgid()?);
    let users_changed = [users.real, users.effective, users.saved].iter().all(|uid| *uid == ids.uid);
    let groups_changed = [groups.real, groups.effective, groups.saved].iter().all(|gid| *gid == ids.gid);
    let can_return = !ids.uid.is_root() && nix::unistd::setuid(Uid::from_raw(0)).is_ok();
    if !users_changed || !groups_changed || can_return {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// Marks all files but the standard streams to be closed by exec, also those a library opened without that mark. Kernels before
/// 5.11 do not know the call; our own files carry the mark from the start.
fn close_files_on_exec() {
    const FIRST: libc::c_uint = 3;
    const CLOEXEC: libc::c_uint = 4;
    // SAFETY: the call takes three integers and touches no memory. Closing happens at exec, so nothing in use is closed here.
    let _known = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, CLOEXEC) };
}
