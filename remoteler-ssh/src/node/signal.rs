//! Signals as SSH names them (RFC 4254 section 6.10) and as the operating system does. Owns the names, both ways.

use russh::Sig;
use rustix::process::Signal;

/// Signals of RFC 4254 section 6.10, and two that OpenSSH sends.
pub(super) fn unix_signal(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::ABORT,
        Sig::ALRM => Signal::ALARM,
        Sig::FPE => Signal::FPE,
        Sig::HUP => Signal::HUP,
        Sig::ILL => Signal::ILL,
        Sig::INT => Signal::INT,
        Sig::KILL => Signal::KILL,
        Sig::PIPE => Signal::PIPE,
        Sig::QUIT => Signal::QUIT,
        Sig::SEGV => Signal::SEGV,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        Sig::Custom(name) if name == "USR2" => Signal::USR2,
        Sig::Custom(name) if name == "INFO@openssh.com" || name == "WINCH" => Signal::WINCH,
        Sig::Custom(_) => return None,
    })
}

/// How a client is told of the signal that ended a program; `None` for one that it has no name for.
pub(super) fn ssh_signal(number: i32) -> Option<Sig> {
    let known = [
        (Signal::ABORT, Sig::ABRT),
        (Signal::ALARM, Sig::ALRM),
        (Signal::FPE, Sig::FPE),
        (Signal::HUP, Sig::HUP),
        (Signal::ILL, Sig::ILL),
        (Signal::INT, Sig::INT),
        (Signal::KILL, Sig::KILL),
        (Signal::PIPE, Sig::PIPE),
        (Signal::QUIT, Sig::QUIT),
        (Signal::SEGV, Sig::SEGV),
        (Signal::TERM, Sig::TERM),
        (Signal::USR1, Sig::USR1),
        (Signal::USR2, Sig::Custom("USR2".into())),
    ];
    known.into_iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_that_is_told_is_the_one_that_is_sent() {
        for number in 1..32 {
            if let Some(told) = ssh_signal(number) {
                assert_eq!(unix_signal(&told).map(Signal::as_raw), Some(number), "{told:?}");
            }
        }
        assert_eq!(unix_signal(&Sig::Custom("nonsense".into())), None);
        assert!(ssh_signal(0).is_none());
    }
}
