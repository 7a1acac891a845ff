//! By OpenID Connect: a certified provider.

use remoteler_tests::{Browser, Cluster, ClusterOptions, attribute, need, need_oidc_provider, os_login};
use serde_json::json;

use crate::world::World;

#[test]
fn a_person_logs_in_with_a_browser_gets_into_ssh_and_logs_out() {
    // I36, I41
    if !need_oidc_provider() || !need(&["ssh"]) {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    let mut tsh = world.login(&["--browser", "none"]);
    let url = tsh.hears("on this machine:");
    let code = tsh.hears("show this code:");
    let page = browser.get(&url);
    assert!(page.contains("ann@example.com") && page.contains(&code), "{page}\n{}", provider.log());
    let token = attribute(&page, "name=\"token\" value=\"").unwrap();
    let confirm = format!("{url}/confirm");
    let foreign = Browser::new(world.cluster.dir(), "foreign");
    let refused = foreign.post(&confirm, &[("token", &token), ("decision", "approve")]);
    assert!(refused.contains("another browser"), "{refused}");
    let delivered = browser.post(&confirm, &[("token", &token), ("decision", "approve")]);
    let answer = attribute(&delivered, "content=\"0;url=").unwrap_or_else(|| panic!("{delivered}"));
    assert!(answer.starts_with("http://127.0.0.1:"), "{answer}");
    assert!(browser.get(&answer).contains("close this tab"));
    let (status, said) = tsh.finish();
    assert_eq!(status, Some(0), "{said}");

    let status = world.run(&["status", "--format", "json"]).ok().text();
    assert!(status.contains("ann@example.com"), "{status}");
    let target = format!("{}@{}", os_login(), Cluster::NODE);
    let out = world.run(&["ssh", &target, "echo", "through"]).ok().text();
    assert!(out.contains("through"), "{out}");
    // With valid certificates nobody is asked.
    world.run(&["login", "--insecure", "--proxy", world.cluster.proxy()]).ok();
    let event = world.cluster.event("user.login", |event| event["success"] == true);
    assert_eq!((&event["method"], &event["connector"]), (&json!("oidc"), &json!("idp")));
    let said = world.run(&["logout"]).ok();
    let (_, end) = said.stderr.split_once("to end that too, open: ").unwrap_or_else(|| panic!("{}", said.stderr));
    let page = browser.get(end.trim());
    assert!(page.contains("/session/end/confirm"), "the provider asks whether to end its login too: {page}");
    assert_eq!(world.left(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_logout_at_the_provider_leads_back_where_the_connector_says_so_whatever_was_chosen_there() {
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let provider = world.add_oidc(Some("subject-1"));
    // Without its secret, which stays.
    let mut connector = world.cluster.tctl_json(&["get", "oidc/idp"]);
    let back = format!("https://{}/web/logout/idp/done", world.address);
    connector["spec"]["post_logout_redirect_url"] = json!(back);
    world.cluster.tctl_with_input(&["create", "-f"], &connector.to_string()).ok();
    let browser = Browser::new(world.cluster.dir(), "browser");
    world.log_in(&browser);
    let said = world.run(&["logout"]).ok();
    let (_, end) = said.stderr.split_once("to end that too, open: ").unwrap_or_else(|| panic!("{}", said.stderr));
    // To stay signed in and to log out lead back alike, so that the page says no more than that.
    for logout in [None, Some(("logout", "yes"))] {
        let page = browser.get(end.trim());
        let action = attribute(&page, "action=\"").unwrap_or_else(|| panic!("{page}\n{}", provider.log()));
        let xsrf = attribute(&page, "name=\"xsrf\" value=\"").unwrap_or_else(|| panic!("{page}"));
        let fields: Vec<_> = [("xsrf", xsrf.as_str())].into_iter().chain(logout).collect();
        let page = browser.post(&action, &fields);
        assert!(page.contains("Back from the identity provider"), "{page}\n{}", provider.log());
        assert!(page.contains("If you chose to stay signed in there") && !page.contains("logged out"), "{page}");
    }
    // The same address from elsewhere says nothing of the kind.
    let page = Browser::new(world.cluster.dir(), "other").get(&back);
    assert!(!page.contains("Back from") && page.contains("began no logout"), "{page}");
}

#[test]
fn on_a_machine_without_a_browser_a_code_is_typed_elsewhere() {
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    let mut tsh = world.login(&["--device"]);
    let url = tsh.hears("on any machine:");
    let code = tsh.hears("type this code:");
    let done = world.decide_elsewhere(&browser, &url, &code, "approve");
    assert!(done.contains("logged in"), "{done}");
    let (status, said) = tsh.finish();
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_refusal_of_the_provider_ends_tsh_with_one_line() {
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(None);
    let browser = Browser::new(world.cluster.dir(), "browser");
    let mut tsh = world.login(&["--browser", "none"]);
    let url = tsh.hears("on this machine:");
    tsh.hears("show this code:");
    assert!(browser.get(&url).contains("declined at the identity provider"));
    let (status, said) = tsh.finish();
    assert_eq!((status, said.trim().lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("declined at the identity provider"), "{said}");
    let event = world.cluster.event("user.login", |event| event["success"] == false);
    assert!(event["error"].as_str().unwrap().contains("the user said no"), "{event}");
    let canary = world.cluster.tctl(&["get", "oidc"]).ok().text();
    assert!(!canary.contains("canary-client-secret"), "{canary}"); // I76
}
