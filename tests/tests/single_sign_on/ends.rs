//! Logins that nobody finishes: a person who declines, a tab that was closed, a login that the cluster has forgotten. `tsh` ends with exit code 1 and one
//! line.

use remoteler_tests::{Browser, Cluster, ClusterOptions, FakeClock, need_oidc_provider};

use crate::world::{Waiting, World};

#[track_caller]
fn ends_with(tsh: Waiting, words: &str) {
    let (status, said) = tsh.finish();
    assert_eq!((status, said.trim().lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("tsh: ") && said.contains(words), "{said}");
}

/// At its listener, and by a code.
fn both(world: &World) -> [(Waiting, String, String); 2] {
    let mut here = world.login(&["--browser", "none"]);
    let (page, code) = here.page_and_code();
    let mut elsewhere = world.login(&["--device"]);
    let (url, typed) = (elsewhere.hears("on any machine:"), elsewhere.hears("type this code:"));
    [(here, page, code), (elsewhere, url, typed)]
}

#[test]
fn a_person_who_declines_ends_tsh_with_one_line() {
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    let [(here, page, _), (elsewhere, url, code)] = both(&world);
    let answer = world.decide(&browser, &page, &browser.get(&page), "decline");
    assert!(answer.ends_with("?error=declined"), "{answer}");
    let shown = browser.get(&answer);
    assert!(shown.contains("close this tab"), "{shown}");
    ends_with(here, "the login was declined in the browser");
    // Whose browser cannot reach the listener is heard of by asking.
    let mut unreached = world.login(&["--browser", "none"]);
    let (page, _) = unreached.page_and_code();
    let _ = world.decide(&browser, &page, &browser.get(&page), "decline");
    ends_with(unreached, "the login was declined in the browser");
    assert!(world.decide_elsewhere(&browser, &url, &code, "decline").contains("declined"));
    ends_with(elsewhere, "the login was declined in the browser");
    assert_eq!(world.left(), [] as [std::path::PathBuf; 0]);
    let refused = world.cluster.events("user.login");
    assert!(refused.len() == 3 && refused.iter().all(|event| event["success"] == false), "{refused:?}");
}

/// As if the time of every login had passed.
fn forget_logins(cluster: &Cluster) {
    let database = rusqlite::Connection::open(cluster.data_dir().join("auth.sqlite")).unwrap();
    let forgotten = database.execute("DELETE FROM items WHERE key LIKE 'logins/%'", []).unwrap();
    assert_eq!(forgotten, 2, "both logins are kept");
}

#[test]
fn a_login_that_the_cluster_has_forgotten_ends_tsh_with_one_line() {
    if !need_oidc_provider() {
        return;
    }
    let mut world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    let waiting = both(&world);
    world.restart(forget_logins);
    for (tsh, ..) in waiting {
        ends_with(tsh, "has expired; start again with tsh login");
    }
}

#[test]
fn a_tab_that_was_closed_ends_tsh_with_one_line_when_its_ten_minutes_are_over() {
    if !need_oidc_provider() {
        return;
    }
    let Some(clock) = FakeClock::new() else { return };
    let world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    let start = |words: &[&str]| {
        let mut command = world.tsh(&["login", "--insecure", "--proxy", &world.address]);
        Waiting::start(command.args(words).envs(clock.environment()))
    };
    let mut here = start(&["--browser", "none"]);
    let (page, _) = here.page_and_code();
    let mut elsewhere = start(&["--device"]);
    elsewhere.hears("type this code:");
    // Opened, and then closed.
    assert!(browser.get(&page).contains("ann@example.com"));
    clock.set(11);
    for tsh in [here, elsewhere] {
        ends_with(tsh, "nobody finished the login in the browser within 10 minutes; run tsh login again");
    }
    assert_eq!(world.left(), [] as [std::path::PathBuf; 0]);
}
