//! What the fuzz targets do with one input, without a fuzzer: the targets call these functions, and so does a plain test of the workspace
//! (`tests/tests/fuzz_corpus.rs`) with every input of the corpus. A function panics where a promise is broken; every other outcome is good.

mod link;
mod tunnel;

use remoteler_auth::saml::{Expected, IdpKey, ServiceProvider, fuzz_xml};
use remoteler_ca::Krl;
use remoteler_client::{IdentityFile, Kubeconfig};
use remoteler_core::{
    CaSet, ClusterName, ConditionsSpec, Identity, Labels, NodeName, Policy, Resource, RevocationTarget, Role, RoleName,
    RoleSpec, SshCertificatePurpose, Timestamp, Traits, TrustBundle, UserName, Verified, X509Purpose, check_ssh_key,
    evidence::ExportVerifier, explain_ssh, printable, prospective_identity, steers_terminal, verify_ssh_certificate,
    verify_x509_chain, x509_identity,
};
use remoteler_kube::{KubePath, Upstream};
use remoteler_ssh::{CastReader, PlainText};
use remoteler_tunnel::{DialHeader, read_origin};

pub use link::{link_path, link_peer};
pub use tunnel::{link_resume, mux_octets, mux_peer};

/// One target.
pub type Target = fn(&[u8]);

/// The targets here, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("audit_export", audit_export),
    ("cast_player", cast_player),
    ("dial_header", dial_header),
    ("identity", identity),
    ("identity_file", identity_file),
    ("krl", krl),
    ("kube_path", kube_path),
    ("kubeconfig", kubeconfig),
    ("link_path", link_path),
    ("link_peer", link_peer),
    ("link_resume", link_resume),
    ("mux_octets", mux_octets),
    ("mux_peer", mux_peer),
    ("origin_header", origin_header),
    ("predicate", predicate),
    ("revocation_target", revocation_target),
    ("role_document", role_document),
    ("saml_response", saml_response),
    ("ssh_certificate", ssh_certificate),
    ("ssh_key_file", ssh_key_file),
    ("terminal_text", terminal_text),
    ("x509_chain", x509_chain),
    ("xml_tree", xml_tree),
];

/// The moment at which the certificates of the corpus are valid: 2026-03-01T12:00:00Z.
pub const NOW: Timestamp = Timestamp::from_unix_seconds(1_772_366_400);

fn cluster() -> ClusterName {
    ClusterName::new("root").expect("a cluster name, spelled out here")
}

fn nobody() -> CaSet {
    CaSet { ssh: Vec::new(), x509: Vec::new() }
}

/// An export of an audit log. Input: its lines. Whatever they are, there is a verdict, and one that finds nothing proves every event in the range.
pub fn audit_export(octets: &[u8]) {
    let mut verifier = ExportVerifier::new(Vec::new(), Vec::new());
    String::from_utf8_lossy(octets).lines().for_each(|line| verifier.line(line));
    let verdict = verifier.finish();
    assert_eq!(verdict.is_whole(), verdict.found == 0 && verdict.findings.is_empty());
    if verdict.is_whole() {
        assert!(verdict.own_key, "no key was given");
        assert_eq!(verdict.proven, verdict.range.1 + 1 - verdict.range.0);
    }
}

/// A recording. Input: a file as the player reads it.
pub fn cast_player(octets: &[u8]) {
    let Ok(mut reader) = CastReader::new(octets) else { return };
    let mut last = std::time::Duration::ZERO;
    while let Ok(Some(event)) = reader.next_event() {
        assert!(event.at >= last, "time goes on");
        last = event.at;
    }
}

/// A dial header. Input: JSON as a client may send it.
pub fn dial_header(octets: &[u8]) {
    if let Ok(header) = DialHeader::from_json(octets) {
        assert_eq!(DialHeader::from_json(&header.to_json()).expect("what was read can be read again"), header);
    }
}

/// An identity as it stands in certificates. Input: its JSON.
pub fn identity(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Ok(identity) = Identity::decode(text) {
        assert_eq!(Identity::decode(&identity.encode()).expect("what was read can be read again"), identity);
    }
}

/// An identity file. Input: its text.
pub fn identity_file(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let Ok(file) = IdentityFile::parse(text) else { return };
    let trust = file.trust();
    assert!(trust.user.ssh.is_empty() && trust.user.x509.is_empty(), "nobody is believed to sign users");
    assert_eq!(trust.cluster, file.identity().cluster);
    let Ok(written) = file.to_text() else { return };
    // What is written has line ends that what was read may lack, so that the longest file may not be read again.
    if written.reveal().len() < 128 * 1024 {
        let again = IdentityFile::parse(written.reveal()).expect("what was written can be read again");
        assert_eq!((again.identity(), again.proxy(), again.expires()), (file.identity(), file.proxy(), file.expires()));
        assert_eq!(again.trust().host.x509, trust.host.x509);
        assert_eq!(again.trust().host.ssh.len(), trust.host.ssh.len());
    }
}

/// A key revocation list of OpenSSH. Input: the file.
pub fn krl(octets: &[u8]) {
    if let Ok(list) = Krl::from_bytes(octets) {
        assert_eq!(Krl::from_bytes(&list.to_bytes()).expect("what was read can be read again"), list);
    }
}

/// What is revoked, by name, and as an administrator shows a key. Input: the text.
pub fn revocation_target(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    if let Ok(target) = text.parse::<RevocationTarget>() {
        assert_eq!(target.to_string(), text, "there is one spelling");
    }
    if let Ok(target) = RevocationTarget::key(&text) {
        assert_eq!(target.to_string().parse(), Ok(target));
    }
}

/// The path of a kubectl request. Input: the request's target.
pub fn kube_path(octets: &[u8]) {
    let Ok(uri) = http::Uri::try_from(octets) else { return };
    let Ok(path) = KubePath::parse(&uri, http::Version::HTTP_11) else { return };
    let api = path.api.path();
    assert!(api.starts_with('/') && !api.contains("//"), "{api}");
    assert!(api.split('/').all(|segment| segment != ".." && segment != "."), "{api}");
    // What goes to the API server has one reading: it is the same when it is read again.
    let again = http::Uri::try_from(format!("/v1/kube/c/k{}", path.api)).expect("a path that was written is a path");
    let again = KubePath::parse(&again, http::Version::HTTP_11).expect("what was read can be read again");
    assert_eq!(again.api, path.api);
}

/// A kubeconfig, as the Kubernetes service and as `tsh` read it. Input: the file.
pub fn kubeconfig(octets: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory for one file");
    let path = dir.path().join("config");
    std::fs::write(&path, octets).expect("a small file can be written");
    let _ = Upstream::from_kubeconfig(&path, None);
    let _ = Kubeconfig::new(&path).current_context();
}

/// An origin header. Input: what a proxy sends first.
pub fn origin_header(octets: &[u8]) {
    let mut rest = octets;
    let mut reading = std::pin::pin!(read_origin(&mut rest));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(reading.as_mut().poll(&mut context).is_ready(), "octets that are there are not waited for");
}

/// A role. Input: its document in JSON.
pub fn role_document(octets: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Resource>(octets) else { return };
    let Ok(role) = Role::from_document(&document) else { return };
    let written = serde_json::to_vec(&document).expect("a document has a JSON form");
    let again = serde_json::from_slice::<Resource>(&written).expect("what was written can be read");
    let again = Role::from_document(&again).expect("a good role stays good");
    assert_eq!((again.name(), again.options()), (role.name(), role.options()));
    let Ok(spec) = serde_json::from_value::<RoleSpec>(document.spec) else { return };
    let written = serde_json::to_value(Resource::role(role.name(), &spec)).expect("a role has a JSON form");
    let again = serde_json::from_value::<Resource>(written).expect("what was written can be read");
    assert!(
        serde_json::from_value::<RoleSpec>(again.spec).is_ok_and(|again| again == spec),
        "a role is written as it is"
    );
}

/// A label expression and a template of a role, and what comes out of them for a user. Input: the two, with a line feed between them.
pub fn predicate(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let (expression, template) = text.split_once('\n').unwrap_or((text, "root"));
    let conditions = ConditionsSpec {
        logins: vec![template.to_owned()],
        node_labels_expression: Some(expression.to_owned()),
        ..ConditionsSpec::default()
    };
    let name = RoleName::new("r").expect("a role name, spelled out here");
    let policy_of = |spec: &RoleSpec| {
        let role = Role::new(name.clone(), spec).ok()?;
        let trust = TrustBundle::new(cluster(), nobody(), nobody());
        Some(Policy::new(trust, [(name.clone(), std::sync::Arc::new(role))].into()))
    };
    let (allow, deny) = (conditions.clone(), conditions);
    let Some(allows) = policy_of(&RoleSpec { allow, ..RoleSpec::default() }) else { return };
    let denies = policy_of(&RoleSpec { deny, ..RoleSpec::default() }).expect("what may be allowed may be denied");
    let traits: Traits = [("teams", "apps"), ("email", "ann@example.com"), ("logins", "root")]
        .map(|(name, value)| (name.to_owned(), vec![value.to_owned(), "*".to_owned()]))
        .into();
    let labels: Labels = [("env", "dev"), ("team", "apps"), ("project-a", "x")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let user = UserName::new("ann").expect("a user name, spelled out here");
    let node = NodeName::new("node").expect("a node name, spelled out here");
    let identity = prospective_identity(user, &allows, [&name], traits);
    for login in &identity.logins {
        let allowed = explain_ssh(&identity, &allows, (&node, &labels), login).allowed;
        let denied = explain_ssh(&identity, &denies, (&node, &labels), login);
        let by_labels =
            denied.findings.iter().any(|found| found.fields.iter().any(|field| field == "deny.node_labels"));
        assert!(!allowed || by_labels, "what matches as a grant matches as a denial");
    }
}

/// An SSH certificate. Input: the blob of the key, which may be signed by the authority that is believed.
pub fn ssh_certificate(octets: &[u8]) {
    // On a stack like those that see such blobs in the daemon: the parser follows nested ones.
    let octets = octets.get(..MAX_PACKET).unwrap_or(octets).to_vec();
    let parser = std::thread::Builder::new().stack_size(remoteler_core::SSH_PARSER_STACK);
    let verifying = parser.spawn(move || {
        let Ok(certificate) = ssh_key::Certificate::from_bytes(&octets) else { return };
        let trust = TrustBundle::new(cluster(), CaSet { ssh: vec![ssh_authority()], ..nobody() }, nobody());
        if let Ok(verified) = verify_ssh_certificate(&certificate, &trust, SshCertificatePurpose::User, NOW) {
            let Verified::User(user) = verified else { panic!("no host authority is believed") };
            assert_eq!(user.identity().cluster, cluster());
            assert!(user.expires() > NOW && certificate.critical_options().iter().next().is_none());
        }
    });
    if let Err(panic) = verifying.expect("a thread can be started").join() {
        std::panic::resume_unwind(panic);
    }
}

/// A file with an SSH key. Input: a private key in OpenSSH's format, or a public one in its one-line form.
pub fn ssh_key_file(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets.get(..MAX_PACKET).unwrap_or(octets)) else { return };
    let text = text.to_owned();
    let parser = std::thread::Builder::new().stack_size(remoteler_core::SSH_PARSER_STACK);
    let reading = parser.spawn(move || {
        if let Ok(key) = ssh_key::PrivateKey::from_openssh(&text)
            && let Ok(written) = key.to_openssh(ssh_key::LineEnding::LF)
        {
            let again =
                ssh_key::PrivateKey::from_openssh(written.as_str()).expect("what was written can be read again");
            assert!(again.public_key().key_data() == key.public_key().key_data());
        }
        if let Ok(key) = ssh_key::PublicKey::from_openssh(&text)
            && check_ssh_key(key.key_data()).is_ok()
        {
            let written = key.to_openssh().expect("a key of the list has a form");
            let again = ssh_key::PublicKey::from_openssh(&written).expect("what was written can be read again");
            assert!(again.key_data() == key.key_data());
        }
    });
    if let Err(panic) = reading.expect("a thread can be started").join() {
        std::panic::resume_unwind(panic);
    }
}

/// The largest SSH packet.
const MAX_PACKET: usize = 256 * 1024;

/// The authority that signs certificates of the corpus; its private key is known to everybody.
fn ssh_authority() -> ssh_key::PublicKey {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&[1; 32]);
    ssh_key::PublicKey::new(ssh_key::public::KeyData::Ed25519(pair.public), "corpus")
}

/// Remote text on its way to a terminal. Input: what was sent.
pub fn terminal_text(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    assert!(!printable(&text).chars().any(steers_terminal));
    let (mut whole, mut plain) = (String::new(), PlainText::default());
    plain.push(&text, &mut whole);
    plain.finish(&mut whole);
    assert!(!whole.chars().any(|c| steers_terminal(c) && !matches!(c, '\n' | '\t')));
    // Wherever the output was cut on its way, the same is shown.
    let (mut cut, mut plain) = (String::new(), PlainText::default());
    for c in text.chars() {
        plain.push(c.encode_utf8(&mut [0; 4]), &mut cut);
    }
    plain.finish(&mut cut);
    assert_eq!(cut, whole);
}

/// A chain of X.509 certificates and the identity in it. Input: two octets of length, an authority's certificate that is believed to sign
/// users, and the certificate of its holder.
pub fn x509_chain(octets: &[u8]) {
    let Some((length, rest)) = octets.split_first_chunk::<2>() else { return };
    let Some((authority, leaf)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { return };
    if let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf)
        && let Ok(identity) = x509_identity(&parsed)
    {
        assert_eq!(Identity::decode(&identity.encode()).expect("what was read can be read again"), identity);
    }
    let trust = TrustBundle::new(cluster(), CaSet { x509: vec![authority.to_vec()], ..nobody() }, nobody());
    let chain = [rustls_pki_types::CertificateDer::from_slice(leaf)];
    if let Ok(verified) = verify_x509_chain(&chain, &trust, X509Purpose::Client, NOW) {
        let Verified::User(user) = verified else { panic!("no host authority is believed") };
        assert_eq!(user.identity().cluster, cluster());
    }
}

/// A response of a SAML identity provider, whose private key is gone. Input: the document. What is believed is what the key once signed.
pub fn saml_response(octets: &[u8]) {
    let key = IdpKey::from_certificate(include_str!("saml_certificate.b64")).expect("a certificate, as it stands here");
    let us = ServiceProvider {
        acs: "https://proxy.example.com/web/saml/corp/acs".into(),
        audiences: vec!["https://proxy.example.com/web/saml/corp/metadata".into()],
        issuer: "https://idp.example.com/saml".into(),
        keys: vec![key],
        allow_unsolicited: false,
        decrypter: None,
    };
    if let Ok(claims) = us.accept(octets, Expected { request: Some("_request-1"), now: NOW }) {
        assert_eq!(claims.name_id.value, "ann@example.com", "nobody else was ever signed");
        assert_eq!(claims.assertion_id, "_assertion");
        assert_eq!(claims.attributes.values().flatten().collect::<Vec<_>>(), ["dev", "o&m"]);
    }
}

/// An XML document. Input: its text.
pub fn xml_tree(octets: &[u8]) {
    fuzz_xml(octets);
}
