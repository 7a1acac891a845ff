//! The one port: who serves which connection, and how long and how many may be nobody.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use remoteler_core::{KubeClusterName, SystemRole};
use remoteler_tunnel::{AdmissionLimits, DialHeader, DialReply, TargetKind, connect_tls, read_dial_reply, write_dial};
use rustls::pki_types::ServerName;
use support::{Authorities, Echo, Proxy, browser, connected};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Connects with these ALPN names and this SNI and reads what the service says.
async fn visit(proxy: &Proxy, alpn: &[&str], server_name: &str) -> std::io::Result<Vec<u8>> {
    let config = browser(alpn, rustls::DEFAULT_VERSIONS);
    let socket = TcpStream::connect(proxy.address).await?;
    let name = ServerName::try_from(server_name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(config).connect(name, socket).await?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await?;
    Ok(heard)
}

// I13
#[tokio::test]
async fn alpn_and_sni_choose_the_service() {
    let proxy = Proxy::start(AdmissionLimits::default()).await;
    let kube = KubeClusterName::new("staging").unwrap().server_name(&proxy.authorities.cluster);

    assert_eq!(visit(&proxy, &["h2", "http/1.1"], "proxy.example.com").await.unwrap(), b"web");
    assert_eq!(visit(&proxy, &[], "proxy.example.com").await.unwrap(), b"web");
    assert!(visit(&proxy, &["remoteler-auth"], "root").await.is_err());
    assert!(visit(&proxy, &["h2"], &kube).await.is_err());
    assert!(visit(&proxy, &["smtp"], "proxy.example.com").await.is_err());

    assert_eq!(*proxy.raw.lock().unwrap(), ["auth 22".to_owned(), format!("{kube} 22")]);
    assert_eq!(*proxy.refusals.lock().unwrap(), ["None: no protocol of smtp is spoken here"]);
}

// I1, I13
#[tokio::test]
async fn no_certificate_no_ssh_and_no_tunnel_whatever_the_sni() {
    let proxy = Proxy::start(AdmissionLimits::default()).await;
    for alpn in ["remoteler-ssh", "remoteler-tunnel"] {
        assert!(visit(&proxy, &[alpn], "root").await.is_err());
    }

    let refusals = proxy.refusals.lock().unwrap();
    assert_eq!(refusals.len(), 2);
    assert!(refusals[0].starts_with("Some(Ssh): the TLS handshake failed"), "{refusals:?}");
}

// I1
#[tokio::test]
async fn a_connection_that_fails_names_the_address_and_the_reason() {
    let proxy = Proxy::start(AdmissionLimits::default()).await;
    let address = proxy.address.to_string();
    let connect = |authorities: &Authorities, role| {
        let tls = authorities.client_tls(None, proxy.clock.clone());
        connect_tls(&address, tls.to_cluster(&[role], "http/1.1").unwrap())
    };
    connect(&proxy.authorities, SystemRole::Proxy).await.unwrap();

    let role = connect(&proxy.authorities, SystemRole::Auth).await.unwrap_err().to_string();
    let stranger = connect(&Authorities::new("root"), SystemRole::Proxy).await.unwrap_err().to_string();

    assert!(role.contains(&address) && role.contains("which is no auth"), "{role}");
    assert!(stranger.contains(&address) && stranger.contains("UnknownIssuer"), "{stranger}");
}

// I30
#[tokio::test(flavor = "multi_thread")]
async fn whoever_stays_nobody_is_cut_off_and_does_not_keep_others_out() {
    let limits = AdmissionLimits { deadline: Duration::from_secs(3), ..AdmissionLimits::default() };
    let proxy = Proxy::start(limits).await;
    let agent = proxy.agent("edge", proxy.address, Arc::new(Echo));
    connected(&agent).await;
    let mut idle = Vec::new();
    for number in 0..300 {
        let mut socket = TcpStream::connect(proxy.address).await.unwrap();
        if number % 3 == 0 {
            socket.write_all(&[22, 3, 1]).await.unwrap(); // the beginning of a ClientHello
        }
        idle.push(socket);
    }

    let mut stream = proxy.user_stream("remoteler-ssh").await.unwrap();
    let target = proxy.authorities.target(TargetKind::Ssh, "edge");
    write_dial(&mut stream, &DialHeader::new(target, None)).await.unwrap();
    assert_eq!(read_dial_reply(&mut stream).await.unwrap(), DialReply::Connected);

    for mut socket in idle {
        // The end, or a reset: nothing is ever said to them.
        assert!(!matches!(socket.read(&mut [0]).await, Ok(count) if count > 0));
    }
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x', "who is somebody has no deadline");
    while proxy.admissions.unauthenticated() > 0 {
        tokio::task::yield_now().await; // the places are given back after the sockets
    }
}

// I30
#[tokio::test]
async fn one_source_gets_no_more_places_than_its_share() {
    let limits = AdmissionLimits { per_source: 5, ..AdmissionLimits::default() };
    let proxy = Proxy::start(limits).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(TcpStream::connect(proxy.address).await.unwrap());
    }
    while proxy.admissions.unauthenticated() < 5 {
        tokio::task::yield_now().await;
    }

    let mut refused = TcpStream::connect(proxy.address).await.unwrap();

    assert!(!matches!(refused.read(&mut [0]).await, Ok(count) if count > 0));
    drop(held);
    while proxy.admissions.unauthenticated() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(visit(&proxy, &["h2"], "proxy.example.com").await.unwrap(), b"web");
}
