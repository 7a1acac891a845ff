//! Finding a token among a module's slots. Owns what "the token with this label" means. Never logs in.

use std::path::Path;

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    slot::Slot,
};

use super::{
    TokenChoice,
    answer::{answer, told},
};
use crate::TokenError;

/// Loads the module, as a user of many threads.
pub(super) fn load(module: &Path) -> Result<Pkcs11, TokenError> {
    let failed = |source| TokenError::Module { module: module.to_owned(), source };
    // A name without a directory would be looked for wherever the loader looks.
    if !module.is_absolute() {
        return Err(failed(told("its path is not absolute")));
    }
    let context = Pkcs11::new(module).map_err(|cause| failed(answer(&cause)))?;
    // It stays loaded: modules have threads and last wishes of their own, whose code must not be gone.
    std::mem::forget(context.clone());
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(context),
        Err(cause) => Err(failed(answer(&cause))),
    }
}

/// The slot of the token now, and the token's label.
pub(super) fn find(context: &Pkcs11, module: &Path, choice: &TokenChoice) -> Result<(Slot, String), TokenError> {
    let failed = |cause: &Error| TokenError::Module { module: module.to_owned(), source: answer(cause) };
    let none = |found: String| TokenError::NoToken { module: module.to_owned(), wanted: choice.to_string(), found };
    let slots = context.get_slots_with_initialized_token().map_err(|cause| failed(&cause))?;
    let mut tokens = Vec::new();
    for slot in slots {
        // One that is pulled out meanwhile is none.
        if let Ok(token) = context.get_token_info(slot) {
            tokens.push((slot, token.label().trim_end().to_owned()));
        }
    }
    let found = if tokens.is_empty() {
        "none at all".to_owned()
    } else {
        let shown = tokens.iter().take(SHOWN).map(|(slot, label)| format!("{label:?} in slot {}", slot.id()));
        shown.collect::<Vec<_>>().join(", ")
    };
    tokens.retain(|(slot, label)| match choice {
        TokenChoice::Label(wanted) => label == wanted,
        TokenChoice::Slot(number) => slot.id() == *number,
    });
    match tokens.len() {
        0 | 1 => tokens.pop().ok_or_else(|| none(found)),
        count => Err(TokenError::SeveralTokens { module: module.to_owned(), wanted: choice.to_string(), count }),
    }
}

/// Tokens that one line names.
const SHOWN: usize = 8;
