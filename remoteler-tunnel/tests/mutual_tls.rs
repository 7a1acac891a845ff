//! Who gets through a TLS handshake of the cluster, and that nobody gets around it.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod support;

use std::sync::{Arc, Mutex};

use remoteler_core::{
    Clock, Identity, ManualClock, SystemRole, Timestamp, TrustBundle, Verified, X509Purpose, spki_pin,
};
use remoteler_tunnel::{
    ALPN_AUTH, ALPN_SSH, ClientAuth, FirstContact, ServerTls, SharedTlsIdentity, TlsIdentity, TrustSource,
    judged_later, verified_peer, web_server_config,
};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use support::{Authorities, browser, clock, leaf, leaf_with_chain};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A bundle that a test changes under a running server.
struct Changing(Mutex<TrustBundle>);

impl TrustSource for Changing {
    fn trust(&self) -> Arc<TrustBundle> {
        Arc::new(self.0.lock().unwrap().clone())
    }
}

/// One handshake and one octet each way. What each side says: its error, or how the handshake went.
async fn meet(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> (Result<HandshakeKind, String>, Result<HandshakeKind, String>) {
    let (near, far) = duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(server.clone());
    let serving = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await.map_err(|error| error.to_string())?;
        stream.write_all(b"x").await.map_err(|error| error.to_string())?;
        let _ = stream.read_u8().await;
        stream.get_ref().1.handshake_kind().ok_or_else(|| "unfinished".to_owned())
    });
    let connector = TlsConnector::from(client.clone());
    let connected = async {
        let mut stream = connector.connect("root".try_into().unwrap(), near).await?;
        stream.read_u8().await?; // in TLS 1.3 a refusal of the client comes after its handshake
        stream.write_all(b"x").await?;
        Ok::<_, std::io::Error>(stream.get_ref().1.handshake_kind().unwrap())
    };
    let connected = connected.await.map_err(|error| error.to_string());
    (serving.await.unwrap(), connected)
}

struct Stage {
    authorities: Authorities,
    clock: Arc<ManualClock>,
    trust: Arc<Changing>,
}

impl Stage {
    fn new() -> Self {
        let authorities = Authorities::new("root");
        let trust = Arc::new(Changing(Mutex::new(authorities.trust())));
        Self { authorities, clock: clock(), trust }
    }

    fn server(&self, auth: ClientAuth) -> Arc<ServerConfig> {
        self.authorities.proxy_tls(self.trust.clone(), self.clock.clone()).own_protocol(ALPN_SSH, auth).unwrap()
    }

    fn server_that_shows(&self, identity: TlsIdentity) -> Arc<ServerConfig> {
        let tls = ServerTls {
            identity: SharedTlsIdentity::new(identity),
            trust: self.trust.clone(),
            clock: self.clock.clone(),
        };
        tls.own_protocol(ALPN_SSH, ClientAuth::Optional).unwrap()
    }

    fn client(&self, identity: Option<TlsIdentity>) -> Arc<ClientConfig> {
        self.authorities.client_tls(identity, self.clock.clone()).to_cluster(&[SystemRole::Proxy], ALPN_SSH).unwrap()
    }
}

// I14
#[tokio::test]
async fn nothing_is_ever_resumed_so_a_removed_authority_and_an_expired_certificate_are_out_at_once() {
    let stage = Stage::new();
    let server = stage.server(ClientAuth::Required);
    let client = stage.client(Some(stage.authorities.user("ann")));
    for _ in 0..3 {
        let (served, connected) = meet(&server, &client).await;
        assert_eq!(served, Ok(HandshakeKind::Full));
        assert_eq!(connected, Ok(HandshakeKind::Full));
    }

    stage.trust.0.lock().unwrap().user.x509.clear();
    let (served, connected) = meet(&server, &client).await;
    assert!(served.unwrap_err().contains("UnknownIssuer"));
    assert!(connected.unwrap_err().contains("UnknownCA"));

    *stage.trust.0.lock().unwrap() = stage.authorities.trust();
    meet(&server, &client).await.0.unwrap();
    let expired = ManualClock::new(Timestamp::parse("2031-01-01T00:00:00Z").unwrap());
    stage.clock.advance(expired.now().since(stage.clock.now()));
    let (served, _) = meet(&server, &client).await;
    assert!(served.unwrap_err().contains("Expired"));
}

// I14
#[tokio::test]
async fn a_client_that_insists_on_resuming_never_does_in_either_version() {
    let stage = Stage::new();
    let tls = stage.authorities.proxy_tls(stage.trust.clone(), stage.clock.clone());
    let web = web_server_config(&tls.identity).unwrap();
    for server in [stage.server(ClientAuth::Optional), judged_later(tls.identity.clone()).unwrap(), web] {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let own_protocol = server.alpn_protocols.len() == 1;
            if own_protocol && version.version == rustls::ProtocolVersion::TLSv1_2 {
                continue; // not spoken there
            }
            let protocol = if own_protocol { ALPN_SSH } else { "h2" };
            let eager = browser(&[protocol], &[version]);
            for _ in 0..3 {
                assert_eq!(meet(&server, &eager).await.1, Ok(HandshakeKind::Full), "{version:?}");
            }
        }
    }
}

#[tokio::test]
async fn our_protocols_are_spoken_in_tls_1_3_only() {
    let stage = Stage::new();
    let old = browser(&[ALPN_SSH], &[&rustls::version::TLS12]);

    assert!(meet(&stage.server(ClientAuth::Optional), &old).await.1.is_err());
}

#[tokio::test]
async fn a_renewed_identity_is_shown_from_the_next_handshake_on() {
    let stage = Stage::new();
    let ours = &stage.authorities;
    let tls = ours.proxy_tls(stage.trust.clone(), stage.clock.clone());
    let server = tls.own_protocol(ALPN_SSH, ClientAuth::Optional).unwrap();
    let client = stage.client(None);
    meet(&server, &client).await.1.unwrap();

    tls.identity.replace(ours.host(&ours.host_identity("node", &[SystemRole::Node], &[])));

    assert!(meet(&server, &client).await.1.is_err(), "the new identity is not a proxy's");
}

// I1
#[tokio::test]
async fn every_wrong_client_certificate_is_refused() {
    let stage = Stage::new();
    let ours = &stage.authorities;
    let theirs = Authorities::new("root"); // another cluster that took the same name
    let host = ours.host_identity("node", &[SystemRole::Node], &[]);
    let user = ours.user_identity("ann");
    let leafs = [
        ("nobody", None),
        ("a user of another authority of that name", Some(theirs.user("ann"))),
        ("a host of another authority of that name", Some(theirs.host(&host))),
        ("a user signed by the host authority", Some(leaf(&ours.host, &user))),
        ("a host signed by the user authority", Some(leaf(&ours.user, &Identity::Host(host.clone())))),
        (
            "a user of another cluster signed by our authority",
            Some(leaf(&ours.user, &Authorities::new("leaf").user_identity("ann"))),
        ),
    ];
    let server = stage.server(ClientAuth::Required);
    for (what, identity) in leafs {
        let (served, connected) = meet(&server, &stage.client(identity)).await;
        assert!(served.is_err(), "{what} got in");
        assert!(connected.is_err(), "{what} was let in");
    }
    for identity in [ours.user("ann"), ours.host(&host)] {
        meet(&server, &stage.client(Some(identity))).await.0.unwrap();
    }
}

// I1, I12
#[tokio::test]
async fn a_server_must_be_a_host_of_the_cluster_with_the_role_that_is_needed() {
    let stage = Stage::new();
    let ours = &stage.authorities;
    let client = stage.client(None);
    let node = ours.host_identity("node", &[SystemRole::Node], &[]);
    let proxy = ours.host_identity("proxy", &[SystemRole::Proxy], &[]);
    let elsewhere = Authorities::new("leaf");
    for (what, identity) in [
        ("a node", ours.host(&node)),
        ("a user", ours.user("ann")),
        ("a proxy signed by the user authority", leaf(&ours.user, &Identity::Host(proxy.clone()))),
        ("a proxy of another cluster", elsewhere.host(&elsewhere.host_identity("proxy", &[SystemRole::Proxy], &[]))),
        (
            "a proxy that our authority certified for another cluster",
            leaf(&ours.host, &Identity::Host(elsewhere.host_identity("proxy", &[SystemRole::Proxy], &[]))),
        ),
    ] {
        let (_, connected) = meet(&stage.server_that_shows(identity), &client).await;
        assert!(connected.is_err(), "{what} was believed");
    }
    meet(&stage.server_that_shows(ours.host(&proxy)), &client).await.1.unwrap();
}

// I15
#[tokio::test]
async fn a_joining_host_believes_the_pinned_authority_and_no_other() {
    let stage = Stage::new();
    let ours = &stage.authorities;
    let server =
        ours.proxy_tls(stage.trust.clone(), stage.clock.clone()).own_protocol(ALPN_AUTH, ClientAuth::Optional).unwrap();
    let pin = spki_pin(ours.host.der()).unwrap();
    let contact = |contact: FirstContact| contact.client_config(stage.clock.clone(), ALPN_AUTH).unwrap();

    meet(&server, &contact(FirstContact::Pinned(vec![pin.to_ascii_uppercase().replace("SHA256", "sha256")])))
        .await
        .1
        .unwrap();
    meet(&server, &contact(FirstContact::Insecure)).await.1.unwrap();
    let other = spki_pin(ours.user.der()).unwrap();
    let refused = meet(&server, &contact(FirstContact::Pinned(vec![other.clone()]))).await.1.unwrap_err();
    assert!(refused.contains(&pin) && refused.contains(&other), "{refused}");

    // The pinned certificate in the chain is not enough: it must have signed the leaf, and the leaf must be a proxy's.
    let forger = Authorities::new("root");
    let proxy = forger.host_identity("proxy", &[SystemRole::Proxy], &[]);
    let node = ours.host(&ours.host_identity("node", &[SystemRole::Node], &[]));
    for identity in [leaf_with_chain(&forger.host, &Identity::Host(proxy), &ours.host), node] {
        let tls = ServerTls {
            identity: SharedTlsIdentity::new(identity),
            trust: stage.trust.clone(),
            clock: stage.clock.clone(),
        };
        let server = tls.own_protocol(ALPN_AUTH, ClientAuth::Optional).unwrap();
        assert!(meet(&server, &contact(FirstContact::Pinned(vec![pin.clone()]))).await.1.is_err());
    }
}

#[tokio::test]
async fn after_the_handshake_the_proof_of_the_peer_comes_from_core() {
    let stage = Stage::new();
    let ann = stage.authorities.user("ann");
    let verify = |chain: Option<&[_]>| verified_peer(chain, &*stage.trust, X509Purpose::Client, &*stage.clock);

    let Verified::User(user) = verify(Some(ann.chain())).unwrap() else { panic!("a user was expected") };
    assert_eq!(user.identity().user.as_str(), "ann");
    assert!(verify(None).is_err());
    stage.trust.0.lock().unwrap().user.x509.clear();
    assert!(verify(Some(ann.chain())).is_err());
}
