//! The steps of a login before and after the identity provider: begun by a client, opened by a browser, sent away, confirmed or declined. Each is bound to
//! the one browser that opened it (I36); what the provider answered is judged elsewhere.

use std::collections::BTreeMap;

use remoteler_core::{
    AccountWish, ApiError, BeginLogin, BrowserAction, BrowserAnswer, BrowserStep, BrowserView,
    ConnectorChoice, LoginBegun, LoginMethods, LoginPoll, LoginProgress, Resource, ResourceKind,
    Secret, Verb, draw_login_code, fill_random, is_answer_key, read_login_code, seal_answer,
};

use super::{
    GRANT_TTL, INTERVAL, LOGIN_TTL,
    connectors::Connector,
    limits::{self, Crowded},
    records::{Asked, GONE, LoginRecord, PendingState, Stage},
};
use crate::{
    Caller,
    ceremonies::Asker,
    failure::{ApiResult, bad_request, denied, not_found, rate_limited},
    form_token::{form_token, is_form_token},
    issue::{SubjectKeys, asked_life},
    local_login::{KeyProof, LOCAL, LocalProof},
    login::{remote, source_of},
    secret_hash,
    service::Inner,
    users::ByKey,
};

/// Longest name of a client's machine that is shown.
const MAX_HOST: usize = 64;
/// Longest text of what a browser says it is.
const MAX_AGENT: usize = 120;
/// How often a login's page can be opened (I26).
const MAX_OPENED: u8 = 20;
pub(super) const OTHER_BROWSER: &str =
    "this login was opened in another browser; finish it there, or start again with tsh login";

impl Inner {
    pub(crate) async fn login_methods(&self) -> ApiResult<LoginMethods> {
        let (kind, named) = self.login_preference().await?;
        let all = self.connectors().await?;
        let mut connectors: Vec<_> = all.iter().filter(|each| !each.is_disabled()).map(Connector::choice).collect();
        // Those of the default way stand first.
        connectors.sort_by_key(|each| each.kind.as_str() != kind.as_str());
        let fitting: Vec<_> = connectors.iter().filter(|each| each.kind.as_str() == kind.as_str()).collect();
        let default_connector = match (named, fitting.as_slice()) {
            // One that was removed or disabled since is nobody's way in: then people choose.
            (Some(named), fitting) => fitting.iter().find(|each| each.name == named).map(|each| each.name.clone()),
            (None, [only]) => Some(only.name.clone()),
            (None, _) => None,
        };
        Ok(LoginMethods { kind: kind.as_str().to_owned(), default_connector, connectors })
    }

    pub(crate) async fn begin_login(&self, caller: &Caller, request: BeginLogin) -> ApiResult<LoginBegun> {
        asked_life(request.ttl_seconds)?;
        SubjectKeys::parse(&request.ssh_public_key, &request.tls_public_key)?;
        if !is_answer_key(&request.answer_key) {
            return Err(bad_request("the key for the answer is no X25519 public key"));
        }
        if let Some(name) = request.connector.as_ref().filter(|name| *name != LOCAL) {
            self.usable_connector(name).await?;
        }
        let remote = remote(caller, request.client_addr.as_deref());
        let asked = Asked::Certificates {
            ssh: request.ssh_public_key,
            tls: request.tls_public_key,
            answer_key: request.answer_key,
            ttl: request.ttl_seconds,
            redirect: request.redirect,
        };
        self.open_login(asked, request.connector, &request.host, remote).await
    }

    pub(crate) async fn test_connector(&self, caller: &Caller, document: Resource) -> ApiResult<LoginBegun> {
        let kind = ResourceKind::parse(&document.kind).map_err(|cause| bad_request(cause.to_string()))?;
        self.admit(caller, kind.as_str(), Verb::Create).await?;
        if !matches!(kind, ResourceKind::Oidc | ResourceKind::Github | ResourceKind::Saml) {
            return Err(bad_request(format!("{} is no kind of connector; oidc, github and saml are", kind.as_str())));
        }
        let connector = self.with_stored_secret(Connector::parse(document)?).await?;
        let (name, document) = (connector.name().to_owned(), connector.document(true));
        self.open_login(Asked::Report(Box::new(document)), Some(name), "tctl", remote(caller, None)).await
    }

    async fn open_login(
        &self,
        asked: Asked,
        connector: Option<String>,
        host: &str,
        remote: Option<String>,
    ) -> ApiResult<LoginBegun> {
        let now = self.clock.now();
        let source = remote.as_deref().map(limits::source_of_login);
        match self.sso.limits.begin(source.as_deref(), now) {
            Ok(()) => {}
            Err(Crowded::Source) => {
                let said = "too many logins of this address were begun and not finished; wait ten minutes";
                self.record_attempt(String::new(), said.into(), remote).await?;
                return Err(rate_limited(said));
            }
            Err(Crowded::Everywhere) => {
                return Err(rate_limited("too many logins are under way; try again in a few minutes"));
            }
        }
        let octets: [u8; 16] = fill_random(self.entropy.as_ref());
        let id: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let secret = secret_hash::draw(self.entropy.as_ref());
        // A browser's name for itself is of several words, and is shown to its own user alone.
        let (words, most) = if matches!(asked, Asked::Account) { (true, MAX_AGENT) } else { (false, MAX_HOST) };
        let seen = |c: &char| c.is_ascii_graphic() || (words && *c == ' ');
        let host: String = host.chars().filter(seen).take(most).collect();
        let record = LoginRecord {
            id: id.clone(),
            asked,
            connector,
            code: draw_login_code(self.entropy.as_ref()),
            secret: secret_hash::hash(&secret),
            host,
            remote,
            source,
            expires: now.plus(LOGIN_TTL),
            opened: 0,
            browser: None,
            stage: Stage::Open,
            proven: None,
        };
        self.create_login(&record).await?;
        let LoginRecord { code, expires, .. } = record;
        Ok(LoginBegun { id, secret, code, expires, interval_seconds: INTERVAL.as_secs() })
    }

    pub(crate) async fn poll_login(&self, poll: LoginPoll) -> ApiResult<LoginProgress> {
        let (record, _) = self.login_of_client(&poll.id, &poll.secret).await?;
        match record.stage {
            Stage::Refused(reason) => return Ok(LoginProgress::Refused { reason }),
            Stage::Tested(report) => return Ok(LoginProgress::Tested { report: *report }),
            Stage::Approved { answer: Some(answer), .. } => return Ok(LoginProgress::Ready { answer }),
            Stage::Open | Stage::Confirming(_) | Stage::Approved { .. } => {}
        }
        if self.sso.limits.polls.attempt(&record.secret, self.clock.now()) {
            Ok(LoginProgress::Pending)
        } else {
            Ok(LoginProgress::SlowDown)
        }
    }

    /// The login, for who began it.
    pub(super) async fn login_of_client(
        &self,
        id: &str,
        secret: &Secret,
    ) -> ApiResult<(LoginRecord, remoteler_core::Revision)> {
        let (record, revision) = self.login_at(id).await?;
        // Compared by hash: timing tells nothing of the secret.
        if record.secret == secret_hash::hash(secret) { Ok((record, revision)) } else { Err(not_found(GONE)) }
    }

    pub(crate) async fn browser_step(&self, caller: &Caller, step: BrowserStep) -> ApiResult<BrowserAnswer> {
        let BrowserStep { step, browser, origin, client_addr } = step;
        let browser = browser.filter(|value| secret_hash::is_drawn(value.reveal()));
        let from = remote(caller, client_addr.as_deref());
        match step {
            BrowserAction::Open { id, connector } => self.open_page(&id, connector, browser, &origin, from).await,
            BrowserAction::Password { id, token, user, password, code } => {
                let typed = LocalProof { user, password, code };
                self.local_step(&id, browser.as_ref(), &token, typed, from, &origin).await.map(shown)
            }
            BrowserAction::EnterCode { code } => self.enter_code(&code, from).await.map(shown),
            BrowserAction::Callback { connector, params } => {
                self.callback(&connector, params, browser.as_ref(), from).await.map(shown)
            }
            BrowserAction::Review { id } => self.review(&id, browser.as_ref(), from).await.map(shown),
            BrowserAction::SamlMetadata { connector } => self.saml_metadata(&connector).await.map(shown),
            BrowserAction::Logout { connector } => self.provider_logout(&connector).await.map(shown),
            BrowserAction::Refused { because } => {
                self.record_attempt(String::new(), because.reason().into(), from).await?;
                Err(denied(because.reason()))
            }
            BrowserAction::Decide { id, token, approve } => {
                self.decide(&id, browser.as_ref(), &token, approve, from).await.map(shown)
            }
            BrowserAction::Key { id, token, answer, code } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                self.key_step(&id, asker, &token, KeyProof { answer, code }, from).await.map(shown)
            }
            BrowserAction::OfferKey { invite } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                self.offer_key_with_link(&invite, asker).await.map(shown)
            }
            BrowserAction::SignUpByKey { invite, password, token, answer } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                let by_key = ByKey { asker, token, answer, from };
                let signed_up = self.sign_up_by_key(caller, invite, password, by_key).await?;
                Ok(shown(BrowserView::SignedUp(signed_up)))
            }
            BrowserAction::OpenSession { id } => self.open_session_page(&id, browser, &origin, from).await,
            BrowserAction::TouchSession { id, token, answer } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                self.touch_session(&id, asker, &token, &answer, from).await.map(shown)
            }
            BrowserAction::Account { session, agent, wish: AccountWish::LogIn } => {
                // A session that there is ends with the next one.
                self.end_own_session(session.as_ref()).await?;
                let begun = self.open_login(Asked::Account, None, &agent, from).await?;
                Ok(shown(BrowserView::Redirect { to: login_path(&begun.id) }))
            }
            BrowserAction::Account { session, agent: _, wish } => {
                let asker = Asker { browser: known(browser.as_ref())?, origin: &origin };
                self.account_step(caller, session.as_ref(), wish, asker, from).await.map(shown)
            }
        }
    }

    async fn open_page(
        &self,
        id: &str,
        chosen: Option<String>,
        browser: Option<Secret>,
        origin: &str,
        from: Option<String>,
    ) -> ApiResult<BrowserAnswer> {
        let (mut record, revision) = self.login_at(id).await?;
        let browser = browser.unwrap_or_else(|| secret_hash::draw(self.entropy.as_ref()));
        // Also the one that is there: it lasts as long as this login from now on.
        let set_browser = Some(browser.clone());
        let hash = secret_hash::hash(&browser);
        if record.browser.as_ref().is_some_and(|known| *known != hash) {
            return Err(self.refuse_stranger(&record, OTHER_BROWSER, from).await?);
        }
        if record.opened >= MAX_OPENED {
            return Err(rate_limited("this login was opened too often; start again with tsh login"));
        }
        record.browser = Some(hash.clone());
        record.opened += 1;
        self.move_login(&record, revision).await?;
        let answer = |view| Ok(BrowserAnswer { view, set_browser: set_browser.clone() });
        match &record.stage {
            Stage::Open => {}
            Stage::Confirming(_) => return answer(BrowserView::Redirect { to: confirm_path(id) }),
            Stage::Approved { .. } | Stage::Refused(_) | Stage::Tested(_) => return Err(not_found(GONE)),
        }
        // Who waits for a login that is not the browser's choice is told that there is no way to finish it.
        let is_chosen = record.connector.is_none() && chosen.is_some();
        let connector = match (&record.asked, record.connector.clone().or(chosen)) {
            (Asked::Report(document), _) => Connector::parse(document.as_ref().clone())?,
            (Asked::Certificates { .. } | Asked::Account, Some(name)) if name == LOCAL => {
                return answer(self.choose_view(&record, Vec::new(), &browser));
            }
            (Asked::Certificates { .. } | Asked::Account, Some(name)) if is_chosen => {
                self.usable_connector(&name).await?
            }
            (Asked::Certificates { .. } | Asked::Account, Some(name)) => self.connector_or_end(id, &name).await?,
            (Asked::Certificates { .. } | Asked::Account, None) => {
                let methods = self.login_methods().await?;
                match (methods.default_connector, methods.connectors) {
                    (Some(name), _) => self.connector_or_end(id, &name).await?,
                    (None, connectors) => match connectors.as_slice() {
                        [ConnectorChoice { name, .. }] if methods.kind != LOCAL => {
                            self.connector_or_end(id, name).await?
                        }
                        _ => return answer(self.choose_view(&record, connectors, &browser)),
                    },
                }
            }
        };
        let redirect_url = connector.redirect_url(origin);
        let away = match &connector {
            Connector::Oidc { spec, .. } => self.send_to_oidc(spec, &redirect_url).await,
            Connector::Github { spec, .. } => Ok(self.send_to_github(spec, &redirect_url)),
            Connector::Saml { .. } => Ok(self.send_to_saml()),
        };
        let away = match away {
            Ok(away) => away,
            Err(cause) => return Err(self.login_failed(&record.id, connector.name(), cause).await?),
        };
        let pending = PendingState {
            login: record.id,
            connector: connector.name().to_owned(),
            browser: hash,
            redirect_url,
            secrets: away.secrets,
        };
        let state = self.remember_state(&pending).await?;
        answer(match &connector {
            // The state is part of what is signed.
            Connector::Saml { name, spec } => match self.saml_request(name, spec, &pending, &state).await {
                Ok(view) => view,
                Err(cause) => return Err(self.login_failed(&pending.login, name, cause).await?),
            },
            Connector::Oidc { .. } | Connector::Github { .. } => {
                BrowserView::Redirect { to: format!("{}&state={}", away.url, state.reveal()) }
            }
        })
    }

    /// Where the browser goes to end its login at a provider: the login here ended with the certificates.
    async fn provider_logout(&self, name: &str) -> ApiResult<BrowserView> {
        let end = match self.usable_connector(name).await? {
            Connector::Oidc { spec, .. } => self.end_of_oidc(&spec).await.map_err(|cause| denied(cause.said))?,
            Connector::Github { .. } | Connector::Saml { .. } => None,
        };
        Ok(match end {
            Some(to) => BrowserView::Redirect { to },
            None => {
                return Err(not_found(
                    "this identity provider names no page where its login ends; log out there yourself",
                ));
            }
        })
    }

    async fn enter_code(&self, typed: &str, from: Option<String>) -> ApiResult<BrowserView> {
        let source = from.as_deref().map(source_of).unwrap_or_default();
        if !self.sso.limits.codes.attempt(&source, self.clock.now()) {
            let said = "too many wrong codes from this address; wait five minutes";
            self.record_attempt(String::new(), said.into(), from).await?;
            return Err(rate_limited(said));
        }
        let found = match read_login_code(typed) {
            Some(code) => self.login_of_code(&code).await?,
            None => None,
        };
        let Some(id) = found else {
            self.record_attempt(String::new(), "a login's code was typed that is none".into(), from).await?;
            return Err(bad_request("there is no such code, or it has expired; look at what tsh shows"));
        };
        self.sso.limits.codes.succeeded(&source);
        Ok(BrowserView::Redirect { to: login_path(&id) })
    }

    async fn callback(
        &self,
        connector: &str,
        params: BTreeMap<String, String>,
        browser: Option<&Secret>,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        let posted = params.contains_key(super::saml::FIELD);
        let state = params.get("state").filter(|state| state.len() <= 128).map(Secret::new);
        let pending = match &state {
            Some(state) => self.take_state(state).await?,
            None => None,
        };
        let Some(pending) = pending else {
            let said = "a browser came back from a provider with a state that is unknown, was used or has expired";
            self.record_attempt(String::new(), format!("{said}, at connector {}", excerpt(connector)), from).await?;
            return Err(denied(
                "the identity provider's answer is unknown, was used already or came too late; start again with tsh login",
            ));
        };
        let (record, _) = self.login_at(&pending.login).await?;
        if pending.connector != connector {
            let said = "the identity provider's answer came to the callback of another connector";
            return Err(self.refuse_stranger(&record, said, from).await?);
        }
        if posted {
            return self.saml_posted(record, pending, &params, from).await;
        }
        if browser.map(secret_hash::hash).as_ref() != Some(&pending.browser)
            || record.browser != Some(pending.browser.clone())
        {
            return Err(self.refuse_stranger(&record, OTHER_BROWSER, from).await?);
        }
        if !matches!(record.stage, Stage::Open) {
            return Err(denied(GONE));
        }
        match self.judge(&record, &pending, &params).await {
            Ok((who, report)) => self.conclude(&pending.login, who, report).await,
            Err(cause) => Err(self.login_failed(&pending.login, connector, cause).await?),
        }
    }

    /// Whom the provider's answer proves.
    async fn judge(
        &self,
        record: &LoginRecord,
        pending: &PendingState,
        params: &BTreeMap<String, String>,
    ) -> Result<super::conclude::Proven, super::conclude::LoginFault> {
        use super::conclude::LoginFault;
        let connector = match &record.asked {
            Asked::Report(document) => Connector::parse(document.as_ref().clone()),
            Asked::Certificates { .. } | Asked::Account => self.usable_connector(&pending.connector).await,
        };
        let connector = connector.map_err(|cause| LoginFault::said(cause.message))?;
        if let Some(error) = params.get("error") {
            let error = excerpt(error);
            let said = if error == "access_denied" {
                "the login was declined at the identity provider".to_owned()
            } else {
                format!("the identity provider refused the login: {error}")
            };
            let more = params.get("error_description").map(|text| excerpt(text)).unwrap_or_default();
            return Err(LoginFault { detail: format!("{said} {more}").trim_end().to_owned(), said });
        }
        let (who, report) = match &connector {
            Connector::Oidc { name, spec } => self.oidc_answer(name, spec, pending, params).await?,
            Connector::Github { name, spec } => self.github_answer(name, spec, pending, params).await?,
            // It was judged when it was posted.
            Connector::Saml { .. } => return super::saml::proven(pending),
        };
        Ok((who.under(&connector), report))
    }

    async fn review(&self, id: &str, browser: Option<&Secret>, from: Option<String>) -> ApiResult<BrowserView> {
        let (record, _, browser) = self.login_of_browser(id, browser, from).await?;
        let Stage::Confirming(who) = &record.stage else { return Err(not_found(GONE)) };
        Ok(BrowserView::Confirm {
            id: record.id.clone(),
            user: who.username().clone(),
            host: record.host.clone(),
            address: record.remote.clone().unwrap_or_default(),
            code: record.code.clone(),
            token: form_token(browser, &form(id)),
        })
    }

    async fn decide(
        &self,
        id: &str,
        browser: Option<&Secret>,
        token: &Secret,
        approve: bool,
        from: Option<String>,
    ) -> ApiResult<BrowserView> {
        let (mut record, revision, browser) = self.login_of_browser(id, browser, from.clone()).await?;
        if !is_form_token(browser, &form(id), token) {
            // I52
            let said = "the form that confirms a login was not the one that was shown";
            return Err(self.refuse_stranger(&record, said, from).await?);
        }
        let Stage::Confirming(who) = record.stage.clone() else { return Err(not_found(GONE)) };
        let Asked::Certificates { answer_key, redirect, .. } = record.asked.clone() else {
            return Err(not_found(GONE));
        };
        if !approve {
            let said = "the login was declined in the browser";
            self.record(who.login_event(Some(said.into()), record.remote.clone())).await?;
            record.stage = Stage::Refused(said.into());
            self.move_login(&record, revision).await?;
            return Ok(match redirect {
                Some(redirect) => BrowserView::Deliver { redirect, answer: None },
                None => finished(false, "The login was declined. You may close this tab."),
            });
        }
        let grant = secret_hash::draw(self.entropy.as_ref());
        let (answer, follow) =
            seal_answer(&answer_key, id, grant.reveal().as_bytes()).map_err(|cause| bad_request(cause.to_string()))?;
        record.stage = Stage::Approved {
            who,
            grant: secret_hash::hash(&grant),
            follow: follow.to_text(),
            answer: redirect.is_none().then(|| answer.clone()),
        };
        record.expires = record.expires.min(self.clock.now().plus(GRANT_TTL));
        self.move_login(&record, revision).await?;
        Ok(match redirect {
            Some(redirect) => BrowserView::Deliver { redirect, answer: Some(answer) },
            None => finished(true, "You are logged in. You may close this tab and go back to the terminal."),
        })
    }

    /// The login, for the browser that opened it.
    async fn login_of_browser<'a>(
        &self,
        id: &str,
        browser: Option<&'a Secret>,
        from: Option<String>,
    ) -> ApiResult<(LoginRecord, remoteler_core::Revision, &'a Secret)> {
        let (record, revision) = self.login_at(id).await?;
        match browser.filter(|browser| record.browser.as_ref() == Some(&secret_hash::hash(browser))) {
            Some(browser) => Ok((record, revision, browser)),
            None => Err(self.refuse_stranger(&record, OTHER_BROWSER, from).await?),
        }
    }

    /// The login, for the browser that opened it, while nobody has proved to be anybody.
    pub(crate) async fn open_login_of_browser<'a>(
        &self,
        id: &str,
        browser: Option<&'a Secret>,
        from: Option<String>,
    ) -> ApiResult<(LoginRecord, &'a Secret)> {
        let (record, _, browser) = self.login_of_browser(id, browser, from).await?;
        let open = matches!(record.stage, Stage::Open) && !matches!(record.asked, Asked::Report(_));
        if open { Ok((record, browser)) } else { Err(not_found(GONE)) }
    }

    /// Audits a step that the login's own browser did not take. The login itself stays as it is: whose it is may still finish it.
    pub(crate) async fn refuse_stranger(
        &self,
        record: &LoginRecord,
        said: &str,
        from: Option<String>,
    ) -> ApiResult<ApiError> {
        let begun = record.remote.as_deref().unwrap_or("this process");
        self.record_attempt(String::new(), format!("{said} (the login was begun from {begun})"), from).await?;
        Ok(denied(said))
    }
}

/// The form that confirms login `id`.
fn form(id: &str) -> String {
    format!("confirm {id}")
}

fn login_path(id: &str) -> String {
    format!("/web/login/{id}")
}

pub(super) fn confirm_path(id: &str) -> String {
    format!("/web/login/{id}/confirm")
}

pub(super) fn finished(success: bool, message: &str) -> BrowserView {
    BrowserView::Finished { success, message: message.to_owned() }
}

fn shown(view: BrowserView) -> BrowserAnswer {
    BrowserAnswer { view, set_browser: None }
}

/// The browser, for what only a browser that was here before may do.
fn known(browser: Option<&Secret>) -> ApiResult<&Secret> {
    browser.ok_or_else(|| {
        denied("your browser has no cookie of this page; allow cookies, open the page again and try again")
    })
}

/// What a stranger said, for the audit log and for pages: its plain ASCII, and not much of it. (Core's `printable` keeps all of a text.)
pub(super) fn excerpt(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(200).collect()
}
