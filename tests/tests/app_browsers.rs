//! Browsers at web apps (I49 to I52): from the login to the logout, with a second factor for each session, and cut by a lock. Chromium, driven line by line.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use expectrl::Expect;
use remoteler_tests::{AppCluster, AuthenticatorApp, Chromium, User, answer_code, curl, ends, on_terminal};
use serde_json::json;

/// A browser that is driven from here, line by line.
struct Driven {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Driven {
    fn start(chromium: &Chromium, args: &[&str]) -> Self {
        let mut command = chromium.script("apps.mjs");
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits until the script says so.
    fn says(&mut self, expected: &str) {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let count = self.output.read_line(&mut line).unwrap();
            assert!(count > 0, "the script ended before it said {expected:?}, after:\n{all}");
            if line.trim() == expected {
                return;
            }
            all.push_str(&line);
        }
    }

    /// Lets it go on.
    fn go_on(&mut self) {
        self.tell("on");
    }

    /// Tells it what it waits for.
    fn tell(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn ends_well(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// I50, I51, I52, I53
#[test]
fn a_browser_comes_to_an_app_by_the_login_and_is_out_of_it_after_the_logout() {
    let Some(chromium) = Chromium::find() else { return };
    let world = AppCluster::start();
    let ann = world.cluster.user("ann", "access");
    let (base, echo, other) =
        (format!("https://{}", world.public_addr()), world.url("echo", ""), world.url("other", ""));
    let mut browser = Driven::start(&chromium, &[&base, &echo, &other, "ann", ann.password()]);

    browser.says("the app is shown");
    let start = world.cluster.event("app.session.start", |event| event["app_name"] == "echo");
    assert_eq!(start["user"], "ann");
    // I51: what is on record opens nothing.
    let sid = start["sid"].as_str().unwrap();
    let count = world.app.seen().len();
    let cookie = format!("Cookie: __Host-remoteler-app={sid}");
    let answer =
        curl(&format!("{echo}/echo"), &["--include", "--header", &cookie, "--header", "Sec-Fetch-Mode: cors"]).ok();
    assert!(answer.text().contains(" 401"), "{}", answer.text());
    assert_eq!(world.app.seen().len(), count);
    browser.go_on();

    browser.says("another app's page changed nothing");
    let sent_by_others = world.app.seen().iter().filter(|request| request["body"] == "foreign").count();
    assert_eq!(sent_by_others, 0); // I52
    for request in world.app.seen() {
        assert!(!request.to_string().contains("__Host-remoteler"), "{request}"); // I53
    }
    browser.go_on();
    browser.says("out of the app after the logout");
    let request = world.cluster.event("app.session.request", |event| event["sid"] == sid);
    assert_eq!((&request["user"], &request["app_name"]), (&json!("ann"), &json!("echo")));
    browser.ends_well();
}

// I78
#[test]
fn a_lock_cuts_a_browsers_web_socket() {
    let Some(chromium) = Chromium::find() else { return };
    let world = AppCluster::start();
    let ann = world.cluster.user("ann", "access");
    let base = format!("https://{}", world.public_addr());
    let mut browser = Driven::start(&chromium, &[&base, &world.url("echo", ""), "socket", "ann", ann.password()]);
    browser.says("the socket ticks");
    world.cluster.tctl(&["lock", "--user", "ann"]).ok();
    let locked = Instant::now();
    browser.says("the socket is closed");
    assert!(locked.elapsed() < Duration::from_secs(5), "{:?}", locked.elapsed());
    browser.ends_well();
}

/// A role as `access`, in which each session needs a second factor, for a user with an authenticator app.
fn demand_second_factor(world: &AppCluster, user: &User) -> AuthenticatorApp {
    let mut tsh = user.tsh_command();
    tsh.args(["mfa", "add", "--name", "phone"]);
    let mut terminal = on_terminal(tsh);
    terminal.expect("Password of").unwrap();
    terminal.send_line(user.password()).unwrap();
    let shown = terminal.expect(expectrl::Regex("type this secret into it: [A-Z2-7]+\r?\n")).unwrap();
    let line = String::from_utf8_lossy(shown.get(0).unwrap()).into_owned();
    let mut app = AuthenticatorApp::new(line.rsplit(' ').next().unwrap().trim());
    answer_code(&mut terminal, &app.code());
    ends(terminal, 0);
    let mut role = world.cluster.tctl_json(&["get", "role/access"]);
    role["spec"]["options"] = json!({ "require_session_mfa": "yes" });
    world.cluster.tctl_with_input(&["create", "-f"], &format!("{role}\n")).ok();
    app
}

// I49
#[test]
fn an_app_that_wants_a_second_factor_for_each_session_asks_for_it_in_browsers_and_at_terminals() {
    let Some(chromium) = Chromium::find() else { return };
    let world = AppCluster::start();
    let ann = world.cluster.user("ann", "access");
    let mut app = demand_second_factor(&world, &ann);

    let refused = ann.tsh(&["proxy", "app", "echo"]).one_line_failure();
    assert!(refused.contains("second factor"), "{refused}");
    let mut tsh = ann.tsh_command();
    tsh.args(["proxy", "app", "echo"]);
    let mut terminal = on_terminal(tsh);
    answer_code(&mut terminal, &app.code());
    let shown = terminal.expect(expectrl::Regex("http://127\\.0\\.0\\.1:[0-9]+")).unwrap();
    let url = String::from_utf8_lossy(shown.get(0).unwrap()).into_owned();
    let answer = curl(&format!("{url}/echo"), &["--include"]).ok().text();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let proven = world.cluster.event("app.session.request", |event| event["with_mfa"].is_string());
    assert_eq!(proven["app_name"], "echo");

    let base = format!("https://{}", world.public_addr());
    let mut browser = Driven::start(&chromium, &[&base, &world.url("other", ""), "factor", "ann", ann.password()]);
    browser.says("the login wants a code");
    browser.tell(&app.code());
    browser.says("the session wants a code");
    assert!(world.cluster.events("app.session.start").is_empty());
    browser.tell("000000");
    browser.says("a wrong code is told");
    browser.tell(&app.code());
    browser.says("the app is shown");
    let start = world.cluster.event("app.session.start", |event| event["app_name"] == "other");
    assert_eq!(start["with_mfa"], start["sid"]);
    browser.ends_well();
}

// I49
#[test]
fn a_security_key_is_touched_for_each_session_with_an_app_that_wants_it() {
    let Some(chromium) = Chromium::find() else { return };
    let world = AppCluster::start();
    let mut role = world.cluster.tctl_json(&["get", "role/access"]);
    role["spec"]["options"] = json!({ "require_session_mfa": "yes" });
    world.cluster.tctl_with_input(&["create", "-f"], &format!("{role}\n")).ok();
    let made = world.cluster.tctl_json(&["users", "add", "kay", "--roles", "access"]);
    let base = format!("https://{}", world.public_addr());
    let link = format!("{base}/web/invite/{}", made["token"].as_str().unwrap());
    let password = "correct horse battery staple";
    let mut browser = Driven::start(&chromium, &[&base, &world.url("echo", ""), "key", "kay", password, &link]);
    browser.says("the session wants a touch");
    assert!(world.cluster.events("app.session.start").is_empty());
    browser.go_on();
    browser.says("the app is shown");
    let start = world.cluster.event("app.session.start", |event| event["user"] == "kay");
    assert_eq!(start["with_mfa"], start["sid"]);
    browser.ends_well();
}
