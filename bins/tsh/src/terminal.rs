//! The terminal: its size, its modes, and raw mode that is always left again.

use std::{env, io};

use remoteler_ssh::{PtyRequest, TerminalSize};
use russh::Pty;
use rustix::{
    stdio,
    termios::{
        ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, isatty,
        tcgetattr, tcgetwinsize, tcsetattr,
    },
};

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    isatty(stdio::stdin())
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    isatty(stdio::stdout())
}

/// Whether a question can be asked: somebody sees it and can answer.
pub(crate) fn can_ask() -> bool {
    isatty(stdio::stdin()) && isatty(stdio::stderr())
}

/// Whether standard error may be coloured.
pub(crate) fn may_colour() -> bool {
    let knows_colours = env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
    isatty(stdio::stderr()) && knows_colours && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Size of the terminal on standard input or output; 80 by 24 when neither is one.
pub(crate) fn size() -> TerminalSize {
    let found = tcgetwinsize(stdio::stdout()).or_else(|_| tcgetwinsize(stdio::stdin()));
    match found {
        Ok(found) if found.ws_col > 0 && found.ws_row > 0 => TerminalSize {
            cols: found.ws_col.into(),
            rows: found.ws_row.into(),
            width_px: found.ws_xpixel.into(),
            height_px: found.ws_ypixel.into(),
        },
        _ => TerminalSize { cols: 80, rows: 24, width_px: 0, height_px: 0 },
    }
}

/// What to ask the server for, so that its terminal is like ours.
pub(crate) fn pty_request() -> PtyRequest {
    let term = env::var("TERM").ok().filter(|term| !term.is_empty()).unwrap_or_else(|| "dumb".into());
    let modes = tcgetattr(stdio::stdin()).map(|termios| encode(&termios)).unwrap_or_default();
    PtyRequest { term, size: size(), modes }
}

/// Raw mode of the terminal on standard input, until dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters raw mode; octets are passed on as they are typed.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdio::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }

    /// Typed keys come at once and unseen, also those that usually send signals; output stays as it is.
    pub(crate) fn enter_keys() -> io::Result<Self> {
        let before = tcgetattr(stdio::stdin())?;
        let mut keys = before.clone();
        keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(stdio::stdin(), OptionalActions::Drain, &keys)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Terminal modes as RFC 4254 section 8 numbers them.
fn encode(termios: &Termios) -> Vec<(Pty, u32)> {
    let codes = [
        (Pty::VINTR, SpecialCodeIndex::VINTR),
        (Pty::VQUIT, SpecialCodeIndex::VQUIT),
        (Pty::VERASE, SpecialCodeIndex::VERASE),
        (Pty::VKILL, SpecialCodeIndex::VKILL),
        (Pty::VEOF, SpecialCodeIndex::VEOF),
        (Pty::VEOL, SpecialCodeIndex::VEOL),
        (Pty::VSTART, SpecialCodeIndex::VSTART),
        (Pty::VSTOP, SpecialCodeIndex::VSTOP),
        (Pty::VSUSP, SpecialCodeIndex::VSUSP),
        (Pty::VREPRINT, SpecialCodeIndex::VREPRINT),
        (Pty::VWERASE, SpecialCodeIndex::VWERASE),
        (Pty::VLNEXT, SpecialCodeIndex::VLNEXT),
        (Pty::VDISCARD, SpecialCodeIndex::VDISCARD),
    ];
    let inputs = [
        (Pty::IGNPAR, InputModes::IGNPAR),
        (Pty::PARMRK, InputModes::PARMRK),
        (Pty::INPCK, InputModes::INPCK),
        (Pty::ISTRIP, InputModes::ISTRIP),
        (Pty::INLCR, InputModes::INLCR),
        (Pty::IGNCR, InputModes::IGNCR),
        (Pty::ICRNL, InputModes::ICRNL),
        (Pty::IXON, InputModes::IXON),
        (Pty::IXANY, InputModes::IXANY),
        (Pty::IXOFF, InputModes::IXOFF),
        (Pty::IMAXBEL, InputModes::IMAXBEL),
        (Pty::IUTF8, InputModes::IUTF8),
    ];
    let locals = [
        (Pty::ISIG, LocalModes::ISIG),
        (Pty::ICANON, LocalModes::ICANON),
        (Pty::ECHO, LocalModes::ECHO),
        (Pty::ECHOE, LocalModes::ECHOE),
        (Pty::ECHOK, LocalModes::ECHOK),
        (Pty::ECHONL, LocalModes::ECHONL),
        (Pty::NOFLSH, LocalModes::NOFLSH),
        (Pty::TOSTOP, LocalModes::TOSTOP),
        (Pty::IEXTEN, LocalModes::IEXTEN),
        (Pty::ECHOCTL, LocalModes::ECHOCTL),
        (Pty::ECHOKE, LocalModes::ECHOKE),
    ];
    let outputs = [
        (Pty::OPOST, OutputModes::OPOST),
        (Pty::ONLCR, OutputModes::ONLCR),
        (Pty::OCRNL, OutputModes::OCRNL),
        (Pty::ONOCR, OutputModes::ONOCR),
        (Pty::ONLRET, OutputModes::ONLRET),
    ];
    let mut modes: Vec<(Pty, u32)> =
        codes.into_iter().map(|(name, index)| (name, termios.special_codes[index].into())).collect();
    modes.extend(inputs.map(|(name, flag)| (name, u32::from(termios.input_modes.contains(flag)))));
    modes.extend(locals.map(|(name, flag)| (name, u32::from(termios.local_modes.contains(flag)))));
    modes.extend(outputs.map(|(name, flag)| (name, u32::from(termios.output_modes.contains(flag)))));
    let size = termios.control_modes & ControlModes::CSIZE;
    modes.push((Pty::CS7, u32::from(size == ControlModes::CS7)));
    modes.push((Pty::CS8, u32::from(size == ControlModes::CS8)));
    modes.push((Pty::TTY_OP_ISPEED, termios.input_speed()));
    modes.push((Pty::TTY_OP_OSPEED, termios.output_speed()));
    modes
}
