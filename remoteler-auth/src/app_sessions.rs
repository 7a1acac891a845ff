//! Sessions of browsers with web applications: how they begin, and what ends them. Each look at one looks at its web session, the user, the roles and the locks
//! anew, so that a logout or a lock ends it at every proxy with the next request (I50, I51). Owns what a session's secret opens: one application, for one user.

use std::{collections::BTreeSet, time::Duration};

use remoteler_ca::AppProfile;
use remoteler_core::{
    ApiErrorKind, AppAddress, AppCertificateRequest, AppCertified, AppCodeRequest, AppName, AppProxy, AppRecord,
    AppSessionOpened, AppSessionsEnded, AppSessionsRequest, AppToken, AppTokenRequest, AuditKind, CaKind,
    ConnectionFields, MAX_APP_SESSIONS_ASKED, PolicySource, Secret, SessionId, SessionProof, SessionTarget, SystemRole,
    Timestamp, UserName, Verified, X509Purpose, app_state_hash, authorize_app, verify_x509_chain,
};
use serde::{Deserialize, Serialize};

use crate::{
    Caller,
    app_launch::AppCode,
    failure::{ApiResult, bad_request, denied, not_found, unauthenticated},
    issue::About,
    records::{Batch, key},
    secret_hash,
    service::Inner,
    users::UserRecord,
    web_sessions::Shown,
};

/// How long a certificate lasts that a proxy is given for a session.
const CERTIFICATE_TTL: Duration = Duration::from_secs(300);
/// How long an identity token lasts, if the certificate does.
const TOKEN_TTL: Duration = Duration::from_secs(300);
const GONE: &str =
    "there is no such session with this application, or none any more; open the application's address again";
const NO_CODE: &str =
    "the way to the application is unknown, was used or took too long; open the application's address again";

/// A session as stored, under the hash of its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct AppSessionRecord {
    app: AppName,
    user: UserName,
    /// Hash of the secret of the web session that it began in and ends with.
    web: String,
    session: SessionId,
    with_mfa: bool,
    begun: Timestamp,
    expires: Timestamp,
    /// Where the browser was that it began in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
}

impl Inner {
    /// Turns a code into a session, once, for the browser whose way it was. The session is on record before its secret is known to anybody.
    pub(crate) async fn redeem_app_code(
        &self,
        caller: &Caller,
        request: AppCodeRequest,
    ) -> ApiResult<AppSessionOpened> {
        let host = self.admit_host(caller, SystemRole::Proxy, "begin sessions with applications").await?.id;
        let AppCodeRequest { code, state, app } = request;
        let key = key::of(key::APP_CODES, secret_hash::hash(&code));
        let found = self.records.read_at::<AppCode>(&key).await?;
        let Some((found, revision)) = found.filter(|_| secret_hash::is_drawn(code.reveal())) else {
            return Err(not_found(NO_CODE));
        };
        // Taken before it is looked at: a code that was brought by another browser, or elsewhere, counts for nobody any more.
        match self.records.commit(Batch::new().delete_at(&key, revision)).await {
            Ok(()) => {}
            Err(cause) if cause.is_conflict() => return Err(not_found(NO_CODE)),
            Err(cause) => return Err(cause.into()),
        }
        let now = self.clock.now();
        if found.app != app || state.is_none_or(|state| found.state != app_state_hash(&state)) {
            let said = format!(
                "the way of {} to application {} was brought to {app}, or by another browser",
                found.user, found.app
            );
            self.record_attempt(found.user.to_string(), said, found.remote).await?;
            return Err(not_found(NO_CODE));
        }
        let AppCode { user, web, session, with_mfa, path, remote, expires, .. } = found;
        if expires <= now {
            return Err(not_found(NO_CODE));
        }
        let shown = self.web_session_of(web.clone(), true).await?.filter(|shown| shown.user.name == user);
        let Some(shown) = shown else { return Err(not_found(NO_CODE)) };
        let (record, grant) = match self.granted_app(&shown.user, app.as_str()).await? {
            Ok(granted) => granted,
            Err((full, said)) => {
                self.record_attempt(user.to_string(), full, remote).await?;
                return Err(denied(said));
            }
        };
        if grant.needs_session_mfa() && !with_mfa {
            return Err(not_found(NO_CODE));
        }
        let expires = self.app_session_end(&shown, now)?;
        self.record(AuditKind::AppSessionStart {
            user: user.to_string(),
            sid: session.to_string(),
            app_name: app.to_string(),
            app_public_addr: self.app_address(&record).await?.map(|address| address.to_string()),
            server_id: record.host_id.to_string(),
            with_mfa: with_mfa.then(|| session.to_string()),
            expires,
            connection: ConnectionFields { remote: remote.clone() },
        })
        .await?;
        tracing::debug!(%host, %app, "a session with an application begins");
        let secret = secret_hash::draw(self.entropy.as_ref());
        let stored = AppSessionRecord { app, user, web, session, with_mfa, begun: now, expires, remote };
        let hash = secret_hash::hash(&secret);
        let batch = Batch::new().create(&session_key(&hash), &stored, Some(expires))?;
        self.records.commit(batch.create(&name_key(session), &hash, Some(expires))?).await?;
        Ok(AppSessionOpened { secret, expires, path })
    }

    /// Whether a session goes on, and a certificate in it for the proxy's own key.
    pub(crate) async fn app_certificate(
        &self,
        caller: &Caller,
        request: AppCertificateRequest,
    ) -> ApiResult<AppCertified> {
        let host = self.admit_host(caller, SystemRole::Proxy, "use sessions with applications").await?;
        let AppCertificateRequest { secret, app, tls_public_key, in_use } = request;
        // Of a user who is removed at this moment, it is before that, and revoked, or not at all.
        let _turn = self.changes.read().await;
        let (stored, user) = self.app_session(&secret, &app, in_use).await?;
        let AppSessionRecord { session, with_mfa, expires, .. } = stored;
        let (certificate, certificate_expires) = match tls_public_key {
            Some(key) => {
                let not_after = self.clock.now().plus(CERTIFICATE_TTL).min(expires);
                let not_after = Timestamp::from_unix_seconds(not_after.unix_seconds());
                let target = SessionTarget::App { name: app.clone() };
                let proof = with_mfa.then(|| SessionProof::new(session, user.name.clone(), target, expires));
                let identity = self.identity_of(&user)?;
                let roles = identity.roles.iter().map(ToString::to_string).collect();
                let about = About { user: user.name.to_string(), roles, ..About::default() };
                let tls_key = self.issuer.tls_key(&key)?;
                let proxy = Some(AppProxy { id: host.id, name: host.name.clone() });
                let login_expires = expires;
                let profile = AppProfile { identity, app, session, tls_key, not_after, proof, login_expires, proxy };
                let issue = self
                    .issuer
                    .prepare_single(CaKind::User, |authority, now, entropy| profile.prepare(authority, now, entropy))?;
                (Some(self.issuer.issue_x509(issue, about).await?), Some(not_after))
            }
            None => (None, None),
        };
        Ok(AppCertified { certificate, certificate_expires, session, user: user.name, expires })
    }

    /// An identity token for who showed a certificate at an application. What stands in it comes of the certificate, which is looked at here, and of nothing that the
    /// service says (I9), and it is of no other application than its own (I51). A certificate of a browser's session counts while that goes on; of another, that its
    /// user is there at this moment is not looked at: a service that has seen it gets tokens of its application for that user until it ends.
    pub(crate) async fn app_token(&self, caller: &Caller, request: AppTokenRequest) -> ApiResult<AppToken> {
        let host = self.admit_host(caller, SystemRole::App, "ask for identity tokens").await?;
        let app = &request.app;
        if !host.apps.contains(app) {
            return Err(self.refuse(caller, &format!("ask for identity tokens of application {app}")).await);
        }
        let chain =
            request.certificates().ok_or_else(|| bad_request("chain is a list of certificates: base64 of DER"))?;
        let policy = self.policy.policy();
        let verified = verify_x509_chain(&chain, &policy.trust, X509Purpose::AppClient, self.clock.now());
        let user = match verified {
            Ok(Verified::User(user)) => user,
            Ok(Verified::Host(_)) => return Err(unauthenticated("a user certificate is needed, this is a host's")),
            Err(cause) => return Err(unauthenticated(cause.to_string())),
        };
        let record = self.records.read::<AppRecord>(&key::of(key::APPS, app)).await?;
        let record = record.ok_or_else(|| not_found(format!("application {app} has not announced itself")))?;
        authorize_app(&user, &policy, &record).map_err(|cause| denied(cause.public()))?;
        if let Some(session) = user.browser_session() {
            self.named_app_session(session, &host.apps).await?;
        }
        // Where no proxy has a name, programs reach it all the same.
        let address = self.app_address(&record).await?.or_else(|| AppAddress::within(&self.cluster, app));
        let address = address.ok_or_else(|| bad_request(format!("application {app} has no public address")))?;
        let (token, expires) = self.issue_identity_token(&user, address.origin(), TOKEN_TTL, Some(app)).await?;
        Ok(AppToken { token: Secret::new(token), expires })
    }

    /// Which of these sessions have ended. Of those with applications of others the service hears what it hears of ended ones (I51).
    pub(crate) async fn ended_app_sessions(
        &self,
        caller: &Caller,
        request: AppSessionsRequest,
    ) -> ApiResult<AppSessionsEnded> {
        let host = self.admit_host(caller, SystemRole::App, "ask for sessions with applications").await?;
        if request.sessions.len() > MAX_APP_SESSIONS_ASKED {
            return Err(bad_request(format!("at most {MAX_APP_SESSIONS_ASKED} sessions are asked for at once")));
        }
        let mut ended = Vec::new();
        for session in request.sessions {
            match self.named_app_session(session, &host.apps).await {
                Ok(()) => {}
                Err(cause) if matches!(cause.kind, ApiErrorKind::Unauthenticated | ApiErrorKind::Denied) => {
                    ended.push(session);
                }
                // Nothing is said to have ended because it could not be looked at.
                Err(cause) => return Err(cause),
            }
        }
        Ok(AppSessionsEnded { ended })
    }

    /// Whether the session of this name goes on, and is one with these applications. That somebody asks is no use of it.
    async fn named_app_session(&self, session: SessionId, apps: &BTreeSet<AppName>) -> ApiResult<()> {
        let gone = || unauthenticated(GONE);
        let hash = self.records.read::<String>(&name_key(session)).await?.ok_or_else(gone)?;
        let stored = self.records.read::<AppSessionRecord>(&session_key(&hash)).await?;
        let stored = stored.filter(|stored| apps.contains(&stored.app)).ok_or_else(gone)?;
        self.lasting(&hash, stored, false).await.map(drop)
    }

    /// The session of this secret at this application, if it goes on, and its user as of now.
    async fn app_session(
        &self,
        secret: &Secret,
        app: &AppName,
        in_use: bool,
    ) -> ApiResult<(AppSessionRecord, UserRecord)> {
        let gone = || unauthenticated(GONE);
        if !secret_hash::is_drawn(secret.reveal()) {
            return Err(gone());
        }
        let hash = secret_hash::hash(secret);
        let stored = self.records.read::<AppSessionRecord>(&session_key(&hash)).await?;
        // I51: at another application it opens nothing, and says nothing of itself.
        let stored = stored.filter(|stored| stored.app == *app).ok_or_else(gone)?;
        self.lasting(&hash, stored, in_use).await
    }

    /// A session, stored under this hash, if it goes on, and its user as of now.
    async fn lasting(
        &self,
        hash: &str,
        mut stored: AppSessionRecord,
        in_use: bool,
    ) -> ApiResult<(AppSessionRecord, UserRecord)> {
        let gone = || unauthenticated(GONE);
        let now = self.clock.now();
        // That an app is open is no use of a login that opens all of them.
        let shown = self.web_session_of(stored.web.clone(), in_use).await?;
        let shown = shown.filter(|shown| shown.user.name == stored.user);
        let Some(shown) = shown.filter(|_| stored.expires > now) else {
            // It ended with its login: nobody comes back to it.
            let gone_for_good = Batch::new().delete(&session_key(hash)).delete(&name_key(stored.session));
            self.records.commit(gone_for_good).await?;
            return Err(gone());
        };
        stored.expires = stored.expires.min(self.app_session_end(&shown, stored.begun)?);
        let (_, grant) = match self.granted_app(&shown.user, stored.app.as_str()).await? {
            Ok(granted) => granted,
            Err((full, said)) => {
                self.record_attempt(stored.user.to_string(), full, stored.remote).await?;
                return Err(denied(said));
            }
        };
        if stored.expires <= now || (grant.needs_session_mfa() && !stored.with_mfa) {
            return Err(gone());
        }
        Ok((stored, shown.user))
    }

    /// When a session ends at the latest that began then: with the web session, or after what the roles allow.
    fn app_session_end(&self, shown: &Shown, begun: Timestamp) -> ApiResult<Timestamp> {
        let roles = self.roles_of(&shown.user)?;
        let limits = roles.iter().map(|role| begun.plus(role.options().max_session_ttl));
        let end = limits.fold(shown.record.ends_at_last(), Timestamp::min);
        Ok(Timestamp::from_unix_seconds(end.unix_seconds()))
    }
}

/// Under the hash of its secret.
fn session_key(hash: &str) -> String {
    key::of(key::APP_SESSIONS, hash)
}

fn name_key(session: SessionId) -> String {
    key::of(key::APP_SESSION_NAMES, session)
}
