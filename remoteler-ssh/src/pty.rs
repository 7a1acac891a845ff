//! Pseudo terminals: opening, size, the modes a client asks for (RFC 4254 section 8), and asynchronous reading and writing.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use nix::unistd::Gid;
use russh::Pty as Code;
use rustix::{
    fs::{Gid as RawGid, Mode, OFlags, Uid as RawUid, fchmod, fchown, fcntl_setfl},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt},
    termios::{
        ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, Winsize,
        tcgetattr, tcsetattr, tcsetwinsize,
    },
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use crate::process::Account;

/// Size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
    pub(crate) width: u16,
    pub(crate) height: u16,
}

impl Size {
    /// From the numbers of a request; what does not fit is cut.
    pub(crate) fn new(columns: u32, rows: u32, width: u32, height: u32) -> Self {
        let cut = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        Self { columns: cut(columns), rows: cut(rows), width: cut(width), height: cut(height) }
    }

    const fn winsize(self) -> Winsize {
        Winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: self.width, ws_ypixel: self.height }
    }
}

/// A `pty-req`.
#[derive(Clone, Debug)]
pub(crate) struct PtyRequest {
    pub(crate) term: String,
    pub(crate) size: Size,
    pub(crate) modes: Vec<(Code, u32)>,
}

/// The side of a terminal that this program holds.
#[derive(Clone, Debug)]
pub(crate) struct Terminal(Arc<AsyncFd<OwnedFd>>);

/// A new terminal: our side, the program's side and its path.
pub(crate) struct Opened {
    pub(crate) terminal: Terminal,
    pub(crate) peer: OwnedFd,
    pub(crate) path: OsString,
}

/// Opens a terminal for `account` as asked.
///
/// # Errors
/// The system has no terminal left, or refuses.
pub(crate) fn open(request: &PtyRequest, account: &Account) -> io::Result<Opened> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = OsString::from_vec(ptsname(&master, Vec::new())?.into_bytes());
    let peer = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    if nix::unistd::Uid::effective().is_root() {
        give_to(&peer, account)?;
    }
    let mut settings = tcgetattr(&peer)?;
    for (code, value) in &request.modes {
        apply(&mut settings, *code, *value);
    }
    tcsetattr(&peer, OptionalActions::Now, &settings)?;
    tcsetwinsize(&master, request.size.winsize())?;
    fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
    Ok(Opened { terminal: Terminal(Arc::new(watched(master)?)), peer, path })
}

#[expect(
    deprecated,
    reason = "deprecated for types whose descriptor can change while registered; an OwnedFd keeps its own"
)]
fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// The user owns the terminal; others may only write to it through group `tty`.
fn give_to(peer: &OwnedFd, account: &Account) -> io::Result<()> {
    let tty = nix::unistd::Group::from_name("tty").ok().flatten().map(|group| group.gid);
    let group: Gid = tty.unwrap_or_else(|| account.gid());
    let mode = if tty.is_some() { Mode::RUSR | Mode::WUSR | Mode::WGRP } else { Mode::RUSR | Mode::WUSR };
    fchown(peer, Some(RawUid::from_raw(account.uid().as_raw())), Some(RawGid::from_raw(group.as_raw())))?;
    fchmod(peer, mode)?;
    Ok(())
}

impl Terminal {
    /// Tells the kernel, and through it the program, about a new size.
    pub(crate) fn resize(&self, size: Size) {
        if let Err(error) = tcsetwinsize(self.0.as_fd(), size.winsize()) {
            tracing::debug!(%error, "terminal not resized");
        }
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let result = guard.try_io(|fd| rustix::io::read(fd, buf.initialize_unfilled()).map_err(io::Error::from));
            match result {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // Linux says so when the last process has closed its side: the end.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| rustix::io::write(fd, buf).map_err(io::Error::from)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no half-close: the client's end of file changes nothing, as with sshd.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Sets one mode of RFC 4254 section 8; those Linux does not have are passed over.
fn apply(settings: &mut Termios, code: Code, value: u32) {
    if let Some(index) = special(code) {
        // 255 means that the character is not used.
        let octet = u8::try_from(value).unwrap_or(u8::MAX);
        settings.special_codes[index] = if octet == u8::MAX { 0 } else { octet };
    } else if let Some(mode) = input(code) {
        settings.input_modes.set(mode, value != 0);
    } else if let Some(mode) = local(code) {
        settings.local_modes.set(mode, value != 0);
    } else if let Some(mode) = output(code) {
        settings.output_modes.set(mode, value != 0);
    } else if let Some(mode) = control(code) {
        settings.control_modes = if mode == ControlModes::CS7 || mode == ControlModes::CS8 {
            if value == 0 { settings.control_modes } else { (settings.control_modes & !ControlModes::CSIZE) | mode }
        } else if value == 0 {
            settings.control_modes & !mode
        } else {
            settings.control_modes | mode
        };
    } else if matches!(code, Code::TTY_OP_ISPEED | Code::TTY_OP_OSPEED) && value > 0 {
        let _accepted = settings.set_speed(value);
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other codes belong to the other tables")]
const fn special(code: Code) -> Option<SpecialCodeIndex> {
    Some(match code {
        Code::VINTR => SpecialCodeIndex::VINTR,
        Code::VQUIT => SpecialCodeIndex::VQUIT,
        Code::VERASE => SpecialCodeIndex::VERASE,
        Code::VKILL => SpecialCodeIndex::VKILL,
        Code::VEOF => SpecialCodeIndex::VEOF,
        Code::VEOL => SpecialCodeIndex::VEOL,
        Code::VEOL2 => SpecialCodeIndex::VEOL2,
        Code::VSTART => SpecialCodeIndex::VSTART,
        Code::VSTOP => SpecialCodeIndex::VSTOP,
        Code::VSUSP => SpecialCodeIndex::VSUSP,
        Code::VREPRINT => SpecialCodeIndex::VREPRINT,
        Code::VWERASE => SpecialCodeIndex::VWERASE,
        Code::VLNEXT => SpecialCodeIndex::VLNEXT,
        Code::VDISCARD => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other codes belong to the other tables")]
const fn input(code: Code) -> Option<InputModes> {
    Some(match code {
        Code::IGNPAR => InputModes::IGNPAR,
        Code::PARMRK => InputModes::PARMRK,
        Code::INPCK => InputModes::INPCK,
        Code::ISTRIP => InputModes::ISTRIP,
        Code::INLCR => InputModes::INLCR,
        Code::IGNCR => InputModes::IGNCR,
        Code::ICRNL => InputModes::ICRNL,
        Code::IUCLC => InputModes::IUCLC,
        Code::IXON => InputModes::IXON,
        Code::IXANY => InputModes::IXANY,
        Code::IXOFF => InputModes::IXOFF,
        Code::IMAXBEL => InputModes::IMAXBEL,
        Code::IUTF8 => InputModes::IUTF8,
        _ => return None,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other codes belong to the other tables")]
const fn local(code: Code) -> Option<LocalModes> {
    Some(match code {
        Code::ISIG => LocalModes::ISIG,
        Code::ICANON => LocalModes::ICANON,
        Code::XCASE => LocalModes::XCASE,
        Code::ECHO => LocalModes::ECHO,
        Code::ECHOE => LocalModes::ECHOE,
        Code::ECHOK => LocalModes::ECHOK,
        Code::ECHONL => LocalModes::ECHONL,
        Code::NOFLSH => LocalModes::NOFLSH,
        Code::TOSTOP => LocalModes::TOSTOP,
        Code::IEXTEN => LocalModes::IEXTEN,
        Code::ECHOCTL => LocalModes::ECHOCTL,
        Code::ECHOKE => LocalModes::ECHOKE,
        Code::PENDIN => LocalModes::PENDIN,
        _ => return None,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other codes belong to the other tables")]
const fn output(code: Code) -> Option<OutputModes> {
    Some(match code {
        Code::OPOST => OutputModes::OPOST,
        Code::OLCUC => OutputModes::OLCUC,
        Code::ONLCR => OutputModes::ONLCR,
        Code::OCRNL => OutputModes::OCRNL,
        Code::ONOCR => OutputModes::ONOCR,
        Code::ONLRET => OutputModes::ONLRET,
        _ => return None,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other codes belong to the other tables")]
const fn control(code: Code) -> Option<ControlModes> {
    Some(match code {
        Code::CS7 => ControlModes::CS7,
        Code::CS8 => ControlModes::CS8,
        Code::PARENB => ControlModes::PARENB,
        Code::PARODD => ControlModes::PARODD,
        _ => return None,
    })
}
