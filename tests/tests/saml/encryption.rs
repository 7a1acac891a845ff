//! Assertions that real identity providers encrypt: pysaml2, which has xmlsec1 do it, and samlify.

use remoteler_auth::saml::{Binding, EncryptionError, Expected, SamlError, SignatureError};
use remoteler_tests::SamlClients;

use super::{
    judges::Judges,
    providers::{meet, now},
};

// I45 I46
#[test]
fn what_real_identity_providers_encrypt_and_then_sign_is_believed() {
    let Some(clients) = SamlClients::find() else { return };
    for script in ["idp_pysaml2.py", "idp_samlify.js"] {
        let met = meet(&clients, script, "encrypted");
        let octets = met.respond("_r1", Binding::Post);
        let text = String::from_utf8_lossy(&octets).into_owned();
        assert!(text.contains("EncryptedAssertion") && !text.contains("ann-1"), "{script}: {text}");
        let expected = Expected { request: Some("_r1"), now: now() };
        let claims = met.us.accept(&octets, expected).unwrap_or_else(|cause| panic!("{script}: {cause}\n{text}"));
        assert_eq!(claims.name_id.value, "ann-1", "{script}");
        assert_eq!(claims.attributes.get("groups").and_then(|groups| groups.first()).map(String::as_str), Some("dev"));
        let judges = Judges::new(&clients, &met.dir.path().join("certificate.pem"));
        assert!(judges.xmlsec1(&octets) && judges.signxml(std::slice::from_ref(&octets)) == [true], "{script}");

        // The ciphertext of one answer in another: to them and to us the signature is wrong.
        let other = String::from_utf8(met.respond("_r1", Binding::Post)).expect("text");
        let value = |text: &str| -> String {
            let begin = text.rfind("CipherValue>").and_then(|end| text[..end].rfind("CipherValue>")).expect("a value");
            text[begin..].split('<').next().expect("it ends").to_owned()
        };
        assert_ne!(value(&text), value(&other), "{script}");
        let swapped = text.replace(&value(&text), &value(&other)).into_bytes();
        let outcome = met.us.accept(&swapped, expected);
        assert_eq!(outcome, Err(SignatureError::Digest("Response".into()).into()), "{script}");
        assert!(!judges.xmlsec1(&swapped) && judges.signxml(&[swapped]) == [false], "{script}");
    }
}

// I45 I47
#[test]
fn what_they_encrypt_in_another_order_or_another_way_is_refused_with_what_to_do() {
    let Some(clients) = SamlClients::find() else { return };
    for (script, sign, refused) in [
        ("idp_pysaml2.py", "encrypted-unsigned", SamlError::Encryption(EncryptionError::NotCovered)),
        ("idp_samlify.js", "encrypted-unsigned", SamlError::Encryption(EncryptionError::NotCovered)),
        ("idp_samlify.js", "encrypted-late", SignatureError::Digest("Response".into()).into()),
        ("idp_pysaml2.py", "encrypted-cbc", SamlError::Encryption(EncryptionError::Algorithm("Triple DES"))),
        ("idp_samlify.js", "encrypted-cbc", SamlError::Encryption(EncryptionError::Algorithm("AES-256-CBC"))),
    ] {
        let met = meet(&clients, script, sign);
        let octets = met.respond("_r1", Binding::Redirect);
        let outcome = met.us.accept(&octets, Expected { request: Some("_r1"), now: now() });
        assert_eq!(outcome, Err(refused), "{script} {sign}: {}", String::from_utf8_lossy(&octets));
    }
}
