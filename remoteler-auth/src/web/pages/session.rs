//! The page on which a security key is touched for one session. Owns how what is begun is said; decides nothing.

use askama::Template;

use super::{super::texts::Texts, spelled};

/// Who begins what, and the button that asks the key: form fields `csrf`, `token`, `answer`.
#[derive(Template)]
#[template(path = "session.html")]
pub(crate) struct SessionPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// What went wrong before.
    pub(crate) error: Option<&'a str>,
    /// Who.
    pub(crate) user: &'a str,
    /// Node or Kubernetes cluster.
    pub(crate) place: &'a str,
    /// Account there.
    pub(crate) login: Option<&'a str>,
    /// From where.
    pub(crate) address: Option<&'a str>,
    /// What the terminal shows.
    pub(crate) code: &'a str,
    /// Where the answer goes.
    pub(crate) action: &'a str,
    /// [`super::Browser::form_token`].
    pub(crate) csrf: &'a str,
    /// Stands for the question.
    pub(crate) token: &'a str,
    /// JSON for the browser.
    pub(crate) options: &'a str,
}

impl SessionPage<'_> {
    /// The code for a screen reader.
    fn spelled(&self) -> String {
        spelled(self.code)
    }
}
