//! Tokens of forms: what nobody can send back but the one browser that was shown the page (I52). Owns how they are made, of the browser's secret and of
//! what the form does; keeps nothing.

use remoteler_core::Secret;
use ring::hmac;

use crate::secret_hash;

/// What a form must bring that was shown to this browser; `form` names what it does, and to what.
pub(crate) fn form_token(browser: &Secret, form: &str) -> Secret {
    let key = hmac::Key::new(hmac::HMAC_SHA256, browser.reveal().as_bytes());
    let tag = hmac::sign(&key, format!("remoteler form {form}").as_bytes());
    Secret::new(secret_hash::hex(tag.as_ref()))
}

/// The name of what a browser brings back from the logout at the provider of a connector.
pub(crate) fn logout_form(connector: &str) -> String {
    format!("logout {connector}")
}

/// Whether a form that came back is the one that was shown. Compared by hash: timing tells nothing of the token.
pub(crate) fn is_form_token(browser: &Secret, form: &str, token: &Secret) -> bool {
    secret_hash::hash(token) == secret_hash::hash(&form_token(browser, form))
}

#[cfg(test)]
mod tests {
    use remoteler_core::OsEntropy;

    use super::*;

    #[test]
    fn a_form_is_of_one_browser_and_for_one_thing() {
        let (ann, eve) = [(); 2].map(|()| secret_hash::draw(&OsEntropy)).into();
        let token = form_token(&ann, "confirm 1");
        assert!(is_form_token(&ann, "confirm 1", &token)); // I52
        assert!(!is_form_token(&eve, "confirm 1", &token) && !is_form_token(&ann, "confirm 2", &token));
        let right = token.reveal();
        for wrong in ["", "é", &right[2..], &format!("{right}00"), &right.to_uppercase(), &"zz".repeat(32)] {
            assert!(!is_form_token(&ann, "confirm 1", &Secret::new(wrong)), "{wrong}");
        }
    }
}
