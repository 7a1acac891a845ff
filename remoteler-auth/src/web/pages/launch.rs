//! The pages on the way to a web application. Owns how they say where it goes; decides nothing.

use askama::Template;

use super::super::texts::Texts;

/// That one has to log in first: form field `csrf`.
#[derive(Template)]
#[template(path = "launch_gate.html")]
pub(crate) struct LaunchGatePage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// With the application's name.
    pub(crate) title: &'a str,
    /// [`super::Browser::form_token`].
    pub(crate) token: &'a str,
}

/// Asks for a second factor: form fields `csrf` and `code`, or `csrf`, `token` and `answer`.
#[derive(Template)]
#[template(path = "app_factor.html")]
pub(crate) struct AppFactorPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// With the application's name.
    pub(crate) title: &'a str,
    /// What went wrong before.
    pub(crate) error: Option<&'a str>,
    /// Who.
    pub(crate) user: &'a str,
    /// Where the answer goes.
    pub(crate) action: &'a str,
    /// [`super::Browser::form_token`].
    pub(crate) csrf: &'a str,
    /// Whether a code may be typed.
    pub(crate) codes: bool,
    /// Stands for the question to a key, and JSON for the browser.
    pub(crate) key: Option<(&'a str, &'a str)>,
}
