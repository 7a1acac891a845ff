//! Web apps over a whole cluster (I51 to I53), by stock curl: through `tsh proxy app`, and at an app's own address before anybody has come in.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use remoteler_tests::{AppCluster, LocalApp, Process, binary, claims, curl, eventually, eventually_within, need, told};
use serde_json::{Value, json};

/// What `/echo` was sent through `tsh proxy app`.
fn echo(local: &LocalApp, args: &[&str]) -> Value {
    let answer = curl(&local.url("/echo?a=b"), args).ok().text();
    serde_json::from_str(&answer).unwrap_or_else(|cause| panic!("{cause}: {answer} {}", local.log()))
}

// I52, I53
#[test]
fn a_program_behind_tsh_reaches_an_app_as_its_user_and_nothing_that_it_says_of_itself_gets_there() {
    if !need(&["curl"]) {
        return;
    }
    let world = AppCluster::start();
    let ann = world.cluster.user("ann", "access");
    let listed: Value = serde_json::from_str(&ann.tsh(&["apps", "ls", "--format", "json"]).ok().text()).unwrap();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|app| app["app_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["echo", "other"]);
    let said = ann.tsh(&["apps", "login", "echo"]).ok();
    assert!(format!("{}{}", said.text(), said.stderr).contains("tsh proxy app echo"), "{}", said.stderr);
    let unknown = ann.tsh(&["proxy", "app", "nothing"]).one_line_failure();
    assert!(unknown.contains("there is no app nothing"), "{unknown}");

    let local = LocalApp::start(&world.cluster, &ann, "echo");
    let smuggled = [
        "Remoteler-Jwt-Assertion: forged",
        "REMOTELER_JWT_ASSERTION: forged",
        "X-Forwarded-For: 10.0.0.1",
        "x_forwarded_for: 10.0.0.2",
        "X-Forwarded-Host: evil.example",
        "Forwarded: for=10.0.0.1",
        "Connection: close, X-Hop, Remoteler-Jwt-Assertion, X-Forwarded-For",
        "X-Hop: 1",
        "X_User: root",
        "X-Original-Url: /admin",
        "Cookie: a=b; __Host-remoteler-app=secret; __HOST-Remoteler-App-State=s",
        "Authorization: Bearer of-the-app",
    ];
    let args: Vec<&str> = smuggled.iter().flat_map(|header| ["--header", *header]).collect();
    let shown = echo(&local, &args);
    assert_eq!(shown["target"], "/echo?a=b");
    assert_eq!(told(&shown, "host"), [world.app.uri().strip_prefix("http://").unwrap()]);
    assert_eq!(told(&shown, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(told(&shown, "x-forwarded-proto"), ["https"]);
    let address = world.host("echo");
    assert_eq!(told(&shown, "x-forwarded-host"), [address.as_str()]);
    assert_eq!(told(&shown, "cookie"), ["a=b"]);
    assert_eq!(told(&shown, "authorization"), ["Bearer of-the-app"]);
    for gone in ["forwarded", "x-hop", "x-user", "x-original-url"] {
        assert!(told(&shown, gone).is_empty(), "{gone}: {shown}");
    }
    let assertion = told(&shown, "remoteler-jwt-assertion");
    assert_eq!(assertion.len(), 1, "{shown}");
    let claims = claims(assertion[0]);
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("ann"), &json!(format!("https://{address}")))); // I51

    let chunked = echo(&local, &["--data", "x=1", "--header", "Transfer-Encoding: chunked"]);
    assert_eq!((&chunked["method"], &chunked["body"]), (&json!("POST"), &json!("x=1")));
    let searched = echo(&local, &["--request", "GET", "--data", "x=1", "--header", "Transfer-Encoding: chunked"]);
    assert_eq!((&searched["method"], &searched["body"]), (&json!("GET"), &json!("x=1")));
    let redirected = curl(&local.url("/redirect"), &["--include"]).ok().text();
    assert!(redirected.contains("location: /echo?from=redirect\r\n"), "{redirected}");

    let count = world.app.seen().len();
    for (what, args, status) in [
        ("a page of another site", &["--data", "x", "--header", "Origin: https://evil.example"][..], "403"),
        ("a page of another app", &["--data", "x", "--header", "Sec-Fetch-Site: same-site"], "403"),
        (
            "a picture of another site",
            &["--header", "Sec-Fetch-Site: cross-site", "--header", "Sec-Fetch-Mode: no-cors"],
            "403",
        ),
        ("a page that reads", &["--header", "Origin: https://evil.example"], "403"),
        ("a service worker", &["--header", "Service-Worker: script"], "403"),
        ("a name that was made to lead here", &["--header", "Host: evil.example:80"], "421"),
    ] {
        let answer = curl(&local.url("/echo"), &[args, &["--include"]].concat()).ok().text();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer}"); // I52
    }
    assert_eq!(world.app.seen().len(), count, "nothing of that was sent");
    let event = world
        .cluster
        .event("app.session.request", |event| event["path"].as_str().unwrap_or_default().contains("/echo"));
    assert_eq!((&event["user"], &event["app_name"], &event["method"]), (&json!("ann"), &json!("echo"), &json!("GET")));
    world.cluster.event("auth", |event| event["error"].as_str().is_some_and(|error| error.contains("another site")));
}

// I53
#[test]
fn no_connection_to_an_app_is_used_for_two_users() {
    if !need(&["curl"]) {
        return;
    }
    let world = AppCluster::start();
    let (ann, bob) = (world.cluster.user("ann", "access"), world.cluster.user("bob", "access"));
    let (of_ann, of_bob) =
        (LocalApp::start(&world.cluster, &ann, "echo"), LocalApp::start(&world.cluster, &bob, "echo"));
    let mut connections = [BTreeSet::new(), BTreeSet::new()];
    for _ in 0..3 {
        for (index, (local, user)) in [(&of_ann, "ann"), (&of_bob, "bob")].into_iter().enumerate() {
            let shown = echo(local, &[]);
            assert_eq!(claims(told(&shown, "remoteler-jwt-assertion")[0])["sub"], user);
            connections[index].insert(shown["connection"].as_u64().unwrap());
        }
    }
    assert!(connections[0].is_disjoint(&connections[1]), "{connections:?}");
}

// I78
#[test]
fn what_goes_on_for_long_ends_within_five_seconds_of_a_lock_and_nothing_more_is_sent() {
    if !need(&["curl"]) {
        return;
    }
    let world = AppCluster::start();
    let ann = world.cluster.user("ann", "access");
    let local = LocalApp::start(&world.cluster, &ann, "echo");
    let log = world.cluster.dir().join("events.log");
    let url = local.url("/events");
    let mut events =
        Process::start(Command::new("curl").args(["--silent", "--no-buffer", "--max-time", "90", &url]), &log);
    eventually("events come", || if events.log().contains("data: 1") { Ok(()) } else { Err(events.log()) });
    world.cluster.tctl(&["lock", "--user", "ann"]).ok();
    let locked = Instant::now();
    let code = events.wait(Duration::from_secs(20));
    assert!(locked.elapsed() < Duration::from_secs(5), "{:?}", locked.elapsed());
    assert_ne!(code, Some(0), "broken off, and not ended");
    let refused = curl(&local.url("/echo"), &["--include"]).text();
    assert!(refused.starts_with("HTTP/1.1 403") || refused.is_empty(), "{refused}");
    assert!(world.app.seen().iter().all(|request| request["target"] != "/echo"));
}

#[test]
fn where_the_proxy_has_no_name_programs_reach_an_app_all_the_same() {
    if !need(&["curl"]) {
        return;
    }
    let world = AppCluster::without_a_name();
    let ann = world.cluster.user("ann", "access");
    let shown = echo(&LocalApp::start(&world.cluster, &ann, "echo"), &[]);
    let within = "echo.app.test.example.com";
    assert_eq!(told(&shown, "x-forwarded-host"), [within]);
    let claims = claims(told(&shown, "remoteler-jwt-assertion")[0]);
    assert_eq!((&claims["sub"], &claims["aud"]), (&"ann".into(), &format!("https://{within}").into()));
}

#[test]
fn an_app_behind_a_reverse_tunnel_is_reached_as_one_beside_the_proxy() {
    if !need(&["curl"]) {
        return;
    }
    let world = AppCluster::start();
    let (token, pin) = world.cluster.token("app");
    let dir = world.cluster.dir().join("edge");
    std::fs::create_dir_all(&dir).unwrap();
    let config = dir.join("edge.yaml");
    let text = format!(
        "remoteler:\n  nodename: edge\n  data_dir: {}\n  auth_server: \"{}\"\n  ca_pin: \"{pin}\"\n  join_params: {{ token_name: \"{token}\" }}\n\
         app_service:\n  apps:\n    - {{ name: far, uri: \"{}\" }}\n",
        dir.join("data").display(),
        world.cluster.proxy(),
        world.app.uri(),
    );
    std::fs::write(&config, text).unwrap();
    let mut edge =
        Process::start(Command::new(binary("remoteler")).args(["start", "-c"]).arg(&config), &dir.join("log"));
    let ann = world.cluster.user("ann", "access");
    eventually("the app is announced", || {
        assert!(edge.runs(), "{}", edge.log());
        let listed = ann.tsh(&["apps", "ls"]).text();
        if listed.contains("far") { Ok(()) } else { Err(format!("{listed}\n{}", edge.log())) }
    });
    let local = LocalApp::start(&world.cluster, &ann, "far");
    let shown = echo(&local, &[]);
    assert_eq!(claims(told(&shown, "remoteler-jwt-assertion")[0])["sub"], "ann");
}

// I13, I51
#[test]
fn under_an_apps_name_there_is_the_app_and_nothing_of_the_proxy() {
    if !need(&["curl"]) {
        return;
    }
    let world = AppCluster::start();
    let url = world.url("echo", "/");
    eventually_within(Duration::from_secs(20), "the app has its front door", || {
        let answer = curl(&url, &["--include"]).text();
        if answer.contains(" 302") { Ok(()) } else { Err(answer) }
    });
    let answer = curl(&world.url("echo", "/x?y=z"), &["--include"]).ok().text().to_lowercase();
    let launch = format!("location: https://{}/web/launch/echo?state=", world.public_addr());
    assert!(answer.contains(&launch) && answer.contains("&path=%2fx%3fy%3dz"), "{answer}");
    for part in
        ["secure", "httponly", "samesite=lax", "path=/", "cache-control: no-store", "referrer-policy: no-referrer"]
    {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let unknown = "5a".repeat(32);
    let (code, cookie) =
        (format!("/.remoteler/session?code={unknown}"), format!("Cookie: a=\u{fc}; __Host-remoteler-app={unknown}"));
    for (path, args, status) in [
        ("/v1/webapi/ping", &["--header", "Sec-Fetch-Mode: cors"][..], "401"),
        ("/web/account", &["--header", "Sec-Fetch-Dest: iframe"], "401"),
        ("/echo", &["--data", "x"], "401"),
        // Whatever becomes of a code, none stays in an address.
        ("/.remoteler/session?code=none", &[], "303"),
        (code.as_str(), &[], "303"),
        ("/.remoteler/failed", &[], "403"),
        ("/x", &["--header", cookie.as_str()], "302"),
        ("/.remoteler/other", &[], "404"),
        ("/", &["--header", "Host: proxy.localhost"], "421"),
    ] {
        let answer = curl(&world.url("echo", path), &[args, &["--include"]].concat()).ok().text();
        assert!(answer.lines().next().unwrap().contains(status), "{path}: {answer}");
    }
    world
        .cluster
        .event("auth", |event| event["error"].as_str().is_some_and(|error| error.contains("a code was refused")));
    // The proxy's own connections are no way to an app, and do not answer in its name.
    let host = format!("Host: {}", world.host("echo"));
    let answer =
        curl(&format!("https://{}/web/account", world.cluster.proxy()), &["--include", "--header", &host]).ok().text();
    assert!(answer.lines().next().unwrap().contains("421"), "{answer}");
    assert!(world.app.seen().is_empty());
}
