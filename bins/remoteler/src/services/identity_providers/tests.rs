//! The asking of identity providers, against ones that speak TLS and do what they like.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;

/// A provider on this machine, and one who asks it and believes its certificate.
struct Double {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
}

impl Double {
    async fn start() -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), certificate: cert.der().clone() }
    }

    fn url(&self) -> String {
        format!("https://{}/jwks", self.listener.local_addr().unwrap())
    }

    /// Asks, while `answer` speaks for the provider, which goes on until the asking has ended.
    async fn ask<T>(&self, answer: impl AsyncFnOnce(&Self) -> T) -> Result<Response<Vec<u8>>, FetchError> {
        let certificate = self.certificate.clone();
        let roots = move || {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone())?;
            Ok(roots)
        };
        let asking = IdentityProviders { allow_internal: true, roots: Arc::new(roots) };
        let answering = async {
            let _held = answer(self).await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            answer = asking.fetch(Request::get(self.url()).body(Vec::new()).unwrap()) => answer,
            never = answering => match never {},
        }
    }

    /// The next connection, its request read and `answer` sent.
    async fn answer(&self, answer: &[u8]) -> TlsStream<TcpStream> {
        let (tcp, _) = self.listener.accept().await.unwrap();
        let mut stream = self.acceptor.accept(tcp).await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        assert!(request.starts_with(b"GET /jwks HTTP/1.1\r\n"));
        // Who asks may have heard enough before the end.
        let _ = stream.write_all(answer).await;
        let _ = stream.flush().await;
        stream
    }
}

#[test]
fn addresses_of_internal_networks_are_known_in_every_form() {
    // I43
    for internal in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.0.1",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "64:ff9b::7f00:1",
        "2001:db8::1",
        "2001::1",
        "ff02::1",
    ] {
        assert!(is_internal(internal.parse().unwrap()), "{internal}");
    }
    for public in ["8.8.8.8", "140.82.121.3", "2606:4700::1111", "2a00:1450::1", "2002:808:808::1", "::ffff:8.8.8.8"] {
        assert!(!is_internal(public.parse().unwrap()), "{public}");
    }
}

#[tokio::test]
async fn an_internal_provider_is_not_asked_unless_it_is_allowed() {
    // I43
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let ask = || Request::get(&url).body(Vec::new()).unwrap();
    let refused = IdentityProviders::new(false).fetch(ask()).await.unwrap_err();
    assert!(refused.0.contains("internal network"), "{refused}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nothing was connected to");
    for wrong in ["http://127.0.0.1/", "https://u@127.0.0.1/"] {
        let request = Request::get(wrong).body(Vec::new()).unwrap();
        assert!(IdentityProviders::new(true).fetch(request).await.is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn only_a_certificate_of_a_root_that_is_believed_is_spoken_to() {
    // I43
    let (double, other) = (Double::start().await, Double::start().await);
    let answered = double.ask(async |double| double.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await);
    assert_eq!(answered.await.unwrap().body(), b"{}");
    let imposter = Double { certificate: other.certificate, ..double };
    let refused = imposter.ask(async |double| {
        let (tcp, _) = double.listener.accept().await.unwrap();
        assert!(double.acceptor.accept(tcp).await.is_err());
    });
    let refused = refused.await.unwrap_err();
    assert!(refused.0.contains("no TLS session"), "{refused}");
}

#[tokio::test]
async fn a_provider_that_redirects_is_not_followed() {
    // I43
    let (double, elsewhere) = (Double::start().await, Double::start().await);
    for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent"] {
        for to in [elsewhere.url(), double.url(), "http://169.254.169.254/latest/meta-data/".to_owned()] {
            let answer = format!("HTTP/1.1 {status}\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            let answered = double.ask(async |double| double.answer(answer.as_bytes()).await).await.unwrap();
            assert_eq!(answered.status().as_str(), &status[..3], "whoever asked is told, and nothing else happens");
        }
    }
    for untouched in [double.listener, elsewhere.listener] {
        let untouched = untouched.into_std().unwrap();
        assert!(untouched.accept().is_err(), "nothing else was connected to");
    }
}

#[tokio::test]
async fn an_answer_has_at_most_one_mebibyte_however_it_is_framed() {
    // I43
    let double = Double::start().await;
    let framed = |length: usize| {
        let body = "x".repeat(length);
        [
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ]
    };
    for answer in framed(1 << 20) {
        let answered = double.ask(async |double| double.answer(answer.as_bytes()).await).await.unwrap();
        assert_eq!(answered.body().len(), 1 << 20);
    }
    let endless_head = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(1 << 17));
    let many = framed((1 << 20) + 1).into_iter().chain([endless_head]);
    for answer in many {
        let refused = double.ask(async |double| double.answer(answer.as_bytes()).await).await.unwrap_err();
        assert!(!refused.0.contains("xxx") && !refused.0.contains("x: y"), "{refused}");
    }
    // Announced, and the rest never sent: it is not waited for.
    let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", 1_u64 << 40);
    let refused = double.ask(async |double| {
        let mut stream = double.answer(head.as_bytes()).await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    let refused = refused.await.unwrap_err();
    assert!(refused.0.contains("more than 1048576 octets"), "{refused}");
}

#[tokio::test]
async fn a_provider_has_ten_seconds_for_all_of_it_however_it_spends_them() {
    // I43
    // From where the clock stands still, time passes in no time, to the next moment that somebody waits for.
    let double = Double::start().await;
    let begun = Instant::now();
    let dripped = double.ask(async |double| {
        let mut stream = double.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        tokio::time::pause();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let refused = dripped.await.unwrap_err();
    assert_eq!(refused.0, "no answer within 10 s");
    assert!((10..12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());

    tokio::time::resume();
    let begun = Instant::now();
    let silent = double.ask(async |double| {
        let connection = double.listener.accept().await.unwrap();
        tokio::time::pause();
        connection
    });
    let refused = silent.await.unwrap_err();
    assert_eq!(refused.0, "no answer within 10 s");
    assert!((10..12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}
