//! Every wrong SSH certificate at every verifier: the function in core, the node as a server, and the client of this crate, the last two in real
//! handshakes with peers that check nothing and show what they are given. What differs between the rows is one thing each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::{sync::Arc, time::SystemTime};

use remoteler_core::{
    CaSet, ClusterName, HostIdentity, Identity, Login, Revocations, SshCertificatePurpose, SystemClock, Timestamp,
    TrustBundle, verify_ssh_certificate, with_causes,
};
use remoteler_ssh::{ClientConfig, SshClient};
use ssh_key::{Certificate, PrivateKey, certificate::CertType, encoding::Encode};
use support::{CLUSTER, Cluster, NODE, Wish, gets_in, host_identity, new_key, own_login, sign, user_certificate};
use tokio::io::duplex;

/// What is wrong with a certificate, and by which of these words that is told.
struct Row {
    what: &'static str,
    signer: Signer,
    wish: Wish,
    nested: bool,
    reasons: &'static [&'static str],
}

/// Who signs.
#[derive(Clone, Copy)]
enum Signer {
    /// The authority for it.
    Right,
    /// The cluster's other authority.
    Other,
    /// A key that nobody knows.
    Stranger,
}

/// All rows for certificates of `kind`; `right` is what a good one says.
fn rows(kind: CertType, right: &Wish) -> Vec<Row> {
    let other = if kind == CertType::User { CertType::Host } else { CertType::User };
    let row = |what, wish, reasons| Row { what, signer: Signer::Right, wish, nested: false, reasons };
    let signed =
        |what, signer| Row { what, signer, wish: right.clone(), nested: false, reasons: &["was not signed by the"] };
    let principals = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Wish { principals: Some(names), ..right.clone() }
    };
    let critical = |name: &str| Wish { critical: Some((name.to_owned(), "x".to_owned())), ..right.clone() };
    let many: Vec<String> = (0..257).map(|at| format!("p{at}")).collect();
    let long = "x".repeat(100_000);
    let principal: &[&str] = &["principal is refused"];
    let mut rows = vec![
        row("of the other type", Wish { kind: other, ..right.clone() }, &["certificate is needed here"]), // I1
        signed("the other authority's", Signer::Other),                                                   // I1
        signed("a stranger's", Signer::Stranger),                                                         // I1
        Row {
            nested: true,
            ..row("signed by a certificate", right.clone(), &["was not signed by the", "no acceptable certificate"]) // I2
        },
        row("without principals", principals(&[]), &["0 principals"]), // I4
        row("with 257 principals", Wish { principals: Some(many), ..right.clone() }, &["257 principals"]), // I4
        row("with a principal of 100,000 octets", principals(&[&long]), principal), // I4
        row("with an unknown critical option", critical("x@example.com"), &["x@example.com"]), // I5
        row("with a critical option that OpenSSH knows", critical("force-command"), &["force-command"]), // I5
        row("expired", Wish { window: (-600, -5), ..right.clone() }, &["expired"]), // I6
        row("from the future", Wish { window: (600, 900), ..right.clone() }, &["valid only from", "not yet valid"]), // I6
        row(
            "of another cluster",
            Wish { cluster: "other.example.com".into(), ..right.clone() },
            &["other.example.com"],
        ),
    ];
    for (what, name) in [
        ("with a space in a principal", "a b"),
        ("with a comma in a principal", "a,b"),
        ("with a line break in a principal", "a\nb"),
        ("with a tab in a principal", "a\tb"),
        ("with a quote in a principal", "a\"b"),
        ("with a NUL in a principal", "a\0b"),
        ("with an empty principal", ""),
        ("with a principal like a flag", "-oProxyCommand=x"),
    ] {
        rows.push(row(what, principals(&[name]), principal)); // I4
    }
    rows
}

fn authority(cluster: &Cluster, kind: CertType, signer: Signer) -> PrivateKey {
    match (kind, signer) {
        (_, Signer::Stranger) => new_key(),
        (CertType::User, Signer::Right) | (CertType::Host, Signer::Other) => cluster.user_ca.clone(),
        (CertType::Host, Signer::Right) | (CertType::User, Signer::Other) => cluster.host_ca.clone(),
    }
}

/// `certificate` as if `inner`, a certificate, had signed it. Read back, for a parser may refuse it at once.
fn nested(certificate: &Certificate, inner: &Certificate) -> Option<Certificate> {
    let plain = certificate.to_bytes().unwrap();
    let authority = certificate.signature_key().encode_vec().unwrap();
    let at = plain.windows(authority.len()).rposition(|window| window == authority).unwrap();
    let inner = inner.to_bytes().unwrap();
    let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
    Certificate::from_bytes(&[&plain[..at - 4], &length, &inner, &plain[at + authority.len()..]].concat()).ok()
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// The bundle of the cluster.
fn trust(cluster: &Cluster) -> TrustBundle {
    let set = |key: &PrivateKey| CaSet { ssh: vec![key.public_key().clone()], x509: Vec::new() };
    TrustBundle::new(ClusterName::new(CLUSTER).unwrap(), set(&cluster.user_ca), set(&cluster.host_ca))
}

// I1, I2, I4, I5, I6
#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_user_certificate_is_refused_by_core_and_by_the_node() {
    let cluster = Cluster::start().await;
    let trust = trust(&cluster);
    for (index, row) in rows(CertType::User, &Wish::default()).into_iter().enumerate() {
        let Row { what, signer, wish, reasons, .. } = row;
        let (ca, key) = (authority(&cluster, CertType::User, signer), new_key());
        let mut certificate = user_certificate(&ca, &key, &wish);
        if row.nested {
            let inner = user_certificate(&ca, &new_key(), &wish);
            certificate = nested(&certificate, &inner).expect("the parser in use follows nested certificates");
        }
        let said = verify_ssh_certificate(&certificate, &trust, SshCertificatePurpose::User, now()).unwrap_err();
        assert!(reasons.iter().any(|reason| said.to_string().contains(reason)), "core, {what}: {said}");

        assert!(!gets_in(&cluster, &key, &certificate).await, "the node let one in that was {what}");
        let event = cluster.audit.wait_for("auth", index + 1).await.pop().unwrap();
        let told = event["error"].as_str().unwrap();
        assert!(reasons.iter().any(|reason| told.contains(reason)), "the node, {what}: {told}");
    }
    assert!(cluster.audit.named("session.start").is_empty());
    let key = new_key();
    let right = user_certificate(&cluster.user_ca, &key, &Wish::default());
    assert!(verify_ssh_certificate(&right, &trust, SshCertificatePurpose::User, now()).is_ok());
    assert!(gets_in(&cluster, &key, &right).await, "the right one did not get in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_certificate_that_is_revoked_is_refused_on_the_next_connection() {
    let cluster = Cluster::start().await;
    let key = new_key();
    let certificate = user_certificate(&cluster.user_ca, &key, &Wish::default());
    assert!(gets_in(&cluster, &key, &certificate).await);
    let by_key = remoteler_core::RevocationTarget::ssh_key(certificate.public_key());
    for revoked in ["ssh-user-7".parse().unwrap(), by_key] {
        let mut policy = support::policy(&cluster.user_ca, &cluster.host_ca);
        policy.trust.revoked = [revoked].into_iter().collect();
        cluster.policy.replace(policy);
        assert!(!gets_in(&cluster, &key, &certificate).await, "{revoked}");
        let event = cluster.audit.named("auth").pop().unwrap();
        assert!(event["error"].as_str().unwrap().contains(&revoked.to_string()), "{event}");
    }
    cluster.policy.replace(support::policy(&cluster.user_ca, &cluster.host_ca));
    assert!(gets_in(&cluster, &key, &certificate).await);
}

// I1, I2, I4, I5, I6, I73
#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_host_certificate_is_refused_by_core_and_by_the_client() {
    let cluster = Cluster::start().await;
    let trust = trust(&cluster);
    let right = Wish { kind: CertType::Host, window: (-60, i64::MAX), ..Wish::default() };
    for row in rows(CertType::Host, &right) {
        let Row { what, signer, wish, reasons, .. } = row;
        let (ca, key) = (authority(&cluster, CertType::Host, signer), new_key());
        let mut certificate = host_certificate(&ca, &key, &wish);
        if row.nested {
            let inner = host_certificate(&ca, &new_key(), &wish);
            certificate = nested(&certificate, &inner).expect("the parser in use follows nested certificates");
        }
        let purpose = SshCertificatePurpose::Host(NODE);
        let said = verify_ssh_certificate(&certificate, &trust, purpose, now()).unwrap_err();
        assert!(reasons.iter().any(|reason| said.to_string().contains(reason)), "core, {what}: {said}");

        let told = dial(&cluster, &trust, &key, certificate).await.unwrap_err();
        // Where russh does not offer such a certificate, the plain key alone is shown, and that is refused as well.
        let reasons = [reasons, &["no certificate", "shows a plain key", "key exchange", "No common"]].concat();
        assert!(reasons.iter().any(|reason| told.contains(reason)), "the client, {what}: {told}");
    }
    let key = new_key();
    let certificate = host_certificate(&cluster.host_ca, &key, &right);
    // A server that proves who it is gets as far as the user's login, which this one refuses.
    let told = dial(&cluster, &trust, &key, certificate.clone()).await.unwrap_err();
    assert!(!told.contains("certificate is") && told.contains("refuse"), "{told}");

    let revoked: Revocations = ["ssh-host-7".parse().unwrap()].into_iter().collect();
    let told = dial(&cluster, &TrustBundle { revoked, ..trust }, &key, certificate).await.unwrap_err();
    assert!(told.contains("revoked (ssh-host-7)"), "{told}");
}

fn host_certificate(ca: &PrivateKey, key: &PrivateKey, wish: &Wish) -> Certificate {
    let identity = HostIdentity { cluster: ClusterName::new(&wish.cluster).unwrap(), ..host_identity() };
    let principals = wish.principals.clone().unwrap_or_else(|| {
        let own = HostIdentity { cluster: ClusterName::new(CLUSTER).unwrap(), ..identity.clone() };
        own.principals()
    });
    sign(ca, key, &Identity::Host(identity), &principals, wish)
}

/// A server that shows `certificate` and lets nobody in.
struct Shows;

impl russh::server::Handler for Shows {
    type Error = russh::Error;
}

/// Connects the client to it; the error is what the client says.
async fn dial(
    cluster: &Cluster,
    trust: &TrustBundle,
    key: &PrivateKey,
    certificate: Certificate,
) -> Result<(), String> {
    let config = russh::server::Config {
        keys: vec![key.clone()],
        certificates: vec![certificate],
        auth_rejection_time: std::time::Duration::ZERO,
        ..Default::default()
    };
    let (near, far) = duplex(256 * 1024);
    let server = tokio::spawn(async move {
        // It ends with the client.
        if let Ok(session) = russh::server::run_stream(Arc::new(config), far, Shows).await {
            let _ = session.await;
        }
    });
    let user = new_key();
    let login = Login::new(own_login()).unwrap();
    let own = user_certificate(&cluster.user_ca, &user, &Wish::default());
    let trust = Arc::new(trust.clone());
    let config = ClientConfig::new(login, NODE.to_owned(), trust, Arc::new(user), own, Arc::new(SystemClock));
    let outcome = SshClient::connect(near, config).await;
    server.abort();
    outcome.map(drop).map_err(|cause| with_causes(&cause))
}
