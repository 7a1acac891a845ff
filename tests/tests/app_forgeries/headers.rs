//! Claims of the client in headers, and names of other hosts.

use remoteler_tests::told;

use crate::{World, status};

/// What must not be believed, however it is written.
const CLAIMS: &[&str] = &[
    "Remoteler-Jwt-Assertion: forged",
    "remoteler-jwt-assertion: forged",
    "REMOTELER-JWT-ASSERTION: forged",
    "Remoteler_Jwt_Assertion: forged",
    "remoteler-jwt_assertion: forged",
    "X-Remoteler-User: forged",
    "X-Forwarded-For: forged",
    "X_FORWARDED_FOR: forged",
    "x-forwarded-for: 127.0.0.1, forged",
    "X-Forwarded-Host: forged.example",
    "X-Forwarded_Proto: forged",
    "X-Forwarded-User: forged",
    "Forwarded: for=forged",
    "Via: 1.1 forged",
    "X-Real-IP: forged",
    "True-Client-IP: forged",
    "Remote-User: forged",
    "Remote_User: forged",
    "X-Remote-User: forged",
    "X-WebAuth-User: forged",
    "X-Auth-Request-Email: forged",
    "X-Original-URL: /forged",
    "X_Rewrite_Url: /forged",
    "Tailscale-User-Login: forged",
    "Proxy-Authorization: Basic forged",
    "Keep-Alive: forged",
    "TE: trailers, forged",
    "Trailer: forged",
    "Upgrade: forged/1",
    "HTTP2-Settings: forged",
    "Cookie: __host-Remoteler-app=forged",
    "Cookie: =__Host-remoteler-app-state=forged",
];

// I53
#[test]
fn claims_of_a_client_reach_no_app_whatever_their_spelling_and_whatever_connection_names() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        for connection in [
            "",
            "Connection: X-Forwarded-For, Remoteler-Jwt-Assertion\r\n",
            "Connection: close, host, x-forwarded-host, x-forwarded-proto, cookie, X-Hop\r\nX-Hop: forged\r\n",
            "Connection: Remoteler_Jwt_Assertion\r\nConnection: X-Forwarded-For\r\nProxy-Connection: forged\r\n",
        ] {
            let target = format!("/echo/claims-{}", uuid::Uuid::new_v4());
            let claims = format!("{}\r\n", CLAIMS.join("\r\n"));
            let answer = door.send(format!("{}{claims}{connection}\r\n", door.start(&format!("GET {target}"))));
            assert_eq!(status(answer.as_ref()), Some(200), "{}: {connection}: {answer:?}", door.name);
            assert_eq!(world.truly(&world.ann, &target).len(), 1);
        }
    }
}

// I53
#[test]
fn what_else_a_client_says_passes_beside_what_is_taken_away() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        let target = format!("/echo/beside-{}", uuid::Uuid::new_v4());
        let others = "Authorization: Bearer of-the-app\r\nX-Forward: 1\r\nUser-Agent: me\r\nCookie: name=J\u{f6}rg\r\n";
        let answer = door.send(format!("{}{others}\r\n", door.start(&format!("GET {target}")))).unwrap();
        assert_eq!(answer.status(), 200, "{}: {answer:?}", door.name);
        let seen = world.truly(&world.ann, &target);
        assert_eq!(told(&seen[0], "authorization"), ["Bearer of-the-app"]);
        assert_eq!((told(&seen[0], "x-forward"), told(&seen[0], "user-agent")), (vec!["1"], vec!["me"]));
        assert_eq!(told(&seen[0], "cookie"), ["name=J\u{f6}rg"]); // I50: octets beside ours shut nobody out
    }
}

// I53
#[test]
fn trailers_carry_no_claims() {
    let world = World::shared();
    for door in world.doors(&world.ann) {
        let target = format!("/echo/trailers-{}", uuid::Uuid::new_v4());
        let head = door.start(&format!("POST {target}"));
        let answer = door.send(format!(
            "{head}Trailer: Remoteler-Jwt-Assertion, X-Forwarded-For\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nab\r\n0\r\nRemoteler-Jwt-Assertion: forged\r\nX-Forwarded-For: forged\r\nHost: forged.example\r\n\r\n"
        ));
        assert_eq!(status(answer.as_ref()), Some(200), "{}: {answer:?}", door.name);
        let seen = world.truly(&world.ann, &target);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0]["body"], "ab");
        assert!(told(&seen[0], "trailer").is_empty());
    }
}

// I13, I52, I53
#[test]
fn a_request_that_names_another_host_or_several_is_refused() {
    let world = World::shared();
    let other = world.apps.host("other");
    for door in world.doors(&world.ann) {
        let (host, own) = (door.host.clone(), door.cookie_field());
        for (what, line, hosts, refused) in [
            ("two hosts", "/", format!("Host: {host}\r\nHost: forged.example\r\n"), &[400, 421][..]),
            ("the same host twice", "/", format!("Host: {host}\r\nHost: {host}\r\n"), &[400, 421]),
            ("a list of hosts", "/", format!("Host: {host}, forged.example\r\n"), &[400, 421]),
            ("no host", "/", String::new(), &[400, 421]),
            ("an empty host", "/", "Host:\r\n".into(), &[400, 421]),
            ("another host", "/", "Host: forged.example\r\n".into(), &[421]),
            ("another app's host", "/", format!("Host: {other}\r\n"), &[421]),
            ("the proxy's host", "/", format!("Host: {}\r\n", world.apps.public_addr()), &[421]),
            ("a host with a dot", "/", format!("Host: forged.{host}\r\n"), &[421]),
            ("somebody's host", "/", format!("Host: {host}@forged.example\r\n"), &[400, 421]),
            ("absolute form", "https://forged.example/", format!("Host: {host}\r\n"), &[400, 421]),
            ("absolute form of another app", &format!("https://{other}/"), format!("Host: {host}\r\n"), &[400, 421]),
            ("own absolute form", &format!("{}/", door.origin), "Host: forged.example\r\n".into(), &[400, 421]),
            ("no path", "*", format!("Host: {host}\r\n"), &[400, 403]),
            ("an authority", "forged.example:443", format!("Host: {host}\r\n"), &[400, 421]),
        ] {
            let mark = uuid::Uuid::new_v4().to_string();
            let target = if line.ends_with('/') { format!("{line}{mark}") } else { line.to_owned() };
            let answer = door.send(format!("GET {target} HTTP/1.1\r\n{hosts}{own}X-Mark: {mark}\r\n\r\n"));
            let got = status(answer.as_ref());
            assert!(got.is_some_and(|status| refused.contains(&status)), "{}: {what}: {answer:?}", door.name);
            let sent = world.apps.app.seen().iter().any(|request| told(request, "x-mark") == [mark.as_str()]);
            assert!(!sent, "{}: {what}", door.name);
        }
        let mark = uuid::Uuid::new_v4().to_string();
        let answer = door.send(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{own}X-Mark: {mark}\r\n\r\n"));
        assert!(matches!(status(answer.as_ref()), Some(400 | 403 | 405)), "{}: {answer:?}", door.name);
        let absolute = format!("{}/echo/{mark}", door.origin);
        let answer = door.send(format!("{}\r\n", door.start(&format!("GET {absolute}"))));
        assert_eq!(status(answer.as_ref()), Some(200), "{}: {answer:?}", door.name);
        let seen = world.truly(&world.ann, &mark);
        assert_eq!((seen.len(), &seen[0]["target"]), (1, &format!("/echo/{mark}").into()));
    }
}

// I53
#[test]
fn no_connection_to_the_app_serves_two_users_or_two_sessions() {
    let world = World::shared();
    let persons = [&world.ann, &world.bob];
    let mut connections: Vec<(u64, String)> = Vec::new();
    let doors: Vec<_> = persons.into_iter().flat_map(|person| world.doors(person).map(|door| (person, door))).collect();
    let mut open: Vec<_> = doors.iter().map(|(_, door)| door.connect()).collect();
    for _ in 0..3 {
        for ((person, door), connection) in doors.iter().zip(&mut open) {
            let target = format!("/echo/own-{}", uuid::Uuid::new_v4());
            connection.write(format!("{}\r\n", door.start(&format!("GET {target}"))));
            assert_eq!(connection.answer().expect("an answer").status(), 200, "{}", door.name);
            let seen = world.truly(person, &target);
            connections.push((seen[0]["connection"].as_u64().unwrap(), format!("{} {}", person.name, door.name)));
        }
    }
    // One connection of a browser that shows another session with each request.
    let [ann, bob] = persons.map(|person| world.front("echo", &person.secrets[0]));
    let mut shared = ann.connect();
    for (person, door) in [(&world.ann, &ann), (&world.bob, &bob), (&world.ann, &ann), (&world.bob, &bob)] {
        let target = format!("/echo/by-turns-{}", uuid::Uuid::new_v4());
        shared.write(format!("{}\r\n", door.start(&format!("GET {target}"))));
        assert_eq!(shared.answer().expect("an answer").status(), 200);
        let seen = world.truly(person, &target);
        connections.push((seen[0]["connection"].as_u64().unwrap(), format!("{} by turns", person.name)));
    }
    for (number, whose) in &connections {
        assert!(connections.iter().all(|(other, by)| other != number || by == whose), "{connections:?}");
    }
    let of_ann = connections.iter().filter(|(_, whose)| whose == "ann tsh").collect::<std::collections::BTreeSet<_>>();
    assert_eq!(of_ann.len(), 1, "what one user's connection has is kept for it: {connections:?}");
}
