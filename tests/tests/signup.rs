//! `tsh signup`: a sign-up link at a pseudo terminal, under each policy of second factors; and links that are none any more.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{path::PathBuf, process::Command};

use expectrl::{Expect, Regex, session::OsSession};
use remoteler_tests::{
    AuthenticatorApp, Chromium, Cluster, Outcome, Screen, answer_code, binary, ends, on_terminal, os_login, run,
    run_with_input,
};
use serde_json::json;

const PASSWORD: &str = "correct horse battery staple";

/// Somebody new, on a machine of their own.
struct Newcomer<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    link: String,
    home: PathBuf,
}

impl<'a> Newcomer<'a> {
    fn invited(cluster: &'a Cluster, name: &'a str) -> Self {
        let words = ["users", "add", name, "--roles", "access", "--logins", &os_login()];
        let made = cluster.tctl_json(&words);
        let link = format!("https://{}/web/invite/{}", cluster.proxy(), made["token"].as_str().unwrap());
        Self { cluster, name, link, home: cluster.dir().join(format!("home-{name}")) }
    }

    fn tsh(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary("tsh"));
        command.env("HOME", &self.home).env("TSH_HOME", self.home.join(".tsh")).env_remove("SSH_AUTH_SOCK");
        command.env("KUBECONFIG", self.home.join("kubeconfig")).env("TERM", "xterm").env_remove("NO_COLOR").args(words);
        command
    }

    /// `tsh signup` at a terminal, after the link.
    fn sits_down(&self) -> Terminal {
        let mut terminal = Terminal { session: on_terminal(self.tsh(&["--insecure", "signup"])), shown: String::new() };
        terminal.answers("Sign-up link:", &self.link);
        terminal.sees("who is in the path sees link, password and second factor");
        terminal.sees(&format!("The account is {} at {}", self.name, self.cluster.proxy()));
        terminal
    }

    /// `tsh signup LINK` of a program.
    fn signs_up_by_program(&self, link: &str) -> Outcome {
        run_with_input(&mut self.tsh(&["--insecure", "signup", link]), format!("{PASSWORD}\n").as_bytes())
    }

    fn logs_in(&self, typed: &str) -> Outcome {
        let mut command = self.tsh(&["login", "--insecure", "--proxy", self.cluster.proxy(), "--user", self.name]);
        run_with_input(&mut command, typed.as_bytes())
    }
}

struct Terminal {
    session: OsSession,
    shown: String,
}

impl Terminal {
    fn sees(&mut self, words: &str) {
        let found = self.session.expect(words).unwrap_or_else(|cause| panic!("{words:?}: {cause}\n{}", self.shown));
        self.shown += &String::from_utf8_lossy(found.as_bytes());
    }

    fn answers(&mut self, question: &str, typed: &str) {
        self.sees(question);
        self.session.send_line(typed).unwrap();
    }

    fn types_twice(&mut self, name: &str, password: &str) {
        self.answers(&format!("New password of {name}:"), password);
        self.answers("The same password again:", password);
    }

    /// The secret that can be typed into an app.
    fn secret(&mut self) -> String {
        let found = self.session.expect(Regex("type this secret into it: ([A-Z2-7]+)\r?\n")).unwrap();
        self.shown += &String::from_utf8_lossy(found.as_bytes());
        String::from_utf8_lossy(found.get(1).unwrap()).into_owned()
    }

    fn app(&mut self) -> AuthenticatorApp {
        AuthenticatorApp::new(&self.secret())
    }

    /// The end: what there is to be done next, and everything that was shown before.
    fn leaves(mut self, person: &Newcomer<'_>) -> String {
        let (proxy, name) = (person.cluster.proxy(), person.name);
        self.sees(&format!("Log in with: tsh login --proxy {proxy} --user {name} --insecure"));
        ends(self.session, 0);
        self.shown
    }
}

fn want(cluster: &Cluster, second_factor: &str) {
    let preference = json!({
        "kind": "cluster_auth_preference", "version": "v2", "metadata": { "name": "cluster-auth-preference" },
        "spec": { "second_factor": second_factor },
    });
    cluster.tctl_with_input(&["create", "-f"], &preference.to_string()).ok();
}

/// The recovery codes that were shown.
fn recovery_codes(shown: &str) -> Vec<String> {
    let (_, behind) = shown.split_once("Recovery codes").unwrap_or_else(|| panic!("{shown}"));
    let code = |word: &&str| word.len() == 19 && word.matches('-').count() == 3;
    behind.split_whitespace().filter(code).map(str::to_owned).collect()
}

// I76
#[test]
fn a_link_makes_an_account_at_a_terminal_under_each_policy_of_second_factors() {
    let cluster = Cluster::start();

    want(&cluster, "off");
    let ann = Newcomer::invited(&cluster, "ann");
    let mut terminal = ann.sits_down();
    terminal.types_twice("ann", "short");
    terminal.sees("a password has at least 8 characters");
    terminal.types_twice("ann", "password123");
    terminal.sees("easy to guess");
    terminal.answers("New password of ann:", PASSWORD);
    terminal.answers("The same password again:", "another one altogether");
    terminal.sees("the two passwords are not the same");
    terminal.types_twice("ann", PASSWORD);
    let shown = terminal.leaves(&ann);
    let unseen = [PASSWORD, "another one", &ann.link, "One-time code", "[y/N]", "Recovery codes"];
    assert!(!unseen.iter().any(|words| shown.contains(words)), "{shown}");
    ann.logs_in(&format!("{PASSWORD}\n")).ok();

    want(&cluster, "optional");
    let bob = Newcomer::invited(&cluster, "bob");
    let mut terminal = bob.sits_down();
    terminal.types_twice("bob", PASSWORD);
    terminal.answers("a second factor? [y/N]", "");
    let shown = terminal.leaves(&bob);
    assert!(!shown.contains("One-time code") && !shown.contains("Recovery codes"), "{shown}");
    bob.logs_in(&format!("{PASSWORD}\n")).ok();

    let eve = Newcomer::invited(&cluster, "eve");
    let mut terminal = eve.sits_down();
    // What is refused is asked for again, and what was right is not.
    terminal.types_twice("eve", "password123");
    terminal.answers("a second factor? [y/N]", "y");
    let mut app = terminal.app();
    answer_code(&mut terminal.session, "000");
    terminal.sees("easy to guess");
    terminal.types_twice("eve", PASSWORD);
    terminal.sees("the code is not right");
    answer_code(&mut terminal.session, &app.code());
    let shown = terminal.leaves(&eve);
    assert!(shown.contains('█') && shown.contains('▀'), "a picture to be scanned: {shown}");
    assert_eq!(recovery_codes(&shown).len(), 8, "{shown}");
    assert_eq!(eve.logs_in(&format!("{PASSWORD}\n")).code, Some(1));
    eve.logs_in(&format!("{PASSWORD}\n{}\n", app.code())).ok();

    want(&cluster, "on");
    let dan = Newcomer::invited(&cluster, "dan");
    let mut terminal = dan.sits_down();
    terminal.types_twice("dan", PASSWORD);
    terminal.sees("A security key instead of an app is set up in a browser");
    let mut app = terminal.app();
    answer_code(&mut terminal.session, "");
    terminal.sees("no code was given");
    ends(terminal.session, 1);
    // The link is as good as before, and so is the secret.
    let mut terminal = dan.sits_down();
    terminal.types_twice("dan", PASSWORD);
    answer_code(&mut terminal.session, &app.code());
    let shown = terminal.leaves(&dan);
    assert!(!shown.contains("[y/N]"), "{shown}");
    let codes = recovery_codes(&shown);
    dan.logs_in(&format!("{PASSWORD}\n{}\n", codes[0])).ok();

    want(&cluster, "webauthn");
    let kim = Newcomer::invited(&cluster, "kim");
    let refused = kim.signs_up_by_program(&kim.link);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("open the link there"), "{}", refused.stderr);

    let set = cluster.events("user.password_change");
    let by: Vec<_> = set.iter().map(|event| event["user"].as_str().unwrap()).collect();
    assert_eq!(by, ["ann", "bob", "eve", "dan"], "{set:?}");
    let log = std::fs::read_to_string(cluster.dir().join("daemon.log")).unwrap();
    let token = ann.link.rsplit('/').next().unwrap();
    assert!(!log.contains(PASSWORD) && !log.contains(token) && !log.contains(&codes[1]), "{log}");
}

/// The secret in an `otpauth` address for this user.
fn secret_in(address: &str, user: &str) -> String {
    let (account, parameters) = address.strip_prefix("otpauth://totp/").unwrap().split_once('?').unwrap();
    assert!(account.ends_with(&format!(":{user}")), "{address}");
    parameters.split('&').find_map(|parameter| parameter.strip_prefix("secret=")).unwrap().to_owned()
}

#[test]
fn what_a_telephone_scans_off_the_terminal_is_the_secret_that_stands_beside_it() {
    let Some(reader) = Chromium::find() else { return };
    let cluster = Cluster::start();
    want(&cluster, "optional");
    let ann = Newcomer::invited(&cluster, "ann");
    let mut terminal = ann.sits_down();
    terminal.types_twice("ann", PASSWORD);
    terminal.answers("a second factor? [y/N]", "y");
    let secret = terminal.secret();
    for screen in [Screen::LightOnDark, Screen::DarkOnLight] {
        let scanned = screen.scan(&reader, &terminal.shown).unwrap_or_else(|| panic!("{screen:?}: {}", terminal.shown));
        assert_eq!(secret_in(&scanned, "ann"), secret);
    }
    answer_code(&mut terminal.session, &AuthenticatorApp::new(&secret).code());
    terminal.leaves(&ann);

    // Where no colours are wanted, it is drawn for a screen as most are.
    let bob = Newcomer::invited(&cluster, "bob");
    bob.signs_up_by_program(&bob.link).ok();
    bob.logs_in(&format!("{PASSWORD}\n")).ok();
    let mut tsh = bob.tsh(&["mfa", "add", "--name", "phone"]);
    tsh.env("NO_COLOR", "1");
    let mut terminal = Terminal { session: on_terminal(tsh), shown: String::new() };
    terminal.answers("Password of bob:", PASSWORD);
    let secret = terminal.secret();
    assert!(!terminal.shown.contains('\u{1b}'), "{}", terminal.shown);
    let scanned = Screen::LightOnDark.scan(&reader, &terminal.shown).unwrap_or_else(|| panic!("{}", terminal.shown));
    assert_eq!(secret_in(&scanned, "bob"), secret);
    assert_eq!(Screen::DarkOnLight.scan(&reader, &terminal.shown), None);
    answer_code(&mut terminal.session, &AuthenticatorApp::new(&secret).code());
    terminal.sees("phone is a second factor of yours now");
    ends(terminal.session, 0);
}

/// As if an hour had passed.
fn let_links_expire(cluster: &mut Cluster) {
    cluster.kill_daemon();
    let database = rusqlite::Connection::open(cluster.data_dir().join("auth.sqlite")).unwrap();
    let changed = database.execute("UPDATE items SET expires = 1000 WHERE key LIKE 'invites/%'", []).unwrap();
    assert!(changed > 0, "a link is kept");
    drop(database);
    cluster.start_daemon();
    cluster.wait_ready();
}

#[test]
fn a_link_that_was_used_has_expired_or_is_none_ends_with_one_line() {
    let mut cluster = Cluster::start();
    let ann = Newcomer::invited(&cluster, "ann");
    // Nobody vouches for the proxy here: the link stays at home.
    let unchecked = run(ann.tsh(&["signup", &ann.link]).env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"));
    let line = unchecked.one_line_failure();
    assert!(line.contains("--insecure") && line.contains(cluster.proxy()), "{line}"); // I15

    let bad = [
        ("nonsense".to_owned(), "this is no sign-up link"),
        (ann.link.replace("https:", "http:"), "this is no sign-up link"),
        (format!("{}/", ann.link), "this is no sign-up link"),
        (ann.link.replace("/web/", "/wbe/"), "this is no sign-up link"),
    ];
    for (link, said) in &bad {
        let line = run(&mut ann.tsh(&["signup", link])).one_line_failure();
        assert!(line.contains(said) && line.contains("tctl users add"), "{link}: {line}");
        let token = ann.link.rsplit('/').next().unwrap();
        assert!(!line.contains(token), "{line}"); // I76
    }
    for (words, said) in [
        (["--proxy", "other.example.com:443"], "and --proxy or TSH_PROXY says other.example.com:443"),
        (["--user", "bob"], "the link is for ann, and --user or TSH_USER says bob"),
    ] {
        let refused = run(ann.tsh(&["--insecure", "signup", &ann.link]).args(words));
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }

    let done = ann.signs_up_by_program(&ann.link).ok();
    assert!(!done.stderr.contains("[y/N]") && !done.stderr.contains("again:"), "{}", done.stderr);
    let guessed = format!("https://{}/web/invite/{}", cluster.proxy(), "0".repeat(64));
    let gone = |outcome: Outcome| {
        let lines: Vec<_> = outcome.stderr.lines().filter(|line| !line.starts_with("tsh: --insecure: ")).collect();
        assert_eq!((outcome.code, lines.len()), (Some(1), 1), "{}", outcome.stderr);
        let line = lines[0];
        assert!(line.contains("the sign-up link is wrong, was used or has expired"), "{line}");
        assert!(line.contains("ask the administrator for a new one"), "{line}");
    };
    gone(ann.signs_up_by_program(&ann.link));
    gone(ann.signs_up_by_program(&guessed));
    ann.logs_in(&format!("{PASSWORD}\n")).ok();

    let (link, home) = {
        let bob = Newcomer::invited(&cluster, "bob");
        (bob.link, bob.home)
    };
    let_links_expire(&mut cluster);
    gone(Newcomer { cluster: &cluster, name: "bob", link: link.clone(), home }.signs_up_by_program(&link));
}
