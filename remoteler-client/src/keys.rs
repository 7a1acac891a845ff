//! Key pairs, made on the machine that uses them. Owns their text forms. Private halves leave this module only as
//! [`Secret`]s and never leave the machine.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use remoteler_core::{Entropy, OsEntropy, Secret, fill_random};
use ssh_key::{
    LineEnding, PrivateKey, PublicKey,
    private::{Ed25519Keypair, KeypairData},
};

/// Why a key could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The SSH key.
    #[error("the SSH key cannot be used")]
    Ssh(#[from] ssh_key::Error),
    /// The TLS key.
    #[error("the TLS key cannot be used")]
    Tls(#[from] rcgen::Error),
}

/// An SSH and a TLS key pair: Ed25519 and ECDSA P-256.
#[derive(Clone, Debug)]
pub struct KeyPairs {
    /// Private SSH key, OpenSSH's format, not encrypted.
    pub ssh_private: Secret,
    /// Public SSH key, OpenSSH's one-line form.
    pub ssh_public: String,
    /// Private TLS key, PEM of PKCS #8.
    pub tls_private: Secret,
    /// Public TLS key, PEM of a SubjectPublicKeyInfo.
    pub tls_public: String,
}

impl KeyPairs {
    /// Makes both from the operating system's generator. `comment` goes into the SSH key.
    ///
    /// # Errors
    /// [`KeyError`] when a key cannot be made.
    pub fn generate(comment: &str) -> Result<Self, KeyError> {
        let ssh = ssh_key_pair(comment, &OsEntropy)?;
        let tls = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self {
            ssh_private: Secret::new(ssh.to_openssh(LineEnding::LF)?.as_str()),
            ssh_public: ssh.public_key().to_openssh()?,
            tls_private: Secret::new(tls.serialize_pem()),
            tls_public: tls.public_key_pem(),
        })
    }

    /// The pairs that belong to private keys made earlier.
    ///
    /// # Errors
    /// [`KeyError`] when one of them does not parse.
    pub fn from_private(ssh_private: Secret, tls_private: Secret) -> Result<Self, KeyError> {
        let ssh_public = PrivateKey::from_openssh(ssh_private.reveal())?.public_key().to_openssh()?;
        let tls_public = KeyPair::from_pem(tls_private.reveal())?.public_key_pem();
        Ok(Self { ssh_private, ssh_public, tls_private, tls_public })
    }

    /// The SSH key pair itself.
    ///
    /// # Errors
    /// [`KeyError`] when the text does not parse.
    pub fn ssh_key(&self) -> Result<PrivateKey, KeyError> {
        Ok(PrivateKey::from_openssh(self.ssh_private.reveal())?)
    }
}

fn ssh_key_pair(comment: &str, entropy: &dyn Entropy) -> Result<PrivateKey, KeyError> {
    let seed = zeroize::Zeroizing::new(fill_random::<32>(entropy));
    Ok(PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed)), comment)?)
}

/// Whether two SSH public keys are the same key, whatever their comments say.
pub(crate) fn same_ssh_key(one: &PublicKey, other: &ssh_key::public::KeyData) -> bool {
    one.key_data() == other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_new_each_time_and_read_back() {
        let pairs = KeyPairs::generate("ann@example.com").unwrap();
        let other = KeyPairs::generate("ann@example.com").unwrap();
        assert_ne!(pairs.ssh_public, other.ssh_public);
        assert_ne!(pairs.tls_public, other.tls_public);

        let again = KeyPairs::from_private(pairs.ssh_private.clone(), pairs.tls_private.clone()).unwrap();
        assert_eq!((again.ssh_public, again.tls_public), (pairs.ssh_public.clone(), pairs.tls_public.clone()));
        assert!(pairs.ssh_public.starts_with("ssh-ed25519 ") && pairs.ssh_public.ends_with(" ann@example.com"));
        assert!(pairs.tls_public.starts_with("-----BEGIN PUBLIC KEY-----"));
    }

    #[test]
    fn a_private_key_is_not_printed() {
        let text = format!("{:?}", KeyPairs::generate("x").unwrap());
        assert!(!text.contains("PRIVATE"), "{text}"); // I76
    }
}
