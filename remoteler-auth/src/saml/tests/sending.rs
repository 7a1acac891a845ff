//! Requests and metadata: what is written is what the standard says, and is read back.

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_ca::SamlSigner;
use remoteler_core::ClusterName;

use super::maker::{ACS, ENTITY_ID, Maker, NOW, parse};
use crate::saml::{
    AuthnRequest, Binding, IdpKey, IdpMetadata, MetadataError, SpMetadata, algorithm::SignatureAlgorithm,
    signature::verify,
};

const SSO: &str = "https://idp.example.com/sso?tenant=1&x=%20";

fn request() -> AuthnRequest<'static> {
    AuthnRequest { id: "_request-1", now: NOW, destination: SSO, acs: ACS, issuer: ENTITY_ID, force_authn: false }
}

#[test]
fn requests_are_signed_in_both_bindings() {
    let signer = SamlSigner::generate(&ClusterName::new("root").unwrap(), "corp", None, NOW).unwrap();
    let key = IdpKey::from_certificate(signer.certificate()).unwrap();

    let url = request().redirect("a state/=&", &signer).unwrap();
    let query = url.strip_prefix(&format!("{SSO}&")).unwrap();
    let (signed, signature) = query.split_once("&Signature=").unwrap();
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let signature = STANDARD.decode(decoded(signature)).unwrap();
    assert!(key.made(SignatureAlgorithm::RsaSha256, signed.as_bytes(), &signature));
    let fields: Vec<_> = signed.split('&').map(|field| field.split_once('=').unwrap()).collect();
    assert_eq!(fields.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["SAMLRequest", "RelayState", "SigAlg"]);
    assert_eq!(decoded(fields[1].1), "a state/=&");
    let deflated = STANDARD.decode(decoded(fields[0].1)).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::DeflateDecoder::new(&*deflated), &mut text).unwrap();
    let sent = parse(&text);
    assert_eq!(sent.attribute("ID"), Some("_request-1"));
    assert_eq!(sent.attribute("Destination"), Some(SSO));
    assert_eq!(sent.attribute("AssertionConsumerServiceURL"), Some(ACS));
    assert_eq!(sent.attribute("IssueInstant"), Some("2026-03-01T12:00:00.000Z"));
    assert_eq!(sent.elements().next().unwrap().text(), Some(ENTITY_ID));

    let form = request().post("state", &signer).unwrap();
    assert_eq!((form.action.as_str(), form.relay_state.as_str()), (SSO, "state"));
    let posted = parse(&String::from_utf8(STANDARD.decode(form.saml_request).unwrap()).unwrap());
    let names: Vec<_> = posted.elements().map(|child| &*child.local).collect();
    assert_eq!(names, ["Issuer", "Signature", "NameIDPolicy"]);
    verify(&posted, &[], &[key], NOW).unwrap();
}

#[test]
fn our_metadata_says_who_we_are_and_names_a_key_to_encrypt_with_only_where_there_is_one() {
    let acs = ["https://a.example.com/acs".to_owned(), "https://b.example.com/acs?x=1&y=2".to_owned()];
    let maker = Maker::new();
    let ours = SpMetadata { entity_id: ENTITY_ID, acs: &acs, certificate: &maker.certificate, encryption: None };
    let text = String::from_utf8(ours.document().unwrap()).unwrap();
    assert!(
        text.contains(&maker.certificate) && text.contains("use=\"signing\"") && !text.contains("encryption"),
        "{text}"
    );
    let mut found = Vec::new();
    parse(&text).walk(&mut |element| {
        if &*element.local == "AssertionConsumerService" {
            found.push(element.attribute("Location").unwrap().to_owned());
        }
    });
    assert_eq!(found, acs);
    assert!(SpMetadata { entity_id: "a\u{0}b", acs: &acs, certificate: "", encryption: None }.document().is_err());

    let document =
        parse(&String::from_utf8(SpMetadata { encryption: Some("AAAA"), ..ours }.document().unwrap()).unwrap());
    let role = document.elements().next().unwrap();
    let keys: Vec<_> = role.elements().filter(|child| &*child.local == "KeyDescriptor").collect();
    assert_eq!(keys.iter().map(|key| key.attribute("use")).collect::<Vec<_>>(), [Some("signing"), Some("encryption")]);
    let mut methods = keys[1].elements().filter_map(|child| child.attribute("Algorithm"));
    assert!(methods.next().is_some_and(|first| first.ends_with("aes256-gcm")) && methods.count() == 3);
    assert_eq!(
        keys[1].elements().next().unwrap().elements().next().unwrap().elements().next().unwrap().text(),
        Some("AAAA")
    );
}

fn idp_metadata(certificates: &[&str]) -> String {
    let keys: String = certificates
        .iter()
        .map(|certificate| format!("<md:KeyDescriptor use=\"signing\"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>\n{certificate}\n</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"))
        .collect();
    format!(
        "\u{feff}<?xml version=\"1.0\"?>\n<!-- from the provider -->\n<md:EntityDescriptor xmlns:md=\"urn:oasis:names:tc:SAML:2.0:metadata\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\" entityID=\"https://idp.example.com/saml\" validUntil=\"2027-01-01T00:00:00Z\">\n  <md:IDPSSODescriptor protocolSupportEnumeration=\"urn:oasis:names:tc:SAML:2.0:protocol\">{keys}<md:KeyDescriptor use=\"encryption\"><ds:KeyInfo/></md:KeyDescriptor><md:SingleSignOnService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:SOAP\" Location=\"https://idp/soap\"/><md:SingleSignOnService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST\" Location=\"https://idp/post\"/><md:SingleSignOnService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect\" Location=\"https://idp/redirect\"/></md:IDPSSODescriptor></md:EntityDescriptor>"
    )
}

#[test]
fn metadata_of_a_provider_gives_its_name_its_keys_and_where_to_go() {
    let (one, other) = (Maker::new(), Maker::new());
    let text = idp_metadata(&[&one.certificate, &other.certificate, &one.certificate]);
    let read = IdpMetadata::parse(text.as_bytes(), NOW).unwrap();
    assert_eq!(read.entity_id, "https://idp.example.com/saml");
    assert_eq!(read.valid_until, Some(remoteler_core::Timestamp::parse("2027-01-01T00:00:00Z").unwrap()));
    let role = "<md:IDPSSODescriptor validUntil=\"2026-12-01T00:00:00Z\" ";
    let sooner = IdpMetadata::parse(text.replace("<md:IDPSSODescriptor ", role).as_bytes(), NOW).unwrap();
    assert_eq!(
        sooner.valid_until,
        Some(remoteler_core::Timestamp::parse("2026-12-01T00:00:00Z").unwrap()),
        "the earliest counts"
    );
    assert_eq!(read.keys, [one.provider().keys, other.provider().keys].concat());
    assert_eq!(
        read.sso,
        [(Binding::Post, "https://idp/post".into()), (Binding::Redirect, "https://idp/redirect".into())]
    );

    let wrong = |text: String| IdpMetadata::parse(text.as_bytes(), NOW).unwrap_err();
    assert_eq!(wrong(idp_metadata(&[])), MetadataError::Lacks("signing key in an X509Certificate"));
    assert_eq!(wrong(text.replace("2027-", "2026-")), MetadataError::Over);
    assert_eq!(wrong(text.replace("IDPSSODescriptor", "SPSSODescriptor")), MetadataError::Providers(0));
    assert_eq!(
        wrong(text.replace("SingleSignOnService", "SingleLogoutService")),
        MetadataError::Lacks("SingleSignOnService for HTTP-Redirect or HTTP-POST")
    );
    let makers: Vec<_> = (0..9).map(|_| Maker::new().certificate).collect();
    let many: Vec<_> = makers.iter().map(String::as_str).collect();
    assert_eq!(wrong(idp_metadata(&many)), MetadataError::TooManyKeys);
    assert!(matches!(
        wrong(format!(
            "<!DOCTYPE x>{}",
            text.trim_start_matches('\u{feff}').trim_start_matches("<?xml version=\"1.0\"?>")
        )),
        MetadataError::Xml(_)
    ));
}

// I47
#[test]
fn keys_that_are_too_weak_or_of_another_kind_are_refused() {
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["x".into()]).unwrap().self_signed(&ed25519).unwrap();
    assert!(IdpKey::from_certificate(&certificate.pem()).unwrap_err().to_string().contains("another kind"));
    let weak = IdpKey::from_certificate(include_str!("rsa1024.pem")).unwrap_err();
    assert!(weak.to_string().contains("another size"), "{weak}");
    for bad in ["", "x", "-----BEGIN CERTIFICATE-----", &ed25519.serialize_pem(), &"A".repeat(100_000)] {
        assert!(IdpKey::from_certificate(bad).unwrap_err().to_string().contains("does not parse"), "{bad}");
    }
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["x".into()]).unwrap().self_signed(&p384).unwrap();
    assert!(IdpKey::from_certificate(&certificate.pem()).is_ok());
}
