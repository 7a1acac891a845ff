//! Requests whose end, or whose headers, two servers could read differently, and those that are too large.

use remoteler_tests::{smuggled, told};

use crate::{Door, World, status};

/// A whole request with claims, for whoever would take it for one.
fn inner(mark: &str, host: &str) -> String {
    format!(
        "GET /echo/smuggled-{mark} HTTP/1.1\r\nHost: {host}\r\nRemoteler-Jwt-Assertion: forged\r\nX-Forwarded-For: forged\r\n\r\n"
    )
}

fn mark() -> String {
    uuid::Uuid::new_v4().to_string()
}

// I53, I61
#[test]
fn requests_that_two_servers_could_read_differently_reach_no_app_as_two() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        let outer = mark();
        let start = door.start(&format!("POST /echo/outer-{outer}"));
        for (what, octets) in smuggled(&start, &inner(&outer, "forged.example")) {
            let mut connection = door.connect();
            connection.write(&octets);
            let got = status(connection.answer().as_ref());
            assert!(got.is_none_or(|status| (400..500).contains(&status)), "{}: {what}: {got:?}", door.name);
            let rest = connection.rest();
            assert!(!rest.contains(" 200 "), "{}: {what}: {rest}", door.name);
        }
        assert!(world.truly(&world.ann, &outer).iter().all(|request| !request.to_string().contains("smuggled")));
    }
}

// I53, I61
#[test]
fn a_length_beside_chunks_counts_nowhere() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        let outer = mark();
        let start = door.start(&format!("POST /echo/outer-{outer}"));
        let chunks = format!("2\r\nab\r\n0\r\n\r\n{}", inner(&outer, &door.host));
        for lengths in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 400\r\n",
            "Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding, Content-Length\r\n",
        ] {
            let mut connection = door.connect();
            connection.write(format!("{start}{lengths}\r\n{chunks}"));
            let got = status(connection.answer().as_ref());
            assert!(matches!(got, Some(200 | 400)), "{}: {lengths}: {got:?}", door.name);
            let _ = connection.rest();
        }
        // What stands behind the last chunk is a request of the same client if it is any, and as true as every other.
        for request in world.truly(&world.ann, &outer) {
            assert!(told(&request, "content-length").is_empty() || told(&request, "transfer-encoding").is_empty());
            let is_outer = request["target"].as_str().unwrap().contains("outer");
            assert_eq!(request["body"], if is_outer { "ab" } else { "" });
        }
    }
}

// I53, I61
#[test]
fn what_stands_beside_chunks_goes_no_further() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        let target = mark();
        let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", door.start(&format!("POST /echo/{target}")));
        let answer = door.send(format!("{head}2;forged=1;b=\"forged\"\r\nab\r\n1 \r\nc\r\n0;forged\r\n\r\n"));
        assert_eq!(status(answer.as_ref()), Some(200), "{}: {answer:?}", door.name);
        let seen = world.truly(&world.ann, &target);
        assert_eq!((seen.len(), &seen[0]["body"]), (1, &"abc".into()), "{}", door.name);

        let endless = format!("{head}2;forged={}\r\nab\r\n0\r\n\r\n", "a".repeat(100 * 1024));
        let answer = door.send(endless);
        assert_ne!(status(answer.as_ref()), Some(200), "{}", door.name);
        let bare = format!("{head}2;forged\nab\r\n0\r\n\r\n");
        assert_ne!(status(door.send(bare).as_ref()), Some(200), "{}", door.name);
    }
}

// I53, I61
#[test]
fn headers_that_are_none_are_refused() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        let target = mark();
        let start = door.start(&format!("GET /echo/{target}"));
        for (what, line) in [
            ("a folded header", "X-A: b\r\n Remoteler-Jwt-Assertion: forged"),
            ("one that is folded by a tab", "X-A: b\r\n\tRemoteler-Jwt-Assertion: forged"),
            ("a claim that is folded", "Remoteler-Jwt-Assertion:\r\n forged"),
            ("a space before the colon", "Remoteler-Jwt-Assertion : forged"),
            ("a tab before the colon", "Remoteler-Jwt-Assertion\t: forged"),
            ("a space before the name", " Remoteler-Jwt-Assertion: forged"),
            ("no colon", "Remoteler-Jwt-Assertion forged"),
            ("no name", ": forged"),
            ("NUL in a name", "Remoteler-Jwt-Assertion\0: forged"),
            ("NUL in a value", "X-A: \0forged"),
            ("a bare CR", "X-A: b\rRemoteler-Jwt-Assertion: forged"),
            ("a letter that is no ASCII", "Remoteler-Jwt-\u{c4}ssertion: forged"),
        ] {
            let mut connection = door.connect();
            connection.write(format!("{start}{line}\r\n\r\n"));
            let got = status(connection.answer().as_ref());
            assert!(matches!(got, None | Some(400)), "{}: {what}: {got:?}", door.name);
        }
        // After the method, the target or the version there is nothing else.
        let rest = start.split_once("\r\n").unwrap().1;
        for line in [
            format!("GET /echo/{target} HTTP/1.1 forged"),
            format!("GET /echo/{target} /forged HTTP/1.1"),
            format!("GET /echo/{target}\tforged HTTP/1.1"),
            format!("GET /echo/{target} HTTP/1.2"),
            format!("GET echo/{target} HTTP/1.1"),
            format!("GET /echo/{target}"),
        ] {
            let answer = door.send(format!("{line}\r\n{rest}\r\n"));
            assert!(matches!(status(answer.as_ref()), None | Some(400 | 421)), "{}: {line}: {answer:?}", door.name);
        }
        assert!(world.seen(&target).is_empty(), "{}", door.name);
    }
}

// I62
#[test]
fn requests_beyond_the_limits_are_refused() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        let target = mark();
        let start = door.start(&format!("GET /echo/{target}"));
        let fields = |count: usize| "X-Many: 1\r\n".repeat(count);
        for (what, headers, refused) in [
            ("101 headers", fields(101), &[431][..]),
            ("1,000 headers", fields(1000), &[431]),
            ("64 KiB in one header", format!("X-Large: {}\r\n", "a".repeat(64 * 1024)), &[431]),
            ("64 KiB in many headers", format!("X-Large: {}\r\n", "a".repeat(1024)).repeat(64), &[431]),
            ("64 KiB of cookies", format!("Cookie: a={}\r\n", "a".repeat(64 * 1024)), &[431]),
            ("51 cookies", format!("Cookie: {}\r\n", vec!["a=b"; 51].join("; ")), &[431]),
            ("a name of 64 KiB", format!("{}: 1\r\n", "a".repeat(64 * 1024)), &[431]),
        ] {
            let answer = door.send(format!("{start}{headers}\r\n"));
            // Who still writes when the answer was sent may miss it.
            let got = status(answer.as_ref());
            assert!(got.is_none_or(|status| refused.contains(&status)), "{}: {what}: {answer:?}", door.name);
        }
        let long = door.send(format!("{}\r\n", door.start(&format!("GET /echo/{target}/{}", "a".repeat(8 * 1024)))));
        assert_eq!(status(long.as_ref()), Some(414), "{}", door.name);
        assert!(world.seen(&target).is_empty(), "{}", door.name);
        let many = door.send(format!("{start}{}\r\n", fields(80)));
        assert_eq!(status(many.as_ref()), Some(200), "{}: and what is within them passes: {many:?}", door.name);
    }
}

// I53
#[test]
fn a_hostile_app_is_answered_for_and_keeps_no_connection() {
    let world = World::shared();
    let good = |door: &Door| assert_eq!(door.get("/echo").status(), 200, "{}", door.name);
    for door in world.doors(&world.ann) {
        for target in ["/many-headers", "/large-headers"] {
            let answer = door.get(target);
            assert_eq!(answer.status(), 502, "{}: {target}: {answer:?}", door.name);
            assert!(answer.values("x-many").is_empty());
            good(&door);
        }
    }
}
