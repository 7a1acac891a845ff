//! Keys in a PKCS#11 token (feature `pkcs11`): [`Pkcs11Token`] makes, finds and destroys them, [`Pkcs11Signer`] signs with one. Owns what
//! is asked of a token and what is believed of its answers. Never sees a private key.

mod answer;
mod objects;
mod places;
mod workers;

use std::{path::PathBuf, sync::Arc, time::Duration};

use cryptoki::{
    mechanism::{
        Mechanism, MechanismType,
        eddsa::{EddsaParams, EddsaSignatureScheme},
    },
    object::{Attribute, AttributeType},
};
use remoteler_core::Secret;
use ring::{
    digest::{SHA256, digest},
    signature::{
        ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};

use self::{
    answer::{Asked, told},
    workers::Workers,
};
use crate::{Signer, SignerAlgorithm, SignerError, TokenError, TokenKey, TokenKeyId, TokenKeys};

/// Which of a module's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChoice {
    /// The one with this label.
    Label(String),
    /// The one in this slot; numbers may change when tokens are added.
    Slot(u64),
}

impl std::fmt::Display for TokenChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Label(label) => write!(f, "label {label:?}"),
            Self::Slot(number) => write!(f, "slot number {number}"),
        }
    }
}

/// What it takes to use a token.
#[derive(Clone, Debug)]
pub struct Pkcs11Config {
    /// The shared library that speaks to it.
    pub module: PathBuf,
    /// Which token.
    pub token: TokenChoice,
    /// The user's PIN.
    pub pin: Secret,
}

/// A token that was opened and logged in to. What it shares with its signers is closed with the last of them.
pub struct Pkcs11Token {
    workers: Arc<Workers>,
}

/// A private key in a token.
pub struct Pkcs11Signer {
    workers: Arc<Workers>,
    algorithm: SignerAlgorithm,
    public: Vec<u8>,
    id: TokenKeyId,
    label: String,
}

/// How long a token may take to sign, find or destroy.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to make a key: a smart card looks for primes of RSA for a minute.
const GENERATE: Duration = Duration::from_secs(180);

impl Pkcs11Token {
    /// Loads the module, finds the token and logs in.
    ///
    /// # Errors
    /// [`TokenError`]
    pub fn open(config: Pkcs11Config) -> Result<Self, TokenError> {
        let workers = Arc::new(Workers::start(config)?);
        // So that a wrong PIN is told at the start, and not at the first login.
        workers.call("log in", ANSWER, |_| Ok(()))?;
        Ok(Self { workers })
    }

    fn check_mechanisms(&self, algorithm: SignerAlgorithm) -> Result<(), TokenError> {
        let wanted = mechanisms(algorithm);
        let known = self.workers.call("list its mechanisms", ANSWER, |connection| connection.mechanisms())?;
        match wanted.iter().find(|mechanism| !known.contains(mechanism)) {
            None => Ok(()),
            Some(missing) => {
                Err(TokenError::Mechanism { token: self.token().to_owned(), mechanism: missing.to_string(), algorithm })
            }
        }
    }

    /// Whether the token keeps the key to itself.
    fn check_kept(&self, id: TokenKeyId, label: &str) -> Result<(), TokenError> {
        let asked = KEPT.map(|(kind, _)| kind);
        let said =
            self.workers.call("describe a key", ANSWER, move |connection| match connection.private_key(id)? {
                Some(key) => connection.session().get_attributes(key, &asked).map(Some).map_err(Asked::from),
                None => Ok(None),
            })?;
        let Some(said) = said else { return Err(self.gone(id, label)) };
        match given_out(&said) {
            None => Ok(()),
            Some(what) => Err(TokenError::GivenOut { token: self.token().to_owned(), label: label.to_owned(), what }),
        }
    }

    /// A signer for `id`, once it has signed for `public`.
    fn proven(
        &self,
        algorithm: SignerAlgorithm,
        id: TokenKeyId,
        label: &str,
        public: Vec<u8>,
    ) -> Result<Pkcs11Signer, TokenError> {
        self.check_kept(id, label)?;
        let signer = Pkcs11Signer { workers: self.workers.clone(), algorithm, public, id, label: label.to_owned() };
        let signature = signer.ask(PROOF)?;
        let verified = UnparsedPublicKey::new(verifier(algorithm), &signer.public).verify(PROOF, &signature);
        if verified.is_err() {
            return Err(TokenError::OtherKey {
                token: self.token().to_owned(),
                label: label.to_owned(),
                id: id.to_string(),
            });
        }
        Ok(signer)
    }

    fn made(&self, algorithm: SignerAlgorithm, id: TokenKeyId, label: &str) -> Result<Pkcs11Signer, TokenError> {
        let name = label.to_owned();
        let public = self.workers.call("make a key", GENERATE, move |connection| {
            let public = objects::generate(connection.session(), algorithm, id, &name)?;
            objects::public_half(connection.session(), public, algorithm)
        })?;
        self.proven(algorithm, id, label, public)
    }

    fn destroy_id(&self, id: TokenKeyId) -> Result<(), TokenError> {
        self.workers.call("destroy a key", ANSWER, move |connection| connection.destroy(id))
    }

    fn gone(&self, id: TokenKeyId, label: &str) -> TokenError {
        gone(&self.workers, id, label)
    }
}

impl TokenKeys for Pkcs11Token {
    fn token(&self) -> &str {
        self.workers.token()
    }

    fn generate(
        &self,
        algorithm: SignerAlgorithm,
        id: TokenKeyId,
        label: &str,
    ) -> Result<(Box<dyn Signer>, TokenKey), TokenError> {
        self.check_mechanisms(algorithm)?;
        match self.made(algorithm, id, label) {
            Ok(signer) => {
                let key = TokenKey::new(id, label, self.token(), &signer.public);
                Ok((Box::new(signer), key))
            }
            Err(cause) => {
                // What was made is of no use; that it is still there is the lesser trouble, and the first error the one to be told.
                let _ = self.destroy_id(id);
                Err(cause)
            }
        }
    }

    fn open(&self, algorithm: SignerAlgorithm, key: &TokenKey) -> Result<Box<dyn Signer>, TokenError> {
        Ok(Box::new(self.proven(algorithm, key.id()?, key.label(), key.public()?)?))
    }

    fn destroy(&self, key: &TokenKey) -> Result<(), TokenError> {
        self.destroy_id(key.id()?)
    }
}

impl std::fmt::Debug for Pkcs11Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pkcs11Token").field("token", &self.token()).finish_non_exhaustive()
    }
}

impl Pkcs11Signer {
    fn ask(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let (id, algorithm) = (self.id, self.algorithm);
        // ECDSA is asked for over a digest: tokens that hash themselves are fewer, and some take short messages only.
        let input = match algorithm {
            SignerAlgorithm::EcdsaP256 => digest(&SHA256, message).as_ref().to_vec(),
            SignerAlgorithm::Ed25519 | SignerAlgorithm::RsaSha256 | SignerAlgorithm::RsaSha512 => message.to_vec(),
        };
        let signature = self.workers.call("sign", ANSWER, move |connection| {
            let Some(key) = connection.private_key(id)? else { return Ok(None) };
            connection.session().sign(&signing(algorithm), key, &input).map(Some).map_err(Asked::from)
        })?;
        let signature = signature.ok_or_else(|| gone(&self.workers, id, &self.label))?;
        objects::signature(algorithm, signature).ok_or_else(|| TokenError::Failed {
            token: self.workers.token().to_owned(),
            doing: "sign",
            source: told("its signature is of another length than the algorithm's"),
        })
    }
}

impl Signer for Pkcs11Signer {
    fn algorithm(&self) -> SignerAlgorithm {
        self.algorithm
    }

    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.ask(message).map_err(SignerError::Token)
    }
}

impl std::fmt::Debug for Pkcs11Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pkcs11Signer").field("label", &self.label).field("id", &self.id).finish_non_exhaustive()
    }
}

fn gone(workers: &Workers, id: TokenKeyId, label: &str) -> TokenError {
    TokenError::KeyGone { token: workers.token().to_owned(), label: label.to_owned(), id: id.to_string() }
}

/// What a token must say of a key, and what it is called otherwise. It may be kept now and have been given out before, or have come from elsewhere.
const KEPT: [(AttributeType, &str); 4] = [
    (AttributeType::Sensitive, "not sensitive"),
    (AttributeType::Extractable, "extractable"),
    (AttributeType::AlwaysSensitive, "not sensitive from its making on"),
    (AttributeType::NeverExtractable, "not made unextractable in the token"),
];

/// Why a key that is so described is not kept by the token alone. What is not said counts as not kept.
fn given_out(said: &[Attribute]) -> Option<&'static str> {
    let wanted = [
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::AlwaysSensitive(true),
        Attribute::NeverExtractable(true),
    ];
    wanted.iter().zip(KEPT).find(|(wanted, _)| !said.contains(wanted)).map(|(_, (_, what))| what)
}

/// What a key signs to prove itself. It is the begin of no certificate: those of X.509 begin with 0x30, those of SSH with a zero octet.
const PROOF: &[u8] = b"remoteler: this key signs for its public half";

/// What a token must be able to do for keys of `algorithm`.
fn mechanisms(algorithm: SignerAlgorithm) -> [MechanismType; 2] {
    match algorithm {
        SignerAlgorithm::Ed25519 => [MechanismType::ECC_EDWARDS_KEY_PAIR_GEN, MechanismType::EDDSA],
        SignerAlgorithm::EcdsaP256 => [MechanismType::ECC_KEY_PAIR_GEN, MechanismType::ECDSA],
        SignerAlgorithm::RsaSha256 => [MechanismType::RSA_PKCS_KEY_PAIR_GEN, MechanismType::SHA256_RSA_PKCS],
        SignerAlgorithm::RsaSha512 => [MechanismType::RSA_PKCS_KEY_PAIR_GEN, MechanismType::SHA512_RSA_PKCS],
    }
}

fn signing(algorithm: SignerAlgorithm) -> Mechanism<'static> {
    match algorithm {
        SignerAlgorithm::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
        SignerAlgorithm::EcdsaP256 => Mechanism::Ecdsa,
        SignerAlgorithm::RsaSha256 => Mechanism::Sha256RsaPkcs,
        SignerAlgorithm::RsaSha512 => Mechanism::Sha512RsaPkcs,
    }
}

fn verifier(algorithm: SignerAlgorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        SignerAlgorithm::Ed25519 => &ED25519,
        SignerAlgorithm::EcdsaP256 => &ECDSA_P256_SHA256_ASN1,
        SignerAlgorithm::RsaSha256 => &RSA_PKCS1_2048_8192_SHA256,
        SignerAlgorithm::RsaSha512 => &RSA_PKCS1_2048_8192_SHA512,
    }
}
