//! The proxy's web API as a user's machine calls it before it has any certificate: ping, login and sign-up. Owns nothing but the calls;
//! the proxy's web certificate is believed by the system's roots, or not checked by the user's explicit wish.

use http::Method;
use remoteler_core::{
    ApiError, ApiErrorKind, BeginLogin, Invited, LoginBegun, LoginMethods, LoginPoll, LoginProgress, LoginRequest,
    Ping, RedeemLogin, SealedCerts, Secret, SignUpRequest, SignedUp, UserCerts,
    wire::{self, InviteQuery},
};
use serde::de::DeserializeOwned;

use crate::{
    connector::{ConnectError, Connector, WebTrust},
    http::{Call, HttpClient},
    profile::ProxyAddr,
    remote::{get, refusal, send, unavailable},
};

/// The web API of one proxy.
pub struct WebClient {
    http: HttpClient,
}

impl WebClient {
    /// For the proxy at `addr`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ConnectError`] when this machine has no root certificates and `trust` wants them.
    pub fn new(addr: &ProxyAddr, trust: WebTrust) -> Result<Self, ConnectError> {
        Ok(Self { http: HttpClient::for_web(Connector::web(&addr.to_string(), trust)?) })
    }

    /// Who the proxy is.
    ///
    /// # Errors
    /// [`ApiErrorKind::Unavailable`] when it cannot be reached or its certificate is not believed.
    pub async fn ping(&self) -> Result<Ping, ApiError> {
        self.call(get(wire::WEB_PING)).await
    }

    /// Logs in with a password. The certificates come back, the private keys never left.
    ///
    /// # Errors
    /// [`ApiErrorKind::Unauthenticated`] or [`ApiErrorKind::Denied`] for wrong credentials, [`ApiErrorKind::RateLimited`] after too
    /// many attempts, [`ApiErrorKind::Unavailable`] as for [`WebClient::ping`].
    pub async fn login(&self, request: &LoginRequest) -> Result<UserCerts, ApiError> {
        self.call(send(Method::POST, wire::WEB_LOGIN, request)).await
    }

    /// For whom a sign-up link is, and the second factor that is offered. The link is not used by it.
    ///
    /// # Errors
    /// [`ApiErrorKind::NotFound`] for a link that is wrong, used or over, [`ApiErrorKind::RateLimited`] after too many of those; as
    /// [`WebClient::ping`].
    pub async fn invited_user(&self, link: &Secret) -> Result<Invited, ApiError> {
        self.call(send(Method::POST, wire::WEB_INVITED_USER, &InviteQuery { token: link.clone() })).await
    }

    /// Sets a password through a sign-up link, and with a code the second factor that was offered. Uses the link up.
    ///
    /// # Errors
    /// [`ApiErrorKind::BadRequest`] for a password that may not be set, [`ApiErrorKind::SecondFactorNeeded`] for a code that is wrong, or missing
    /// where everybody needs one; as [`WebClient::invited_user`].
    pub async fn sign_up(&self, request: &SignUpRequest) -> Result<SignedUp, ApiError> {
        self.call(send(Method::POST, wire::WEB_SIGN_UP, request)).await
    }

    /// Ways to log in.
    ///
    /// # Errors
    /// As [`WebClient::ping`].
    pub async fn login_methods(&self) -> Result<LoginMethods, ApiError> {
        self.call(get(wire::WEB_LOGIN_METHODS)).await
    }

    /// Begins a login that a browser finishes.
    ///
    /// # Errors
    /// [`ApiErrorKind::RateLimited`] after too many that were not finished; as [`WebClient::ping`].
    pub async fn begin_login(&self, request: &BeginLogin) -> Result<LoginBegun, ApiError> {
        self.call(send(Method::POST, wire::WEB_LOGINS, request)).await
    }

    /// How far it is.
    ///
    /// # Errors
    /// [`ApiErrorKind::NotFound`] when it has expired or was finished; as [`WebClient::ping`].
    pub async fn poll_login(&self, poll: &LoginPoll) -> Result<LoginProgress, ApiError> {
        self.call(send(Method::POST, wire::WEB_LOGIN_POLL, poll)).await
    }

    /// The certificates of a confirmed login, sealed, once.
    ///
    /// # Errors
    /// As [`WebClient::poll_login`].
    pub async fn redeem_login(&self, request: &RedeemLogin) -> Result<SealedCerts, ApiError> {
        self.call(send(Method::POST, wire::WEB_LOGIN_REDEEM, request)).await
    }

    async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ApiError> {
        let answer = self.http.call(&call).await.map_err(unavailable)?;
        let place = self.http.place();
        if let Some(error) = refusal(&answer, &place) {
            return Err(error);
        }
        serde_json::from_slice(&answer.body).map_err(|_| {
            ApiError::new(ApiErrorKind::Internal, format!("{place} answers, but not as a proxy of this product does"))
        })
    }
}
