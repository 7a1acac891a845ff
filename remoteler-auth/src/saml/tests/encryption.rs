//! Encrypted assertions: those that are believed, and every way to have something decrypted that no signature covers.

use super::{
    maker::{ENTITY_ID, Maker, NOW, REQUEST, expected, parse, rename, template, write},
    sealing::{How, OTHER, OURS, USUAL, around, assertion, encrypted, named},
};
use crate::saml::{
    EncryptionError, Expected, SamlError, SignatureError, XmlError,
    names::{ASSERTION, XENC},
    tree::Node,
};

fn ours(plain: &str) -> String {
    encrypted(OURS.certificate(), plain.as_bytes(), USUAL)
}

fn plain() -> String {
    assertion(&parse(&template("ann@example.com")))
}

const SHA1: Option<&str> = Some("http://www.w3.org/2000/09/xmldsig#sha1");
const SHA256: Option<&str> = Some("http://www.w3.org/2001/04/xmlenc#sha256");
const AES128_GCM: &str = "http://www.w3.org/2009/xmlenc11#aes128-gcm";
const OAEP: &str = "http://www.w3.org/2009/xmlenc11#rsa-oaep";

// I45 I46
#[test]
fn an_encrypted_assertion_of_a_signed_response_says_what_a_plain_one_says() {
    let maker = Maker::new();
    let said = maker.accept(&maker.response()).unwrap();
    let mask256 = Some("http://www.w3.org/2009/xmlenc11#mgf1sha256");
    let mask1 = Some("http://www.w3.org/2009/xmlenc11#mgf1sha1");
    for how in [
        USUAL,
        How { content: AES128_GCM, size: 16, ..USUAL },
        How { digest: SHA1, ..USUAL },
        How { digest: SHA256, ..USUAL },
        How { key: OAEP, ..USUAL },
        How { key: OAEP, digest: SHA1, mask: mask1, ..USUAL },
        How { key: OAEP, digest: SHA256, mask: mask1, ..USUAL },
        How { key: OAEP, digest: SHA256, mask: mask256, ..USUAL },
    ] {
        for inner in [plain(), assertion(&maker.response())] {
            let response = maker.signed_around(&encrypted(OURS.certificate(), inner.as_bytes(), how));
            assert_eq!(maker.judged(&response).as_ref(), Ok(&said), "{} {} {:?}", how.content, how.key, how.digest);
        }
    }
    // Plain ones are believed on.
    assert_eq!(maker.judged(&maker.response()), Ok(said));
}

// I45 I47
#[test]
fn nothing_is_decrypted_but_what_the_signature_of_the_response_covers() {
    let maker = Maker::new();
    let sealed = ours(&assertion(&maker.response()));
    let not_covered = Err(SamlError::Encryption(EncryptionError::NotCovered));
    // Not signed at all; signed within, and then encrypted; signed by a stranger; for another key, which would be seen only after decrypting.
    assert_eq!(maker.judged(&around(&template("ann@example.com"), &sealed)), not_covered);
    let foreign = encrypted(OTHER.certificate(), plain().as_bytes(), USUAL);
    assert_eq!(maker.judged(&around(&template("ann@example.com"), &foreign)), not_covered);
    let stranger = Maker::new();
    assert_eq!(maker.judged(&stranger.signed_around(&sealed)), Err(SignatureError::Key(1).into()));
    assert!(EncryptionError::NotCovered.to_string().contains("sign the response"));

    // The ciphertext of one login in the signed response of another, and any other change of it.
    let good = maker.signed_around(&sealed);
    assert!(maker.judged(&good).is_ok());
    let other = maker.signed_around(&ours(&plain()));
    let mut swapped = good.clone();
    *named(&mut swapped, "EncryptedAssertion").unwrap() =
        named(&mut other.clone(), "EncryptedAssertion").unwrap().clone();
    assert_eq!(maker.judged(&swapped), Err(SignatureError::Digest("Response".into()).into()));
    for local in ["CipherValue", "EncryptionMethod", "KeyName"] {
        let mut changed = good.clone();
        named(&mut changed, local).unwrap().children = vec![Node::Text("AAAA".into())];
        assert_eq!(maker.judged(&changed), Err(SignatureError::Digest("Response".into()).into()), "{local}");
    }
}

// I45
#[test]
fn an_encrypted_assertion_beside_or_around_a_signed_response_is_refused() {
    let maker = Maker::new();
    let good = maker.signed_around(&ours(&plain()));
    let sealed = ours(&plain()).replace("_data", "_data2").replace("_key", "_key2");
    let second = parse(&sealed);
    // Another one beside it, before it, instead of it with the signed one elsewhere (XSW), and a plain one beside it.
    let mut beside = good.clone();
    beside.children.push(Node::Element(second.clone()));
    let mut before = good.clone();
    before.children.insert(2, Node::Element(second.clone()));
    let mut moved = good.clone();
    let original = named(&mut moved, "EncryptedAssertion").unwrap();
    let inner = std::mem::replace(original, second.clone());
    named(&mut moved, "Signature").unwrap().children.push(Node::Element(inner));
    let mut wrapper = around(&template("root@example.com"), &sealed);
    wrapper.attributes.iter_mut().find(|attribute| &*attribute.local == "ID").unwrap().value = "_evil".into();
    let mut signature = named(&mut good.clone(), "Signature").unwrap().clone();
    signature.children.push(Node::Element(good.clone()));
    wrapper.children.insert(1, Node::Element(signature));
    let mut mixed = good.clone();
    mixed.children.push(Node::Element(parse(&plain())));
    let mut mixed_first = good.clone();
    mixed_first.children.insert(2, Node::Element(parse(&plain())));
    for (what, document) in [
        ("beside", beside),
        ("before", before),
        ("moved", moved),
        ("wrapper", wrapper),
        ("mixed", mixed),
        ("mixed, plain first", mixed_first),
    ] {
        assert!(matches!(maker.judged(&document), Err(SamlError::Shape(_))), "{what}: {:?}", maker.judged(&document));
    }
    // Signed by the provider itself they are no better.
    for inner in [format!("{}{sealed}", ours(&plain())), format!("{}{sealed}", plain())] {
        assert!(matches!(maker.judged(&maker.signed_around(&inner)), Err(SamlError::Shape(_))));
    }
}

// I47
#[test]
fn other_ways_to_encrypt_are_refused_by_their_names() {
    let maker = Maker::new();
    let xenc = |name: &str| -> &'static str { format!("{XENC}{name}").leak() };
    for (how, said) in [
        (How { content: xenc("aes128-cbc"), ..USUAL }, "AES-128-CBC"),
        (How { content: xenc("aes256-cbc"), ..USUAL }, "AES-256-CBC"),
        (How { content: xenc("tripledes-cbc"), ..USUAL }, "Triple DES"),
        (How { content: "urn:canary", ..USUAL }, "not known"),
        (How { key: xenc("rsa-1_5"), ..USUAL }, "RSA PKCS #1 v1.5"),
        (How { key: xenc("kw-aes256"), ..USUAL }, "not known"),
        (How { label: "x", ..USUAL }, "with a label"),
        (How { digest: Some(xenc("sha512")), ..USUAL }, "other digests"),
        (How { key: OAEP, mask: Some("urn:canary"), ..USUAL }, "other digests"),
    ] {
        let cause = maker.judged(&maker.signed_around(&encrypted(OURS.certificate(), plain().as_bytes(), how)));
        let cause = cause.unwrap_err().to_string();
        assert!(cause.contains(said) && cause.contains("AES-256-GCM") && !cause.contains("canary"), "{cause}"); // I76
    }
    let mask = How { mask: Some("http://www.w3.org/2009/xmlenc11#mgf1sha1"), ..USUAL };
    let named_twice = maker.judged(&maker.signed_around(&encrypted(OURS.certificate(), plain().as_bytes(), mask)));
    assert!(named_twice.unwrap_err().to_string().contains("names the mask"));
}

// I45 I47
#[test]
fn what_refers_to_something_elsewhere_or_has_another_form_is_refused() {
    let maker = Maker::new();
    let good = ours(&plain());
    let value = |text: &str| {
        let begin = text.find("<xenc:CipherValue>").unwrap();
        let end = begin + text[begin..].find("</xenc:CipherValue>").unwrap() + "</xenc:CipherValue>".len();
        (begin, end)
    };
    let begin = good.find("<xenc:EncryptedKey").unwrap();
    let end = good.find("</xenc:EncryptedKey>").unwrap() + "</xenc:EncryptedKey>".len();
    let key = good[begin..end].to_owned();
    let reference = "<xenc:CipherReference URI=\"https://elsewhere.example.com/x\"/>";
    let retrieval = "<ds:RetrievalMethod URI=\"#_key\" Type=\"http://www.w3.org/2001/04/xmlenc#EncryptedKey\"/>";
    let (begin, end) = value(&good);
    let referred = format!("{}{reference}{}", &good[..begin], &good[end..]);
    let aside = good.replace(&key, retrieval).replace("</saml:Enc", &format!("{key}</saml:Enc"));
    for (what, bad, said) in [
        ("a reference", referred, "lacks CipherValue"),
        ("a retrieval", good.replace(&key, retrieval), "lacks EncryptedKey"),
        ("a key aside", aside, "EncryptedAssertion contains EncryptedKey"),
        (
            "two keys",
            good.replace(&key, &format!("{key}{}", key.replace("_key", "_k2"))),
            "KeyInfo contains EncryptedKey",
        ),
        ("no key", good.replace(&key, ""), "lacks EncryptedKey"),
        ("content", good.replace("xmlenc#Element", "xmlenc#Content"), "another Type"),
        ("text", good.replace("<xenc:EncryptedData ", "x<xenc:EncryptedData "), "contains text"),
        ("no base64", good.replacen("<xenc:CipherValue>", "<xenc:CipherValue>*", 1), "not base64"),
        (
            "properties",
            good.replace("</xenc:EncryptedData>", "<xenc:EncryptionProperties/></xenc:EncryptedData>"),
            "EncryptionProperties",
        ),
        ("nothing", format!("<saml:EncryptedAssertion xmlns:saml=\"{ASSERTION}\"/>"), "lacks EncryptedData"),
    ] {
        assert_ne!(bad, good, "{what}");
        let outcome = maker.judged(&maker.signed_around(&bad)).unwrap_err();
        assert!(matches!(outcome, SamlError::Encryption(_)) && outcome.to_string().contains(said), "{what}: {outcome}");
    }
}

// I47
#[test]
fn what_does_not_open_says_so_in_one_way() {
    let maker = Maker::new();
    let closed = Err(SamlError::Encryption(EncryptionError::Closed));
    let foreign = encrypted(OTHER.certificate(), plain().as_bytes(), USUAL);
    assert_eq!(maker.judged(&maker.signed_around(&foreign)), closed);
    // A content key of another size; a changed octet, at the ends of either; too little of it.
    let short = encrypted(OURS.certificate(), plain().as_bytes(), How { size: 16, ..USUAL });
    assert_eq!(maker.judged(&maker.signed_around(&short)), closed);
    let good = ours(&plain());
    let values: Vec<(usize, usize)> = good
        .match_indices("<xenc:CipherValue>")
        .map(|(at, tag)| (at + tag.len(), at + good[at..].find("</xenc:CipherValue>").unwrap()))
        .collect();
    assert_eq!(values.len(), 2);
    for (begin, end) in values {
        let first = if good[begin..].starts_with('A') { "B" } else { "A" };
        let changed = format!("{}{first}{}", &good[..begin], &good[begin + 1..]);
        let cut = format!("{}{}", &good[..begin + 8], &good[end..]);
        let longer = format!("{}AAAA{}", &good[..begin], &good[begin..]);
        for bad in [changed, cut, longer] {
            assert_eq!(maker.judged(&maker.signed_around(&bad)), closed);
        }
    }
}

// I45
#[test]
fn what_was_decrypted_is_one_assertion_that_stands_for_itself() {
    let maker = Maker::new();
    let content = |outcome| match outcome {
        Err(SamlError::Encryption(EncryptionError::Content(cause))) => cause,
        other => panic!("{other:?}"),
    };
    let good = plain();
    for (bad, why) in [
        (format!("<!DOCTYPE x [<!ENTITY e \"ann\">]>{good}"), XmlError::Refused("a document type")),
        (good.replace("ann@", "ann<!-- -->@"), XmlError::Refused("a comment")),
        (good.replace("ann@", "&who;@"), XmlError::Refused("an entity")),
        (good.replace("ann@", "<?x?>ann@"), XmlError::Refused("a processing instruction")),
        (format!("{good}{good}"), XmlError::Malformed("there is a second element outside of the first")),
        (format!("text{good}"), XmlError::Malformed("there is text outside of the element")),
        (String::new(), XmlError::Malformed("there is no element")),
        (good.replace("_assertion", "_response"), XmlError::Refused("one id twice")),
        (format!("{}{}", "<a>".repeat(40), "</a>".repeat(40)), XmlError::TooLarge("levels")),
    ] {
        assert_eq!(content(maker.says(&bad)), why);
    }
    let none = Err(SamlError::Encryption(EncryptionError::NotAnAssertion));
    let response = String::from_utf8(write(&maker.response())).unwrap();
    let other = good.replace(ASSERTION, "urn:oasis:names:tc:SAML:1.0:assertion");
    let subject = parse(&good).elements().nth(1).map(|subject| String::from_utf8(write(subject)).unwrap()).unwrap();
    for bad in [&response, &other, &subject, "<x/>", &ours(&good)] {
        assert_eq!(maker.says(bad), none, "{bad}");
    }
    // A namespace that is declared around it only: anybody can declare another there, for the signature does not cover what nothing uses.
    let bare = good.replacen(&format!(" xmlns:saml=\"{ASSERTION}\""), "", 1);
    assert_ne!(bare, good);
    assert_eq!(maker.says(&bare), none);
    let unprefixed = bare.replace("saml:", "");
    assert_eq!(maker.says(&unprefixed), none);
    // Assertions in it, and something that is encrypted once more.
    let twice = good.replace("<saml:AttributeStatement>", &format!("{good}<saml:AttributeStatement>"));
    let twice = twice.replacen("_assertion", "_outer", 1);
    assert!(matches!(maker.says(&twice), Err(SamlError::Shape(_))), "{:?}", maker.says(&twice));
    let sealed = ours("x");
    for local in ["EncryptedID", "EncryptedAttribute", "Advice", "AttributeValue"] {
        let nested = sealed.replace("EncryptedAssertion", local).replace("_data", "_d").replace("_key", "_k");
        let nested = good.replace("<saml:AttributeStatement>", &format!("{nested}<saml:AttributeStatement>"));
        let cause = maker.says(&nested).unwrap_err().to_string();
        assert!(cause.contains("something encrypted in it"), "{cause}");
    }
}

// I45
#[test]
fn a_signature_within_counts_too_and_must_be_right() {
    let maker = Maker::new();
    let signed = assertion(&maker.response());
    assert!(maker.says(&signed).is_ok());
    let mut renamed = parse(&signed);
    rename(&mut renamed, "root@example.com");
    let renamed = String::from_utf8(write(&renamed)).unwrap();
    assert_eq!(maker.says(&renamed), Err(SignatureError::Digest("Assertion".into()).into()));
    let stranger = assertion(&Maker::new().response());
    assert_eq!(maker.says(&stranger), Err(SignatureError::Key(1).into()));
    // One that stands elsewhere in it.
    let mut moved = parse(&signed);
    let signature = moved.children.remove(1);
    named(&mut moved, "Attribute").unwrap().children.push(signature);
    assert!(matches!(maker.says(&String::from_utf8(write(&moved)).unwrap()), Err(SamlError::Shape(_))));
}

// I46
#[test]
fn an_encrypted_assertion_is_held_to_all_that_a_plain_one_is() {
    let maker = Maker::new();
    let good = plain();
    for (from, to) in [
        (format!(">{ENTITY_ID}<"), ">https://other.example.com<".to_owned()),
        (format!("InResponseTo=\"{REQUEST}\""), "InResponseTo=\"_other\"".into()),
        ("NotOnOrAfter=\"2026-03-01T12:05:00Z\"".into(), "NotOnOrAfter=\"2026-03-01T11:00:00Z\"".into()),
        ("https://idp.example.com/saml</saml:Issuer>".into(), "https://other.example.com</saml:Issuer>".into()),
        ("Recipient=\"https://proxy".into(), "Recipient=\"https://other".into()),
        ("cm:bearer".into(), "cm:sender-vouches".into()),
        ("Version=\"2.0\"".into(), "Version=\"1.1\"".into()),
    ] {
        let changed = good.replace(&from, &to);
        assert_ne!(changed, good, "{from}");
        let mut response = maker.signed_around(&ours(&changed));
        let encrypted = maker.judged(&response);
        // Of a plain one, in a response that is signed alike, the same is said.
        response = maker.signed_around(&changed);
        assert_eq!(encrypted, maker.judged(&response), "{from}");
        assert!(encrypted.is_err(), "{from}");
    }
    // What is around it counts before anything is decrypted.
    let foreign = encrypted(OTHER.certificate(), good.as_bytes(), USUAL);
    let later = Expected { request: Some("_other"), now: NOW };
    let outcome = maker.decrypting().accept(&write(&maker.signed_around(&foreign)), later);
    assert_eq!(outcome, Err(SamlError::OtherRequest));
}

// I46
#[test]
fn a_connector_that_takes_none_says_what_to_set() {
    let maker = Maker::new();
    let sealed = maker.signed_around(&ours(&plain()));
    let outcome = maker.provider().accept(&write(&sealed), expected());
    assert_eq!(outcome, Err(SamlError::Encryption(EncryptionError::Off)));
    let said = outcome.unwrap_err().to_string();
    assert!(said.contains("encrypted_assertions: true") && said.contains("turn the encryption off"), "{said}");
    // A part of an assertion is never decrypted.
    for (part, inner) in [("EncryptedID", "NameID"), ("EncryptedAttribute", "Attribute")] {
        let text = template("ann").replace(&format!("<saml:{inner} "), &format!("<saml:{part} "));
        let text = text.replace(&format!("</saml:{inner}>"), &format!("</saml:{part}>"));
        let outcome = maker.judged(&maker.signed(&text, &["_response"]));
        assert_eq!(outcome, Err(SamlError::Encryption(EncryptionError::Part(part))));
    }
}
