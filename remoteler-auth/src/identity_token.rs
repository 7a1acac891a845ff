//! Identity tokens: what a web application is shown of who its user is. Owns what stands in one, and for how long. The key that signs is
//! that of `token_keys`.

use std::{sync::Arc, time::Duration};

use remoteler_ca::TokenClaims;
use remoteler_core::{ApiError, ApiErrorKind, AppName, AuditKind, OnlyAt, Timestamp, VerifiedUser, random_uuid};

use crate::{
    AuthService,
    failure::{self, ApiResult, bad_request},
    service::Inner,
};

/// Longest audience, in octets.
const MAX_AUDIENCE: usize = 512;

impl AuthService {
    /// A token for `audience` that says who `user` is: a JWT with ES256 (RFC 7519), which any JWT library checks against the keys at the
    /// proxy's `/.well-known/jwks.json`. It ends after `ttl` or with the user's certificate, whichever is first (I51). Everything in it but
    /// the audience is of the verified certificate (I9), and its issue is on record before it is signed (I75).
    ///
    /// # Errors
    /// [`ApiErrorKind::BadRequest`] for an audience that is none, [`ApiErrorKind::Denied`] when the certificate is restricted or has ended,
    /// [`ApiErrorKind::Unauthenticated`] when it is not believed any more or its user was removed.
    pub async fn issue_identity_token(
        &self,
        user: &VerifiedUser,
        audience: &str,
        ttl: Duration,
    ) -> Result<String, ApiError> {
        let (inner, user, audience) = (Arc::clone(&self.inner()), user.clone(), audience.to_owned());
        crate::api::detached(async move { Ok(inner.issue_identity_token(&user, audience, ttl, None).await?.0) }).await
    }
}

impl Inner {
    /// The same, and when it ends. A certificate for one application is good for a token of that one.
    pub(crate) async fn issue_identity_token(
        &self,
        user: &VerifiedUser,
        audience: String,
        ttl: Duration,
        app: Option<&AppName>,
    ) -> ApiResult<(String, Timestamp)> {
        if audience.is_empty() || audience.len() > MAX_AUDIENCE || audience.chars().any(char::is_control) {
            return Err(bad_request(format!(
                "an audience has 1 to {MAX_AUDIENCE} octets and no control characters; give the application's address"
            )));
        }
        let denied = |message: String| ApiError::new(ApiErrorKind::Denied, message);
        let elsewhere = |only: &&OnlyAt| !matches!((only, app), (OnlyAt::App(name), Some(app)) if name == app);
        if let Some(place) = user.only_at().filter(elsewhere) {
            return Err(denied(format!("the certificate counts at {place} only; log in for more")));
        }
        let now = self.clock.now();
        let expires = now.plus(ttl).min(user.expires());
        if expires.unix_seconds() <= now.unix_seconds() {
            return Err(denied("the token would end at once; log in again".into()));
        }
        let identity = self.current(user).await?;
        let claims = TokenClaims {
            issuer: self.cluster.clone(),
            subject: identity.user.to_string(),
            audience,
            roles: identity.roles.iter().map(ToString::to_string).collect(),
            issued_at: now,
            expires,
            token_id: random_uuid(self.entropy.as_ref()).to_string(),
        };
        let event = AuditKind::CertCreate {
            purpose: String::new(),
            by: String::new(),
            subject: String::new(),
            cert_type: "identity-token".into(),
            user: claims.subject.clone(),
            ssh_serial: String::new(),
            tls_serial: claims.token_id.clone(),
            roles: claims.roles.clone(),
            logins: Vec::new(),
            expires: Some(expires),
        };
        self.record(event).await?;
        let signed = self.issuer.authorities().tokens.active().sign(&claims);
        signed.map(|token| (token, expires)).map_err(|cause| failure::authority(&cause))
    }
}
