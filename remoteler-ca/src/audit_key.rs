//! The key that signs the audit log's checkpoints: Ed25519, of its own, which signs nothing else (I1). Owns the key and its record; the
//! form of what is signed stands in core.

use remoteler_core::{
    ClusterName,
    evidence::{Checkpoint, NoteKey, audit_origin, sign_note},
};
use serde::{Deserialize, Serialize};

use crate::{CaError, FileSigner, KeyRing, Signer, SignerAlgorithm, SignerError, StoredKey, seal::Place};

/// An audit key as it is kept, the private half included: belongs into the auth service's store and nowhere else (I8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredAuditKey {
    /// Whose.
    pub cluster: ClusterName,
    /// In the clear or sealed, as those of the authorities.
    pub key: StoredKey,
}

/// Signs the checkpoints of one cluster's audit log.
pub struct AuditSigner {
    stored: StoredAuditKey,
    signer: Box<dyn Signer>,
    public: NoteKey,
}

impl AuditSigner {
    /// Makes a new key, with the operating system's randomness (I7), to be kept sealed when there is a `ring`.
    ///
    /// # Errors
    /// [`CaError::Signer`] when the generator fails, [`CaError::Sealed`] when the key cannot be sealed.
    pub fn generate(cluster: &ClusterName, ring: Option<&KeyRing>) -> Result<Self, CaError> {
        let (_, key) = FileSigner::generate(ALGORITHM)?;
        Self::open(&StoredAuditKey { cluster: cluster.clone(), key: key.into() }, ring)
    }

    /// Takes up what [`AuditSigner::to_stored`] gave. With a `ring` it is kept sealed from now on.
    ///
    /// # Errors
    /// [`CaError`] when the key does not open or does not parse.
    pub fn open(stored: &StoredAuditKey, ring: Option<&KeyRing>) -> Result<Self, CaError> {
        let cluster = &stored.cluster;
        let sealed = |source| CaError::Sealed { cluster: cluster.clone(), kind: KIND, source };
        let place = Place { cluster, kind: KIND, purpose: "checkpoint", algorithm: ALGORITHM };
        let Some((text, key)) = stored.key.take_up(&place, ring).map_err(sealed)? else {
            let what = "the key of the audit log is never in a PKCS#11 token";
            return Err(CaError::Stored { cluster: cluster.clone(), kind: KIND, what });
        };
        let signer = FileSigner::from_pem(ALGORITHM, &text)?;
        let public = NoteKey::new(audit_origin(cluster), signer.public_key());
        let public = public.map_err(|_| SignerError::Malformed(ALGORITHM))?;
        let stored = StoredAuditKey { cluster: cluster.clone(), key };
        Ok(Self { stored, signer: Box::new(signer), public })
    }

    /// The form to be kept.
    #[must_use]
    pub fn to_stored(&self) -> StoredAuditKey {
        self.stored.clone()
    }

    /// The public half, with the log's name.
    #[must_use]
    pub const fn public(&self) -> &NoteKey {
        &self.public
    }

    /// Signs a checkpoint.
    ///
    /// # Errors
    /// [`CaError::PreparedForAnother`] when it is another cluster's (I12), [`CaError::Signer`] when the key did not sign.
    pub fn sign(&self, checkpoint: &Checkpoint) -> Result<String, CaError> {
        if checkpoint.origin != self.public.name() {
            return Err(CaError::PreparedForAnother { cluster: self.stored.cluster.clone(), kind: KIND });
        }
        Ok(sign_note(&checkpoint.text(), &self.public, |octets| self.signer.sign(octets))?)
    }
}

impl std::fmt::Debug for AuditSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditSigner").field("public", &self.public).finish_non_exhaustive()
    }
}

const ALGORITHM: SignerAlgorithm = SignerAlgorithm::Ed25519;
const KIND: &str = "audit";

#[cfg(test)]
mod tests {
    use remoteler_core::{Timestamp, evidence::TreeHash};

    use super::*;
    use crate::KeyEncryptionKey;

    fn checkpoint(origin: &str) -> Checkpoint {
        Checkpoint {
            origin: origin.into(),
            size: 0,
            root: TreeHash::of(b""),
            time: Timestamp::default(),
            writers: None,
            removed: 0,
            range: None,
            removed_before: None,
        }
    }

    #[test]
    fn a_key_signs_the_log_of_its_cluster_and_no_other_and_stays_itself_when_it_is_sealed() {
        let cluster = ClusterName::new("root").unwrap();
        let signer = AuditSigner::generate(&cluster, None).unwrap();
        let ours = checkpoint("remoteler.dev/audit/root");
        let note = signer.sign(&ours).unwrap();
        assert_eq!(Checkpoint::open(&note, std::slice::from_ref(signer.public())).unwrap(), ours);
        assert!(matches!(
            signer.sign(&checkpoint("remoteler.dev/audit/leaf")),
            Err(CaError::PreparedForAnother { .. })
        )); // I12

        let octets: Vec<u8> = (0..32).collect();
        let ring = KeyRing::new(KeyEncryptionKey::new(&octets).unwrap());
        let sealed = AuditSigner::open(&signer.to_stored(), Some(&ring)).unwrap();
        assert!(matches!(sealed.to_stored().key, StoredKey::Sealed(_)));
        assert!(AuditSigner::open(&sealed.to_stored(), None).is_err());
        let again = AuditSigner::open(&sealed.to_stored(), Some(&ring)).unwrap();
        assert_eq!(again.public(), signer.public());
    }
}
