//! Signed tokens of identity providers (RFC 7515, RFC 7517): which key, which algorithm, and the claims of a token whose signature is right. Owns the exact
//! list of algorithms; the signatures are checked by ring. What a token says is judged elsewhere.

use std::{collections::BTreeSet, fmt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwsError {
    /// Larger than any token needs to be.
    #[error("the token has more than {MAX_TOKEN} octets")]
    TooLarge,
    /// No compact token, or something in it that may not be there.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// An algorithm that is not on the list, `none` and those with shared secrets among them.
    #[error("the token is signed by {0:?}, which is not accepted")]
    Algorithm(String),
    /// No published key has that name and is for that algorithm: they may have been rotated.
    #[error("no key of the provider fits the token")]
    NoKey,
    /// The signature is not that of the key.
    #[error("the signature of the token is wrong")]
    Signature,
}

/// Largest token (I38).
const MAX_TOKEN: usize = 64 * 1024;
/// Most keys of a set that are looked at.
const MAX_KEYS: usize = 100;

/// Keys of a provider, as far as tokens may be signed by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    alg: Option<String>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

/// The header, as far as it is acted by; a member that stands there twice is refused.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
    #[serde(default)]
    b64: Option<Value>,
}

impl KeySet {
    /// Of a JWK set. Keys of other kinds are passed over, as RFC 7517 section 5 wants it.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, JwsError> {
        #[derive(Deserialize)]
        struct Raw {
            keys: Vec<Value>,
        }
        let raw: Raw = serde_json::from_slice(text).map_err(|_| JwsError::Malformed("the keys are no JWK set"))?;
        let keys = raw.keys.into_iter().take(MAX_KEYS).filter_map(|key| Key::parse(serde_json::from_value(key).ok()?));
        Ok(Self(keys.collect()))
    }

    /// The claims of a token that one of the keys signed. The token's own header chooses among these keys and brings none (I38).
    pub(crate) fn verify(&self, token: &str) -> Result<Map<String, Value>, JwsError> {
        if token.len() > MAX_TOKEN {
            return Err(JwsError::TooLarge);
        }
        let mut parts = token.split('.');
        let (Some(head), Some(body), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsError::Malformed("it has not three parts"));
        };
        let header: Header = decode_json(head)?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(JwsError::Malformed("it has critical extensions"));
        }
        let signature = decode(signature)?;
        let signed = token.get(..head.len() + 1 + body.len()).unwrap_or_default();
        if !ALGORITHMS.contains(&header.alg.as_str()) {
            return Err(JwsError::Algorithm(header.alg.chars().take(20).collect()));
        }
        let mut fitting = self.0.iter().filter(|key| key.fits(&header));
        let key = fitting.next().ok_or(JwsError::NoKey)?;
        if fitting.next().is_some() {
            return Err(JwsError::NoKey);
        }
        key.material.verify(&header.alg, signed.as_bytes(), &signature)?;
        let Unique(claims) = decode_json(body)?;
        Ok(claims)
    }
}

/// All algorithms that tokens may be signed by.
const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

impl Key {
    fn parse(raw: RawKey) -> Option<Self> {
        if raw.usage.as_ref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let octets = |text: &Option<String>| decode(text.as_deref()?).ok();
        let material = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("RSA", _) => {
                let strip = |octets: Vec<u8>| octets.into_iter().skip_while(|octet| *octet == 0).collect::<Vec<u8>>();
                Material::Rsa { n: strip(octets(&raw.n)?), e: strip(octets(&raw.e)?) }
            }
            ("EC", Some("P-256")) => Material::P256(point(octets(&raw.x)?, octets(&raw.y)?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(octets(&raw.x)?, octets(&raw.y)?, 48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(octets(&raw.x)?),
            _ => return None,
        };
        Some(Self { kid: raw.kid, alg: raw.alg, material })
    }

    fn fits(&self, header: &Header) -> bool {
        let named = header.kid.is_none() || self.kid == header.kid;
        named && self.alg.as_ref().is_none_or(|alg| *alg == header.alg) && self.material.takes(&header.alg)
    }
}

impl Material {
    /// An algorithm belongs to one kind of key, whatever the token says.
    fn takes(&self, alg: &str) -> bool {
        match self {
            Self::Rsa { .. } => alg.starts_with("RS") || alg.starts_with("PS"),
            Self::P256(_) => alg == "ES256",
            Self::P384(_) => alg == "ES384",
            Self::Ed25519(_) => alg == "EdDSA",
        }
    }

    fn verify(&self, alg: &str, signed: &[u8], signature: &[u8]) -> Result<(), JwsError> {
        let outcome = match self {
            Self::Rsa { n, e } => {
                let parameters: &RsaParameters = match alg {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &RSA_PSS_2048_8192_SHA256,
                    "PS384" => &RSA_PSS_2048_8192_SHA384,
                    "PS512" => &RSA_PSS_2048_8192_SHA512,
                    _ => return Err(JwsError::Algorithm(alg.to_owned())),
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature)
            }
            Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature),
            Self::P384(point) => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(signed, signature),
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(signed, signature),
        };
        outcome.map_err(|_| JwsError::Signature)
    }
}

/// SEC 1's uncompressed point; coordinates have their full length (RFC 7518 section 6.2.1.2).
fn point(x: Vec<u8>, y: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
}

fn decode(text: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::Malformed("it is not base64url"))
}

fn decode_json<T: DeserializeOwned>(text: &str) -> Result<T, JwsError> {
    serde_json::from_slice(&decode(text)?).map_err(|_| JwsError::Malformed("it is not the JSON that it should be"))
}

/// An object in which no member stands twice: readers differ in which of the two they take.
pub(crate) struct Unique(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
                let (mut seen, mut members) = (BTreeSet::new(), Map::new());
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom("a member stands there twice"));
                    }
                    members.insert(name, value);
                }
                Ok(Unique(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod published_vectors;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use serde_json::json;

    use super::*;

    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Self {
            let random = SystemRandom::new();
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap())
        }

        fn jwk(&self, kid: &str) -> Value {
            let point = self.0.public_key().as_ref();
            let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
            json!({ "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": x, "y": y })
        }

        fn sign(&self, header: &str, body: &str) -> String {
            let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body));
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn only_a_token_that_a_published_key_signed_by_its_own_algorithm_is_believed() {
        // I38
        let (signer, other) = (Signer::new(), Signer::new());
        let keys = set(&[signer.jwk("a")]);
        let good = signer.sign(r#"{"alg":"ES256","kid":"a"}"#, r#"{"sub":"1"}"#);
        assert_eq!(keys.verify(&good).unwrap()["sub"], "1");
        assert!(keys.verify(&signer.sign(r#"{"alg":"ES256"}"#, r#"{"sub":"1"}"#)).is_ok());

        let wrong = other.sign(r#"{"alg":"ES256","kid":"a"}"#, r#"{"sub":"1"}"#);
        assert_eq!(keys.verify(&wrong), Err(JwsError::Signature));
        let body = URL_SAFE_NO_PAD.encode(r#"{"sub":"2"}"#);
        let parts: Vec<&str> = good.split('.').collect();
        assert_eq!(keys.verify(&format!("{}.{body}.{}", parts[0], parts[2])), Err(JwsError::Signature));
        for alg in ["none", "None", "HS256", "HS384", "ES512", "ES256K", "", "RSA1_5"] {
            let token = signer.sign(&format!(r#"{{"alg":"{alg}","kid":"a"}}"#), r#"{"sub":"1"}"#);
            assert_eq!(keys.verify(&token), Err(JwsError::Algorithm(alg.into())));
        }
        for alg in ["RS256", "PS256", "ES384", "EdDSA"] {
            let token = signer.sign(&format!(r#"{{"alg":"{alg}","kid":"a"}}"#), r#"{"sub":"1"}"#);
            assert_eq!(keys.verify(&token), Err(JwsError::NoKey), "{alg}");
        }
        for header in [
            r#"{"alg":"ES256","kid":"b"}"#.to_owned(),
            json!({ "alg": "ES256", "kid": "b", "jwk": other.jwk("b") }).to_string(),
            json!({ "alg": "ES256", "kid": "b", "jku": "https://evil.example/jwks" }).to_string(),
        ] {
            assert_eq!(keys.verify(&other.sign(&header, "{}")), Err(JwsError::NoKey), "{header}");
        }
    }

    #[test]
    fn a_token_with_anything_twice_critical_or_missing_is_refused() {
        // I38
        let signer = Signer::new();
        let keys = set(&[signer.jwk("a")]);
        for (header, body) in [
            (r#"{"alg":"ES256","crit":["exp"],"exp":1}"#, "{}"),
            (r#"{"alg":"ES256","crit":[]}"#, "{}"),
            (r#"{"alg":"ES256","b64":false}"#, "{}"),
            (r#"{"alg":"none","alg":"ES256"}"#, "{}"),
            (r#"{"alg":"ES256","kid":"a","kid":"b"}"#, "{}"),
            (r#"{"alg":["ES256"]}"#, "{}"),
            (r#"{"kid":"a"}"#, "{}"),
            (r#"{"alg":"ES256"}"#, r#"{"sub":"1","sub":"2"}"#),
            (r#"{"alg":"ES256"}"#, "[]"),
            (r#"{"alg":"ES256"}"#, "null"),
            (r#"{"alg":"ES256"}"#, "{} {}"),
        ] {
            let outcome = keys.verify(&signer.sign(header, body));
            assert!(matches!(outcome, Err(JwsError::Malformed(_))), "{header} {body} {outcome:?}");
        }
        let good = signer.sign(r#"{"alg":"ES256"}"#, "{}");
        for wrong in
            [format!("{good}."), format!("{good}="), good.replacen('.', "", 1), format!(" {good}"), String::new()]
        {
            assert!(keys.verify(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(keys.verify(&"a".repeat(MAX_TOKEN + 1)), Err(JwsError::TooLarge));
    }

    #[test]
    fn a_key_that_is_not_for_signatures_or_too_small_is_of_no_use() {
        // I7, I38
        let signer = Signer::new();
        let token = signer.sign(r#"{"alg":"ES256","kid":"a"}"#, "{}");
        for (field, value) in
            [("use", json!("enc")), ("alg", json!("ES384")), ("crv", json!("P-521")), ("x", json!("AA"))]
        {
            let mut key = signer.jwk("a");
            key[field] = value;
            assert_eq!(set(&[key]).verify(&token), Err(JwsError::NoKey), "{field}");
        }
        // Two keys of one name: which one is meant nobody knows.
        assert_eq!(set(&[signer.jwk("a"), Signer::new().jwk("a")]).verify(&token), Err(JwsError::NoKey));
        let small = json!({ "kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode([0xc5; 128]), "e": "AQAB" });
        let token = signer.sign(r#"{"alg":"RS256","kid":"r"}"#, "{}");
        assert_eq!(set(&[small]).verify(&token), Err(JwsError::Signature));
        assert!(KeySet::parse(b"[]").is_err() && KeySet::parse(b"{}").is_err());
    }

    proptest! {
        #[test]
        fn no_token_and_no_key_set_makes_it_panic(token in "[A-Za-z0-9_.=-]{0,80}", keys in "\\PC{0,80}") {
            // I25
            let set = set(&[Signer::new().jwk("a")]);
            prop_assert!(set.verify(&token).is_err());
            let _ = KeySet::parse(keys.as_bytes());
        }
    }
}
