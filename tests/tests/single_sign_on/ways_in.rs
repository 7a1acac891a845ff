//! How the browser and `tsh` find each other: the desktop's browser, a listener at a wanted address, a code in a shell from elsewhere; and what a second
//! `tsh login` does.

use std::{net::TcpListener, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use remoteler_tests::{Browser, ClusterOptions, eventually, need_oidc_provider};
use serde_json::Value;

use crate::world::{Waiting, World};

/// A desktop: `xdg-open` is a browser that opens one page, with the cookies of the [`Browser`] of this name.
struct Desktop {
    bin: PathBuf,
}

impl Desktop {
    fn new(world: &World, browser: &str) -> Self {
        let bin = world.cluster.dir().join("desktop");
        std::fs::create_dir(&bin).unwrap();
        let jar = world.cluster.dir().join(format!("{browser}.jar"));
        let script = format!(
            "#!/bin/sh\ncd {bin} && printf %s \"$*\" > opened && curl --silent --insecure --location --max-time 60 --cookie-jar {jar} --cookie {jar} --output page.part \"$1\" && mv page.part page\n",
            bin = bin.display(),
            jar = jar.display()
        );
        let program = bin.join("xdg-open");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { bin }
    }

    /// What its browser was opened with, and the page that it ended on.
    fn opened(&self) -> (String, String) {
        eventually("the desktop's browser shows a page", || {
            std::fs::read_to_string(self.bin.join("page")).map_err(|cause| cause.to_string())
        });
        let read = |name: &str| std::fs::read_to_string(self.bin.join(name)).unwrap();
        (read("opened"), read("page"))
    }
}

/// `tsh login` in this environment; without a display where none is said.
fn login(world: &World, environment: &[(&str, &str)], extra: &[&str]) -> Waiting {
    let mut command = world.tsh(&["login", "--insecure", "--proxy", &world.address]);
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command.envs(environment.iter().copied());
    Waiting::start(command.args(extra))
}

const REMOTE: (&str, &str) = ("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22");

#[test]
fn the_browser_of_the_desktop_is_opened_and_led_to_the_login() {
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    let desktop = Desktop::new(&world, "browser");
    let path = format!("{}:{}", desktop.bin.display(), std::env::var("PATH").unwrap());
    let mut tsh = login(&world, &[("DISPLAY", ":9"), ("PATH", &path)], &[]);
    let said = tsh.hears("Log in in the browser that opens; if none does, open:");
    let code = tsh.hears("show this code:");
    let (opened, page) = desktop.opened();
    // What a program is called with, others see: it is not the login's page.
    let id = said.rsplit('/').next().unwrap();
    assert!(opened.starts_with("http://127.0.0.1:") && !opened.contains(id), "{opened} for {said}");
    assert!(page.contains("ann@example.com") && page.contains(&code), "{page}");
    world.confirm(&Browser::new(world.cluster.dir(), "browser"), &said, &page);
    let (status, rest) = tsh.finish();
    assert_eq!(status, Some(0), "{rest}");

    // Without the program the address is said.
    world.run(&["logout"]).ok();
    let mut tsh = login(&world, &[("DISPLAY", ":9"), ("PATH", "/nonexistent")], &[]);
    assert!(tsh.hears("Open in a browser on this machine:").contains("/web/login/"));
    tsh.stop();
}

#[test]
fn the_answer_comes_to_the_address_that_was_wanted() {
    // I40
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let free = match TcpListener::bind(loopback) {
            Ok(listener) => listener,
            Err(cause) => {
                eprintln!("SKIPPED: {loopback}: {cause}");
                continue;
            }
        };
        let wanted = free.local_addr().unwrap().to_string();
        // Taken still: one line, and nobody is sent anywhere.
        let (status, said) = login(&world, &[], &["--bind-addr", &wanted]).finish();
        let last = said.lines().last().unwrap();
        assert!(status == Some(1) && last.contains(&format!("{wanted} cannot be listened at")), "{said}");
        drop(free);
        // Also in a shell from elsewhere: somebody has a way to that address.
        let mut tsh = login(&world, &[REMOTE], &["--bind-addr", &wanted]);
        let (page, code) = tsh.page_and_code();
        let shown = browser.get(&page);
        assert!(shown.contains(&code), "{shown}");
        let answer = world.decide(&browser, &page, &shown, "approve");
        assert!(answer.starts_with(&format!("http://{wanted}/")), "{answer}");
        assert!(browser.get(&answer).contains("close this tab"));
        let (status, said) = tsh.finish();
        assert_eq!(status, Some(0), "{said}");
        world.run(&["logout"]).ok();
    }
}

#[test]
fn a_shell_from_elsewhere_without_a_display_logs_in_by_a_code() {
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    let mut tsh = login(&world, &[REMOTE], &[]);
    let url = tsh.hears("Open on any machine:");
    let code = tsh.hears("type this code:");
    assert!(world.decide_elsewhere(&browser, &url, &code, "approve").contains("logged in"));
    let (status, said) = tsh.finish();
    assert_eq!(status, Some(0), "{said}");
    world.run(&["logout"]).ok();
    // With a display, as by `ssh -X`, and where somebody said so, the browser is here.
    for (environment, extra) in
        [(&[REMOTE, ("DISPLAY", ":9"), ("PATH", "/nonexistent")][..], &[][..]), (&[REMOTE], &["--browser", "none"])]
    {
        let mut tsh = login(&world, environment, extra);
        tsh.hears("on this machine:");
        tsh.stop();
    }
}

/// What `tsh status` knows of the login.
fn status(world: &World) -> Value {
    let listed: Value = serde_json::from_str(&world.run(&["status", "--format", "json"]).ok().text()).unwrap();
    listed[0].clone()
}

#[test]
fn a_second_login_prints_the_status_asks_nobody_and_is_none() {
    if !need_oidc_provider() {
        return;
    }
    let mut world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    world.log_in(&Browser::new(world.cluster.dir(), "browser"));
    let before = status(&world);
    let again = ["login", "--insecure", "--proxy", &world.address.clone()];
    let said = world.run(&again).ok();
    assert_eq!(said.text(), world.run(&["status"]).ok().text());
    assert!(said.text().contains("ann@example.com") && said.stderr.is_empty(), "{}", said.stderr);
    let said = world.run(&[&again[..], &["--ttl", "5m", "--device"]].concat()).ok();
    assert_eq!(
        said.stderr.trim(),
        "tsh: already logged in, so --ttl, --device changes nothing; run tsh logout first to log in anew"
    );

    // A proxy that takes connections and says nothing.
    world.cluster.daemon().signal(nix::sys::signal::Signal::SIGSTOP);
    let begin = std::time::Instant::now();
    let silent = world.run(&again);
    let took = begin.elapsed();
    world.cluster.daemon().signal(nix::sys::signal::Signal::SIGCONT);
    let silent = silent.ok();
    assert!(silent.text().contains("ann@example.com"), "{}", silent.text());
    assert!(took < Duration::from_secs(25), "{took:?}: {}", silent.stderr);

    assert_eq!(status(&world), before);
    let logins = world.cluster.events("user.login");
    assert_eq!(logins.len(), 1, "{logins:?}");
}

#[test]
fn how_long_certificates_of_a_browsers_login_live_is_said_and_bounded_by_the_role() {
    // I6
    if !need_oidc_provider() {
        return;
    }
    let mut world = World::start("oidc", ClusterOptions::default());
    let mut role = world.cluster.tctl_json(&["get", "role/access"]);
    role["metadata"] = serde_json::json!({ "name": "short" });
    role["spec"]["options"] = serde_json::json!({ "max_session_ttl": "2h" });
    world.cluster.tctl_with_input(&["create", "-f"], &role.to_string()).ok();
    world.roles = vec!["short".into()];
    let _provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    for (wanted, minutes) in [(&["--ttl", "5m"][..], 5), (&["--ttl", "24h"], 120), (&[], 120)] {
        let begin = time::OffsetDateTime::now_utc();
        let mut tsh = login(&world, &[], wanted);
        let (page, _) = tsh.page_and_code();
        world.confirm(&browser, &page, &browser.get(&page));
        let (code, said) = tsh.finish();
        assert_eq!(code, Some(0), "{said}");
        let until = status(&world)["valid_until"].as_str().unwrap().to_owned();
        let until = time::OffsetDateTime::parse(&until, &time::format_description::well_known::Rfc3339).unwrap();
        let (life, now) = (time::Duration::minutes(minutes), time::OffsetDateTime::now_utc());
        let second = time::Duration::seconds(1);
        assert!(begin + life - second <= until && until <= now + life + second, "{wanted:?}: {until} at {now}");
        world.run(&["logout"]).ok();
    }
}
