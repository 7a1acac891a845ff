//! The signed word about who asks, as the auth service gives it for one certificate and one app. Owns how long one is used; looks into it only for the address
//! that it is made out to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as Lock, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::future::BoxFuture;
use http::HeaderValue;
use remoteler_core::{ApiError, AppAddress, AppName, AppToken, AppTokenRequest, Timestamp};
use rustls::pki_types::CertificateDer;
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

/// Certificates whose assertions are kept.
const MAX_KEPT: usize = 4096;

/// All that are kept: one for each certificate at each app, whatever connections show it.
#[derive(Default)]
pub(super) struct AllKept(Lock<HashMap<(AppName, CertificateDer<'static>), Arc<Kept>>>);

impl AllKept {
    /// The place of those for this certificate, which ends then.
    pub(super) fn of(
        &self,
        app: &AppName,
        certificate: &CertificateDer<'static>,
        ends: Timestamp,
        now: Timestamp,
    ) -> Arc<Kept> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (app.clone(), certificate.clone());
        if let Some(kept) = all.get(&key) {
            return kept.clone();
        }
        let kept = Arc::new(Kept { ends, last: Mutex::default() });
        if all.len() >= MAX_KEPT {
            all.retain(|_, kept| now < kept.ends);
        }
        if all.len() < MAX_KEPT {
            all.insert(key, kept.clone());
        }
        kept
    }
}

/// Those for one certificate at one app.
pub(super) struct Kept {
    /// When the certificate does; no assertion lasts longer.
    ends: Timestamp,
    last: Mutex<Option<Arc<Assertion>>>,
}

impl Kept {
    /// One that is good for a while, or as long as the certificate. Who comes while one is asked for waits for it.
    pub(super) async fn get(
        &self,
        from: &Assertions,
        now: Timestamp,
        request: impl FnOnce() -> AppTokenRequest,
    ) -> Result<Arc<Assertion>, AssertionError> {
        let mut kept = self.last.lock().await;
        if let Some(assertion) = kept.as_ref()
            && now < assertion.expires
            && (now.plus(MARGIN) < assertion.expires || assertion.expires.unix_seconds() >= self.ends.unix_seconds())
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

    /// Gives assertions that last a minute, or until then, and counts them.
    fn source(clock: &Arc<Lock<u64>>, until: u64) -> (Assertions, Arc<Lock<usize>>) {
        let (count, clock) = (Arc::new(Lock::new(0)), clock.clone());
        let counted = count.clone();
        let from: Assertions = Arc::new(move |_| {
            *counted.lock().unwrap() += 1;
            let end = (*clock.lock().unwrap() + 60).min(until);
            let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"aud":"https://app.example.com"}"#));
            let token = AppToken { token: remoteler_core::Secret::new(token), expires: at(end) };
            Box::pin(async move { Ok(token) })
        });
        (from, count)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    #[tokio::test]
    async fn one_is_asked_for_by_certificate_and_not_by_connection_or_request() {
        let clock = Arc::new(Lock::new(0));
        let (from, count) = source(&clock, 100);
        let (all, app) = (AllKept::default(), AppName::new("app").unwrap());
        let (one, other) = (CertificateDer::from(vec![1]), CertificateDer::from(vec![2]));
        for (now, certificate, expected) in [
            (0, &one, 1),
            (1, &one, 1),
            (1, &other, 2),
            (44, &one, 2),
            (46, &one, 3), // its last moments
            (90, &one, 3), // those of the certificate: no later one would last longer
            (99, &one, 3),
        ] {
            *clock.lock().unwrap() = now;
            let request = || AppTokenRequest::new(app.clone(), std::slice::from_ref(certificate));
            all.of(&app, certificate, at(100), at(now)).get(&from, at(now), request).await.unwrap();
            assert_eq!(*count.lock().unwrap(), expected, "at {now}");
        }
    }

    // I62
    #[test]
    fn so_many_are_kept_and_no_more() {
        let (all, app) = (AllKept::default(), AppName::new("app").unwrap());
        for count in 0..=MAX_KEPT {
            all.of(&app, &CertificateDer::from(count.to_be_bytes().to_vec()), at(100), at(0));
        }
        assert_eq!(all.0.lock().unwrap().len(), MAX_KEPT);
        all.of(&app, &CertificateDer::from(vec![1]), at(200), at(100));
        assert_eq!(all.0.lock().unwrap().len(), 1, "those that have ended make room");
    }

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
