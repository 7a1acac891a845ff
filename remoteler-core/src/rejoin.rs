//! How a host proves that it is the one that joined before: a signature with its SSH host key (OpenSSH PROTOCOL.sshsig) over everything
//! that a rejoin asks for. Owns the octets that are signed and the judgement of the signature. Knows no record and issues nothing.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::{ClusterName, HostId, NodeName, Secret, Timestamp, check_ssh_key};

/// A host that joined before says which one it is, and proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejoinProof {
    /// The id that it was given when it joined.
    pub host_id: HostId,
    /// When the proof was made.
    pub signed_at: Timestamp,
    /// Over [`RejoinStatement`], by the SSH host key on record: PEM of PROTOCOL.sshsig, at most 4 KiB.
    pub signature: String,
}

/// What a rejoin asks for. The proof holds for exactly this: for one cluster, one token, one host and these keys, so whoever reads the
/// request on its way can have nothing certified but what the host itself asked for.
#[derive(Clone, Copy, Debug)]
pub struct RejoinStatement<'a> {
    /// The cluster that the host belongs to.
    pub cluster: &'a ClusterName,
    /// The join token that comes with it; its hash is signed.
    pub token: &'a Secret,
    /// The id on record.
    pub host_id: HostId,
    /// The name on record.
    pub node_name: &'a NodeName,
    /// Public key to be certified for SSH, as in the request.
    pub ssh_public_key: &'a str,
    /// Public key to be certified for TLS, as in the request.
    pub tls_public_key: &'a str,
    /// When the proof is made.
    pub signed_at: Timestamp,
}

/// Why a proof is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RejoinError {
    /// No signature, or too long for one.
    #[error("the proof is no SSH signature")]
    Malformed,
    /// By another key, for another purpose, or over something else.
    #[error("the proof is not of the host key on record, or not for this request")]
    Signature,
    /// The key on record is of a kind that is not believed any more.
    #[error("the host key on record is of a kind that is not accepted")]
    Key,
    /// Not made now.
    #[error("the proof was made at {signed_at}, and it is {now} here; set this machine's clock")]
    Time {
        /// As the host says.
        signed_at: Timestamp,
        /// As it is.
        now: Timestamp,
    },
    /// The key cannot sign.
    #[error("the SSH host key does not sign: {0}")]
    Sign(String),
}

impl RejoinStatement<'_> {
    /// Signs this with the host key that the host joined with.
    ///
    /// # Errors
    /// [`RejoinError::Sign`] when the key cannot sign.
    pub fn prove(&self, key: &PrivateKey) -> Result<RejoinProof, RejoinError> {
        let signature = key
            .sign(NAMESPACE, HashAlg::Sha512, &self.octets())
            .and_then(|signature| signature.to_pem(LineEnding::LF))
            .map_err(|cause| RejoinError::Sign(cause.to_string()))?;
        Ok(RejoinProof { host_id: self.host_id, signed_at: self.signed_at, signature })
    }

    /// Checks that `signature` is over this and by `recorded`, and made within ten minutes of `now`.
    ///
    /// # Errors
    /// [`RejoinError`] with the first reason found; the host is then nobody.
    pub fn verify(&self, signature: &str, recorded: &PublicKey, now: Timestamp) -> Result<(), RejoinError> {
        let (earlier, later) = if now > self.signed_at { (self.signed_at, now) } else { (now, self.signed_at) };
        if later.since(earlier) > TOLERANCE {
            return Err(RejoinError::Time { signed_at: self.signed_at, now });
        }
        // The length also bounds how deep the parser can be led (I2, I25).
        if signature.len() > MAX_SIGNATURE {
            return Err(RejoinError::Malformed);
        }
        check_ssh_key(recorded.key_data()).map_err(|_| RejoinError::Key)?;
        let signature = SshSig::from_pem(signature).map_err(|_| RejoinError::Malformed)?;
        recorded.verify(NAMESPACE, &self.octets(), &signature).map_err(|_| RejoinError::Signature)
    }

    /// Each part with its length before it, so that no two statements have the same octets.
    fn octets(&self) -> Vec<u8> {
        let token: String = digest(&SHA256, self.token.reveal().as_bytes())
            .as_ref()
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        let parts = [
            self.cluster.to_string(),
            token,
            self.host_id.to_string(),
            self.node_name.to_string(),
            self.ssh_public_key.to_owned(),
            self.tls_public_key.to_owned(),
            self.signed_at.to_string(),
        ];
        let mut octets = Vec::new();
        for part in parts {
            octets.extend((part.len() as u64).to_be_bytes());
            octets.extend(part.as_bytes());
        }
        octets
    }
}

/// Keeps signatures for this apart from all others that a host key makes (PROTOCOL.sshsig section 3).
const NAMESPACE: &str = "rejoin@remoteler.dev";
/// How far the clocks may be apart.
const TOLERANCE: Duration = Duration::from_secs(600);
/// An RSA signature of 8192 bits with its key takes 3 KiB.
const MAX_SIGNATURE: usize = 4096;

#[cfg(test)]
mod tests {
    use ssh_key::private::{Ed25519Keypair, KeypairData};

    use super::*;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), "host").unwrap()
    }

    #[test]
    fn a_proof_holds_for_exactly_what_was_signed_and_only_for_a_while() {
        let (cluster, other_cluster) = (ClusterName::new("root").unwrap(), ClusterName::new("other").unwrap());
        let (token, other_token) = (Secret::new("token-token-token"), Secret::new("token-token-tokem"));
        let (name, other_name) = (NodeName::new("edge").unwrap(), NodeName::new("edge-2").unwrap());
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        let statement = RejoinStatement {
            cluster: &cluster,
            token: &token,
            host_id: HostId::from_uuid(uuid::Uuid::from_u128(1)),
            node_name: &name,
            ssh_public_key: "ssh-ed25519 AAAA",
            tls_public_key: "-----BEGIN PUBLIC KEY-----",
            signed_at: now,
        };
        let (host, thief) = (key(1), key(2));
        let proof = statement.prove(&host).unwrap();
        statement.verify(&proof.signature, host.public_key(), now).unwrap();
        statement.verify(&proof.signature, host.public_key(), now.plus(TOLERANCE)).unwrap();

        let refused =
            |statement: RejoinStatement<'_>| statement.verify(&proof.signature, host.public_key(), now).unwrap_err();
        for changed in [
            RejoinStatement { cluster: &other_cluster, ..statement },
            RejoinStatement { token: &other_token, ..statement },
            RejoinStatement { host_id: HostId::from_uuid(uuid::Uuid::from_u128(2)), ..statement },
            RejoinStatement { node_name: &other_name, ..statement },
            RejoinStatement { ssh_public_key: "ssh-ed25519 AAAB", ..statement },
            RejoinStatement { tls_public_key: "", ..statement },
            RejoinStatement { signed_at: now.plus(Duration::from_secs(1)), ..statement },
        ] {
            assert_eq!(refused(changed), RejoinError::Signature, "{changed:?}");
        }
        let by_thief = statement.prove(&thief).unwrap();
        let verified = statement.verify(&by_thief.signature, host.public_key(), now);
        assert_eq!(verified, Err(RejoinError::Signature));
        for late in [now.plus(TOLERANCE + Duration::from_secs(1)), now.minus(TOLERANCE + Duration::from_secs(1))] {
            let verified = statement.verify(&proof.signature, host.public_key(), late);
            assert!(matches!(verified, Err(RejoinError::Time { .. })), "{verified:?}");
        }
    }

    #[test]
    fn a_signature_for_another_purpose_and_what_is_none_are_refused() {
        let (cluster, token, name) =
            (ClusterName::new("root").unwrap(), Secret::new("token-token-token"), NodeName::new("edge").unwrap());
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        let statement = RejoinStatement {
            cluster: &cluster,
            token: &token,
            host_id: HostId::from_uuid(uuid::Uuid::from_u128(1)),
            node_name: &name,
            ssh_public_key: "ssh-ed25519 AAAA",
            tls_public_key: "",
            signed_at: now,
        };
        let host = key(1);
        let file = host.sign("file", HashAlg::Sha512, &statement.octets()).unwrap().to_pem(LineEnding::LF).unwrap();
        assert_eq!(statement.verify(&file, host.public_key(), now), Err(RejoinError::Signature));
        let long = format!("{file}{}", " ".repeat(MAX_SIGNATURE));
        for none in ["", "-----BEGIN SSH SIGNATURE-----", &long] {
            assert_eq!(statement.verify(none, host.public_key(), now), Err(RejoinError::Malformed), "{none}");
        }
    }
}
