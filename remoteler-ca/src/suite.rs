//! Which algorithms an authority signs with. Owns the choice of a suite; what the choices mean is in [`SignerAlgorithm`].

use serde::{Deserialize, Serialize};

use crate::SignerAlgorithm;

/// The pair of algorithms of one authority: chosen when it is made, stored with it, changed only by a rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Suite {
    /// Ed25519 for SSH, ECDSA P-256 for X.509: small and fast, and taken by everything since OpenSSH 6.5.
    #[default]
    Balanced,
    /// RSA of 3072 bits for both, `rsa-sha2-512` in SSH and SHA-256 in X.509: for peers that know nothing newer.
    Legacy,
    /// ECDSA P-256 for both: what every hardware token signs.
    Token,
}

impl Suite {
    /// What SSH certificates are signed with.
    #[must_use]
    pub const fn ssh(self) -> SignerAlgorithm {
        match self {
            Self::Balanced => SignerAlgorithm::Ed25519,
            Self::Legacy => SignerAlgorithm::RsaSha512,
            Self::Token => SignerAlgorithm::EcdsaP256,
        }
    }

    /// What X.509 certificates are signed with.
    #[must_use]
    pub const fn x509(self) -> SignerAlgorithm {
        match self {
            Self::Balanced | Self::Token => SignerAlgorithm::EcdsaP256,
            Self::Legacy => SignerAlgorithm::RsaSha256,
        }
    }

    /// As it is written in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Legacy => "legacy",
            Self::Token => "token",
        }
    }
}

/// A suite this product does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no signature suite; known are balanced, legacy and token")]
pub struct UnknownSuite(String);

impl std::str::FromStr for Suite {
    type Err = UnknownSuite;

    fn from_str(text: &str) -> Result<Self, UnknownSuite> {
        [Self::Balanced, Self::Legacy, Self::Token]
            .into_iter()
            .find(|suite| suite.as_str() == text)
            .ok_or_else(|| UnknownSuite(text.chars().take(40).collect()))
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
