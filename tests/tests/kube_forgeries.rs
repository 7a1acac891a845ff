//! Requests to the Kubernetes service that `kubectl` never makes: forged headers, crooked paths, smuggled requests, upgrades that fail. What
//! counts is what reaches the API server's double, which fails every request that carries a claim of anybody but us.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use remoteler_tests::{KubeFixture, smuggled};

const NONE: Vec<String> = Vec::new();

const FORGED: &[(&str, &str)] = &[
    ("Impersonate-User", "root"),
    ("impersonate-user", "root"),
    ("IMPERSONATE-GROUP", "system:masters"),
    ("Impersonate_User", "root"),
    ("Impersonate-Uid", "0"),
    ("Impersonate-Extra-Scopes", "all"),
    ("X-Remote-User", "root"),
    ("X_Remote_Group", "system:masters"),
    ("Authorization", "Bearer stolen"),
    ("Authorization", "Bearer stolen-twice"),
    ("Proxy-Authorization", "Basic stolen"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("TE", "trailers"),
];

// I53, I55: the double fails every request that carries any of these.
#[tokio::test]
async fn claims_of_the_client_do_not_reach_the_api_server_over_http_1_and_2() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    for alpn in ["http/1.1", "h2"] {
        for connection in
            [None, Some("Impersonate-User, Authorization, X-Remote-User"), Some("close, impersonate-group")]
        {
            let mut request = if alpn == "h2" {
                let uri = format!("https://proxy.example.com{}/api/v1/namespaces/dev/pods", fixture.prefix("staging"));
                Request::get(uri).body(Bytes::new()).unwrap()
            } else {
                fixture.asking_for("/api/v1/namespaces/dev/pods").body(Bytes::new()).unwrap()
            };
            for (name, value) in FORGED {
                request.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            if let (Some(named), "http/1.1") = (connection, alpn) {
                request.headers_mut().append("connection", HeaderValue::from_static(named));
            }
            let response = fixture.send(Some(&ann), alpn, request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{:?}", response.body());
        }
    }
    assert_eq!(api_server.violations(), NONE);
    assert_eq!(api_server.seen().len(), 6);
}

// I53, I55
#[tokio::test]
async fn trailers_and_folded_headers_carry_no_claims() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let prefix = fixture.prefix("staging");
    let chunked = format!(
        "POST {prefix}/apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: p\r\nTrailer: Impersonate-User\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{{}}\r\n0\r\nImpersonate-User: root\r\n\r\n"
    );
    let answer = fixture.raw(&ann, &chunked, "userInfo").await.unwrap();
    assert!(answer.contains(r#""username":"ann""#), "{answer}");
    let folded = format!(
        "GET {prefix}/version HTTP/1.1\r\nHost: p\r\nX-A: b\r\n Impersonate-User: root\r\nConnection: close\r\n\r\n"
    );
    fixture.raw(&ann, &folded, "never said").await.unwrap();
    assert_eq!(api_server.violations(), NONE);
}

// I53, I55, I58
#[tokio::test]
async fn claims_do_not_reach_the_api_server_in_upgrades_and_bearer_protocols_are_taken_out() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let path = format!("{}/api/v1/namespaces/dev/pods/web/exec?command=true&stdout=true", fixture.prefix("staging"));
    let forged: String = FORGED.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let websocket = "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.c3RvbGVu, v5.channel.k8s.io\r\n";
    let spdy = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
    for upgrade in [websocket, spdy] {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: p\r\nConnection: Upgrade, Authorization\r\n{upgrade}{forged}\r\n");
        let answer = fixture.raw(&ann, &head, "\r\n\r\n").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    }
    assert_eq!(api_server.violations(), NONE);
    for seen in api_server.seen() {
        assert!(!format!("{:?}", seen.headers).contains("bearer.authorization"), "{seen:?}");
    }
}

// I53, I58
#[tokio::test]
async fn an_upgrade_that_is_refused_or_answered_otherwise_leaves_no_pipe() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let head = |path: &str| {
        format!(
            "GET {}{path} HTTP/1.1\r\nHost: p\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
            fixture.prefix("staging")
        )
    };
    api_server.answer("/refused", Response::builder().status(403).body(Bytes::from_static(b"no exec today")).unwrap());
    let answer = fixture.raw(&ann, &head("/refused"), "no exec today").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");

    let other = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
    api_server.answer("/other", other.body(Bytes::new()).unwrap());
    let answer = fixture.raw(&ann, &head("/other"), "}").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");

    // Unknown protocols are not heard: an ordinary answer.
    let head = format!(
        "GET {}/version HTTP/1.1\r\nHost: p\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        fixture.prefix("staging")
    );
    let answer = fixture.raw(&ann, &head, "gitVersion").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(api_server.violations(), NONE);
}

// I58
#[tokio::test]
async fn redirects_of_the_api_server_are_passed_on_and_not_followed() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let elsewhere = Response::builder().status(302).header("location", "https://elsewhere/steal");
    api_server.answer("/moved", elsewhere.body(Bytes::new()).unwrap());
    let response = fixture.get(&ann, "/moved").await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(api_server.seen().len(), 1);
}

// I59
#[tokio::test]
async fn crooked_paths_are_refused_and_recorded() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let prefix = fixture.prefix("staging");
    let crooked = [
        format!("{prefix}/api/../version"),
        format!("{prefix}/api/%2e%2e/version"),
        format!("{prefix}/api//v1"),
        format!("{prefix}/api/v1%2fpods"),
        format!("{prefix}/api/v1;a=b"),
        format!("{prefix}/api/v1%252fpods"),
        format!("{prefix}/version."),
        format!("https://elsewhere{prefix}/version"),
    ];
    for target in &crooked {
        let head = format!("GET {target} HTTP/1.1\r\nHost: p\r\n\r\n");
        let answer = fixture.raw(&ann, &head, "}").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{target}: {answer}");
    }
    assert_eq!(fixture.refusals().len(), crooked.len());
    assert!(fixture.refusals().iter().all(|(user, _)| user == "ann"));
    assert!(api_server.seen().is_empty());
}

// I61
#[tokio::test]
async fn requests_that_two_servers_could_read_differently_are_not_passed_on_as_two() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let prefix = fixture.prefix("staging");
    let start = format!("POST {prefix}/apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: p\r\n");
    let inner = format!("GET {prefix}/smuggled HTTP/1.1\r\nHost: p\r\n\r\n");
    let mut cases = smuggled(&start, &inner);
    cases.extend([
        ("two hosts", format!("GET {prefix}/version HTTP/1.1\r\nHost: p\r\nHost: q\r\n\r\n")),
        ("no host", format!("GET {prefix}/version HTTP/1.1\r\n\r\n")),
    ]);
    for (what, octets) in &cases {
        let answer = fixture.raw(&ann, octets, "\r\n\r\n").await.unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"),
            "{what}: {answer}"
        );
    }
    // A length beside chunks: the chunks count (RFC 9112 section 6.3), and what goes on is framed anew.
    let both = format!(
        "{start}Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{inner}"
    );
    fixture.raw(&ann, &both, "userInfo").await.unwrap();
    for seen in api_server.seen() {
        assert!(!seen.target.contains("smuggled"), "{seen:?}");
        assert!(!(seen.headers.contains_key("content-length") && seen.headers.contains_key("transfer-encoding")));
    }
    assert_eq!(api_server.violations(), NONE);
}

// I62
#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let long = format!("/{}", "a".repeat(9000));
    assert_eq!(fixture.get(&ann, &long).await.unwrap().status(), StatusCode::URI_TOO_LONG);
    let cookies = fixture.asking_for("/version").header("cookie", "a=b; ".repeat(60)).body(Bytes::new()).unwrap();
    let response = fixture.send(Some(&ann), "http/1.1", cookies).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let mut many = fixture.asking_for("/version").body(Bytes::new()).unwrap();
    for _ in 0..150 {
        many.headers_mut().append("x-many", HeaderValue::from_static("1"));
    }
    let response = fixture.send(Some(&ann), "http/1.1", many).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(api_server.seen().is_empty());
}
