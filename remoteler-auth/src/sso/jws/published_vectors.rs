//! What was published of signed tokens, against this reader: the tokens of RFC 7515, RFC 7520 and RFC 8037, Project Wycheproof's signatures of each algorithm
//! of the list, and a token of each that was made here.

use ring::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512, RsaEncoding,
    },
};
use serde_json::json;
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};
use x509_parser::{prelude::FromDer, public_key::RSAPublicKey, x509::SubjectPublicKeyInfo};

use super::*;

/// Claims of RFC 7515's examples.
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
/// Modulus of RFC 7515's key for RSA (appendix A.2.1).
const JOES_MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
/// The private parts of that key: d, p, q, dp, dq, qi.
const JOES_SECRETS: [&str; 6] = [
    "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
    "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
    "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
    "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
    "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
    "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U",
];

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn rsa_key(n: &str) -> Value {
    json!({ "kty": "RSA", "n": n, "e": "AQAB" })
}

fn encode(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// Asserts that `token` has the right signature, and with any of its parts changed has not.
fn check_token(keys: &KeySet, token: &str, what: &str) {
    let judged = keys.verify(token);
    // Some published tokens sign a text: then it was read after its signature was found right.
    let right = judged.is_ok() || judged == Err(JwsError::Malformed("it is not the JSON that it should be"));
    assert!(right, "{what}: {judged:?}");
    let parts: Vec<&str> = token.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], decode(parts[2]).unwrap());
    let other_head = encode([&decode(head).unwrap()[..], b" "].concat());
    let other_body = encode([&decode(body).unwrap()[..], b" "].concat());
    for (head, body) in [(other_head.as_str(), body), (head, other_body.as_str()), (head, "e30")] {
        assert_eq!(keys.verify(&format!("{head}.{body}.{}", parts[2])), Err(JwsError::Signature), "{what}");
    }
    let flipped = |at: usize| {
        let mut wrong = signature.clone();
        wrong[at] ^= 1;
        wrong
    };
    let ends = [flipped(0), flipped(signature.len() / 2), flipped(signature.len() - 1)];
    let lengths =
        [Vec::new(), signature[1..].to_vec(), [&signature[..], &[0]].concat(), [&[0], &signature[..]].concat()];
    for wrong in ends.into_iter().chain(lengths).chain([vec![0; signature.len()]]) {
        let changed = format!("{head}.{body}.{}", encode(wrong));
        assert_eq!(keys.verify(&changed), Err(JwsError::Signature), "{what}");
    }
}

#[test]
fn the_tokens_of_the_standards_are_judged_as_they_say() {
    // I38
    let rsa = set(&[rsa_key(JOES_MODULUS)]);
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{JOE}.{signature}");
    assert_eq!(rsa.verify(&token).unwrap()["iss"], "joe");
    check_token(&rsa, &token, "RFC 7515 A.2, RS256");

    let p256 = set(&[json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })]);
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let token = format!("eyJhbGciOiJFUzI1NiJ9.{JOE}.{signature}");
    assert_eq!(p256.verify(&token).unwrap()["http://example.com/is_root"], true);
    check_token(&p256, &token, "RFC 7515 A.3, ES256");

    // RFC 7515 A.1, HS256: a secret that is shared is no key of a provider, nor is what is published one.
    let shared = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let keys = set(&[json!({ "kty": "oct", "k": shared })]);
    let token = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    assert_eq!(keys.verify(&token), Err(JwsError::Algorithm("HS256".into())));
    // RFC 7515 A.5: signed by nobody.
    assert_eq!(rsa.verify(&format!("eyJhbGciOiJub25lIn0.{JOE}.")), Err(JwsError::Algorithm("none".into())));

    let bilbo = set(&[rsa_key(
        "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw",
    )]);
    let token = "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw";
    assert_eq!(bilbo.verify(token), Err(JwsError::NoKey), "its key has a name, which ours has not");
    let mut named = bilbo;
    named.0[0].kid = Some("bilbo.baggins@hobbiton.example".into());
    check_token(&named, token, "RFC 7520 4.2, PS384");

    let ed25519 = set(&[json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })]);
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    check_token(&ed25519, token, "RFC 8037 A.4, EdDSA");
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn rsa_signer(encoding: &'static dyn RsaEncoding) -> (Value, Sign) {
    let [d, p, q, dp, dq, qi] = JOES_SECRETS.map(|part| decode(part).unwrap());
    let public_key = PublicKeyComponents { n: decode(JOES_MODULUS).unwrap(), e: vec![1, 0, 1] };
    let parts = KeyPairComponents { public_key, d, p, q, dP: dp, dQ: dq, qInv: qi };
    let pair = RsaKeyPair::from_components(&parts).unwrap();
    let sign = move |signed: &[u8]| {
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), signed, &mut signature).unwrap();
        signature
    };
    (rsa_key(JOES_MODULUS), Box::new(sign))
}

fn ecdsa_signer(curve: &str, algorithm: &'static EcdsaSigningAlgorithm) -> (Value, Sign) {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
    let key = ec_key(curve, pair.public_key().as_ref());
    (key, Box::new(move |signed| pair.sign(&random, signed).unwrap().as_ref().to_vec()))
}

/// Of an uncompressed point.
fn ec_key(curve: &str, point: &[u8]) -> Value {
    let (x, y) = point[1..].split_at(point.len() / 2);
    json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
}

#[test]
fn a_token_of_each_algorithm_of_the_list_is_believed_and_by_another_name_or_changed_it_is_not() {
    // I38
    let ed25519 = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref());
    let ed25519 = ed25519.unwrap();
    let x = encode(ed25519.public_key());
    let signers: [(&str, (Value, Sign)); 9] = [
        ("RS256", rsa_signer(&RSA_PKCS1_SHA256)),
        ("RS384", rsa_signer(&RSA_PKCS1_SHA384)),
        ("RS512", rsa_signer(&RSA_PKCS1_SHA512)),
        ("PS256", rsa_signer(&RSA_PSS_SHA256)),
        ("PS384", rsa_signer(&RSA_PSS_SHA384)),
        ("PS512", rsa_signer(&RSA_PSS_SHA512)),
        ("ES256", ecdsa_signer("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING)),
        ("ES384", ecdsa_signer("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING)),
        (
            "EdDSA",
            (
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x }),
                Box::new(move |signed| ed25519.sign(signed).as_ref().to_vec()),
            ),
        ),
    ];
    assert_eq!(signers.each_ref().map(|(name, _)| *name), ALGORITHMS);
    for (name, (key, sign)) in signers {
        let token = |alg: &str| {
            let signed = format!("{}.{JOE}", encode(json!({ "alg": alg }).to_string()));
            format!("{signed}.{}", encode(sign(signed.as_bytes())))
        };
        let keys = set(std::slice::from_ref(&key));
        assert_eq!(keys.verify(&token(name)).unwrap()["iss"], "joe", "{name}");
        check_token(&keys, &token(name), name);
        for other in ALGORITHMS.into_iter().filter(|other| *other != name) {
            assert!(
                matches!(keys.verify(&token(other)), Err(JwsError::NoKey | JwsError::Signature)),
                "signed as {name} and said to be {other}"
            );
            // A key that says what it is for is for nothing else.
            let mut bound = key.clone();
            bound["alg"] = other.into();
            assert_eq!(
                set(&[bound]).verify(&token(name)),
                Err(JwsError::NoKey),
                "a key for {other}, a token of {name}"
            );
        }
    }
}

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
        set.test_groups.into_iter().flat_map(of).collect::<Vec<Vector>>()
    }};
}

fn rsa_jwk(key: &[u8]) -> Value {
    let (_, key) = RSAPublicKey::from_der(key).unwrap();
    json!({ "kty": "RSA", "n": encode(key.modulus), "e": encode(key.exponent) })
}

/// Whether a signature counts, its key published as a JWK.
fn accepts(alg: &str, jwk: &Value, vector: &Vector) -> bool {
    let keys = set(std::slice::from_ref(jwk));
    let judge =
        |key: &Key| key.material.takes(alg) && key.material.verify(alg, &vector.message, &vector.signature).is_ok();
    keys.0.iter().any(judge)
}

fn check(alg: &str, vectors: &[Vector], jwk: impl Fn(&[u8]) -> Value) {
    let (mut valid, mut invalid) = (0, 0);
    for vector in vectors {
        let accepted = accepts(alg, &jwk(&vector.key), vector);
        match vector.result {
            TestResult::Valid => {
                assert!(accepted, "{alg}: vector {} is valid", vector.id);
                valid += 1;
            }
            TestResult::Invalid => {
                assert!(!accepted, "{alg}: vector {} is not valid", vector.id);
                invalid += 1;
            }
            // Correct but made with something weak; either answer is sound.
            TestResult::Acceptable => {}
        }
    }
    assert!(valid > 0 && invalid > 0, "{alg}: {valid} valid, {invalid} invalid");
}

#[test]
fn signatures_of_each_algorithm_are_judged_as_published() {
    // I38
    check("RS256", &vectors!(pkcs1, Rsa2048Sha256), rsa_jwk);
    check("RS256", &vectors!(pkcs1, Rsa8192Sha256), rsa_jwk);
    check("RS384", &vectors!(pkcs1, Rsa3072Sha384), rsa_jwk);
    check("RS512", &vectors!(pkcs1, Rsa4096Sha512), rsa_jwk);
    check("PS256", &vectors!(pss, RsaPss2048Sha256Mgf1SaltLen32), rsa_jwk);
    check("PS256", &vectors!(pss, RsaPss3072Sha256Mgf1SaltLen32), rsa_jwk);
    check("PS384", &vectors!(pss, RsaPss4096Sha384Mgf1SaltLen48), rsa_jwk);
    check("PS512", &vectors!(pss, RsaPss4096Sha512Mgf1SaltLen64), rsa_jwk);
    check("ES256", &vectors!(ecdsa, EcdsaSecp256r1Sha256P1363), |point| ec_key("P-256", point));
    check("ES384", &vectors!(ecdsa, EcdsaSecp384r1Sha384P1363), |point| ec_key("P-384", point));
    check("EdDSA", &vectors!(eddsa, Ed25519), |key| json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(key) }));
    // A salt is as long as the hash (RFC 7518 section 3.5), and both hashes are the same.
    for (alg, vectors) in [
        ("PS256", vectors!(pss, RsaPss2048Sha256Mgf1SaltLen0)),
        ("PS256", vectors!(pss, RsaPss2048Sha256Mgf1Sha1_20)),
        ("PS512", vectors!(pss, RsaPss4096Sha512Mgf1SaltLen32)),
    ] {
        let valid = vectors.iter().filter(|vector| vector.result == TestResult::Valid);
        let taken = valid.clone().filter(|vector| accepts(alg, &rsa_jwk(&vector.key), vector)).count();
        assert!(valid.count() > 0 && taken == 0, "{alg}: {taken} taken");
    }
}
