//! The pages on which users see and change their own account. Owns how what is known is said; decides nothing.

use askama::Template;
use remoteler_core::{Account, FactorKind, SecondFactor, Timestamp};

use super::{
    super::texts::{Texts, fill},
    OfferedFactor, OfferedKey, plain,
};

/// What somebody's own is, and the forms that change it.
#[derive(Template)]
#[template(path = "account.html")]
pub(crate) struct AccountPage<'a> {
    t: &'static Texts,
    error: Option<&'a str>,
    done: Option<&'a str>,
    token: &'a str,
    login_token: &'a str,
    account: &'a Account,
    /// Whether factors may be changed now.
    changeable: bool,
    apps: bool,
    /// Whether a key can show that it is the user.
    keys: bool,
    factors: Vec<Row>,
    sessions: Vec<Row>,
    certificates: Vec<Row>,
}

/// A line of a list.
struct Row {
    id: String,
    /// As it is stored.
    raw: String,
    name: String,
    about: String,
    current: bool,
}

impl<'a> AccountPage<'a> {
    /// The page of `account`; `token` is that of its forms, `login_token` that of the form for another login.
    pub(crate) fn new(
        t: &'static Texts,
        account: &'a Account,
        token: &'a str,
        login_token: &'a str,
        error: Option<&'a str>,
        done: Option<&'a str>,
    ) -> Self {
        let factors = account.factors.iter().map(|factor| {
            let kind = if factor.kind == FactorKind::Webauthn { t.account_kind_key } else { t.account_kind_app };
            let used = factor.last_used.map_or_else(|| t.account_never.to_owned(), day);
            let about = fill(&fill(&fill(t.account_factor, "kind", kind), "added", &day(factor.added)), "used", &used);
            let (raw, name) = (factor.name.clone(), plain(&factor.name));
            Row { id: String::new(), raw, name, about, current: false }
        });
        let sessions = account.sessions.iter().map(|session| {
            let agent = plain(&session.agent);
            let agent = if agent.is_empty() { t.account_unknown.to_owned() } else { agent };
            let remote = session.remote.as_deref().map_or_else(|| t.account_unknown.to_owned(), plain);
            let about = fill(&fill(t.account_session, "remote", &remote), "seen", &minute(session.seen));
            let about = fill(&about, "ends", &minute(session.expires));
            let name = if session.current { fill(t.account_this, "agent", &agent) } else { agent };
            Row { id: session.id.clone(), raw: String::new(), name, about, current: session.current }
        });
        let certificates = account.certificates.iter().map(|held| Row {
            id: String::new(),
            raw: String::new(),
            name: plain(&held.name),
            about: fill(t.account_certificate, "ends", &minute(held.expires)),
            current: false,
        });
        Self {
            t,
            error,
            done,
            token,
            login_token,
            account,
            changeable: account.fresh && !account.proof_needed,
            apps: account.second_factor.takes(FactorKind::Totp)
                || (account.connector.is_some() && account.second_factor == SecondFactor::Off),
            keys: account.factors.iter().any(|factor| factor.kind == FactorKind::Webauthn),
            factors: factors.collect(),
            sessions: sessions.collect(),
            certificates: certificates.collect(),
        }
    }

    fn who(&self) -> String {
        let said = match &self.account.connector {
            Some(connector) => fill(self.t.account_who_by, "connector", &plain(connector)),
            None => self.t.account_who.to_owned(),
        };
        fill(&said, "user", self.account.user.as_str())
    }
}

/// Where somebody without a web session begins one: form field `csrf`.
#[derive(Template)]
#[template(path = "account_gate.html")]
pub(crate) struct AccountGatePage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// [`super::Browser::form_token`].
    pub(crate) token: &'a str,
}

/// Leads on to a login by itself: a redirect of the form's answer to an identity provider would be held up by the policy for forms.
#[derive(Template)]
#[template(path = "onward.html")]
pub(crate) struct OnwardPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// A path of ours.
    pub(crate) url: &'a str,
}

/// Where an authenticator app is set up: form fields `csrf`, `name`, `code`.
#[derive(Template)]
#[template(path = "account_app.html")]
pub(crate) struct AddAppPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// [`super::Browser::form_token`].
    pub(crate) token: &'a str,
    /// What is offered.
    pub(crate) factor: OfferedFactor,
}

/// Where a security key is set up: form fields `csrf`, `name`, `token`, `answer`.
#[derive(Template)]
#[template(path = "account_key.html")]
pub(crate) struct AddKeyPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// [`super::Browser::form_token`].
    pub(crate) token: &'a str,
    /// What is offered.
    pub(crate) key: OfferedKey,
}

/// Recovery codes, shown once.
#[derive(Template)]
#[template(path = "codes.html")]
pub(crate) struct CodesPage<'a> {
    /// Language.
    pub(crate) t: &'static Texts,
    /// The codes.
    pub(crate) codes: &'a [&'a str],
}

/// `2026-03-01`
fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// `2026-03-01 12:00 UTC`
fn minute(at: Timestamp) -> String {
    let text: String = at.to_string().chars().take(16).collect();
    format!("{} UTC", text.replace('T', " "))
}
