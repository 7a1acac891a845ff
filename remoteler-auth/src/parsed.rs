//! Records that were parsed before, by revision: what did not change since the last list is not parsed again. Owns the memory of one kind of record and
//! its bound. The store is asked each time, so nothing here can be older than it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use remoteler_core::{Item, Revision};
use serde::de::DeserializeOwned;

use crate::records::RecordError;

/// Most records kept parsed; those beyond are parsed each time.
const MAX_KEPT: usize = 50_000;

type Known<T> = HashMap<String, (Revision, Arc<T>)>;

/// The parsed records below one prefix.
pub(crate) struct Parsed<T>(Mutex<Arc<Known<T>>>);

impl<T> Default for Parsed<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: DeserializeOwned> Parsed<T> {
    /// The records of `items`, which are all there are now.
    pub(crate) fn of(&self, items: Vec<Item>) -> Result<Vec<Arc<T>>, RecordError> {
        let known = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut records = Vec::with_capacity(items.len());
        let mut changed = known.len() != items.len();
        for item in &items {
            match known.get(&item.key).filter(|(revision, _)| *revision == item.revision) {
                Some((_, record)) => records.push(Arc::clone(record)),
                None => {
                    changed = true;
                    records.push(Arc::new(parse(item)?));
                }
            }
        }
        if changed {
            let keys = items.into_iter().map(|item| (item.key, item.revision));
            let next = keys.zip(&records).take(MAX_KEPT);
            let next = next.map(|((key, revision), record)| (key, (revision, Arc::clone(record)))).collect();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        }
        Ok(records)
    }
}

fn parse<T: DeserializeOwned>(item: &Item) -> Result<T, RecordError> {
    serde_json::from_slice(&item.value)
        .map_err(|cause| RecordError::Malformed { key: item.key.clone(), reason: cause.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, revision: u64, value: &str) -> Item {
        Item { key: key.into(), value: value.into(), revision: Revision(revision), expires: None }
    }

    #[test]
    fn what_did_not_change_is_not_parsed_again_and_what_is_gone_is_forgotten() {
        let parsed = Parsed::<String>::default();
        let first = parsed.of(vec![item("a", 1, "\"one\""), item("b", 2, "\"two\"")]).unwrap();
        // That it does not parse is seen where it is parsed: not where the revision is the same.
        let second = parsed.of(vec![item("a", 1, "not parsed"), item("b", 3, "\"three\"")]).unwrap();
        assert!(Arc::ptr_eq(&first[0], &second[0]));
        assert_eq!(second[1].as_str(), "three");
        assert!(parsed.of(vec![item("a", 4, "malformed")]).is_err());
        assert_eq!(parsed.of(vec![item("b", 3, "not parsed")]).unwrap()[0].as_str(), "three");
        assert!(parsed.of(vec![item("a", 1, "forgotten")]).is_err());
    }

    #[test]
    fn memory_is_bounded_and_the_rest_is_parsed_all_the_same() {
        let parsed = Parsed::<u64>::default();
        let items = || (0..MAX_KEPT + 2).map(|n| item(&format!("{n:06}"), 1, &n.to_string())).collect();
        for _ in 0..2 {
            let records = parsed.of(items()).unwrap();
            assert!(records.iter().enumerate().all(|(n, record)| **record == n as u64));
            assert_eq!(parsed.0.lock().unwrap().len(), MAX_KEPT);
        }
    }
}
