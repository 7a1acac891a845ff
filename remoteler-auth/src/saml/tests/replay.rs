//! The use of an assertion, in both stores.

use std::time::Duration;

use super::maker::{Maker, NOW};
use crate::{
    MemoryStorage,
    saml::{SamlError, UseError, use_once},
};

// I46
#[tokio::test]
async fn an_assertion_counts_once_and_is_remembered_as_long_as_it_would_be_believed() {
    let store = MemoryStorage::default();
    let maker = Maker::new();
    let claims = maker.accept(&maker.response()).unwrap();
    use_once(&store, &claims, NOW).await.unwrap();
    let replayed = |outcome| matches!(outcome, Err(UseError::Refused(SamlError::Replayed)));
    assert!(replayed(use_once(&store, &claims, NOW).await));
    let last = claims.remember_until.minus(Duration::from_millis(1));
    assert!(replayed(use_once(&store, &claims, last).await));
    // Another provider may have the same id.
    let mut other = claims.clone();
    other.issuer = "https://other.example.com".into();
    use_once(&store, &other, NOW).await.unwrap();
    // From then on it is not believed any more, so that it need not be remembered.
    let late = crate::saml::Expected { now: claims.remember_until, ..super::maker::expected() };
    let outcome = maker.provider().accept(&super::maker::write(&maker.response()), late);
    assert!(matches!(outcome, Err(SamlError::Time { .. })), "{outcome:?}");
}
