//! The signed word about who asks, as the auth service gives it for one certificate and one app. Owns how long one is used; looks into it only for the address
//! that it is made out to.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::future::BoxFuture;
use http::HeaderValue;
use remoteler_core::{ApiError, AppAddress, AppToken, AppTokenRequest, Timestamp};
use serde::Deserialize;
use tokio::sync::Mutex;

/// Gets an assertion from the auth service.
pub type Assertions = Arc<dyn Fn(AppTokenRequest) -> BoxFuture<'static, Result<AppToken, ApiError>> + Send + Sync>;

/// One is not used in its last moments.
const MARGIN: Duration = Duration::from_secs(15);

/// What an app is told, and under which name it is reached.
#[derive(Debug)]
pub(super) struct Assertion {
    /// For the app.
    pub(super) value: HeaderValue,
    /// Where browsers reach the app.
    pub(super) address: AppAddress,
    expires: Timestamp,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssertionError {
    /// The auth service refuses, or is away.
    #[error("the auth service does not say who asks: {0}")]
    Refused(#[from] ApiError),
    /// What it sent cannot be used.
    #[error("the auth service's assertion cannot be used: {0}")]
    Malformed(&'static str),
}

/// Those of one connection, whose user and app stay the same.
#[derive(Default)]
pub(super) struct Kept(Mutex<Option<Arc<Assertion>>>);

impl Kept {
    /// One that is good for a while. Who comes while one is asked for waits for it.
    pub(super) async fn get(
        &self,
        from: &Assertions,
        now: Timestamp,
        request: impl FnOnce() -> AppTokenRequest,
    ) -> Result<Arc<Assertion>, AssertionError> {
        let mut kept = self.0.lock().await;
        if let Some(assertion) = kept.as_ref()
            && now.plus(MARGIN) < assertion.expires
        {
            return Ok(assertion.clone());
        }
        let AppToken { token, expires } = from(request()).await?;
        let assertion = Arc::new(read(token.reveal(), expires)?);
        *kept = Some(assertion.clone());
        Ok(assertion)
    }
}

fn read(token: &str, expires: Timestamp) -> Result<Assertion, AssertionError> {
    #[derive(Deserialize)]
    struct Claims {
        aud: String,
    }
    let mut value = HeaderValue::try_from(token).map_err(|_| AssertionError::Malformed("it is no header's value"))?;
    value.set_sensitive(true);
    // Not verified here: it came from the auth service itself, over a connection in which that proved who it is.
    let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
    let claims = payload.and_then(|payload| serde_json::from_slice::<Claims>(&payload).ok());
    let claims = claims.ok_or(AssertionError::Malformed("it names no audience"))?;
    let address = claims.aud.strip_prefix("https://").and_then(AppAddress::parse);
    let address = address.ok_or(AssertionError::Malformed("its audience is no address of an app"))?;
    Ok(Assertion { value, address, expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apps_name_is_that_of_the_audience() {
        let of = |claims: &str| read(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)), Timestamp::default());
        let assertion = of(r#"{"aud":"https://app.example.com:3080","sub":"ann"}"#).unwrap();
        assert_eq!(assertion.address.origin(), "https://app.example.com:3080");
        assert!(assertion.value.is_sensitive());
        for wrong in ["{}", r#"{"aud":"/x"}"#, r#"{"aud":["a"]}"#, "no"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
