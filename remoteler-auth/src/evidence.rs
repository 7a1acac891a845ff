//! The auth service's word on its audit log: checkpoints, exports, and what stands for events that were removed. Owns the log's key and the rule that
//! nothing is signed that does not continue what was signed before.

mod retention;

use std::sync::{Arc, Mutex, PoisonError};

use remoteler_ca::{AuditSigner, CaError, KeyRing, StoredAuditKey};
use remoteler_core::{
    ApiError, Clock, ClusterName, PolicySource, Verb, authorize_rule,
    evidence::{
        Checkpoint, ExportQuery, ExportStart, ExportTile, ExportTileQuery, ExportTombstone, TreeHash, audit_origin,
        consistency_path, tiles_in, writers_digest,
    },
};
use rusqlite::params;

use crate::{
    Caller, EventLog, EventLogError,
    event_log::{Edge, Tile, edge, page, subtree, tile},
    failure::{ApiResult, bad_request},
    records::{Records, key},
    service::{Inner, StartError},
};

/// One checkpoint an hour is kept of those that are older, in milliseconds: two days.
const THIN_AFTER: i64 = 48 * 3600 * 1000;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The log could not be read or written.
    #[error(transparent)]
    Log(#[from] EventLogError),
    /// The key did not sign.
    #[error("the audit log's key did not sign")]
    Key(#[from] CaError),
    /// The log is not the one that was signed before.
    #[error(
        "the audit log was tampered with: its first {size} events are not those of the checkpoint of {time}; export it and verify the export to see which"
    )]
    Tampered {
        /// Events in that checkpoint.
        size: u64,
        /// When it was made.
        time: remoteler_core::Timestamp,
    },
    /// Events stay that say whose recordings are.
    #[error("whose recordings are could not be kept beside them; no event was removed")]
    Recordings(#[source] remoteler_core::ApiError),
}

/// Signs for one audit log.
pub(crate) struct Evidence {
    log: EventLog,
    signer: AuditSigner,
    clock: Arc<dyn Clock>,
    cluster: ClusterName,
    /// The newest checkpoint that this process signed: who changes the database cannot change this.
    signed: Mutex<Option<Checkpoint>>,
}

/// The end of the log, and whether it continues what was signed.
struct Found {
    edge: Edge,
    root: TreeHash,
    /// The signed checkpoint that it does not continue.
    broken: Option<Checkpoint>,
}

impl Evidence {
    /// Takes up the key of the log, or makes it.
    pub(crate) async fn open(
        cluster: &ClusterName,
        records: &Records,
        log: EventLog,
        clock: Arc<dyn Clock>,
        ring: Option<&KeyRing>,
    ) -> Result<Self, StartError> {
        let signer = match records.read_at::<StoredAuditKey>(key::AUDIT_KEY).await? {
            Some((stored, revision)) => {
                let signer = AuditSigner::open(&stored, ring)?;
                if signer.to_stored() != stored {
                    records.replace(key::AUDIT_KEY, revision, &signer.to_stored()).await?;
                    tracing::info!(%cluster, "the key of the audit log was sealed");
                }
                signer
            }
            None => {
                let signer = AuditSigner::generate(cluster, ring)?;
                records.create(key::AUDIT_KEY, &signer.to_stored(), None).await?;
                signer
            }
        };
        Ok(Self { log, signer, clock, cluster: cluster.clone(), signed: Mutex::new(None) })
    }

    /// The log as it is, compared with the newest checkpoint.
    async fn look(&self) -> Result<Found, EvidenceError> {
        let remembered = self.signed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let keys = [self.signer.public().clone()];
        let read = self.log.database().read(move |c| {
            let edge = edge(c)?;
            let kept = edge.last.as_ref().and_then(|note| Checkpoint::open(note, &keys).ok());
            let last = [kept, remembered].into_iter().flatten().max_by_key(|checkpoint| checkpoint.size);
            let broken = match last {
                Some(last) if subtree(c, 0, last.size)? != last.root || last.size > edge.size => Some(last),
                Some(_) | None => None,
            };
            Ok(Found { root: subtree(c, 0, edge.size)?, edge, broken })
        });
        Ok(read.await.map_err(EventLogError::from)?)
    }

    fn checkpoint(&self, found: &Found) -> Checkpoint {
        let heads = found.edge.heads.iter().map(|(writer, head)| (writer.as_str(), *head));
        Checkpoint {
            origin: audit_origin(&self.cluster),
            size: found.edge.size,
            root: found.root,
            time: self.clock.now(),
            writers: Some((found.edge.heads.len() as u64, writers_digest(heads))),
            removed: found.edge.removed,
            range: None,
            removed_before: None,
        }
    }

    /// Signs and keeps a checkpoint of the log as it is now. The one that is there already if nothing came since.
    pub(crate) async fn sign(&self) -> Result<String, EvidenceError> {
        let found = self.look().await?;
        if let Some(Checkpoint { size, time, .. }) = found.broken {
            return Err(EvidenceError::Tampered { size, time });
        }
        let checkpoint = self.checkpoint(&found);
        if let Some(last) = found.edge.last
            && Checkpoint::open(&last, std::slice::from_ref(self.signer.public()))
                .is_ok_and(|last| last.size == checkpoint.size && last.removed == checkpoint.removed)
        {
            return Ok(last);
        }
        let note = self.signer.sign(&checkpoint)?;
        let (size, time, kept) = (checkpoint.size, checkpoint.time.unix_millis(), note.clone());
        let write = self.log.database().write(move |c| {
            c.prepare_cached("INSERT OR REPLACE INTO audit_checkpoints (size, time, note) VALUES (?1, ?2, ?3)")?
                .execute(params![i64::try_from(size).unwrap_or(i64::MAX), time, kept])?;
            c.prepare_cached(
                "DELETE FROM audit_checkpoints WHERE time < ?1 AND EXISTS (SELECT 1 FROM audit_checkpoints AS newer
                 WHERE newer.size > audit_checkpoints.size AND newer.time / 3600000 = audit_checkpoints.time / 3600000)",
            )?
            .execute([time - THIN_AFTER])
        });
        write.await.map_err(EventLogError::from)?;
        *self.signed.lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpoint);
        Ok(note)
    }

    /// The newest checkpoint with the key.
    pub(crate) async fn newest(&self) -> Result<ExportStart, EvidenceError> {
        let checkpoint = self.sign().await?;
        Ok(ExportStart { key: self.signer.public().to_string(), checkpoint, tombstone: None })
    }

    /// Begins an export. Of a log that was tampered with it is what was signed before, so that the check of it shows where.
    async fn start(&self, query: ExportQuery) -> Result<ExportStart, EvidenceError> {
        let mut found = self.look().await?;
        let mut checkpoint = self.checkpoint(&found);
        if let Some(signed) = &found.broken {
            tracing::error!(size = signed.size, time = %signed.time, "the audit log was tampered with: it does not continue its checkpoint");
            (checkpoint.size, checkpoint.root, checkpoint.writers) = (signed.size, signed.root, signed.writers);
            found.edge.size = signed.size;
        }
        let (edge, keys) = (found.edge, [self.signer.public().clone()]);
        let read = self.log.database().read(move |c| {
            let range = page(c, &edge, query.from, query.to)?;
            let old = edge.tombstone.and_then(|note| Some((Checkpoint::open(&note, &keys).ok()?, note)));
            let tombstone = match old {
                Some((old, checkpoint)) => {
                    let consistency = consistency_path(old.size, edge.size, |begin, end| subtree(c, begin, end))?;
                    Some(ExportTombstone { checkpoint, consistency })
                }
                None => None,
            };
            Ok((range, tombstone))
        });
        let (range, tombstone) = read.await.map_err(EventLogError::from)?;
        checkpoint.range = Some(range);
        let checkpoint = self.signer.sign(&checkpoint)?;
        Ok(ExportStart { key: self.signer.public().to_string(), checkpoint, tombstone })
    }

    async fn tile(
        &self,
        ExportTileQuery { size, tile: number, from }: ExportTileQuery,
    ) -> Result<ExportTile, EvidenceError> {
        let read = self.log.database().read(move |c| tile(c, size, number, from));
        let Tile { hashes, path, events } = read.await.map_err(EventLogError::from)?;
        Ok(ExportTile { hashes, path, events })
    }
}

impl From<EvidenceError> for ApiError {
    fn from(cause: EvidenceError) -> Self {
        match cause {
            EvidenceError::Log(cause) => cause.into(),
            EvidenceError::Key(cause) => crate::failure::authority(&cause),
            EvidenceError::Recordings(cause) => cause,
            EvidenceError::Tampered { .. } => {
                tracing::error!(error = &cause as &dyn std::error::Error, "no checkpoint was signed");
                Self::new(remoteler_core::ApiErrorKind::Conflict, cause.to_string())
            }
        }
    }
}

impl Inner {
    /// For who may list events, and for who may see the public keys of the cluster.
    pub(crate) async fn audit_checkpoint(&self, caller: &Caller) -> ApiResult<ExportStart> {
        let lists = match caller {
            Caller::User { user, .. } => {
                let identity = self.current(user).await?;
                authorize_rule(identity, &self.policy.policy(), "event", Verb::List).is_some()
            }
            Caller::LocalAdmin => true,
            Caller::Host { .. } | Caller::Anonymous { .. } => false,
        };
        if !lists {
            self.admit(caller, "cert_authority", Verb::Read).await?;
        }
        Ok(self.evidence.newest().await?)
    }

    pub(crate) async fn start_export(&self, caller: &Caller, query: ExportQuery) -> ApiResult<ExportStart> {
        self.admit(caller, "event", Verb::List).await?;
        self.admit(caller, "event", Verb::Read).await?;
        Ok(self.evidence.start(query).await?)
    }

    pub(crate) async fn export_tile(&self, caller: &Caller, query: ExportTileQuery) -> ApiResult<ExportTile> {
        self.admit(caller, "event", Verb::List).await?;
        self.admit(caller, "event", Verb::Read).await?;
        // Far more than there ever will be, and far from where numbers end.
        if query.size > 1 << 48 || query.tile >= tiles_in(query.size) {
            return Err(bad_request(format!("a log of {} events has no tile {}", query.size, query.tile)));
        }
        Ok(self.evidence.tile(query).await?)
    }
}
