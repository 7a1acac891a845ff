//! The pages people see: one type for each, rendered from `templates/` with the texts of one language. Owns the headers that forbid foreign scripts,
//! frames and caches; decides nothing and reads no request.

mod account;
mod assets;
mod browser;
mod hosts;
mod launch;
mod session;

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use remoteler_core::PageRefusal;

pub use self::hosts::WebNames;
pub(crate) use self::{
    account::{AccountGatePage, AccountPage, AddAppPage, AddKeyPage, CodesPage, OnwardPage},
    assets::{ICON_PATH, SCRIPT_PATH, STYLE_PATH, SUBMIT_PATH, icon, script, style, submit},
    browser::{Browser, cookie, from_own_page, set_cookie},
    hosts::{guard, on_record},
    launch::{AppFactorPage, LaunchGatePage},
    session::SessionPage,
};
use super::texts::{ENGLISH, Texts, fill};

/// What a page may do beside showing itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed {
    /// Origins (`https://idp.example`, `http://127.0.0.1:*`) to which a form of the page, or the redirect that answers it, may lead beside our own.
    pub(crate) forms_to: Vec<String>,
    /// Whether our own script files run.
    pub(crate) script: bool,
}

/// A page as an answer. Nothing of it is kept by browsers or proxies, and nothing is framed (I54).
pub(crate) fn page(status: StatusCode, template: &impl Template, allowed: &Allowed) -> Response {
    let html = match template.render() {
        Ok(html) => html,
        Err(cause) => {
            tracing::error!(%cause, "a page could not be written");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, allowed.policy()),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Addresses of pages hold secrets of links: they go to no other site.
        (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ];
    (status, headers, html).into_response()
}

impl Allowed {
    fn policy(&self) -> HeaderValue {
        let script = if self.script { " script-src 'self'; connect-src 'self';" } else { "" };
        let mut forms = String::from("'self'");
        for origin in self.forms_to.iter().filter(|origin| is_source(origin)) {
            forms.push(' ');
            forms.push_str(origin);
        }
        let policy = format!(
            "default-src 'none'; style-src 'self'; img-src 'self' data:;{script} form-action {forms}; frame-ancestors 'none'; base-uri 'none'"
        );
        HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"))
    }
}

/// Whether a text is a host source of a content security policy and nothing more.
fn is_source(origin: &str) -> bool {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b':' | b'*' | b'[' | b']');
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain))
}

impl Allowed {
    /// The script for security keys.
    pub(crate) fn keys() -> Self {
        Self { script: true, ..Self::default() }
    }
}

/// A page with a title and one sentence: an error, or an end.
pub(crate) fn message(status: StatusCode, title: &str, text: &str) -> Response {
    page(status, &Message { t: &ENGLISH, title: &plain(title), text: &plain(text) }, &Allowed::default())
}

/// "You may close this tab."
pub(crate) fn close() -> Response {
    page(StatusCode::OK, &Close { t: &ENGLISH }, &Allowed::default())
}

/// That a form came from elsewhere (I52).
pub(crate) fn foreign_form() -> Response {
    let mut answer = message(StatusCode::FORBIDDEN, ENGLISH.foreign_form_title, ENGLISH.foreign_form_text);
    // Whoever carries the answer out has it on record.
    answer.extensions_mut().insert(PageRefusal::ForeignForm);
    answer
}

/// A one-line message as a sentence of a page.
pub(crate) fn sentence(text: &str) -> String {
    let text = plain(text);
    let mut rest = text.chars();
    let Some(first) = rest.next() else { return text };
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{}{}{stop}", first.to_uppercase(), rest.as_str())
}

/// Text of others for a page: without what cannot be seen, or turns the direction of reading.
pub(crate) fn plain(text: &str) -> String {
    let seen = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().filter(seen).collect()
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    t: &'static Texts,
    title: &'a str,
    text: &'a str,
}

#[derive(Template)]
#[template(path = "close.html")]
struct Close {
    t: &'static Texts,
}

/// Where to log in: the providers, and the form for users with a password.
#[derive(Template)]
#[template(path = "login.html")]
pub(crate) struct LoginPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// For what; may be empty.
    pub(crate) purpose: &'a str,
    /// What went wrong before.
    pub(crate) error: Option<&'a str>,
    /// Providers, the default first.
    pub(crate) connectors: &'a [ConnectorLink],
    /// The form, where local users may log in.
    pub(crate) local: Option<LocalForm<'a>>,
}

impl LoginPage<'_> {
    fn with(&self, provider: &str) -> String {
        fill(self.t.login_with, "provider", &plain(provider))
    }
}

/// A provider on the login page.
#[derive(Clone, Debug)]
pub(crate) struct ConnectorLink {
    /// Its name for people.
    pub(crate) display: String,
    /// A path of ours.
    pub(crate) href: String,
}

/// The password form of the login page.
#[derive(Clone, Debug)]
pub(crate) struct LocalForm<'a> {
    /// Where it goes: a path of ours.
    pub(crate) action: &'a str,
    /// The form's token, which the auth service gave: form field `token`.
    pub(crate) token: &'a str,
    /// User name filled in.
    pub(crate) user: &'a str,
    /// Whether a code is asked for.
    pub(crate) code: bool,
}

/// Where a security key is asked for after the password: form fields `token`, `answer` of the key, or `code`.
#[derive(Template)]
#[template(path = "touch.html")]
pub(crate) struct TouchPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// What for.
    pub(crate) text: &'a str,
    /// What went wrong before.
    pub(crate) error: Option<&'a str>,
    /// Where it goes.
    pub(crate) action: &'a str,
    /// [`Browser::form_token`], where forms bring one.
    pub(crate) csrf: Option<&'a str>,
    /// Stands for the question.
    pub(crate) token: &'a str,
    /// JSON for the browser.
    pub(crate) options: &'a str,
    /// Whether a code counts as well.
    pub(crate) code: bool,
}

/// A security key that can be set up.
#[derive(Clone)]
pub(crate) struct OfferedKey {
    /// Stands for the offer.
    pub(crate) token: String,
    /// JSON for the browser.
    pub(crate) options: String,
}

/// The question before certificates go to a program (I41): form fields `token`, `decision=approve|decline`.
#[derive(Template)]
#[template(path = "confirm.html")]
pub(crate) struct ConfirmPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// Who is logged in.
    pub(crate) user: &'a str,
    /// Host on which tsh says to run.
    pub(crate) host: &'a str,
    /// Address from which it began.
    pub(crate) address: &'a str,
    /// What tsh shows.
    pub(crate) code: &'a str,
    /// Where the answer goes.
    pub(crate) action: &'a str,
    /// The form's token, which the auth service gave.
    pub(crate) token: &'a str,
}

impl ConfirmPage<'_> {
    /// The code for a screen reader: character by character.
    fn spelled(&self) -> String {
        spelled(self.code)
    }
}

fn spelled(code: &str) -> String {
    let letters: Vec<String> = code.chars().map(String::from).collect();
    letters.join(" ")
}

/// The end of a login: leads the browser to the listener of tsh, by itself or by a click.
#[derive(Template)]
#[template(path = "deliver.html")]
pub(crate) struct DeliverPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// Address of the listener, with the answer.
    pub(crate) url: &'a str,
    /// Whether the person agreed.
    pub(crate) approved: bool,
}

/// What the browser posts to an identity provider.
#[derive(Template)]
#[template(path = "submit.html")]
pub(crate) struct SubmitPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// Where it goes.
    pub(crate) action: &'a str,
    /// The identity provider's host.
    pub(crate) provider: &'a str,
    /// Hidden fields.
    pub(crate) fields: &'a [(&'a str, &'a str)],
}

impl SubmitPage<'_> {
    fn text(&self) -> String {
        fill(self.t.submit_text, "provider", self.provider)
    }
}

/// Where the code of another machine's tsh is typed: form fields `csrf`, `code`.
#[derive(Template)]
#[template(path = "device.html")]
pub(crate) struct DevicePage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// What went wrong before.
    pub(crate) error: Option<&'a str>,
    /// Code filled in.
    pub(crate) code: &'a str,
    /// Where it goes.
    pub(crate) action: &'a str,
    /// [`Browser::form_token`].
    pub(crate) token: &'a str,
}

/// Where an invited user sets a password, and a second factor.
#[derive(Template)]
#[template(path = "invite.html")]
pub(crate) struct InvitePage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// For whom.
    pub(crate) user: &'a str,
    /// What went wrong before.
    pub(crate) error: Option<&'a str>,
    /// [`Browser::form_token`].
    pub(crate) token: &'a str,
    /// The authenticator that is offered.
    pub(crate) factor: Option<OfferedFactor>,
    /// The security key that is offered.
    pub(crate) key: Option<OfferedKey>,
    /// Whether nobody goes without a factor.
    pub(crate) required: bool,
}

/// A TOTP secret on its way to an app.
#[derive(Clone)]
pub(crate) struct OfferedFactor {
    /// `data:` URL of the QR code.
    pub(crate) image: String,
    /// The secret in base32.
    pub(crate) secret: String,
}

/// The account is made: recovery codes, shown once, and what to type next.
#[derive(Template)]
#[template(path = "signed_up.html")]
pub(crate) struct SignedUpPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// Recovery codes; none without a second factor.
    pub(crate) codes: &'a [&'a str],
    /// How to log in.
    pub(crate) command: &'a str,
}

impl SignedUpPage<'_> {
    /// The command's words, none of which is broken in two.
    fn words(&self) -> impl Iterator<Item = &str> {
        self.command.split(' ')
    }
}

#[cfg(test)]
mod tests;
