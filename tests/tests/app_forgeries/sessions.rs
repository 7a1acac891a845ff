//! Sessions of browsers with apps: whose a cookie is, where it counts, and when it ends at each proxy.

use std::time::{Duration, SystemTime};

use remoteler_core::{AppName, ClusterName};
use remoteler_tests::{AppCluster, Cluster, Edge, Proxy, RawHttp, User, eventually, tls_client};

use crate::World;

// I50, I51
#[test]
fn a_cookie_counts_for_its_own_app_and_user_and_no_other_text_does() {
    let world = World::shared();
    let [echo, other] = &world.ann.secrets;
    let started = world.apps.cluster.event("app.session.start", |event| event["user"] == "ann");
    let sid = started["sid"].as_str().unwrap().replace('-', "");
    let cookie = |value: &str| format!("__Host-remoteler-app={value}");
    for (app, cookies) in [
        ("other", cookie(echo)),
        ("echo", cookie(other)),
        ("echo", cookie(&sid)),
        ("echo", cookie(&sid.repeat(2))),
        ("echo", cookie(&"5a".repeat(32))),
        ("echo", cookie(&format!("{echo}0"))),
        ("echo", cookie(&format!("\"{echo}\""))),
        ("echo", format!("__host-remoteler-app={echo}")),
        ("echo", format!("__Host-remoteler-app-state={echo}")),
        ("echo", format!("{}; {}", cookie(echo), cookie(&world.bob.secrets[0]))),
        ("echo", format!("{}\r\nCookie: {}", cookie(echo), cookie(&world.bob.secrets[0]))),
    ] {
        let target = format!("/echo/{}", uuid::Uuid::new_v4());
        let mut door = world.front(app, "");
        door.cookie = Some(cookies.clone());
        let answer = door.get(&target);
        assert_eq!(answer.status(), 302, "{app}: {cookies}: {answer:?}");
        assert!(answer.values("location")[0].contains("/web/launch/"), "{answer:?}");
        assert!(world.seen(&target).is_empty(), "{app}: {cookies}");
    }
    // Whose it is the cookie says, and nothing that is said beside it.
    let mark = uuid::Uuid::new_v4().to_string();
    for (person, secret) in [(&world.ann, echo), (&world.bob, &world.bob.secrets[0])] {
        let target = format!("/echo/{}-{mark}", person.name);
        let door = world.front("echo", secret);
        assert_eq!(door.get(&target).status(), 200);
        assert_eq!(world.truly(person, &target).len(), 1);
    }
}

// I50, I53
#[test]
fn an_app_sets_cookies_for_its_own_host_only_and_none_of_ours() {
    let world = World::shared();
    let asked = [
        ("own=1; Path=/; HttpOnly", true),
        ("name=J\u{f6}rg", true),
        ("named=1; Domain=echo.proxy.localhost", true),
        ("dotted=1; domain = .Echo.Proxy.Localhost", true),
        ("wide=1; Domain=proxy.localhost", false),
        ("dotted=1; Domain=.proxy.localhost; Path=/", false),
        ("sibling=1; Domain=other.proxy.localhost", false),
        ("top=1;domain=localhost", false),
        ("twice=1; Domain=echo.proxy.localhost; Domain=proxy.localhost", false),
        ("spaced=1;\tDOMAIN\t=\tproxy.localhost", false),
        ("inner=1; Domain=x.echo.proxy.localhost", false),
        ("__Host-remoteler-app=forged; Path=/; Secure", false),
        ("__HOST-Remoteler-App-state=forged; Path=/; Secure", false),
        ("=__Host-remoteler-app=forged; Path=/; Secure", false),
        ("__Host-remoteler-launch=forged; Path=/; Secure", false),
    ];
    for door in world.doors(&world.ann) {
        let fields: String = asked.iter().map(|(cookie, _)| format!("X-Set-Cookie: {cookie}\r\n")).collect();
        let answer = door.send(format!("{}{fields}\r\n", door.start("GET /set-cookies"))).unwrap();
        let expected: Vec<_> = asked.iter().filter(|(_, passes)| *passes).map(|(cookie, _)| *cookie).collect();
        assert_eq!(answer.values("set-cookie"), expected, "{}", door.name);
    }
}

/// Sends a request with a session by way of this proxy.
fn ask(proxy: (&str, &std::path::Path), host: &str, secret: &str, line: &str, more: &str) -> RawHttp {
    let name = host.split(':').next().unwrap();
    let mut connection = RawHttp::tls(proxy.0, name, tls_client(proxy.1, None, "http/1.1"));
    connection.write(format!(
        "{line} HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nCookie: __Host-remoteler-app={secret}\r\n{more}\r\n"
    ));
    connection
}

const WEB_SOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Reads ticks until nothing comes any more.
fn ticks_until_end(mut socket: RawHttp) -> SystemTime {
    while socket.read(6).is_some() {}
    SystemTime::now()
}

// I50
#[test]
fn a_session_counts_at_every_proxy_and_ends_at_each_within_two_seconds_of_a_logout() {
    let mut apps = AppCluster::start();
    // An app with a name of its own, behind a tunnel to each of two proxies, which have a certificate for it.
    let path = |name: &str| apps.cluster.dir().join(name);
    let (config, certificate, key) = (path("far.yaml"), path("far.crt"), path("far.key"));
    let host = apps.host("far").replace("proxy", "app");
    let names = [host.split(':').next().unwrap(), "proxy.localhost"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let app = format!("{{ name: far, uri: \"{}\", public_addr: \"{host}\" }}", apps.app.uri());
    std::fs::write(&config, format!("app_service: {{ apps: [{app}] }}\n")).unwrap();
    let pair = format!("https_keypairs: [{{ cert_file: {}, key_file: {} }}]", certificate.display(), key.display());
    apps.cluster.configure_proxy(&format!("  public_addr: \"{}\"\n  {pair}\n", apps.public_addr()));
    apps.cluster.kill_daemon();
    apps.cluster.start_daemon();
    apps.cluster.wait_ready();
    // Before another proxy may be the one that names apps which have no name of their own.
    let ann = User::create(&apps.cluster, "ann", "access");
    let browser = apps.browser(&ann, "/echo");
    let second = Proxy::join_with(&apps.cluster, "proxy-2", &format!(", {pair}"));
    let proxies = [apps.cluster.proxy(), second.address()].map(|address| (address, certificate.as_path()));
    let _edge = Edge::launch(&apps.cluster, "edge-1", proxies[0].0, &["-c", config.to_str().unwrap()], &[]);
    eventually("the app is reached", || {
        let page = browser.get(&format!("https://{host}/echo"));
        if page.contains("remoteler-jwt-assertion") { Ok(()) } else { Err(page) }
    });
    let (secret, _) = browser.cookie(host.split(':').next().unwrap(), "__Host-remoteler-app").expect("a session");
    let status = |proxy, line: &str| ask(proxy, &host, &secret, line, "").answer().map(|answer| answer.status());
    for proxy in proxies {
        eventually("the session counts", || match status(proxy, "GET /echo/before") {
            Some(200) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let sockets = proxies.map(|proxy| {
        let mut socket = ask(proxy, &host, &secret, "GET /ws", WEB_SOCKET);
        assert_eq!(socket.answer().expect("an answer").status(), 101);
        socket
    });
    let uploads = proxies.map(|proxy| {
        let mut upload = ask(proxy, &host, &secret, "POST /echo/upload", "Transfer-Encoding: chunked\r\n");
        upload.write("2\r\nab\r\n");
        upload
    });

    let account = format!("https://{}/web/account", apps.public_addr());
    let page = browser.get(&account);
    let form = page.split_once("/web/account/logout\"").unwrap_or_else(|| panic!("{page}")).1;
    let csrf = remoteler_tests::attribute(form, "name=\"csrf\" value=\"").unwrap();
    let sockets = sockets.map(|socket| std::thread::spawn(move || ticks_until_end(socket)));
    let _ = browser.post(&format!("{account}/logout"), &[("csrf", &csrf)]);
    // Asked at both in turn from the moment that it was answered.
    let (answered, limit) = (SystemTime::now(), Duration::from_secs(2));
    for proxy in proxies {
        while status(proxy, "GET /echo/after") == Some(200) {
            assert!(answered.elapsed().unwrap() < limit, "it goes on {:?} after the logout", answered.elapsed());
        }
    }
    for socket in sockets {
        let ended = socket.join().unwrap();
        assert!(ended < answered + limit, "a WebSocket went on for {:?}", ended.duration_since(answered));
    }
    for mut upload in uploads {
        let answer = upload.answer();
        assert!(answer.as_ref().is_none_or(|answer| answer.status() == 401), "{answer:?}");
    }
    assert!(answered.elapsed().unwrap() < limit * 2, "{:?}", answered.elapsed());
    for proxy in proxies {
        assert_eq!(status(proxy, "GET /echo/later"), Some(302));
    }
    assert!(apps.app.seen().iter().all(|request| request["target"] != "/echo/later"));
}

/// When a certificate ends.
fn end_of(certificate: &std::path::Path) -> SystemTime {
    let (_, pem) = x509_parser::pem::parse_x509_pem(&std::fs::read(certificate).unwrap()).unwrap();
    let end = pem.parse_x509().unwrap().validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH + Duration::from_secs(end.try_into().unwrap())
}

// I50, I78
#[test]
fn a_web_socket_is_cut_when_the_login_of_its_user_ends() {
    let apps = AppCluster::start();
    let brief = "kind: role\nversion: v7\nmetadata: { name: brief }\nspec: { options: { max_session_ttl: 30s } }\n";
    let ann = User::create(&apps.cluster, "ann", "access");
    let mut user = apps.cluster.tctl_json(&["get", "user/ann"]);
    user["spec"]["roles"].as_array_mut().unwrap().push("brief".into());
    apps.cluster.tctl_with_input(&["create", "-f"], &format!("{brief}---\n{user}\n")).ok();
    // Of a browser, by its proxy; and of whoever holds a certificate, by the app service alone.
    let signed = apps.cluster.dir().join("ann");
    apps.cluster.tctl(&["auth", "sign", "--user", "ann", "--format", "tls", "-o", signed.to_str().unwrap()]).ok();
    let browser = apps.browser(&ann, "/echo");
    let (secret, ends) = apps.session(&browser, "echo");
    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(ends);
    let left = ends.duration_since(SystemTime::now()).expect("the session goes on");
    assert!(left < Duration::from_secs(31), "{left:?}");

    let host = apps.host("echo");
    let front = ask((apps.cluster.proxy(), &apps.web_certificate()), &host, &secret, "GET /ws", WEB_SOCKET);
    let [certificate, key, believed] = ["crt", "key", "cas"].map(|extension| signed.with_extension(extension));
    let config = tls_client(&believed, Some((&certificate, &key)), "http/1.1");
    let name = AppName::new("echo").unwrap().server_name(&ClusterName::new(Cluster::NAME).unwrap());
    let mut program = RawHttp::tls(apps.cluster.proxy(), &name, config);
    program.write(format!("GET /ws HTTP/1.1\r\nHost: {host}\r\n{WEB_SOCKET}\r\n"));
    let ticking = [(front, ends), (program, end_of(&certificate))].map(|(mut socket, ends)| {
        assert_eq!(socket.answer().expect("an answer").status(), 101);
        assert!(socket.read(6).is_some());
        std::thread::spawn(move || (ticks_until_end(socket), ends))
    });
    for socket in ticking {
        let (cut, ends) = socket.join().unwrap();
        // Both ends are written in whole seconds.
        assert!(cut > ends - Duration::from_secs(2), "cut {:?} before its end", ends.duration_since(cut));
        assert!(cut < ends + Duration::from_secs(5), "cut {:?} after its end", cut.duration_since(ends));
    }
}
