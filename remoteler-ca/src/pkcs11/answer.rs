//! What modules answer, in one line. Owns the names of their errors, and which of them mean that a session is lost and may be opened anew.

use cryptoki::error::{Error, RvError};

use crate::{TokenError, token::ModuleAnswer};

/// Why one question to a token has no answer.
pub(super) enum Asked {
    /// The module says so.
    Module(Error),
    /// The token answered, and the answer cannot be used.
    Unusable(&'static str),
    /// Somebody else in this process has logged out.
    LoggedOut,
    /// There is no session to ask in.
    NoSession(TokenError),
}

impl From<Error> for Asked {
    fn from(cause: Error) -> Self {
        Self::Module(cause)
    }
}

impl Asked {
    /// Whether asking again in a new session may help: the old one, its login, or what was found in it, is gone.
    pub(super) const fn lost(&self) -> bool {
        matches!(
            self,
            Self::LoggedOut
                | Self::Module(Error::Pkcs11(
                    RvError::SessionHandleInvalid
                        | RvError::SessionClosed
                        | RvError::DeviceRemoved
                        | RvError::DeviceError
                        | RvError::TokenNotPresent
                        | RvError::UserNotLoggedIn
                        | RvError::KeyHandleInvalid
                        | RvError::ObjectHandleInvalid,
                    _
                ))
        )
    }
}

/// The error in one line: PKCS#11's own name for it, which is what its user finds in the token's manual.
pub(super) fn answer(cause: &Error) -> ModuleAnswer {
    let Error::Pkcs11(code, function) = cause else {
        let text = cause.to_string();
        return ModuleAnswer(text.split_whitespace().collect::<Vec<_>>().join(" "));
    };
    ModuleAnswer(format!("C_{function:?} answered {}", name(&format!("{code:?}"))))
}

/// Something that the module did not say.
pub(super) fn told(what: &str) -> ModuleAnswer {
    ModuleAnswer(what.to_owned())
}

/// From the name in Rust to that of PKCS#11: `PinIncorrect` to `CKR_PIN_INCORRECT`.
fn name(variant: &str) -> String {
    let mut name = String::from("CKR");
    for c in variant.chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn an_answer_is_one_line_with_the_name_of_the_standard() {
        let cause = Error::Pkcs11(RvError::PinIncorrect, Function::Login);
        assert_eq!(answer(&cause).to_string(), "C_Login answered CKR_PIN_INCORRECT");
        assert_eq!(answer(&Error::NullFunctionPointer).to_string().lines().count(), 1);
    }
}
