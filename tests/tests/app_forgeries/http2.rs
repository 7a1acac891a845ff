//! The same over HTTP/2, in frames of the test's own (RFC 9113): no client would send most of them.

use remoteler_tests::RawHttp;

use crate::{Door, World};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered(u16),
    /// The stream, or the connection, was ended.
    Ended,
}

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// A request of a page of the app: what must be there, then `more`.
fn fields<'a>(door: &'a Door, method: &'a str, target: &'a str, more: &[(&'a str, &'a str)]) -> Fields<'a> {
    let mut all = vec![(":method", method), (":scheme", "https"), (":authority", &*door.host), (":path", target)];
    all.push(("origin", &door.origin));
    all.extend(door.cookie.as_deref().map(|cookie| ("cookie", cookie)));
    all.extend(more);
    all
}

/// Sends one request, with a body and trailers if there are any, and waits for what comes of it.
fn send(door: &Door, head: &[(&str, &str)], body: Option<&str>, trailers: &[(&str, &str)]) -> Fate {
    let mut connection = (door.connect)("h2");
    connection.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    write_frame(&mut connection, SETTINGS, 0, 0, &[]);
    let has_more = body.is_some() || !trailers.is_empty();
    write_block(&mut connection, head, if has_more { 0 } else { END_STREAM });
    if let Some(body) = body {
        write_frame(&mut connection, DATA, if trailers.is_empty() { END_STREAM } else { 0 }, 1, body.as_bytes());
    }
    if !trailers.is_empty() {
        write_block(&mut connection, trailers, END_STREAM);
    }
    let mut answered = None;
    while let Some((kind, flags, payload)) = read_frame(&mut connection) {
        match kind {
            SETTINGS if flags & ACK == 0 => write_frame(&mut connection, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => write_frame(&mut connection, PING, ACK, 0, &payload),
            HEADERS => answered = answered.or(Some(Fate::Answered(status(&payload)))),
            RESET | GO_AWAY => return answered.unwrap_or(Fate::Ended),
            _ => {}
        }
        if let Some(answered) = answered.filter(|_| matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0) {
            return answered;
        }
    }
    answered.unwrap_or(Fate::Ended)
}

fn write_frame(connection: &mut RawHttp, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, stream]);
    frame.extend(payload);
    connection.write(frame);
}

/// Headers, in as many frames as they need.
fn write_block(connection: &mut RawHttp, fields: &[(&str, &str)], flags: u8) {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    let pieces: Vec<_> = block.chunks(16_384).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let (kind, flags) = if index == 0 { (HEADERS, flags) } else { (CONTINUATION, 0) };
        let end = if index + 1 == pieces.len() { END_HEADERS } else { 0 };
        write_frame(connection, kind, flags | end, 1, piece);
    }
}

/// A literal header field that is not indexed, as it is written (RFC 7541 section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut octets = vec![0];
    for text in [name, value] {
        let mut length = text.len();
        if length < 127 {
            octets.push(u8::try_from(length).unwrap());
        } else {
            octets.push(127);
            length -= 127;
            while length >= 128 {
                octets.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            octets.push(u8::try_from(length).unwrap());
        }
        octets.extend(text.bytes());
    }
    octets
}

fn read_frame(connection: &mut RawHttp) -> Option<(u8, u8, Vec<u8>)> {
    let head = connection.read(9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    Some((head[3], head[4], connection.read(length)?))
}

/// `:status`, with which the first answer of a connection begins (RFC 7541 sections 5 and 6, appendices A and B).
fn status(block: &[u8]) -> u16 {
    let skipped = block.iter().position(|octet| octet & 0xe0 != 0x20).expect("a field");
    let block = &block[skipped..];
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    if block[0] & 0x80 != 0 {
        return KNOWN[usize::from(block[0] & 0x7f) - 8];
    }
    let text = &block[2..2 + usize::from(block[1] & 0x7f)];
    if block[1] & 0x80 == 0 {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    // Huffman: 0, 1 and 2 have five bits, 00000 to 00010, the other digits six, 011001 to 011111.
    let bits: Vec<u16> =
        text.iter().flat_map(|octet| (0..8).rev().map(move |bit| u16::from(octet >> bit & 1))).collect();
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let five = bits[at..at + 5].iter().fold(0, |all, bit| all << 1 | bit);
        let six = five << 1 | bits.get(at + 5).copied().unwrap_or_default();
        let (digit, length) = if five <= 2 { (five, 5) } else { (six - 0b01_1001 + 3, 6) };
        (status, at) = (status * 10 + digit, at + length);
    }
    status
}

fn mark() -> String {
    uuid::Uuid::new_v4().to_string()
}

// I53
#[test]
fn claims_of_a_client_reach_no_app_over_http_2_in_headers_or_trailers() {
    let world = World::shared();
    let claims = [
        ("remoteler-jwt-assertion", "forged"),
        ("remoteler_jwt_assertion", "forged"),
        ("x-remoteler-user", "forged"),
        ("x-forwarded-for", "forged"),
        ("x_forwarded_for", "127.0.0.1, forged"),
        ("x-forwarded-host", "forged.example"),
        ("forwarded", "for=forged"),
        ("x-real-ip", "forged"),
        ("remote-user", "forged"),
        ("x-original-url", "/forged"),
        ("trailer", "forged"),
        ("te", "trailers"),
        ("expect", "forged"),
        ("cookie", "__host-Remoteler-app-state=forged"),
        ("cookie", "=__Host-remoteler-app=forged"),
    ];
    for door in world.doors(&world.ann) {
        let target = format!("/echo/{}", mark());
        assert_eq!(
            send(&door, &fields(&door, "GET", &target, &claims), None, &[]),
            Fate::Answered(200),
            "{}",
            door.name
        );
        assert_eq!(world.truly(&world.ann, &target).len(), 1);

        let target = format!("/echo/{}", mark());
        let fate = send(&door, &fields(&door, "POST", &target, &claims), Some("ab"), &claims[..4]);
        assert_eq!(fate, Fate::Answered(200), "{}", door.name);
        let seen = world.truly(&world.ann, &target);
        assert_eq!((seen.len(), &seen[0]["body"]), (1, &"ab".into()));
    }
}

// I13, I52, I53
#[test]
fn over_http_2_only_the_hosts_own_name_is_answered_and_no_host_beside_it_is_passed_on() {
    let world = World::shared();
    let other = world.apps.host("other");
    for door in world.doors(&world.ann) {
        for authority in [Some("forged.example"), Some(other.as_str()), Some("forged@example"), None] {
            for host in [None, Some(door.host.as_str()), Some("forged.example")] {
                let target = format!("/echo/{}", mark());
                let mut head = fields(&door, "GET", &target, &[]);
                head.retain(|(name, _)| *name != ":authority");
                if let Some(authority) = authority {
                    head.insert(3, (":authority", authority));
                }
                head.extend(host.map(|host| ("host", host)));
                let fate = send(&door, &head, None, &[]);
                let right = authority.is_none() && host == Some(door.host.as_str());
                assert_eq!(fate == Fate::Answered(200), right, "{}: {authority:?} {host:?}: {fate:?}", door.name);
                assert_eq!(world.truly(&world.ann, &target).len(), usize::from(right), "{authority:?} {host:?}");
            }
        }
        let target = format!("/echo/{}", mark());
        let fate = send(&door, &fields(&door, "GET", &target, &[("host", "forged.example")]), None, &[]);
        assert!(matches!(fate, Fate::Answered(200 | 400 | 421)), "{}: {fate:?}", door.name);
        assert_eq!(world.truly(&world.ann, &target).len(), usize::from(fate == Fate::Answered(200)));
        let twice = [("host", door.host.as_str()), ("host", "forged.example")];
        let fate = send(&door, &fields(&door, "GET", &target, &twice), None, &[]);
        assert!(matches!(fate, Fate::Answered(400 | 421)), "{}: {fate:?}", door.name);
    }
}

// I53, I61
#[test]
fn requests_that_are_none_of_http_2_reach_no_app() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        let target = format!("/echo/{}", mark());
        for more in [
            ("connection", "x-forwarded-for, remoteler-jwt-assertion"),
            ("keep-alive", "1"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("Remoteler-Jwt-Assertion", "forged"),
            ("remoteler-jwt-assertion ", "forged"),
            ("remoteler-jwt-assertion: forged\r\nx-a", "b"),
            ("x-a", "b\r\nremoteler-jwt-assertion: forged"),
            ("x-a", "b\nremoteler-jwt-assertion: forged"),
            ("x-a", "b\0"),
            ("", "forged"),
            ("content-length", "5"),
            ("content-length", "-1"),
            (":path", "/forged"),
            (":authority", "forged.example"),
            (":protocol", "websocket"),
            (":status", "200"),
            (":forged", "1"),
        ] {
            let fate = send(&door, &fields(&door, "GET", &target, &[more]), None, &[]);
            let refused = matches!(fate, Fate::Ended | Fate::Answered(400..500));
            assert!(refused, "{}: {more:?}: {fate:?}", door.name);
        }
        for (what, index, instead) in [
            ("no method", 0, None),
            ("a method with a space", 0, Some((":method", "GET /forged"))),
            ("a tunnel", 0, Some((":method", "CONNECT"))),
            ("a path without a slash", 3, Some((":path", "echo/forged"))),
            ("a path that ends the line", 3, Some((":path", "/echo HTTP/1.1\r\nx-a: forged"))),
            ("a path with a space", 3, Some((":path", "/echo/ forged"))),
            ("an absolute path", 3, Some((":path", "https://forged.example/echo"))),
            ("an authority with a path", 2, Some((":authority", "forged.example/echo"))),
            ("no path", 3, None),
            ("an empty path", 3, Some((":path", ""))),
        ] {
            let mut head = fields(&door, "GET", &target, &[("x-mark", &target)]);
            head.remove(index);
            if let Some(instead) = instead {
                head.insert(index, instead);
            }
            let fate = send(&door, &head, None, &[]);
            assert!(matches!(fate, Fate::Ended | Fate::Answered(400..500)), "{}: {what}: {fate:?}", door.name);
        }
        assert!(!world.apps.app.seen().iter().any(|request| request.to_string().contains(&target)), "{}", door.name);
    }
}

// I62
#[test]
fn requests_beyond_the_limits_are_refused_over_http_2() {
    let world = World::shared();
    let (large, name) = ("a".repeat(64 * 1024), "a".repeat(16 * 1024));
    for door in world.doors(&world.ann) {
        let target = format!("/echo/{}", mark());
        let many = [("x-many", "1")].repeat(101);
        for (what, more) in [
            ("101 headers", many.as_slice()),
            ("64 KiB in one header", &[("x-large", large.as_str())]),
            ("64 KiB in cookies", &[("cookie", name.as_str())].repeat(4)),
            ("64 KiB in names", &[(name.as_str(), "1")].repeat(4)),
        ] {
            let fate = send(&door, &fields(&door, "GET", &target, more), None, &[]);
            assert!(matches!(fate, Fate::Ended | Fate::Answered(431)), "{}: {what}: {fate:?}", door.name);
        }
        assert!(world.seen(&target).is_empty(), "{}", door.name);
    }
}

// I53
#[test]
fn a_switch_of_protocols_is_502_over_http_2_where_nobody_can_ask_for_one() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        for target in ["/switches", "/switches-elsewhere"] {
            let fate = send(&door, &fields(&door, "GET", target, &[]), None, &[]);
            assert_eq!(fate, Fate::Answered(502), "{}: {target}", door.name);
        }
        let tunnel: &[(&str, &str)] = &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", &door.host),
            (":path", "/ws"),
            ("origin", &door.origin),
            ("sec-websocket-version", "13"),
        ];
        let cookie = door.cookie.as_deref().map(|cookie| ("cookie", cookie));
        let tunnel: Vec<_> = tunnel.iter().copied().chain(cookie).collect();
        let fate = send(&door, &tunnel, Some("octets"), &[]);
        assert!(matches!(fate, Fate::Ended | Fate::Answered(400..500)), "{}: {fate:?}", door.name);
    }
}
