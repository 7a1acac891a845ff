//! The auth service's last answers to strangers, kept for a moment. Owns that those who ask do not ask the auth service each for himself, and that
//! none waits for what another one asks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use remoteler_core::{ApiError, ApiErrorKind};
use tokio::time::Instant;

/// How long an answer is given out before the auth service is asked again; so long a failure counts, too.
const AGE: Duration = Duration::from_secs(5);
/// How long the auth service has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers by what was asked for. There must be few keys: none is forgotten.
pub(super) struct Remembered<K, V>(Arc<Mutex<Answers<K, V>>>);

type Answers<K, V> = BTreeMap<K, Arc<tokio::sync::Mutex<Answer<V>>>>;

/// The last answer, and the last one that was none.
struct Answer<V> {
    asked: Option<Instant>,
    value: Option<Arc<V>>,
    failure: Option<ApiError>,
}

impl<K: Ord, V> Remembered<K, V> {
    /// What is known of `key`, or what `fetch` brings. One asks, the others wait for its answer.
    ///
    /// # Errors
    /// Those of `fetch`, when it never succeeded.
    pub(super) async fn get(
        &self,
        key: K,
        fetch: impl Future<Output = Result<V, ApiError>>,
    ) -> Result<Arc<V>, ApiError> {
        let answer = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        let mut answer = answer.lock().await;
        if answer.asked.is_none_or(|asked| asked.elapsed() >= AGE) {
            match within(PATIENCE, fetch).await {
                Ok(value) => (answer.value, answer.failure) = (Some(Arc::new(value)), None),
                Err(cause) => {
                    if answer.value.is_some() {
                        tracing::warn!(%cause, "the auth service does not answer; what it said last is shown");
                    }
                    answer.failure = Some(cause);
                }
            }
            answer.asked = Some(Instant::now());
        }
        // What was true a moment ago is better than nothing: who cannot fetch a list may let everybody in, or nobody.
        match (&answer.value, &answer.failure) {
            (Some(value), _) => Ok(Arc::clone(value)),
            (None, Some(cause)) => Err(cause.clone()),
            (None, None) => Err(late()),
        }
    }
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> Clone for Remembered<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Default for Answer<V> {
    fn default() -> Self {
        Self { asked: None, value: None, failure: None }
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(late()))
}

fn late() -> ApiError {
    ApiError::new(ApiErrorKind::Unavailable, "the auth service did not answer in time; try again")
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        pin::pin,
        sync::atomic::{AtomicU32, Ordering},
        task::Poll,
    };

    use super::*;

    /// As if all that is known had been asked for [`AGE`] ago.
    async fn grow_old(remembered: &Remembered<u8, u32>) {
        let answers: Vec<_> = remembered.0.lock().unwrap().values().cloned().collect();
        for answer in answers {
            let mut answer = answer.lock().await;
            answer.asked = answer.asked.and_then(|asked| asked.checked_sub(AGE));
        }
    }

    #[tokio::test]
    async fn strangers_ask_the_auth_service_once_in_five_seconds_also_when_it_fails() {
        let (remembered, asked) = (Remembered::<u8, u32>::default(), AtomicU32::new(0));
        let get = async |fails: bool| {
            let fetch = async {
                let count = asked.fetch_add(1, Ordering::SeqCst) + 1;
                if fails { Err(late()) } else { Ok(count) }
            };
            remembered.get(1, fetch).await.map(|value| *value).ok()
        };
        assert_eq!((get(true).await, get(false).await), (None, None));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        grow_old(&remembered).await;
        assert_eq!((get(false).await, get(false).await), (Some(2), Some(2)));
        grow_old(&remembered).await;
        // What was true is shown on.
        assert_eq!((get(true).await, get(true).await), (Some(2), Some(2)));
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn one_thing_that_does_not_come_keeps_nobody_waiting_who_asks_for_another() {
        let remembered = Remembered::<u8, u32>::default();
        let mut slow = pin!(remembered.get(1, pending()));
        assert!(std::future::poll_fn(|context| Poll::Ready(slow.as_mut().poll(context).is_pending())).await);
        assert_eq!(*remembered.get(2, ready(Ok(7))).await.unwrap(), 7);
    }
}
