//! Real identity providers: what we send they take, and what they answer we take.

use std::{
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use remoteler_auth::saml::{
    AuthnRequest, Binding, Expected, IdpMetadata, SamlError, ServiceProvider, SpMetadata, decode_form_field,
};
use remoteler_ca::{SamlDecrypter, SamlSigner};
use remoteler_core::{ClusterName, Timestamp};
use remoteler_tests::{SamlClients, SamlProvider};

use super::judges::Judges;

pub(crate) const ACS: &str = "https://proxy.example.com/web/callback/corp";
pub(crate) const ENTITY_ID: &str = "https://proxy.example.com/web/saml/corp/metadata";

pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

// One of each for all: to make them takes seconds.
static SIGNER: LazyLock<Arc<SamlSigner>> =
    LazyLock::new(|| Arc::new(SamlSigner::generate(&cluster(), "corp", None, now()).expect("a key")));
static DECRYPTER: LazyLock<Arc<SamlDecrypter>> =
    LazyLock::new(|| Arc::new(SamlDecrypter::generate(&cluster(), "corp", None, now()).expect("a key")));

fn cluster() -> ClusterName {
    ClusterName::new("root").expect("a name")
}

/// A provider, and us as it knows us.
pub(crate) struct Met {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) provider: SamlProvider,
    signer: Arc<SamlSigner>,
    metadata: IdpMetadata,
    pub(crate) us: ServiceProvider,
}

pub(crate) fn meet(clients: &SamlClients, script: &str, sign: &str) -> Met {
    let dir = tempfile::tempdir().expect("a directory");
    clients.make_key(dir.path(), &["rsa:2048"]);
    let signer = Arc::clone(&SIGNER);
    let acs = [ACS.to_owned()];
    let decrypter = sign.starts_with("encrypted").then(|| Arc::clone(&DECRYPTER));
    let encryption = decrypter.as_ref().map(|decrypter| decrypter.certificate());
    let ours = SpMetadata { entity_id: ENTITY_ID, acs: &acs, certificate: signer.certificate(), encryption };
    std::fs::write(dir.path().join("sp.xml"), ours.document().expect("metadata")).expect("writable");
    let provider = SamlProvider::start(clients, script, dir.path(), sign);
    let metadata = IdpMetadata::parse(&provider.metadata(), now()).expect("its metadata is read");
    let us = ServiceProvider {
        acs: ACS.into(),
        audiences: vec![ENTITY_ID.into()],
        issuer: metadata.entity_id.clone(),
        keys: metadata.keys.clone(),
        allow_unsolicited: false,
        decrypter,
    };
    Met { dir, provider, signer, metadata, us }
}

impl Met {
    /// The response to a request, by one binding of it.
    pub(crate) fn respond(&self, id: &str, binding: Binding) -> Vec<u8> {
        let (_, sso) = self.metadata.sso.iter().find(|(known, _)| *known == binding).expect("it knows the binding");
        let request =
            AuthnRequest { id, now: now(), destination: sso, acs: ACS, issuer: ENTITY_ID, force_authn: false };
        let state = "state-&-1";
        let (response, returned) = match binding {
            Binding::Redirect => self.provider.answer(&[&request.redirect(state, &self.signer).expect("a URL")]),
            Binding::Post => {
                let form = request.post(state, &self.signer).expect("a form");
                let field = |name: &str, value: &str| format!("{name}={value}");
                let (one, other) = (field("SAMLRequest", &form.saml_request), field("RelayState", &form.relay_state));
                self.provider.answer(&["--data-urlencode", &one, "--data-urlencode", &other, &form.action])
            }
        };
        assert_eq!(returned, state);
        decode_form_field(&response).expect("base64")
    }
}

// I45 I46
#[test]
fn responses_of_real_identity_providers_are_believed_once_they_answer_us() {
    let Some(clients) = SamlClients::find() else { return };
    for (script, signs) in
        [("idp_pysaml2.py", &["assertion", "response", "both"][..]), ("idp_samlify.js", &["assertion", "both"])]
    {
        for sign in signs {
            let met = meet(&clients, script, sign);
            let judges = Judges::new(&clients, &met.dir.path().join("certificate.pem"));
            for (id, binding) in [("_r1", Binding::Redirect), ("_r2", Binding::Post)] {
                let octets = met.respond(id, binding);
                let expected = Expected { request: Some(id), now: now() };
                let claims = met
                    .us
                    .accept(&octets, expected)
                    .unwrap_or_else(|cause| panic!("{script} {sign}: {cause}\n{}", String::from_utf8_lossy(&octets)));
                assert_eq!(claims.name_id.value, "ann-1");
                assert_eq!(
                    claims.attributes.get("groups").and_then(|groups| groups.first()).map(String::as_str),
                    Some("dev")
                );
                assert!(
                    judges.xmlsec1(&octets) && judges.signxml(std::slice::from_ref(&octets)) == [true],
                    "{script} {sign}"
                );
                let other = met.us.accept(&octets, Expected { request: Some("_other"), now: now() });
                assert_eq!(other, Err(SamlError::OtherRequest));
            }
        }
    }
}
