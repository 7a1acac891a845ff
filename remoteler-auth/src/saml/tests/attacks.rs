//! The corpus of attacks: each one made from a response that is believed, and none of them believed.

use proptest::prelude::*;

use super::maker::{
    ACS, ENTITY_ID, ISSUER, Maker, NOW, REQUEST, elements_mut, expected, find, parse, rename, set, take, template,
    write,
};
use crate::saml::{
    Expected, SamlError, SignatureError, XmlError, decode_form_field,
    names::{ASSERTION, DSIG, PROTOCOL},
    signature::verify,
    tree::{Element, Node},
};

const EVIL: &str = "root@example.com";

/// A copy with another name and another id, without its signature.
fn evil(element: &Element) -> Element {
    let mut evil = element.clone();
    rename(&mut evil, EVIL);
    set(&mut evil, "ID", "_evil");
    evil.children.retain(|node| !matches!(node, Node::Element(child) if &*child.local == "Signature"));
    evil
}

fn after_issuer(element: &mut Element, child: Element) {
    let at = element.elements().position(|child| &*child.local == "Issuer").map_or(0, |at| at + 1);
    element.children.insert(at, Node::Element(child));
}

fn refused(maker: &Maker, what: &str, document: &Element) {
    let outcome = maker.accept(document);
    assert!(outcome.is_err(), "{what} was believed: {outcome:?}");
}

// I45
#[test]
fn signature_wrapping_one_and_two_are_refused() {
    let maker = Maker::new();
    let signed = maker.signed(&template("ann@example.com"), &["_response"]);
    assert_eq!(maker.accept(&signed).unwrap().name_id.value, "ann@example.com");
    for within in [true, false] {
        // XSW1: the signed response within the signature of another. XSW2: beside it.
        let mut original = signed.clone();
        let mut signature = take(&mut original, "Signature");
        let mut wrapper = evil(&signed);
        set(find(&mut wrapper, "_assertion").unwrap(), "ID", "_other");
        if within {
            signature.children.push(Node::Element(original));
            after_issuer(&mut wrapper, signature);
        } else {
            after_issuer(&mut wrapper, signature);
            after_issuer(&mut wrapper, original);
        }
        refused(&maker, "XSW1 or XSW2", &wrapper);
    }
}

// I45
#[test]
fn signature_wrapping_three_to_eight_are_refused() {
    let maker = Maker::new();
    let good = maker.response();
    let assertion = take(&mut good.clone(), "Assertion");
    let bad = evil(&assertion);
    let without = |document: &Element| {
        let mut document = document.clone();
        take(&mut document, "Assertion");
        document
    };
    let mut plain = assertion.clone();
    let signature = take(&mut plain, "Signature");

    // XSW3: the other assertion first. And last.
    let mut third = good.clone();
    let at = third.children.len() - 1;
    third.children.insert(at, Node::Element(bad.clone()));
    refused(&maker, "XSW3", &third);
    let mut last = good.clone();
    last.children.push(Node::Element(bad.clone()));
    refused(&maker, "a sibling", &last);
    // XSW4: the signed one within the other.
    let mut outer = bad.clone();
    outer.children.push(Node::Element(assertion.clone()));
    let mut fourth = without(&good);
    fourth.children.push(Node::Element(outer));
    refused(&maker, "XSW4", &fourth);
    // XSW5: the signature in the other, the signed one behind it.
    let mut outer = bad.clone();
    after_issuer(&mut outer, signature.clone());
    let mut fifth = without(&good);
    fifth.children.extend([Node::Element(outer), Node::Element(plain.clone())]);
    refused(&maker, "XSW5", &fifth);
    // XSW6: the signed one within the signature in the other.
    let mut holder = signature.clone();
    holder.children.push(Node::Element(plain.clone()));
    let mut outer = bad.clone();
    after_issuer(&mut outer, holder);
    let mut sixth = without(&good);
    sixth.children.push(Node::Element(outer));
    refused(&maker, "XSW6", &sixth);
    // XSW7: the other in extensions.
    let mut extensions = parse(&format!("<samlp:Extensions xmlns:samlp=\"{PROTOCOL}\"/>"));
    extensions.children.push(Node::Element(bad.clone()));
    let mut seventh = good.clone();
    after_issuer(&mut seventh, extensions);
    refused(&maker, "XSW7", &seventh);
    // XSW8: the signed one in an object of the signature in the other.
    let mut object = parse(&format!("<ds:Object xmlns:ds=\"{DSIG}\"/>"));
    object.children.push(Node::Element(plain));
    let mut holder = signature;
    holder.children.push(Node::Element(object));
    let mut outer = bad;
    after_issuer(&mut outer, holder);
    let mut eighth = without(&good);
    eighth.children.push(Node::Element(outer));
    refused(&maker, "XSW8", &eighth);
}

// I45
#[test]
fn wrapping_does_not_get_by_with_the_same_id_or_another_namespace_either() {
    let maker = Maker::new();
    let good = maker.response();
    let mut twin = evil(&take(&mut good.clone(), "Assertion"));
    set(&mut twin, "ID", "_assertion");
    let mut doubled = good.clone();
    doubled.children.insert(0, Node::Element(twin.clone()));
    assert_eq!(maker.accept(&doubled), Err(SamlError::Xml(XmlError::Refused("one id twice"))));

    // An `Id` and an `xml:id` are ids to some readers.
    for attribute in ["Id", "id", "xml:id"] {
        let text = String::from_utf8(write(&good)).unwrap();
        let text =
            text.replace("<saml:AttributeStatement>", &format!("<saml:AttributeStatement {attribute}=\"_assertion\">"));
        let outcome = maker.provider().accept(text.as_bytes(), expected());
        assert_eq!(outcome, Err(SamlError::Xml(XmlError::Refused("one id twice"))), "{attribute}");
    }

    // An assertion in a namespace that looks alike, before and instead of the signed one.
    set(&mut twin, "ID", "_evil");
    twin.namespace = "urn:oasis:names:tc:SAML:2.0:assertion#".into();
    let mut foreign = good.clone();
    foreign.children.insert(2, Node::Element(twin));
    refused(&maker, "a foreign assertion", &foreign);
    let renamed = String::from_utf8(write(&good)).unwrap().replace(ASSERTION, "urn:oasis:names:tc:SAML:1.0:assertion");
    assert!(maker.provider().accept(renamed.as_bytes(), expected()).is_err());
}

// I45
#[test]
fn what_was_signed_may_not_change_its_order_or_its_namespaces() {
    let maker = Maker::new();
    let good = maker.response();
    let mut reordered = good.clone();
    let assertion = find(&mut reordered, "_assertion").unwrap();
    let subject = take(assertion, "Subject");
    assertion.children.push(Node::Element(subject));
    refused(&maker, "another order", &reordered);

    let mut swapped = good.clone();
    let attributes = elements_mut(find(&mut swapped, "_assertion").unwrap()).last().unwrap();
    elements_mut(attributes).next().unwrap().children.reverse();
    assert_eq!(maker.accept(&swapped), Err(SignatureError::Digest("Assertion".into()).into()));

    // A prefix that stands for something else around what was signed, which uses it in a value only.
    let text = String::from_utf8(write(&good)).unwrap();
    let rebound = text.replace("xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"", "xmlns:xsi=\"urn:evil\"");
    assert_ne!(rebound, text);
    assert!(maker.provider().accept(rebound.as_bytes(), expected()).is_err());

    // Declarations that nothing uses do not count: exclusive canonical XML leaves them out.
    let more = text.replacen("<samlp:Response ", "<samlp:Response xmlns:unused=\"urn:x\" ", 1);
    assert!(maker.provider().accept(more.as_bytes(), expected()).is_ok());
}

// I45
#[test]
fn a_comment_refuses_the_response_wherever_it_stands() {
    let maker = Maker::new();
    let text =
        String::from_utf8(write(&maker.signed(&template("root@example.com.evil.com"), &["_assertion"]))).unwrap();
    assert!(maker.provider().accept(text.as_bytes(), expected()).is_ok());
    for (at, with) in [
        ("root@example.com.evil.com", "root@example.com<!---->.evil.com"),
        ("<saml:Subject>", "<!-- --><saml:Subject>"),
        ("<samlp:Status>", "<samlp:Status><!-- -->"),
        ("<samlp:Response ", "<!-- --><samlp:Response "),
        ("</samlp:Response>", "</samlp:Response><!-- -->"),
    ] {
        let commented = text.replacen(at, with, 1);
        let outcome = maker.provider().accept(commented.as_bytes(), expected());
        assert_eq!(outcome, Err(SamlError::Xml(XmlError::Refused("a comment"))), "{with}");
    }
}

// I45
#[test]
fn document_types_entities_and_instructions_are_refused() {
    let maker = Maker::new();
    let text = String::from_utf8(write(&maker.response())).unwrap();
    let kind = "a document type";
    for (prefix, at, with, why) in [
        ("<!DOCTYPE x>", "", "", kind),
        ("<!DOCTYPE x [<!ENTITY who \"root\">]>", "ann@", "&who;@", kind),
        ("<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>", "ann@", "&b;@", kind),
        ("<!DOCTYPE x SYSTEM \"file:///etc/passwd\">", "", "", kind),
        ("<!DOCTYPE x [<!ATTLIST saml:Assertion wrong ID #IMPLIED>]>", "", "", kind),
        ("", "ann@", "&who;@", "an entity"),
        ("", "Recipient=\"https", "Recipient=\"&x;https", "an entity"),
        ("<?xml-stylesheet href=\"x\"?>", "", "", "a processing instruction"),
        ("", "ann@", "ann<?x?>@", "a processing instruction"),
        ("", "ann@example.com", "<![CDATA[ann@example.com]]>", "a CDATA section"),
        ("<?xml version=\"1.1\"?>", "", "", "another version of XML than 1.0"),
        ("<?xml version=\"1.0\" encoding=\"UTF-7\"?>", "", "", "another encoding than UTF-8"),
    ] {
        let bad = format!("{prefix}{}", if at.is_empty() { text.clone() } else { text.replacen(at, with, 1) });
        let outcome = maker.provider().accept(bad.as_bytes(), expected());
        assert_eq!(outcome, Err(SamlError::Xml(XmlError::Refused(why))), "{prefix}{with}");
    }
}

// I45
#[test]
fn a_signature_that_stands_elsewhere_or_signs_something_else_is_refused() {
    let maker = Maker::new();
    let text = template("ann@example.com");
    assert_eq!(maker.accept(&parse(&text)), Err(SamlError::Unsigned));
    // Detached: at the end of the response, of the assertion.
    let mut detached = maker.response();
    let signature = take(find(&mut detached, "_assertion").unwrap(), "Signature");
    detached.children.push(Node::Element(signature.clone()));
    refused(&maker, "a detached signature", &detached);
    let mut moved = parse(&text);
    after_issuer(&mut moved, signature.clone());
    let outcome = maker.accept(&moved);
    assert_eq!(outcome, Err(SignatureError::Elsewhere("Response".into()).into()));
    // Two in one.
    let mut twice = maker.response();
    after_issuer(find(&mut twice, "_assertion").unwrap(), signature);
    refused(&maker, "two signatures", &twice);
    // All of the document, by an empty reference, and other references.
    let good = String::from_utf8(write(&maker.response())).unwrap();
    for uri in ["", "_assertion", "#_response", "#xpointer(id('_assertion'))", "https://idp.example.com/x.xml", "#"] {
        let bad = good.replacen("URI=\"#_assertion\"", &format!("URI=\"{uri}\""), 1);
        assert!(matches!(maker.provider().accept(bad.as_bytes(), expected()), Err(SamlError::Signature(_))), "{uri}");
    }
}

// I45
#[test]
fn of_two_signatures_both_must_be_right() {
    let maker = Maker::new();
    let both = maker.signed(&template("ann@example.com"), &["_assertion", "_response"]);
    assert!(maker.accept(&both).is_ok());
    let mut outer_wrong = both.clone();
    set(&mut outer_wrong, "IssueInstant", "2026-03-01T11:59:58Z");
    assert_eq!(maker.accept(&outer_wrong), Err(SignatureError::Digest("Response".into()).into()));
    // A stranger signs around an assertion that was signed rightly.
    let mut wrapped = maker.response();
    Maker::new().sign(&mut wrapped, "_response");
    assert_eq!(maker.accept(&wrapped), Err(SignatureError::Key(1).into()));
}

// I47
#[test]
fn keys_come_from_the_configuration_and_never_from_the_message() {
    let (maker, stranger) = (Maker::new(), Maker::new());
    let mut foreign = stranger.response();
    assert_eq!(maker.accept(&foreign), Err(SignatureError::Key(1).into()));
    let info = format!(
        "<ds:KeyInfo xmlns:ds=\"{DSIG}\"><ds:X509Data><ds:X509Certificate>{}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>",
        stranger.certificate
    );
    let signature = elements_mut(find(&mut foreign, "_assertion").unwrap()).nth(1).unwrap();
    signature.children.push(Node::Element(parse(&info)));
    assert_eq!(maker.accept(&foreign), Err(SignatureError::Key(1).into()));

    // While the provider changes its key, both are configured.
    let mut provider = maker.provider();
    provider.keys.extend(stranger.provider().keys);
    assert!(provider.accept(&write(&foreign), expected()).is_ok());
    assert!(provider.accept(&write(&maker.response()), expected()).is_ok());
}

// I47
#[test]
fn other_algorithms_and_transforms_than_those_of_the_list_are_refused() {
    let maker = Maker::new();
    let good = String::from_utf8(write(&maker.response())).unwrap();
    let more = "http://www.w3.org/2001/04/xmldsig-more#";
    for (what, by) in [
        (format!("{more}ecdsa-sha256"), format!("{DSIG}rsa-sha1")),
        (format!("{more}ecdsa-sha256"), format!("{DSIG}hmac-sha1")),
        (format!("{more}ecdsa-sha256"), format!("{more}hmac-sha256")),
        (format!("{more}ecdsa-sha256"), format!("{more}rsa-md5")),
        ("http://www.w3.org/2001/04/xmlenc#sha256".into(), format!("{DSIG}sha1")),
        (format!("{DSIG}enveloped-signature"), "http://www.w3.org/TR/1999/REC-xslt-19991116".into()),
        (format!("{DSIG}enveloped-signature"), "http://www.w3.org/TR/1999/REC-xpath-19991116".into()),
        (format!("{DSIG}enveloped-signature"), format!("{DSIG}base64")),
        (
            "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\">".into(),
            "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/TR/2001/REC-xml-c14n-20010315\">".into(),
        ),
    ] {
        let bad = good.replacen(&what, &by, 1);
        assert_ne!(bad, good, "{what}");
        let outcome = maker.provider().accept(bad.as_bytes(), expected());
        assert!(matches!(outcome, Err(SamlError::Signature(SignatureError::Algorithm(_)))), "{by}: {outcome:?}");
    }
    // More and fewer transforms, and two references.
    let exclusive = "<ds:Transform Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"></ds:Transform>";
    let reference = &good[good.find("<ds:Reference").unwrap()..good.find("</ds:SignedInfo>").unwrap()];
    for bad in [
        good.replacen(exclusive, "", 1),
        good.replacen(exclusive, &format!("{exclusive}{exclusive}"), 1),
        good.replacen(reference, &format!("{reference}{reference}"), 1),
        good.replacen(reference, "", 1),
    ] {
        assert_ne!(bad, good);
        let outcome = maker.provider().accept(bad.as_bytes(), expected());
        assert!(matches!(outcome, Err(SamlError::Signature(SignatureError::Shape(_)))), "{outcome:?}");
    }
    // Another algorithm of the list than the key's.
    let other = good.replacen("#ecdsa-sha256", "#rsa-sha256", 1);
    assert_eq!(maker.provider().accept(other.as_bytes(), expected()), Err(SignatureError::Key(1).into()));
}

// I47
#[test]
fn a_certificate_counts_while_it_is_valid_and_no_longer() {
    let maker = Maker::new();
    let mut provider = maker.provider();
    let later = Expected { now: provider.keys[0].until(), ..expected() };
    let document = maker.response();
    let assertion = document.elements().last().unwrap();
    let outcome = verify(assertion, &[&document], &provider.keys, later.now);
    assert_eq!(outcome.map(|_| ()), Err(SignatureError::NoKey));
    provider.keys.clear();
    assert_eq!(provider.accept(&write(&document), expected()), Err(SignatureError::NoKey.into()));
}

// I47
#[test]
fn bombs_are_refused_before_they_go_off() {
    let maker = Maker::new();
    let provider = maker.provider();
    let refuses = |octets: &[u8]| provider.accept(octets, expected()).unwrap_err();
    let large = |what| SamlError::Xml(XmlError::TooLarge(what));
    // Deflated: what is posted is never inflated, so that a bomb is no XML.
    let mut bomb = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![b' '; 64 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 256 * 1024, "{}", bomb.len());
    assert!(matches!(refuses(&bomb), SamlError::Xml(XmlError::Malformed(_))));
    // Long, deep, wide, and in the form field.
    assert_eq!(refuses(&vec![b' '; 256 * 1024 + 1]), large("octets"));
    let deep = format!("{}{}", "<a>".repeat(33), "</a>".repeat(33));
    assert_eq!(refuses(deep.as_bytes()), large("levels"));
    assert_eq!(refuses("<a>".repeat(80_000).as_bytes()), large("levels"));
    assert_eq!(refuses(format!("<a>{}</a>", "<b/>".repeat(60_000)).as_bytes()), large("elements"));
    let many: String = (0..20_000).map(|n| format!(" a{n}=''")).collect();
    assert_eq!(refuses(format!("<a{many}/>").as_bytes()), large("attributes"));
    assert_eq!(decode_form_field(&"A".repeat(400 * 1024)), Err(large("octets")));
    // A declaration that the canonical form repeats for each element that uses it.
    let long = "x".repeat(100_000);
    let document = format!(
        "<samlp:Response xmlns:samlp=\"{PROTOCOL}\" xmlns:l=\"urn:{long}\" ID=\"_r\">{}</samlp:Response>",
        "<l:a/>".repeat(9_000)
    );
    let mut document = parse(&document);
    let signed = parse(&String::from_utf8(write(&maker.response())).unwrap().replace("#_assertion", "#_r"));
    let signature = take(&mut signed.elements().last().unwrap().clone(), "Signature");
    document.children.insert(0, Node::Element(signature));
    let outcome = verify(&document, &[], &provider.keys, NOW).unwrap_err();
    assert_eq!(outcome, SignatureError::Octets(XmlError::TooLarge("octets when it is canonical")));
}

// I76
#[test]
fn a_name_of_any_length_makes_no_long_error() {
    let maker = Maker::new();
    let long = "x".repeat(100_000);
    let text = template("ann").replace("<saml:AttributeStatement>", &format!("<{long}/><saml:AttributeStatement>"));
    let cause = maker.accept(&maker.signed(&text, &["_assertion"])).unwrap_err();
    assert!(cause.to_string().len() < 200, "{}", cause.to_string().len());
    let other = maker.provider().accept(format!("<{long}/>").as_bytes(), expected()).unwrap_err();
    assert!(other.to_string().len() < 200, "{}", other.to_string().len());
}

// I76
#[test]
fn errors_repeat_nothing_that_the_message_says() {
    let maker = Maker::new();
    let canary = "canary-7f3a";
    let good = template("ann@example.com");
    for value in
        [ACS, ENTITY_ID, ISSUER, REQUEST, "_response", "2026-03-01T12:05:00Z", "status:Success", "cm:bearer", "2.0\""]
    {
        let text =
            good.replace(value, &value.replace(|c: char| c.is_ascii_alphabetic(), "q")).replacen("qq", canary, 1);
        let Ok(mut document) = Element::parse(text.as_bytes(), crate::saml::tree::Comments::Refuse) else { continue };
        if find(&mut document, "_assertion").is_some() {
            maker.sign(&mut document, "_assertion");
        }
        if let Err(cause) = maker.accept(&document) {
            assert!(!cause.to_string().contains(canary), "{cause}");
            assert!(!cause.to_string().contains("ann@"), "{cause}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // I45
    #[test]
    fn a_response_that_was_changed_says_what_it_said_or_nothing(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..4), 1..4)
    ) {
        static MADE: std::sync::OnceLock<(Maker, Vec<u8>)> = std::sync::OnceLock::new();
        let (maker, octets) = MADE.get_or_init(|| {
            let maker = Maker::new();
            let octets = write(&maker.response());
            (maker, octets)
        });
        let said = maker.provider().accept(octets, expected()).unwrap();
        let mut text = String::from_utf8(octets.clone()).unwrap();
        for (one, other, third, kind) in &cuts {
            // At the borders of tags, where a change may keep the document well-formed.
            let borders: Vec<usize> = text.match_indices(['<', '>']).map(|(at, _)| at).collect();
            let mut at = [borders[one.index(borders.len())], borders[other.index(borders.len())]];
            at.sort_unstable();
            let piece = text[at[0]..at[1]].to_owned();
            match kind {
                0 => text.replace_range(at[0]..at[1], ""),
                1 => text.insert_str(at[1], &piece),
                2 => {
                    text.replace_range(at[0]..at[1], "");
                    let borders: Vec<usize> = text.match_indices(['<', '>']).map(|(at, _)| at).collect();
                    if !borders.is_empty() {
                        text.insert_str(borders[third.index(borders.len())], &piece);
                    }
                }
                _ => {
                    let place = third.index(text.len());
                    if text.is_char_boundary(place) {
                        text.insert(place, ' ');
                    }
                }
            }
            if text.is_empty() || !text.contains('<') {
                break;
            }
        }
        if let Ok(claims) = maker.provider().accept(text.as_bytes(), expected()) {
            prop_assert_eq!(claims, said);
        }
    }
}
