//! Project Wycheproof's vectors, run against the functions that the two verifiers call: webpki's algorithms for X.509, ssh-key's for SSH.
//! Every signature that is valid is taken, and every one that is not is refused.

use rustls_pki_types::SignatureVerificationAlgorithm;
use signature::Verifier;
use ssh_key::{
    Algorithm, EcdsaCurve, HashAlg, Mpint, Signature,
    encoding::Encode,
    public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey},
};
use webpki::ring as algorithms;
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify as rsa};
use x509_parser::{prelude::FromDer, public_key::RSAPublicKey, x509::SubjectPublicKeyInfo};

/// A vector of any algorithm.
struct Vector {
    id: usize,
    /// What the key's SubjectPublicKeyInfo holds.
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
    result: TestResult,
}

macro_rules! vectors {
    ($module:ident, $name:ident) => {{
        let set = $module::TestSet::load($module::TestName::$name).unwrap();
        let of = |group: $module::TestGroup| {
            let (_, info) = SubjectPublicKeyInfo::from_der(&group.der).unwrap();
            let key = info.subject_public_key.data.to_vec();
            let vector = move |test: $module::Test| Vector {
                id: test.tc_id,
                key: key.clone(),
                message: test.msg.to_vec(),
                signature: test.sig.to_vec(),
                result: test.result,
            };
            group.tests.into_iter().map(vector).collect::<Vec<_>>()
        };
        let vectors: Vec<Vector> = set.test_groups.into_iter().flat_map(of).collect();
        assert!(vectors.len() > 100);
        vectors
    }};
}

#[test]
fn x509_signatures_are_judged_as_published() {
    let judge = |vectors: Vec<Vector>, algorithm: &dyn SignatureVerificationAlgorithm| {
        check(vectors, |vector| algorithm.verify_signature(&vector.key, &vector.message, &vector.signature).is_ok());
    };
    // I7: the list of verify_x509.rs
    judge(vectors!(eddsa, Ed25519), algorithms::ED25519);
    judge(vectors!(ecdsa, EcdsaSecp256r1Sha256), algorithms::ECDSA_P256_SHA256);
    judge(vectors!(ecdsa, EcdsaSecp384r1Sha384), algorithms::ECDSA_P384_SHA384);
    judge(vectors!(rsa, Rsa2048Sha256), algorithms::RSA_PKCS1_2048_8192_SHA256);
    judge(vectors!(rsa, Rsa3072Sha256), algorithms::RSA_PKCS1_2048_8192_SHA256);
    judge(vectors!(rsa, Rsa3072Sha384), algorithms::RSA_PKCS1_2048_8192_SHA384);
    judge(vectors!(rsa, Rsa4096Sha512), algorithms::RSA_PKCS1_2048_8192_SHA512);
    judge(vectors!(rsa, Rsa8192Sha512), algorithms::RSA_PKCS1_2048_8192_SHA512);
}

#[test]
fn ssh_signatures_are_judged_as_published() {
    // I7
    check(vectors!(eddsa, Ed25519), |vector| {
        let Ok(key) = Ed25519PublicKey::try_from(&vector.key[..]) else { return false };
        judge_ssh(&KeyData::Ed25519(key), Algorithm::Ed25519, vector.signature.clone(), &vector.message)
    });
    for (vectors, curve, octets) in [
        (vectors!(ecdsa, EcdsaSecp256r1Sha256P1363), EcdsaCurve::NistP256, 32),
        (vectors!(ecdsa, EcdsaSecp384r1Sha384P1363), EcdsaCurve::NistP384, 48),
    ] {
        check(vectors, |vector| {
            // SSH has two numbers (RFC 5656 section 3.1.2): a pair of another length cannot be written so.
            if vector.signature.len() != 2 * octets {
                return false;
            }
            let Ok(key) = EcdsaPublicKey::from_sec1_bytes(&vector.key) else { return false };
            let (r, s) = vector.signature.split_at(octets);
            let mut pair = Mpint::from_positive_bytes(r).encode_vec().unwrap();
            Mpint::from_positive_bytes(s).encode(&mut pair).unwrap();
            judge_ssh(&KeyData::Ecdsa(key), Algorithm::Ecdsa { curve }, pair, &vector.message)
        });
    }
    for (vectors, hash) in [
        (vectors!(rsa, Rsa2048Sha256), HashAlg::Sha256),
        (vectors!(rsa, Rsa3072Sha512), HashAlg::Sha512),
        (vectors!(rsa, Rsa4096Sha512), HashAlg::Sha512),
    ] {
        check(vectors, |vector| {
            let (_, key) = RSAPublicKey::from_der(&vector.key).unwrap();
            let part = |octets: &[u8]| Mpint::from_positive_bytes(octets);
            let Ok(key) = RsaPublicKey::new(part(key.exponent), part(key.modulus)) else { return false };
            judge_ssh(
                &KeyData::Rsa(key),
                Algorithm::Rsa { hash: Some(hash) },
                vector.signature.clone(),
                &vector.message,
            )
        });
    }
}

fn judge_ssh(key: &KeyData, algorithm: Algorithm, octets: Vec<u8>, message: &[u8]) -> bool {
    Signature::new(algorithm, octets).is_ok_and(|signature| key.verify(message, &signature).is_ok())
}

/// Both verdicts must have been reached, else nothing was shown.
fn check(vectors: Vec<Vector>, accepts: impl Fn(&Vector) -> bool) {
    let (mut valid, mut invalid) = (0, 0);
    for vector in &vectors {
        match vector.result {
            TestResult::Valid => {
                assert!(accepts(vector), "vector {} is valid", vector.id);
                valid += 1;
            }
            TestResult::Invalid => {
                assert!(!accepts(vector), "vector {} is not valid", vector.id);
                invalid += 1;
            }
            // Correct but made with something weak; either answer is sound.
            TestResult::Acceptable => {}
        }
    }
    assert!(valid > 0 && invalid > 0, "{valid} valid, {invalid} invalid");
}
