//! Changed responses before three verifiers.

use remoteler_auth::saml::{Binding, Expected, IdpKey, SamlError, ServiceProvider, SignatureError};
use remoteler_tests::{Draw, SamlClients, run};

use super::{
    judges::Judges,
    providers::{ACS, ENTITY_ID, Met, meet, now},
};

/// Without the key information, which is not signed: we pass it over, xmlsec1 and signxml do not.
fn without_key_info(text: &str) -> String {
    let (mut left, mut rest) = (String::new(), text);
    while let Some(at) = [rest.find("KeyInfo>"), rest.find("KeyInfo ")].into_iter().flatten().min() {
        let begin = rest[..at].rfind('<').expect("a tag begins");
        let inside = at + "KeyInfo>".len();
        let end = inside + rest[inside..].find("KeyInfo>").expect("it is closed") + "KeyInfo>".len();
        left.push_str(&rest[..begin]);
        rest = &rest[end..];
    }
    left + rest
}

/// Changes of a good response that mean something to somebody, most of them attacks.
fn corpus(good: &str) -> Vec<(&'static str, String)> {
    let between = |from: &str, to: &str| {
        let begin = good.find(from)?;
        let end = begin + good[begin..].find(to)? + to.len();
        Some((begin, end))
    };
    let prefix = if good.contains("<saml:Assertion") { "saml" } else { "ns1" };
    let assertion = between(&format!("<{prefix}:Assertion "), &format!("</{prefix}:Assertion>")).expect("an assertion");
    let piece = &good[assertion.0..assertion.1];
    let evil = piece.replace("ann-1", "root").replacen("ID=\"", "ID=\"_evil", 1);
    let response_end = good.rfind("</").expect("an end");
    let insert = |at: usize, what: &str| format!("{}{what}{}", &good[..at], &good[at..]);
    let mut all = vec![
        ("as it is", good.to_owned()),
        ("another name", good.replace("ann-1", "root")),
        ("another group", good.replace(">dev<", ">admin<")),
        ("another audience", good.replace(&format!(">{ENTITY_ID}<"), ">https://other<")),
        ("another recipient", good.replace(ACS, "https://other/acs")),
        ("a comment in the name", good.replace("ann-1", "ann<!---->-1")),
        ("a reference in the name", good.replace("ann-1", "&#97;nn-1")),
        ("CDATA as the name", good.replace("ann-1", "<![CDATA[ann-1]]>")),
        ("an entity", format!("<!DOCTYPE x [<!ENTITY e \"ann-1\">]>{}", good.replace("ann-1", "&e;"))),
        ("a document type", format!("<!DOCTYPE x>{good}")),
        ("an instruction", good.replace("ann-1", "ann<?x?>-1")),
        ("a comment in front", format!("<!-- x -->{good}")),
        ("lines after the end", format!("{good}\n\n")),
        ("an evil sibling in front", insert(assertion.0, &evil)),
        ("an evil sibling behind", insert(assertion.1, &evil)),
        ("the assertion twice", insert(assertion.1, piece)),
        ("the assertion in an extension", insert(assertion.0, &format!("<x:y xmlns:x=\"urn:x\">{evil}</x:y>"))),
        ("no assertion", format!("{}{}", &good[..assertion.0], &good[assertion.1..])),
        ("text at the end", insert(response_end, "text")),
        ("white space at the end", insert(response_end, " ")),
        (
            "another order of attributes",
            good.replace("Version=\"2.0\" ", "").replacen("ID=\"", "Version=\"2.0\" ID=\"", 1),
        ),
        ("single quotes", good.replacen("Version=\"2.0\"", "Version='2.0'", 1)),
        ("an unused declaration", good.replacen(" Version=\"2.0\"", " xmlns:unused=\"urn:unused\" Version=\"2.0\"", 1)),
        ("an attribute more", good.replacen(" Version=\"2.0\"", " Consent=\"x\" Version=\"2.0\"", 1)),
        ("another reference", good.replacen("URI=\"#", "URI=\"#x", 1)),
        ("an empty reference", {
            let (begin, end) = between("URI=\"", "\"")
                .map(|(begin, _)| (begin, begin + 5 + good[begin + 5..].find('"').expect("a quote")))
                .expect("a reference");
            format!("{}URI=\"{}", &good[..begin], &good[end..])
        }),
    ];
    for (what, from, to) in [
        ("SHA-1 as the digest", "http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2000/09/xmldsig#sha1"),
        ("SHA-1 in the signature", "xmldsig-more#rsa-sha256", "xmldsig-more#rsa-sha1"),
        ("another digest", "http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmlenc#sha512"),
        ("another signature", "xmldsig-more#rsa-sha256", "xmldsig-more#rsa-sha512"),
        ("another transform", "xmldsig#enveloped-signature", "xmldsig#base64"),
    ] {
        all.push((what, good.replacen(from, to, 1)));
    }
    all
}

/// Changes that nobody thought of: pieces left out, doubled, moved, and octets changed.
fn noise(good: &str, rounds: usize) -> Vec<(&'static str, String)> {
    let mut draw = Draw::new(0x5a31_77d1_9e37_79b9);
    let borders: Vec<usize> = good.match_indices(['<', '>', '"']).map(|(at, _)| at).collect();
    let mut made = Vec::new();
    while made.len() < rounds {
        let mut at = [borders[draw.below(borders.len())], borders[draw.below(borders.len())]];
        at.sort_unstable();
        let [from, to] = at;
        let piece = &good[from..to];
        let place = borders[draw.below(borders.len())];
        made.push(match draw.below(5) {
            0 => ("a piece left out", format!("{}{}", &good[..from], &good[to..])),
            1 => ("a piece doubled", format!("{}{piece}{}", &good[..to], &good[to..])),
            2 => ("a piece elsewhere", format!("{}{piece}{}", &good[..place], &good[place..])),
            3 => ("a space", format!("{} {}", &good[..place], &good[place..])),
            _ => {
                let mut octets = good.as_bytes().to_vec();
                let at = draw.below(octets.len());
                octets[at] = b"aZ0 <>&\"'/=\t\n"[draw.below(13)];
                ("an octet", String::from_utf8_lossy(&octets).into_owned())
            }
        });
    }
    made
}

/// That we believe nothing that the others do not, and say no to a signature only where they do.
fn compare(what: &str, us: &ServiceProvider, request: &str, judges: &Judges, documents: &[(&'static str, String)]) {
    let octets: Vec<Vec<u8>> = documents.iter().map(|(_, text)| text.as_bytes().to_vec()).collect();
    let signxml = judges.signxml(&octets);
    let mut believed = 0;
    for (((change, text), octets), signxml) in documents.iter().zip(&octets).zip(signxml) {
        let ours = us.accept(octets, Expected { request: Some(request), now: now() });
        let xmlsec1 = judges.xmlsec1(octets);
        let verdicts = format!("{what}, {change}: xmlsec1 {xmlsec1}, signxml {signxml}, we {ours:?}\n{text}");
        match &ours {
            Ok(claims) => {
                believed += 1;
                assert!(xmlsec1 && signxml, "{verdicts}");
                assert_eq!(claims.name_id.value, "ann-1", "{verdicts}");
            }
            // A signature that we find wrong is wrong to the others too. Everything else is our being strict, before any signature is looked at.
            Err(SamlError::Signature(SignatureError::Digest(_) | SignatureError::Key(_))) => {
                assert!(!xmlsec1 && !signxml, "{verdicts}");
            }
            Err(_) => {}
        }
    }
    assert!(believed > 0, "{what}: nothing was believed");
}

// I45 I47
#[test]
fn of_each_response_xmlsec1_and_signxml_say_what_we_say() {
    let Some(clients) = SamlClients::find() else { return };
    for (script, sign) in
        [("idp_pysaml2.py", "assertion"), ("idp_pysaml2.py", "response"), ("idp_samlify.js", "assertion")]
    {
        let met: Met = meet(&clients, script, sign);
        let good = String::from_utf8(met.respond("_r1", Binding::Redirect)).expect("text");
        let good = without_key_info(&good);
        let judges = Judges::new(&clients, &met.dir.path().join("certificate.pem"));
        let mut documents = corpus(&good);
        documents.extend(noise(&good, 60));
        compare(script, &met.us, "_r1", &judges, &documents);
    }
}

/// A response that xmlsec1 signs: with declarations that are inclusive, indentation, a default namespace, and other algorithms.
fn template(signature: &str, digest: &str) -> String {
    let moment = |seconds: i64| {
        let at = remoteler_core::Timestamp::from_unix_seconds(now().unix_seconds() + seconds);
        at.to_string()
    };
    let (issued, until) = (moment(-1), moment(300));
    format!(
        r##"<?xml version="1.0" encoding="UTF-8"?>
<Response xmlns="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:xs="http://www.w3.org/2001/XMLSchema" ID="_response" Version="2.0" IssueInstant="{issued}"
    Destination="{ACS}" InResponseTo="_r1">
  <a:Issuer xmlns:a="urn:oasis:names:tc:SAML:2.0:assertion">https://idp.example.com</a:Issuer>
  <Status><StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></Status>
  <Assertion xmlns="urn:oasis:names:tc:SAML:2.0:assertion" ID="_assertion" Version="2.0" IssueInstant="{issued}">
    <Issuer>https://idp.example.com</Issuer>
    <Signature xmlns="http://www.w3.org/2000/09/xmldsig#">
      <SignedInfo>
        <CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>
        <SignatureMethod Algorithm="{signature}"/>
        <Reference URI="#_assertion">
          <Transforms>
            <Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>
            <Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"><InclusiveNamespaces xmlns="http://www.w3.org/2001/10/xml-exc-c14n#" PrefixList="#default xs nowhere"/></Transform>
          </Transforms>
          <DigestMethod Algorithm="{digest}"/>
          <DigestValue/>
        </Reference>
      </SignedInfo>
      <SignatureValue/>
      <KeyInfo><X509Data><X509Certificate/></X509Data></KeyInfo>
    </Signature>
    <Subject>
      <NameID>  ann-1  </NameID>
      <SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">
        <SubjectConfirmationData NotOnOrAfter="{until}" Recipient="{ACS}" InResponseTo="_r1"/>
      </SubjectConfirmation>
    </Subject>
    <Conditions NotBefore="{issued}" NotOnOrAfter="{until}"><AudienceRestriction><Audience>{ENTITY_ID}</Audience></AudienceRestriction></Conditions>
    <AuthnStatement AuthnInstant="{issued}"><AuthnContext><AuthnContextClassRef>x</AuthnContextClassRef></AuthnContext></AuthnStatement>
    <AttributeStatement>
      <Attribute Name="groups"><AttributeValue xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string" xml:lang="en">d&#xe9;v &amp; &lt;ops&gt; &quot;x&quot;&#9;tab&#13;</AttributeValue></Attribute>
    </AttributeStatement>
  </Assertion>
</Response>
"##
    )
}

// I45 I47
#[test]
fn what_xmlsec1_signs_is_believed_with_each_algorithm_of_the_list_and_no_other() {
    let Some(clients) = SamlClients::find() else { return };
    let (more, digests) = ("http://www.w3.org/2001/04/xmldsig-more#", "http://www.w3.org/2001/04/xmlenc#");
    let p256 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let p384 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
    for (key, signature, digest, good) in [
        (&["rsa:2048"][..], format!("{more}rsa-sha256"), format!("{digests}sha256"), true),
        (&["rsa:3072"], format!("{more}rsa-sha384"), format!("{more}sha384"), true),
        (&["rsa:2048"], format!("{more}rsa-sha512"), format!("{digests}sha512"), true),
        (&p256, format!("{more}ecdsa-sha256"), format!("{digests}sha256"), true),
        (&p384, format!("{more}ecdsa-sha384"), format!("{digests}sha512"), true),
        (&p384, format!("{more}ecdsa-sha256"), format!("{digests}sha256"), false),
        (&["rsa:2048"], "http://www.w3.org/2000/09/xmldsig#rsa-sha1".into(), format!("{digests}sha256"), false),
        (&["rsa:2048"], format!("{more}rsa-sha256"), "http://www.w3.org/2000/09/xmldsig#sha1".into(), false),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        clients.make_key(dir.path(), key);
        std::fs::write(dir.path().join("template.xml"), template(&signature, &digest)).expect("writable");
        let mut xmlsec = std::process::Command::new("xmlsec1");
        xmlsec.args(["--sign", "--privkey-pem", "key.pem,certificate.pem", "--id-attr:ID"]);
        xmlsec.args(["urn:oasis:names:tc:SAML:2.0:assertion:Assertion", "--output", "signed.xml", "template.xml"]);
        let signed = run(xmlsec.current_dir(dir.path()));
        if !good && signed.code != Some(0) {
            continue; // this build of it refuses the algorithm as well
        }
        signed.ok();
        let text = std::fs::read_to_string(dir.path().join("signed.xml")).expect("it wrote one");
        let certificate = std::fs::read_to_string(dir.path().join("certificate.pem")).expect("there is one");
        let us = ServiceProvider {
            acs: ACS.into(),
            audiences: vec![ENTITY_ID.into()],
            issuer: "https://idp.example.com".into(),
            keys: vec![IdpKey::from_certificate(&certificate).expect("a key")],
            allow_unsolicited: false,
            decrypter: None,
        };
        let outcome = us.accept(text.as_bytes(), Expected { request: Some("_r1"), now: now() });
        if !good {
            assert!(matches!(outcome, Err(SamlError::Signature(_))), "{signature} {digest}: {outcome:?}");
            continue;
        }
        let claims = outcome.unwrap_or_else(|cause| panic!("{signature} {digest}: {cause}\n{text}"));
        assert_eq!(claims.name_id.value, "ann-1");
        let judges = Judges::new(&clients, &dir.path().join("certificate.pem"));
        let bare = without_key_info(&text);
        let mut documents = noise(&bare, 40);
        documents.push(("as it is", text));
        compare(&signature, &us, "_r1", &judges, &documents);
    }
}
