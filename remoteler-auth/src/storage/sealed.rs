//! A store in which records that hold secrets of others lie sealed: connectors with their client secrets, second factors, logins under way. Owns which
//! records those are, and that what lay there in the clear is sealed. Above it nobody sees the difference.

use std::sync::Arc;

use async_trait::async_trait;
use remoteler_ca::{KeyRing, is_sealed_record};
use remoteler_core::{
    Change, Changes, ClusterName, Expected, Item, MAX_PAGE, Operation, Page, Revision, Storage, StorageError,
    Timestamp, Transaction,
};

use crate::records::key;

/// What lies sealed, by the beginnings of its keys.
const SEALED: &[&str] = &[
    key::CONNECTORS,
    key::FACTORS,
    key::FACTOR_OFFERS,
    key::LOGINS,
    key::LOGIN_STATES,
    // A key that was made before there was one to seal it with lies in its record as it was made.
    key::SAML_KEYS,
    key::SAML_ENCRYPTION_KEYS,
];

/// Seals on the way into another store, and opens on the way out.
pub(crate) struct SealedStorage {
    inner: Arc<dyn Storage>,
    cluster: ClusterName,
    ring: Arc<KeyRing>,
}

impl SealedStorage {
    pub(crate) const fn new(inner: Arc<dyn Storage>, cluster: ClusterName, ring: Arc<KeyRing>) -> Self {
        Self { inner, cluster, ring }
    }

    /// Seals what lies in the clear, and what lies under a key that is being replaced; how many records that were.
    pub(crate) async fn seal_all(&self, now: Timestamp) -> Result<usize, StorageError> {
        let mut sealed = 0;
        for prefix in SEALED {
            let mut after = None;
            loop {
                let page = self.inner.range(prefix, after.as_deref(), MAX_PAGE.min(100), now).await?;
                for item in page.items.into_iter().filter(|item| !self.ring.seals_record(&item.value)) {
                    let Item { key, revision, expires, .. } = &item;
                    let value = self.seal(key, &self.open(item.clone())?.value)?;
                    self.inner.compare_and_swap(key, Expected::At(*revision), &value, *expires, now).await?;
                    sealed += 1;
                }
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(sealed)
    }

    fn seal(&self, key: &str, value: &[u8]) -> Result<Vec<u8>, StorageError> {
        if !SEALED.iter().any(|prefix| key.starts_with(prefix)) {
            return Ok(value.to_vec());
        }
        self.ring.seal_record(&self.cluster, key, value).map_err(|cause| StorageError::Engine(cause.to_string()))
    }

    /// What lies in the clear though it should not was written before there was a key, and is sealed at the next start.
    fn open(&self, mut item: Item) -> Result<Item, StorageError> {
        if is_sealed_record(&item.value) {
            let opened = self.ring.open_record(&self.cluster, &item.key, &item.value);
            item.value = opened.map_err(|cause| StorageError::Engine(cause.to_string()))?;
        }
        Ok(item)
    }
}

#[async_trait]
impl Storage for SealedStorage {
    async fn get(&self, key: &str, now: Timestamp) -> Result<Option<Item>, StorageError> {
        self.inner.get(key, now).await?.map(|item| self.open(item)).transpose()
    }

    async fn put(&self, key: &str, value: &[u8], expires: Option<Timestamp>) -> Result<Revision, StorageError> {
        self.inner.put(key, &self.seal(key, value)?, expires).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Expected,
        value: &[u8],
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Revision, StorageError> {
        self.inner.compare_and_swap(key, expected, &self.seal(key, value)?, expires, now).await
    }

    async fn delete(&self, key: &str, now: Timestamp) -> Result<bool, StorageError> {
        self.inner.delete(key, now).await
    }

    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page, StorageError> {
        let Page { items, next, revision } = self.inner.range(prefix, after, limit, now).await?;
        let items = items.into_iter().map(|item| self.open(item)).collect::<Result<_, _>>()?;
        Ok(Page { items, next, revision })
    }

    async fn transact(&self, mut transaction: Transaction, now: Timestamp) -> Result<Revision, StorageError> {
        for operation in &mut transaction.operations {
            if let Operation::Put { key, value, .. } = operation {
                *value = self.seal(key, value)?;
            }
        }
        self.inner.transact(transaction, now).await
    }

    async fn watch(&self, prefix: &str, after: Revision, limit: usize) -> Result<Changes, StorageError> {
        let Changes { changes, revision } = self.inner.watch(prefix, after, limit).await?;
        let open = |change| match change {
            Change::Put(item) => self.open(item).map(Change::Put),
            deleted @ Change::Deleted { .. } => Ok(deleted),
        };
        Ok(Changes { changes: changes.into_iter().map(open).collect::<Result<_, _>>()?, revision })
    }
}

#[cfg(test)]
mod tests {
    use remoteler_ca::KeyEncryptionKey;

    use super::*;
    use crate::MemoryStorage;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_772_366_400);
    const TEXT: &[u8] = b"{\"client_secret\":\"canary\"}";

    fn key(first: u8) -> KeyEncryptionKey {
        let octets: Vec<u8> = (0..32).map(|at| at ^ first).collect();
        KeyEncryptionKey::new(&octets).unwrap()
    }

    fn over(inner: &Arc<MemoryStorage>, ring: KeyRing) -> SealedStorage {
        SealedStorage::new(Arc::clone(inner) as Arc<dyn Storage>, ClusterName::new("root").unwrap(), Arc::new(ring))
    }

    async fn lies(inner: &MemoryStorage, key: &str) -> Vec<u8> {
        inner.get(key, NOW).await.unwrap().unwrap().value
    }

    // I8 I76
    #[tokio::test]
    async fn what_holds_secrets_lies_sealed_whatever_way_it_came_and_reads_as_it_was_written() {
        let inner = Arc::new(MemoryStorage::default());
        let store = over(&inner, KeyRing::new(key(1)));
        let before = store.put("connectors/a", TEXT, None).await.unwrap();
        store.compare_and_swap("factors/ann", Expected::Absent, TEXT, None, NOW).await.unwrap();
        let both = Transaction::new().put("factor-offers/x", TEXT, None).put("login-states/y", TEXT, None);
        store.transact(both.put("logins/z", TEXT, None).put("users/ann", TEXT, None), NOW).await.unwrap();
        for key in ["connectors/a", "factors/ann", "factor-offers/x", "login-states/y", "logins/z"] {
            let lies = lies(&inner, key).await;
            assert!(!lies.windows(6).any(|window| window == b"canary"), "{key}");
            assert_eq!(store.get(key, NOW).await.unwrap().unwrap().value, TEXT, "{key}");
        }
        assert_eq!(lies(&inner, "users/ann").await, TEXT, "what holds none lies as it is");
        assert_eq!(store.range("connectors/", None, 10, NOW).await.unwrap().items[0].value, TEXT);
        let changes = store.watch("connectors/", Revision(before.0 - 1), 10).await.unwrap().changes;
        assert!(matches!(changes.as_slice(), [Change::Put(item)] if item.value == TEXT), "{changes:?}");
        // Moved to another key it opens no more.
        inner.put("connectors/b", &lies(&inner, "connectors/a").await, None).await.unwrap();
        assert!(matches!(store.get("connectors/b", NOW).await, Err(StorageError::Engine(_))));
        assert!(store.delete("connectors/a", NOW).await.unwrap());
    }

    #[tokio::test]
    async fn what_lay_in_the_clear_or_under_a_former_key_is_sealed_at_the_start_and_once() {
        let inner = Arc::new(MemoryStorage::default());
        let until = NOW.plus(std::time::Duration::from_secs(60));
        for at in 0..250 {
            inner.put(&format!("connectors/{at:03}"), TEXT, None).await.unwrap();
        }
        inner.put("factor-offers/x", TEXT, Some(until)).await.unwrap();
        let store = over(&inner, KeyRing::new(key(1)));
        assert_eq!(store.get("connectors/007", NOW).await.unwrap().unwrap().value, TEXT);
        assert_eq!(store.seal_all(NOW).await.unwrap(), 251);
        assert_eq!(store.seal_all(NOW).await.unwrap(), 0);
        assert!(is_sealed_record(&lies(&inner, "connectors/249").await));
        let offer = store.get("factor-offers/x", NOW).await.unwrap().unwrap();
        assert_eq!((offer.value.as_slice(), offer.expires), (TEXT, Some(until)));
        let replaced = over(&inner, KeyRing::new(key(2)).with_previous(key(1)));
        assert_eq!(replaced.seal_all(NOW).await.unwrap(), 251);
        let alone = over(&inner, KeyRing::new(key(2)));
        assert_eq!(alone.get("connectors/007", NOW).await.unwrap().unwrap().value, TEXT);
        let stranger = over(&inner, KeyRing::new(key(3)));
        assert!(stranger.get("connectors/007", NOW).await.is_err());
    }
}
