//! What the pages say, each sentence once. Another language is another value of [`Texts`]; templates name the field and hold no words of their
//! own. Placeholders stand in braces and are filled by [`fill`].

macro_rules! texts {
    ($($name:ident = $text:literal;)*) => {
        /// All texts of the pages in one language.
        #[derive(Debug)]
        pub(crate) struct Texts { $(pub(crate) $name: &'static str),* }

        /// English.
        pub(crate) static ENGLISH: Texts = Texts { $($name: $text),* };

        #[cfg(test)]
        impl Texts {
            const FIELDS: &[&str] = &[$(stringify!($name)),*];
        }
    };
}

texts! {
    language = "en";
    product = "Remoteler";

    user_name = "User name";
    password = "Password";
    new_password = "New password";
    password_again = "The same password again";
    password_hint = "At least 8 characters. Several words that do not belong together are good.";
    passwords_differ = "The two passwords are not the same.";
    code = "One-time code";
    code_hint = "From your authenticator app, or a recovery code. Leave it empty if you have neither.";

    login_title = "Log in";
    login_providers = "Ways to log in";
    login_with = "Continue with {provider}";
    login_or = "or with a password";
    login_button = "Log in";
    login_none = "There is no way to log in here. Ask your administrator.";

    login_purpose = "So that tsh gets certificates for you.";
    login_unreadable = "The identity provider's answer cannot be read. Start again with tsh login.";
    login_broken = "The form did not arrive whole. Start again with tsh login.";
    login_nowhere = "The next page has no address that can be gone to. Start again with tsh login.";

    submit_text = "You are on your way to {provider}.";
    submit_button = "Continue";

    confirm_title = "Is this you?";
    confirm_text = "Compare this code with the one that tsh shows in your terminal.";
    confirm_code = "Code";
    confirm_user = "You are";
    confirm_host = "tsh runs on";
    confirm_address = "It calls from";
    confirm_warning = "Did you not start tsh yourself just now, or is the code another one? Then somebody else is asking to log in as you: refuse.";
    confirm_yes = "The codes are the same: log in";
    confirm_no = "Refuse";

    device_title = "Log in another machine";
    device_text = "Type the code that tsh shows on that machine.";
    device_button = "Continue";

    close_title = "You are logged in";
    close_text = "You may close this tab and go back to your terminal.";
    deliver_waits = "Does tsh still wait?";
    deliver_tell = "Tell it";
    refused_title = "Login refused";
    refused_text = "Nothing was issued. You may close this tab.";

    invite_title = "Set up your account";
    invite_text = "This link is for you alone and works once.";
    invite_button = "Save";
    invite_broken = "The form did not arrive whole. Open the link again.";

    totp_title = "Second factor";
    totp_title_optional = "Second factor (optional)";
    totp_text = "Scan this with an authenticator app, then type the six digits it shows.";
    totp_alt = "QR code for an authenticator app; the same is written below as text.";
    totp_manual = "I cannot scan it";
    totp_code = "Six digits from the app";
    totp_skip = "Leave it empty to go without; you can add one later with tsh mfa add.";

    recovery_title = "Recovery codes";
    recovery_text = "Each opens your account once when your device is lost. They are shown only now: print them or keep them in a password manager.";

    done_title = "Your account is ready";
    done_next = "Log in from a terminal";

    not_found_title = "Nothing here";
    not_found_text = "This is a proxy of a Remoteler cluster. Use tsh login to log in.";
    wrong_host_title = "Not this address";
    wrong_host_text = "This proxy is not known under the name in your browser's address bar. Use the address that your administrator gave you.";
    framed_title = "Not within another page";
    framed_text = "This page is shown in a window of its own only. Open it there.";
    foreign_form_title = "The form was not accepted";
    foreign_form_text = "It was sent from another site, or is too old. Open the page again and repeat what you did.";
}

/// `text` with `{name}` replaced by `value`.
pub(crate) fn fill(text: &str, name: &str, value: &str) -> String {
    text.replace(&format!("{{{name}}}"), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_there_that_no_page_uses() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut sources = std::fs::read_to_string(dir.join("src/web.rs")).unwrap();
        let mut pending = vec![dir.join("templates"), dir.join("src/web"), dir.join("src/sso")];
        while let Some(next) = pending.pop() {
            let Ok(entries) = std::fs::read_dir(next) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else if !path.ends_with("texts.rs") {
                    sources += &std::fs::read_to_string(path).unwrap();
                }
            }
        }
        for field in Texts::FIELDS {
            let used = sources.contains(&format!("t.{field}")) || sources.contains(&format!("ENGLISH.{field}"));
            assert!(used, "{field} is said nowhere");
        }
    }

    #[test]
    fn placeholders_are_filled_and_nothing_else_is() {
        assert_eq!(fill(ENGLISH.login_with, "provider", "{provider}"), "Continue with {provider}");
        assert_eq!(fill("{a}{b}", "a", "x"), "x{b}");
    }
}
