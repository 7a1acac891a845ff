//! Metadata of identity providers by URL, as it was found last. Owns when it is asked for again and until when it is believed; asks nobody.

use std::time::Duration;

use remoteler_core::Timestamp;

use crate::{
    saml::IdpMetadata,
    sso::remembered::{Remembered, is_within},
};

/// Metadata by URL.
#[derive(Default)]
pub(in crate::sso) struct Providers(Remembered<Published>);

/// What is known of a URL.
#[derive(Clone, Default)]
pub(super) struct Published {
    /// As found last, and when.
    found: Option<(IdpMetadata, Timestamp)>,
    /// When it was asked last, if that gave nothing.
    failed: Option<Timestamp>,
}

/// What that is worth.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is believed without asking.
    Fresh(IdpMetadata),
    /// It is asked for again; what there is serves when that gives nothing.
    Old(Option<IdpMetadata>),
    /// It was asked for a moment ago and gave nothing: what there is must do.
    Silent(Option<IdpMetadata>),
}

/// So long metadata is believed without asking.
const FRESH: Duration = Duration::from_secs(300);
/// So long it is believed while nobody answers there.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// After an attempt that gave nothing, the next one is made so much later (I26).
const RETRY: Duration = Duration::from_secs(20);

impl Providers {
    pub(super) fn of(&self, url: &str) -> Published {
        self.0.of(url).unwrap_or_default()
    }

    pub(super) fn found(&self, url: &str, metadata: IdpMetadata, now: Timestamp) {
        let found = Published { found: Some((metadata, now)), failed: None };
        self.0.keep(url, Published::default, |published| *published = found);
    }

    pub(super) fn failed(&self, url: &str, now: Timestamp) {
        self.0.keep(url, Published::default, |published| published.failed = Some(now));
    }
}

impl Published {
    pub(super) fn at(&self, now: Timestamp) -> Known {
        if let Some(metadata) = self.younger(FRESH, now) {
            return Known::Fresh(metadata);
        }
        let stale = self.younger(STALE, now);
        if self.failed.is_some_and(|at| is_within(at, RETRY, now)) {
            return Known::Silent(stale);
        }
        Known::Old(stale)
    }

    /// What was found, if that is younger than so much and may still be used.
    fn younger(&self, than: Duration, now: Timestamp) -> Option<IdpMetadata> {
        let (metadata, at) = self.found.as_ref()?;
        let usable = is_within(*at, than, now) && metadata.is_valid_at(now);
        usable.then(|| metadata.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn metadata(valid_until: Option<Timestamp>) -> IdpMetadata {
        IdpMetadata { entity_id: "idp".into(), keys: Vec::new(), sso: Vec::new(), valid_until }
    }

    fn after(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn metadata_is_believed_for_a_while_and_longer_while_nobody_answers_but_never_past_its_end() {
        // I47
        let providers = Providers::default();
        assert_eq!(providers.of("url").at(START), Known::Old(None));
        let endless = metadata(None);
        providers.found("url", endless.clone(), START);
        assert_eq!(providers.of("url").at(after(299)), Known::Fresh(endless.clone()));
        assert_eq!(providers.of("url").at(after(300)), Known::Old(Some(endless)));
        assert_eq!(providers.of("url").at(after(24 * 3600)), Known::Old(None));
        let short = metadata(Some(after(100)));
        providers.found("url", short.clone(), START);
        assert_eq!(providers.of("url").at(after(99)), Known::Fresh(short));
        assert_eq!(providers.of("url").at(after(100)), Known::Old(None));
        let medium = metadata(Some(after(400)));
        providers.found("url", medium.clone(), START);
        assert_eq!(providers.of("url").at(after(399)), Known::Old(Some(medium)));
        assert_eq!(providers.of("url").at(after(400)), Known::Old(None));
    }

    #[test]
    fn a_url_that_gave_nothing_is_not_asked_again_at_each_login() {
        // I26
        let providers = Providers::default();
        providers.failed("dead", START);
        assert_eq!(providers.of("dead").at(after(19)), Known::Silent(None));
        assert_eq!(providers.of("dead").at(after(20)), Known::Old(None));
        let known = metadata(None);
        providers.found("dead", known.clone(), START);
        providers.failed("dead", after(300));
        assert_eq!(providers.of("dead").at(after(310)), Known::Silent(Some(known.clone())));
        providers.found("dead", known.clone(), after(320));
        assert_eq!(providers.of("dead").at(after(321)), Known::Fresh(known));
    }
}
