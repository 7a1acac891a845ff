//! Every condition of I46, each one wrong by itself in a response that is signed rightly.

use super::maker::{ACS, ENTITY_ID, ISSUER, Maker, NOW, REQUEST, expected, template, write};
use crate::saml::{Expected, SamlError, decode_form_field};
use remoteler_core::Timestamp;

fn accepts(text: &str) -> Result<crate::saml::SamlClaims, SamlError> {
    let maker = Maker::new();
    let both = maker.accept(&maker.signed(text, &["_assertion", "_response"]));
    let outer = maker.accept(&maker.signed(text, &["_response"]));
    let inner = maker.accept(&maker.signed(text, &["_assertion"]));
    assert_eq!(both, outer, "where the signature stands changes nothing");
    assert_eq!(both, inner, "where the signature stands changes nothing");
    both
}

// I46
#[test]
fn a_right_response_says_who_it_is_and_what_they_have() {
    let claims = accepts(&template("ann@example.com")).unwrap();
    assert_eq!(claims.issuer, ISSUER);
    assert_eq!(claims.name_id.value, "ann@example.com");
    assert_eq!(claims.name_id.format.as_deref(), Some("urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"));
    assert!(!claims.name_id.is_transient());
    assert_eq!(claims.assertion_id, "_assertion");
    assert_eq!(claims.attributes["groups"], ["dev", "o&m"]);
    assert_eq!(claims.session_index.as_deref(), Some("s1"));
    assert_eq!(claims.session_ends, Some(Timestamp::parse("2026-03-01T20:00:00Z").unwrap()));
    assert_eq!(claims.remember_until, Timestamp::parse("2026-03-01T12:06:00Z").unwrap());
}

// I46
#[test]
fn each_party_and_each_request_must_be_the_one_that_is_expected() {
    let good = template("ann");
    let wrong = |at: &str, with: &str| {
        let bad = good.replace(at, with);
        assert_ne!(bad, good, "{at}");
        accepts(&bad).unwrap_err()
    };
    let mismatch = |cause: SamlError| {
        let SamlError::Mismatch { what, .. } = cause else { panic!("{cause}") };
        what
    };
    assert_eq!(mismatch(wrong(&format!("Destination=\"{ACS}\""), "Destination=\"https://other/acs\"")), "Destination");
    assert_eq!(mismatch(wrong(&format!("Recipient=\"{ACS}\""), "Recipient=\"https://other/acs\"")), "Recipient");
    assert_eq!(mismatch(wrong(&format!(">{ENTITY_ID}<"), ">https://other<")), "Audience");
    assert_eq!(mismatch(wrong(&format!("<saml:Issuer>{ISSUER}"), "<saml:Issuer>https://other")), "Issuer");
    assert_eq!(mismatch(wrong(&format!("entity\">{ISSUER}"), "entity\">https://other")), "Issuer");
    assert_eq!(mismatch(wrong("cm:bearer", "cm:sender-vouches")), "Method");
    assert_eq!(
        wrong(
            &format!("Recipient=\"{ACS}\" InResponseTo=\"{REQUEST}\""),
            &format!("Recipient=\"{ACS}\" InResponseTo=\"_other\"")
        ),
        SamlError::OtherRequest
    );
    assert_eq!(
        wrong(&format!("Recipient=\"{ACS}\" InResponseTo=\"{REQUEST}\""), &format!("Recipient=\"{ACS}\"")),
        SamlError::OtherRequest
    );
    assert_eq!(
        wrong(
            &format!("Destination=\"{ACS}\" InResponseTo=\"{REQUEST}\""),
            &format!("Destination=\"{ACS}\" InResponseTo=\"_other\"")
        ),
        SamlError::OtherRequest
    );
    assert_eq!(
        wrong(&format!("Destination=\"{ACS}\" InResponseTo=\"{REQUEST}\""), &format!("Destination=\"{ACS}\"")),
        SamlError::OtherRequest
    );
}

// I46
#[test]
fn what_is_required_is_missed() {
    let good = template("ann");
    for (at, with) in [
        (format!(" Destination=\"{ACS}\""), String::new()),
        (format!(" Recipient=\"{ACS}\""), String::new()),
        (" NotBefore=\"2026-03-01T11:59:30Z\"".into(), String::new()),
        (
            " NotBefore=\"2026-03-01T11:59:30Z\" NotOnOrAfter=\"2026-03-01T12:05:00Z\"".into(),
            " NotBefore=\"2026-03-01T11:59:30Z\"".into(),
        ),
        (
            "<saml:SubjectConfirmationData NotOnOrAfter=\"2026-03-01T12:05:00Z\"".into(),
            "<saml:SubjectConfirmationData".into(),
        ),
        (
            "<saml:SubjectConfirmationData ".into(),
            "<saml:SubjectConfirmationData NotBefore=\"2026-03-01T11:00:00Z\" ".into(),
        ),
        (
            format!("<saml:AudienceRestriction><saml:Audience>{ENTITY_ID}</saml:Audience></saml:AudienceRestriction>"),
            String::new(),
        ),
        (format!("<saml:Audience>{ENTITY_ID}</saml:Audience>"), String::new()),
        ("<saml:AudienceRestriction>".into(), "<saml:Condition/><saml:AudienceRestriction>".into()),
        (
            format!("<saml:Issuer Format=\"urn:oasis:names:tc:SAML:2.0:nameid-format:entity\">{ISSUER}</saml:Issuer>"),
            String::new(),
        ),
        ("2.0:nameid-format:entity".into(), "2.0:nameid-format:persistent".into()),
        (
            "<samlp:Status><samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Success\"/></samlp:Status>"
                .into(),
            String::new(),
        ),
        ("ID=\"_response\" Version=\"2.0\"".into(), "ID=\"_response\" Version=\"1.1\"".into()),
        ("ID=\"_assertion\" Version=\"2.0\"".into(), "ID=\"_assertion\"".into()),
        ("IssueInstant=\"2026-03-01T11:59:59Z\"".into(), "IssueInstant=\"yesterday\"".into()),
        ("IssueInstant=\"2026-03-01T11:59:59.123Z\"".into(), "IssueInstant=\"2026-03-01T11:59:59+00:00\"".into()),
        (">ann<".into(), "> <".into()),
        (">ann<".into(), ">a&#10;nn<".into()),
        (">ann<".into(), format!(">{}<", "a".repeat(600))),
        (" AuthnInstant=\"2026-03-01T11:59:00Z\"".into(), String::new()),
        ("<saml:AttributeStatement>".into(), "<saml:AuthzDecisionStatement/><saml:AttributeStatement>".into()),
        ("<saml:AttributeStatement>".into(), "text<saml:AttributeStatement>".into()),
    ] {
        let bad = good.replace(&at, &with);
        assert_ne!(bad, good, "{at}");
        let outcome = accepts(&bad);
        let fits = matches!(outcome, Err(SamlError::Shape(_) | SamlError::Nobody(_) | SamlError::Mismatch { .. }));
        assert!(fits, "{at}: {outcome:?}");
    }
}

// I46
#[test]
fn times_are_held_to_the_minute() {
    let maker = Maker::new();
    let octets = write(&maker.response());
    let at = |seconds: i64| {
        let now = Timestamp::from_unix_seconds(NOW.unix_seconds() + seconds);
        maker.provider().accept(&octets, Expected { request: Some(REQUEST), now })
    };
    // From 11:59:30 to 12:05:00, and made at 11:59:59.123.
    for (seconds, good) in
        [(-62, false), (-60, true), (0, true), (359, true), (360, false), (3600, false), (-3600, false)]
    {
        assert_eq!(at(seconds).is_ok(), good, "{seconds}: {:?}", at(seconds));
    }
    let good = template("ann");
    for (from, to) in [
        ("NotBefore=\"2026-03-01T11:59:30Z\"", "NotBefore=\"2026-03-01T12:01:01Z\""),
        ("11:59:30Z\" NotOnOrAfter=\"2026-03-01T12:05:00Z\"", "11:59:30Z\" NotOnOrAfter=\"2026-03-01T11:59:00Z\""),
        ("Data NotOnOrAfter=\"2026-03-01T12:05:00Z\"", "Data NotOnOrAfter=\"2026-03-01T11:59:00Z\""),
        ("Data NotOnOrAfter=\"2026-03-01T12:05:00Z\"", "Data NotOnOrAfter=\"2026-03-03T12:05:00Z\""),
        ("AuthnInstant=\"2026-03-01T11:59:00Z\"", "AuthnInstant=\"2026-03-01T12:01:01Z\""),
        ("SessionNotOnOrAfter=\"2026-03-01T20:00:00Z\"", "SessionNotOnOrAfter=\"2026-03-01T11:59:00Z\""),
        ("IssueInstant=\"2026-03-01T11:59:59Z\"", "IssueInstant=\"2026-03-01T12:01:01Z\""),
        ("IssueInstant=\"2026-03-01T11:59:59.123Z\"", "IssueInstant=\"2026-03-01T12:01:01Z\""),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        assert!(matches!(accepts(&bad), Err(SamlError::Time { .. })), "{to}: {:?}", accepts(&bad));
    }
}

// I46
#[test]
fn what_nobody_asked_for_is_refused_unless_it_is_allowed() {
    let maker = Maker::new();
    let unasked = template("ann").replace(&format!(" InResponseTo=\"{REQUEST}\""), "");
    let unasked = write(&maker.signed(&unasked, &["_assertion"]));
    let nobody = Expected { request: None, now: NOW };
    let mut provider = maker.provider();
    assert_eq!(provider.accept(&unasked, nobody), Err(SamlError::Unsolicited));
    assert_eq!(provider.accept(&unasked, expected()), Err(SamlError::OtherRequest));
    provider.allow_unsolicited = true;
    assert!(provider.accept(&unasked, nobody).is_ok());
    assert_eq!(provider.accept(&unasked, expected()), Err(SamlError::OtherRequest));
    // An answer to a request is none to no request: it was taken from another login.
    assert_eq!(provider.accept(&write(&maker.response()), nobody), Err(SamlError::OtherRequest));
}

#[test]
fn a_refusal_of_the_identity_provider_is_told_by_the_codes_of_the_standard() {
    let status = "<samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Success\"/>";
    let with = |inside: &str| template("ann").replace(status, inside);
    let bad = with(
        "<samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Responder\"><samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:AuthnFailed\"/></samlp:StatusCode>",
    );
    assert_eq!(accepts(&bad), Err(SamlError::Status("Responder, AuthnFailed".into())));
    let odd = with("<samlp:StatusCode Value=\"urn:evil:look-here\"/>");
    assert_eq!(accepts(&odd), Err(SamlError::Status("no reason is known".into())));
}

#[test]
fn form_fields_are_base64_with_or_without_lines() {
    assert_eq!(decode_form_field("PGEv\r\nPg==\r\n"), Ok(b"<a/>".to_vec()));
    for bad in ["<a/>", "PGEvPg", "PGEvPg=", "PGEv Pg==!", "PGEvPh=="] {
        assert_eq!(decode_form_field(bad), Err(SamlError::Base64), "{bad}");
    }
}

#[test]
fn values_that_are_no_text_are_left_out() {
    let nested = "<saml:AttributeValue><saml:NameID>x</saml:NameID></saml:AttributeValue></saml:Attribute>";
    let claims = accepts(&template("ann").replace("</saml:Attribute>", nested)).unwrap();
    assert_eq!(claims.attributes["groups"], ["dev", "o&m"]);
}
