//! What runs through the Kubernetes service ends when the rules say so, and says why: a certificate's end, silence, locks.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, BodyStream, Empty, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::SendRequest,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use remoteler_core::{CaKind, Clock, Lock, LockTarget, Policy, PolicySource, RevocationTarget, Timestamp, TlsSerial};
use remoteler_tests::{Certificate, KubeFixture};
use tokio::time::timeout;

use super::{LIMIT, message};

/// A watch of pods that has begun.
struct Watch {
    frames: BodyStream<Incoming>,
    _connection: SendRequest<Empty<Bytes>>,
}

impl Watch {
    async fn begin(fixture: &KubeFixture, user: &Certificate) -> Self {
        let io = TokioIo::new(fixture.connect(Some(user), "h2").await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("https://p{}/api/v1/namespaces/dev/pods?watch=true", fixture.prefix("staging"));
        let watch = Request::get(uri).body(Empty::new()).unwrap();
        let response = sender.send_request(watch).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut frames = BodyStream::new(response.into_body());
        assert!(timeout(LIMIT, frames.next()).await.unwrap().unwrap().is_ok(), "the watch begins with what is there");
        Self { frames, _connection: sender }
    }

    /// What comes until it ends.
    async fn rest(mut self) -> String {
        let mut said = Vec::new();
        while let Some(Ok(frame)) = timeout(LIMIT, self.frames.next()).await.unwrap() {
            said.extend_from_slice(&frame.into_data().unwrap());
        }
        String::from_utf8(said).unwrap()
    }
}

fn user(name: &str) -> LockTarget {
    LockTarget { user: Some(name.parse().unwrap()), ..LockTarget::default() }
}

/// Puts a lock beside `rules`.
fn lock(fixture: &KubeFixture, rules: &Policy, target: LockTarget) {
    let lock = Lock { name: "x".into(), target, message: "call the help desk".into(), expires: None };
    fixture.policy.replace(Policy { locks: [lock].into_iter().collect(), ..rules.clone() });
}

/// Nothing is known any more of what has ended.
async fn forgotten(fixture: &KubeFixture) {
    let forgotten = async {
        while !fixture.live.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, forgotten).await.expect("what has ended is forgotten");
}

// I78
#[tokio::test]
async fn a_watch_ends_when_the_certificate_does_and_the_next_request_is_refused() {
    let (_api_server, fixture, _) = KubeFixture::start_for_ann().await.unwrap();
    let mut short = fixture.user("ann", &["developer"]);
    // Certificates count whole seconds.
    short.valid.1 = Timestamp::from_unix_seconds(fixture.clock.now().unix_seconds() + 3);
    let ann = fixture.issue(&short).unwrap();
    let watch = Watch::begin(&fixture, &ann).await;
    fixture.clock.advance(Duration::from_secs(4));
    assert_eq!(fixture.live.look().ended.len(), 1);
    let last = watch.rest().await;
    assert!(last.contains("\"ERROR\"") && last.contains("expired"), "{last}");
    assert_eq!(fixture.get(&ann, "/version").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(fixture.refusals().last().unwrap().1.contains("expired"));
}

// I78
#[tokio::test]
async fn a_watch_that_says_something_goes_on_and_a_silent_one_ends_after_the_time_for_silence() {
    let (_api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let mut rules = Policy::clone(&fixture.policy.policy());
    rules.settings.client_idle_timeout_seconds = Some(60);
    fixture.policy.replace(rules);
    let watch = Watch::begin(&fixture, &ann).await;

    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(fixture.live.look().ended.len(), 0, "there was an event since the last look");
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(fixture.live.look().ended.len(), 1);
    let last = watch.rest().await;
    assert!(last.contains("nothing happened for 60 s"), "{last}");
}

// I79
#[tokio::test]
async fn a_lock_ends_a_watch_with_its_message_and_refuses_the_next_request() {
    let (_api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let watch = Watch::begin(&fixture, &ann).await;

    let rules = Policy::clone(&fixture.policy.policy());
    lock(&fixture, &rules, user("ann"));
    assert_eq!(fixture.live.look().ended.len(), 1);
    let said = watch.rest().await;
    let event: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(event["type"], "ERROR");
    let told = event["object"]["message"].as_str().unwrap();
    assert_eq!(told, "locked by an administrator (user ann): call the help desk");

    let refused = fixture.get(&ann, "/version").await.unwrap();
    assert!(refused.status() == StatusCode::FORBIDDEN && message(&refused).contains("call the help desk"));
    assert!(fixture.refusals().last().unwrap().1.contains("call the help desk"));
    fixture.policy.replace(rules);
    assert_eq!(fixture.get(&ann, "/version").await.unwrap().status(), StatusCode::OK);
    forgotten(&fixture).await;
}

// I79
#[tokio::test]
async fn locks_on_role_serial_cluster_and_kubernetes_cluster_end_what_they_name_alone() {
    let (_api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    let serial = x509_parser::parse_x509_certificate(&ann.chain()[0]).unwrap().1.raw_serial().to_vec();
    let mut other = serial.clone();
    *other.last_mut().unwrap() ^= 1;
    let certificate = |authority, serial: &[u8]| {
        let serial = TlsSerial::from_octets(serial).unwrap();
        LockTarget::of_serial(RevocationTarget::TlsSerial { authority, serial })
    };
    let any = LockTarget::default;
    let kube = |name: &str| LockTarget { kube_cluster: Some(name.parse().unwrap()), ..any() };
    let rules = Policy::clone(&fixture.policy.policy());
    for (target, ends) in [
        (LockTarget { role: Some("developer".parse().unwrap()), ..any() }, true),
        (LockTarget { role: Some("nobody".parse().unwrap()), ..any() }, false),
        (certificate(CaKind::User, &serial), true),
        (certificate(CaKind::User, &other), false),
        (certificate(CaKind::Host, &serial), false),
        (LockTarget { cluster: Some("root.example.com".parse().unwrap()), ..any() }, true),
        (LockTarget { cluster: Some("other.example.com".parse().unwrap()), ..any() }, false),
        (kube("staging"), true),
        (kube("production"), false),
        (LockTarget { user: user("ann").user, ..kube("production") }, false),
        // An account of an operating system is nothing in Kubernetes.
        (LockTarget { login: Some("ann".parse().unwrap()), ..any() }, false),
    ] {
        let watch = Watch::begin(&fixture, &ann).await;

        let shown = target.to_string();
        lock(&fixture, &rules, target);
        assert_eq!(fixture.live.look().ended.len(), usize::from(ends), "{shown}");
        let next = fixture.get(&ann, "/version").await.unwrap();
        if ends {
            assert!(watch.rest().await.contains("call the help desk"), "{shown}");
            assert_eq!(next.status(), StatusCode::FORBIDDEN, "{shown}");
        } else {
            assert_eq!(next.status(), StatusCode::OK, "{shown}");
            drop(watch);
        }
        fixture.policy.replace(rules.clone());
        forgotten(&fixture).await;
    }
}

// I79
#[tokio::test]
async fn a_lock_ends_a_request_whose_answer_has_not_begun_whether_its_body_is_sent_or_not() {
    let (api_server, fixture, ann) = KubeFixture::start_for_ann().await.unwrap();
    api_server.stall("/stalled");
    let rules = Policy::clone(&fixture.policy.policy());
    for finished in [true, false] {
        let stream = fixture.connect(Some(&ann), "h2").await.unwrap();
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let (begun, rest) = (futures::stream::iter([Bytes::from_static(b"{")]), futures::stream::pending());
        let octets = if finished { begun.boxed() } else { begun.chain(rest).boxed() };
        let body = StreamBody::new(octets.map(|octets| Ok::<_, std::convert::Infallible>(Frame::data(octets))));
        let uri = format!("https://p{}/stalled", fixture.prefix("staging"));
        let before = api_server.seen().len();
        let asked = tokio::spawn(sender.send_request(Request::post(uri).body(body).unwrap()));
        let arrived = async {
            while api_server.seen().len() == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, arrived).await.expect("the request is at the API server");

        lock(&fixture, &rules, user("ann"));
        assert_eq!(fixture.live.look().ended.len(), 1);
        let answer = timeout(LIMIT, asked).await.unwrap().unwrap().unwrap();
        let (parts, body) = answer.into_parts();
        let answer = Response::from_parts(parts, body.collect().await.unwrap().to_bytes());
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "finished: {finished}");
        assert!(message(&answer).contains("call the help desk"), "{}", message(&answer));
        fixture.policy.replace(rules.clone());
    }
}
