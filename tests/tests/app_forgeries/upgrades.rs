//! Connections that are to leave HTTP, and those that are not to.

use crate::{Door, World, status};

const WEB_SOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn asking(door: &Door, target: &str, headers: &str) -> String {
    format!("{}{headers}\r\n", door.start(&format!("GET {target}")))
}

/// What would be heard as a request of its own by an app to which octets were copied.
fn tunnelled(world: &World, mark: &str) -> String {
    let inside = world.apps.app.uri().replace("http://", "");
    format!("GET /echo/tunnelled-{mark} HTTP/1.1\r\nHost: {inside}\r\nRemoteler-Jwt-Assertion: forged\r\n\r\n")
}

fn mark() -> String {
    uuid::Uuid::new_v4().to_string()
}

// I53
#[test]
fn octets_are_copied_after_the_app_has_said_101_and_claims_are_taken_out_before() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        let mark = mark();
        let claims = "Remoteler-Jwt-Assertion: forged\r\nX_Forwarded_For: forged\r\nSec-WebSocket-Protocol: chat\r\n";
        let mut connection = door.connect();
        connection.write(asking(&door, &format!("/ws?{mark}"), &format!("{WEB_SOCKET}{claims}")));
        let answer = connection.answer().expect("an answer");
        assert_eq!(answer.status(), 101, "{}: {answer:?}", door.name);
        assert_eq!(answer.values("sec-websocket-accept"), ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
        assert_eq!(connection.read(6).expect("a frame"), b"\x81\x04tick");
        assert_eq!(world.truly(&world.ann, &mark).len(), 1);
    }
}

// I53, I58
#[test]
fn after_an_upgrade_that_the_app_refuses_no_octet_is_copied() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        for (target, expected) in [("/refuses", 403), ("/echo", 200), ("/redirect", 302)] {
            let mark = mark();
            let mut connection = door.connect();
            let asked = asking(&door, &format!("{target}?{mark}"), WEB_SOCKET);
            connection.write(format!("{asked}{}", tunnelled(&world, &mark)));
            let answer = connection.answer().expect("an answer");
            assert_eq!(answer.status(), expected, "{}: {target}: {answer:?}", door.name);
            assert!(answer.values("upgrade").is_empty(), "{answer:?}");
            let _ = connection.rest();
            // It was read as a request, if at all, and not handed on as it was.
            world.truly(&world.ann, &mark);

            let mut connection = door.connect();
            connection.write([asked.as_bytes(), b"\x81\x85mask\x05\x04\x1f\x07\x02"].concat());
            assert_eq!(connection.answer().expect("an answer").status(), expected);
            let rest = connection.rest();
            assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400"), "{}: {target}: {rest}", door.name);
            assert_eq!(door.get("/echo").status(), 200);
        }
    }
}

// I53
#[test]
fn a_switch_of_protocols_that_nobody_asked_for_is_502_and_copies_nothing() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        for (target, headers) in [
            ("/switches", ""),
            ("/switches", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            ("/switches", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
            ("/switches", "Connection: close\r\nUpgrade: websocket\r\n"),
            ("/switches-elsewhere", ""),
            ("/switches-elsewhere", WEB_SOCKET),
            ("/switches-elsewhere", "Connection: Upgrade\r\nUpgrade: elsewhere\r\n"),
        ] {
            let mark = mark();
            let mut connection = door.connect();
            let asked = asking(&door, &format!("{target}?{mark}"), headers);
            connection.write(format!("{asked}{}", tunnelled(&world, &mark)));
            let answer = connection.answer().expect("an answer");
            assert_eq!(answer.status(), 502, "{}: {target} {headers}: {answer:?}", door.name);
            let _ = connection.rest();
            world.truly(&world.ann, &mark);
            assert_eq!(door.get("/echo").status(), 200);
        }
    }
}

// I53
#[test]
fn a_wish_for_another_protocol_than_a_web_socket_is_not_heard() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        for headers in [
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            "Connection: Upgrade\r\nUpgrade: forged\r\n",
            "Upgrade: websocket\r\n",
        ] {
            let mark = mark();
            let answer = door.send(asking(&door, &format!("/echo?{mark}"), headers));
            assert_eq!(status(answer.as_ref()), Some(200), "{}: {headers}: {answer:?}", door.name);
            let seen = world.truly(&world.ann, &mark);
            assert_eq!(seen.len(), 1);
            for gone in ["upgrade", "connection", "http2-settings"] {
                assert!(remoteler_tests::told(&seen[0], gone).is_empty(), "{gone}: {}", seen[0]);
            }
        }
    }
}

// I53, I61
#[test]
fn a_wish_to_upgrade_that_has_a_body_is_refused() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        for (headers, body) in
            [("Content-Length: 5\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")]
        {
            let mark = mark();
            let mut connection = door.connect();
            let asked = asking(&door, &format!("/ws?{mark}"), &format!("{WEB_SOCKET}{headers}"));
            connection.write(format!("{asked}{body}"));
            let got = status(connection.answer().as_ref());
            assert_eq!(got, Some(400), "{}: {headers}", door.name);
            assert!(world.seen(&mark).is_empty(), "{}: {headers}", door.name);
        }
    }
}
