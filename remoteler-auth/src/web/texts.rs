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

    touch_title = "Use your security key";
    touch_text = "Your password is right. Now show that your key is here: touch it, or unlock the device that holds it.";
    touch_button = "Use the security key";
    touch_other = "Use a code instead";
    touch_code_hint = "From your authenticator app if you have one, or a recovery code.";
    key_problem = "The security key did not answer, or your browser does not know it. Try again.";
    key_needs_script = "Security keys need JavaScript: allow it on this page.";
    key_or = "or with a security key";
    key_text = "A key that you plug in or hold to your device, or what your telephone or computer has built in.";
    submit_text = "You are on your way to {provider}.";
    submit_button = "Continue";

    launch_gate_title = "Log in to go to {app}";
    launch_gate_text = "The application is behind this login. You are brought to it afterwards.";
    launch_title = "Go to {app}";
    launch_text = "Each session with this application needs a second factor. If it is you who goes there just now, show yours.";
    launch_code_hint = "From your authenticator app. Recovery codes do not count here.";
    launch_button = "Go to the application";
    launch_broken = "The form was not complete. Open the application's address again.";

    session_title = "Begin this session?";
    session_text = "Somebody asks for it in your name. If it is you who goes there just now, and the code is that in your terminal, touch your security key.";
    session_place = "Goes to";
    session_login = "As account";
    session_address = "It comes from";
    session_warning = "Did you not begin this yourself just now, or is the code another one? Then somebody else is asking in your name: close this page and tell your administrator.";
    session_button = "I am going there: use the security key";
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

    logout_back_title = "Back from the identity provider";
    logout_back_text = "If you chose to stay signed in there, it still knows this browser. Your session here, /web/account, has a logout of its own.";
    logout_title = "Logout";
    logout_unknown = "This browser began no logout that could end here. Open the page that tsh logout names.";

    invite_title = "Set up your account";
    invite_text = "This link is for you alone and works once.";
    invite_button = "Save";
    invite_key = "Save with a security key";
    invite_broken = "The form did not arrive whole. Open the link again.";

    factor_app = "Authenticator app";
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

    account_title = "Your account";
    account_who = "You are {user}.";
    account_who_by = "You are {user}, and log in by {connector}.";
    account_gate = "See and change your second factors, sessions and password. Log in first.";
    account_logout = "Log out";
    account_factors = "Second factors";
    account_no_factor = "You have none.";
    account_factor = "{kind}, added {added}, last used {used}";
    account_never = "never";
    account_kind_app = "Authenticator app";
    account_kind_key = "Security key";
    account_remove = "Remove";
    account_add_app = "Add an authenticator app";
    account_add_key = "Add a security key";
    account_factor_name = "Name";
    account_key_name = "security key";
    account_prove = "To change second factors, show one that you have: type a code of its app, or a recovery code.";
    account_prove_button = "Use the code";
    account_touch_text = "Touch your security key, or unlock this device, to show that your account is changed by you.";
    account_done_proven = "Thank you. Second factors can be changed for five minutes.";
    account_stale = "To change second factors, show once more that it is you.";
    account_again = "Log in again";
    account_sessions = "Browsers that are logged in";
    account_this = "This browser: {agent}";
    account_session = "from {remote}, last used {seen}, ends {ends}";
    account_unknown = "unknown";
    account_end = "Log out";
    account_certificates = "Certificates";
    account_certificates_text = "What was issued to you, for tsh and other programs, and still counts. Who revokes them ends everything that runs by them.";
    account_no_certificate = "None counts now.";
    account_certificate = "ends {ends}";
    account_revoke = "Revoke all of them";
    account_password = "Password";
    account_password_now = "Current password";
    account_password_button = "Change the password";
    account_back = "Back to your account";
    account_done_factor = "The second factor was added.";
    account_done_removed = "The second factor was removed.";
    account_done_ended = "The browser was logged out.";
    account_done_revoked = "Your certificates were revoked.";
    account_done_password = "The password was changed, and all other browsers were logged out.";
    account_broken = "The form did not arrive whole. Open the page again.";
    login_account = "To see and change your account.";

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
