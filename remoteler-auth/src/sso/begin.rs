//! Logins as programs begin them and ask about them: by `tsh`, for the account page, and to try a connector out. Owns what a new login is and how many there may
//! be (I26, I30); who it is, browsers and identity providers say later.

use remoteler_core::{
    BeginLogin, LoginBegun, LoginMethods, LoginPoll, LoginProgress, Resource, ResourceKind, Secret, Verb,
    draw_login_code, fill_random, is_answer_key,
};

use super::{
    INTERVAL, LOGIN_TTL,
    connectors::Connector,
    limits::{self, Crowded},
    records::{Asked, GONE, LoginRecord, Stage},
};
use crate::{
    Caller,
    failure::{ApiResult, bad_request, not_found, rate_limited},
    issue::{SubjectKeys, asked_life},
    local_login::LOCAL,
    login::remote,
    secret_hash,
    service::Inner,
};

/// Longest name of a client's machine that is shown.
const MAX_HOST: usize = 64;
/// Longest text of what a browser says it is.
const MAX_AGENT: usize = 120;

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

    pub(super) async fn open_login(
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
}
