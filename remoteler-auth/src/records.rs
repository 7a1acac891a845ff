//! Typed records over the state store: JSON values under well-known keys. Owns the key layout; decides nothing.

use std::sync::Arc;

use remoteler_core::{Changes, Clock, Expected, Item, Revision, Storage, StorageError, Timestamp, Transaction};
use serde::{Serialize, de::DeserializeOwned};

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The store refused or failed.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// What is stored is not what this program writes there.
    #[error("record {key} does not parse: {reason}")]
    Malformed {
        /// Key.
        key: String,
        /// Why.
        reason: String,
    },
}

impl RecordError {
    /// Whether a conditional write found something else.
    pub(crate) const fn is_conflict(&self) -> bool {
        matches!(self, Self::Storage(StorageError::Conflict { .. }))
    }
}

/// Keys. Names and ids are checked types and hashes are hex, so no part can hold a `/` of its own.
pub(crate) mod key {
    /// Name of the cluster, written at the first start.
    pub(crate) const CLUSTER: &str = "cluster";
    /// `authorities/user`, `authorities/host`.
    pub(crate) const AUTHORITIES: &str = "authorities/";
    /// The key that signs the audit log.
    pub(crate) const AUDIT_KEY: &str = "audit-key";
    /// `revocations/<what is revoked>`
    pub(crate) const REVOCATIONS: &str = "revocations/";
    /// `locks/<name>`
    pub(crate) const LOCKS: &str = "locks/";
    /// `revocation-lists/<name>` holds the number of the last one.
    pub(crate) const REVOCATION_LISTS: &str = "revocation-lists/";
    /// `roles/<name>`
    pub(crate) const ROLES: &str = "roles/";
    /// `users/<name>`
    pub(crate) const USERS: &str = "users/";
    /// `invites/<hash of the link's secret>` holds the user's name.
    pub(crate) const INVITES: &str = "invites/";
    /// `factors/<name of the user>`
    pub(crate) const FACTORS: &str = "factors/";
    /// `factor-offers/<hash of the link's secret>`, `factor-offers/of/<name of the user>`: a secret that waits for its first code.
    pub(crate) const FACTOR_OFFERS: &str = "factor-offers/";
    /// `tokens/<hash>`
    pub(crate) const TOKENS: &str = "tokens/";
    /// `nodes-owner/<name>` holds the id of the one host that may have that name.
    pub(crate) const NODE_OWNERS: &str = "nodes-owner/";
    /// `kube-owner/<name>`, likewise.
    pub(crate) const KUBE_OWNERS: &str = "kube-owner/";
    /// `app-owner/<name>`, likewise.
    pub(crate) const APP_OWNERS: &str = "app-owner/";
    /// `app-addr-owner/<host name>` holds the name of the one application whose public address that is.
    pub(crate) const APP_ADDR_OWNERS: &str = "app-addr-owner/";
    /// The host name that was claimed last: of two claims at the same moment one sees the other.
    pub(crate) const APP_ADDR_TURN: &str = "app-addr-turn";
    /// `nodes/<name>`: the last heartbeat.
    pub(crate) const NODES: &str = "nodes/";
    /// `kube/<name>`: the last heartbeat.
    pub(crate) const KUBE_CLUSTERS: &str = "kube/";
    /// `apps/<name>`: the last heartbeat.
    pub(crate) const APPS: &str = "apps/";
    /// `hosts/<host id>`: what the host was let in as, and the keys it joined with.
    pub(crate) const HOSTS: &str = "hosts/";
    /// `standings/<host id>`: which machine the host is, and what was issued to it.
    pub(crate) const STANDINGS: &str = "standings/";
    /// `join-rules/<name>`: tokens without a secret.
    pub(crate) const JOIN_RULES: &str = "join-rules/";
    /// `services/<host id>`: when the host was last heard of and which generation of the trust bundle it acts by.
    pub(crate) const SERVICES: &str = "services/";
    /// `proxies/<host id>`: public address and time of its announcement.
    pub(crate) const PROXIES: &str = "proxies/";

    /// `policy-tests/<name>`
    pub(crate) const POLICY_TESTS: &str = "policy-tests/";
    /// `cluster-config/<kind>`: `spec` of the one document of that kind.
    pub(crate) const CLUSTER_CONFIG: &str = "cluster-config/";

    /// `connectors/<name>`: documents.
    pub(crate) const CONNECTORS: &str = "connectors/";
    /// `sso-accounts/<hash of connector, issuer and subject>` holds the user's name.
    pub(crate) const SSO_ACCOUNTS: &str = "sso-accounts/";
    /// `logins/<hash of id>`: logins under way in browsers.
    pub(crate) const LOGINS: &str = "logins/";
    /// `login-codes/<hash of code>` holds the login's id.
    pub(crate) const LOGIN_CODES: &str = "login-codes/";
    /// `login-states/<hash of state>`: requests under way to identity providers.
    pub(crate) const LOGIN_STATES: &str = "login-states/";
    /// `recordings/<session id>`: how a session began that has a recording.
    pub(crate) const RECORDINGS: &str = "recordings/";

    /// `known-labels/node/<name>`: the last that were announced, for policy tests; they stay while the node is away.
    pub(crate) const NODE_LABELS: &str = "known-labels/node/";
    /// `known-labels/kube/<name>`, likewise.
    pub(crate) const KUBE_LABELS: &str = "known-labels/kube/";
    /// `known-labels/app/<name>`, likewise.
    pub(crate) const APP_LABELS: &str = "known-labels/app/";
    /// `leases/<id>`: counted connections.
    pub(crate) const LEASES: &str = "leases/";

    /// `saml-keys/<connector>`: what signs the requests of a connector.
    pub(crate) const SAML_KEYS: &str = "saml-keys/";
    /// `saml_used/<hash of issuer and id>`: assertions that were used, until they end. Written otherwise than the rest: databases have it so.
    #[cfg(feature = "saml")]
    pub(crate) const SAML_USED: &str = "saml_used/";
    /// `saml-encryption-keys/<connector>`: what opens the assertions that are encrypted for a connector.
    pub(crate) const SAML_ENCRYPTION_KEYS: &str = "saml-encryption-keys/";

    /// `key-questions/<hash of token>`: questions to security keys that wait for an answer.
    pub(crate) const KEY_QUESTIONS: &str = "key-questions/";
    /// `fresh-logins/<serial of the TLS certificate>` holds the user's name: logins at identity providers of a moment ago.
    pub(crate) const FRESH_LOGINS: &str = "fresh-logins/";
    /// `session-questions/<session id>`: sessions that wait for a security key to be touched.
    pub(crate) const SESSION_QUESTIONS: &str = "session-questions/";
    /// `web-sessions/<hash of id>` holds the user's name.
    pub(crate) const WEB_SESSIONS: &str = "web-sessions/";
    /// `user-web-sessions/<user>/<hash of id>`: browsers that are logged in.
    pub(crate) const USER_WEB_SESSIONS: &str = "user-web-sessions/";

    /// `app-codes/<hash of code>`: ways to web applications that were opened a moment ago.
    pub(crate) const APP_CODES: &str = "app-codes/";
    /// `app-sessions/<hash of secret>`: sessions of browsers with web applications.
    pub(crate) const APP_SESSIONS: &str = "app-sessions/";
    /// `app-session-names/<session>` holds the hash of that session's secret.
    pub(crate) const APP_SESSION_NAMES: &str = "app-session-names/";

    pub(crate) fn of(prefix: &str, name: impl std::fmt::Display) -> String {
        format!("{prefix}{name}")
    }
}

/// Reads and writes records.
#[derive(Clone)]
pub(crate) struct Records {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
}

/// Writes that belong together: [`Records::commit`] does all of them or none.
#[derive(Default)]
pub(crate) struct Batch(Transaction);

impl Batch {
    /// That does nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Also writes this, whatever stands there.
    pub(crate) fn write<T: Serialize>(
        self,
        key: &str,
        record: &T,
        expires: Option<Timestamp>,
    ) -> Result<Self, RecordError> {
        Ok(Self(self.0.put(key, encode(key, record)?, expires)))
    }

    /// Also writes this, if there is none.
    pub(crate) fn create<T: Serialize>(
        self,
        key: &str,
        record: &T,
        expires: Option<Timestamp>,
    ) -> Result<Self, RecordError> {
        Self(self.0.expect(key, Expected::Absent)).write(key, record, expires)
    }

    /// Also writes this, if what stands there is still that of `revision`.
    pub(crate) fn replace<T: Serialize>(self, key: &str, revision: Revision, record: &T) -> Result<Self, RecordError> {
        Self(self.0.expect(key, Expected::At(revision))).write(key, record, None)
    }

    /// The same for a record that ends.
    pub(crate) fn replace_until<T: Serialize>(
        self,
        key: &str,
        revision: Revision,
        record: &T,
        expires: Timestamp,
    ) -> Result<Self, RecordError> {
        Self(self.0.expect(key, Expected::At(revision))).write(key, record, Some(expires))
    }

    /// Nothing else is done unless what stands there is still that of `revision`.
    pub(crate) fn given(self, key: &str, revision: Revision) -> Self {
        Self(self.0.expect(key, Expected::At(revision)))
    }

    /// Whether the store takes so much at once.
    pub(crate) fn check(&self) -> Result<(), RecordError> {
        Ok(self.0.check()?)
    }

    /// Also removes this, if it is there.
    pub(crate) fn delete(self, key: &str) -> Self {
        Self(self.0.delete(key))
    }

    /// Also removes this, if what stands there is still that of `revision`.
    pub(crate) fn delete_at(self, key: &str, revision: Revision) -> Self {
        Self(self.0.expect(key, Expected::At(revision)).delete(key))
    }
}

/// Records fetched at once.
const PAGE: usize = 1000;

impl Records {
    pub(crate) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self { storage, clock }
    }

    /// The store itself, for records that are written elsewhere.
    #[cfg(feature = "saml")]
    pub(crate) fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, RecordError> {
        Ok(self.read_at(key).await?.map(|(record, _)| record))
    }

    /// The record with its revision, for [`Records::replace`].
    pub(crate) async fn read_at<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Revision)>, RecordError> {
        let Some(item) = self.item(key).await? else { return Ok(None) };
        Ok(Some((parse(key, &item.value)?, item.revision)))
    }

    /// A record as it is stored.
    pub(crate) async fn item(&self, key: &str) -> Result<Option<Item>, RecordError> {
        Ok(self.storage.get(key, self.clock.now()).await?)
    }

    pub(crate) async fn write<T: Serialize>(
        &self,
        key: &str,
        record: &T,
        expires: Option<Timestamp>,
    ) -> Result<(), RecordError> {
        self.storage.put(key, &encode(key, record)?, expires).await?;
        Ok(())
    }

    /// Writes only if there is none.
    pub(crate) async fn create<T: Serialize>(
        &self,
        key: &str,
        record: &T,
        expires: Option<Timestamp>,
    ) -> Result<Revision, RecordError> {
        self.swap(key, Expected::Absent, record, expires).await
    }

    /// Writes only if it is still that of `revision`.
    pub(crate) async fn replace<T: Serialize>(
        &self,
        key: &str,
        revision: Revision,
        record: &T,
    ) -> Result<Revision, RecordError> {
        self.swap(key, Expected::At(revision), record, None).await
    }

    async fn swap<T: Serialize>(
        &self,
        key: &str,
        expected: Expected,
        record: &T,
        expires: Option<Timestamp>,
    ) -> Result<Revision, RecordError> {
        let value = encode(key, record)?;
        Ok(self.storage.compare_and_swap(key, expected, &value, expires, self.clock.now()).await?)
    }

    /// Does all of it or nothing, when there is nothing else than it expects.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), RecordError> {
        self.storage.transact(batch.0, self.clock.now()).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<bool, RecordError> {
        Ok(self.storage.delete(key, self.clock.now()).await?)
    }

    /// All records below a prefix, in order of key: the rest of the key, the record, its end.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, T, Option<Timestamp>)>, RecordError> {
        let items = self.items(prefix).await?.into_iter();
        items
            .map(|item| {
                let name = item.key.strip_prefix(prefix).unwrap_or_default().to_owned();
                Ok((name, parse(&item.key, &item.value)?, item.expires))
            })
            .collect()
    }

    /// Everything below a prefix as it is stored, in order of key.
    pub(crate) async fn items(&self, prefix: &str) -> Result<Vec<Item>, RecordError> {
        Ok(self.items_at(prefix).await?.0)
    }

    /// The same with the revision to watch from.
    pub(crate) async fn items_at(&self, prefix: &str) -> Result<(Vec<Item>, Revision), RecordError> {
        let first = self.storage.range(prefix, None, PAGE, self.clock.now()).await?;
        let (mut items, mut next, revision) = (first.items, first.next, first.revision);
        while let Some(after) = next {
            let page = self.storage.range(prefix, Some(&after), PAGE, self.clock.now()).await?;
            items.extend(page.items);
            next = page.next;
        }
        Ok((items, revision))
    }

    /// A revision that the store has reached: everything that was written before the call is of it or of one before.
    pub(crate) async fn revision(&self) -> Result<Revision, RecordError> {
        Ok(self.storage.range("", None, 1, self.clock.now()).await?.revision)
    }

    /// Waits for changes below a prefix: [`Storage::watch`].
    pub(crate) async fn watch(&self, prefix: &str, after: Revision, limit: usize) -> Result<Changes, RecordError> {
        Ok(self.storage.watch(prefix, after, limit).await?)
    }
}

pub(crate) fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(value)
        .map_err(|cause| RecordError::Malformed { key: key.to_owned(), reason: cause.to_string() })
}

fn encode<T: Serialize>(key: &str, record: &T) -> Result<Vec<u8>, RecordError> {
    serde_json::to_vec(record)
        .map_err(|cause| RecordError::Malformed { key: key.to_owned(), reason: cause.to_string() })
}
