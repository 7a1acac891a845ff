//! By OpenID Connect: a certified provider.

use std::process::Command;

use remoteler_tests::{Browser, Cluster, ClusterOptions, attribute, binary, need, need_oidc_provider, os_login};
use serde_json::json;

use crate::world::{Waiting, World, claims};

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

#[test]
fn a_connector_that_is_not_written_yet_is_tested_by_a_real_login_that_makes_nothing() {
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let provider = world.add_oidc(Some("subject-1"));
    let draft = |mappings: serde_json::Value| {
        let draft = json!({
            "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
            "spec": {
                "issuer_url": provider.issuer(), "client_id": "remoteler", "client_secret": "canary-client-secret",
                "redirect_url": world.callback("idp"), "claims_to_roles": mappings,
            },
        });
        let file = world.cluster.dir().join("draft.yaml");
        std::fs::write(&file, draft.to_string()).unwrap();
        file
    };
    let tested = |mappings: serde_json::Value, format: &str| {
        let mut command = Command::new(binary("tctl"));
        command.arg("--data-dir").arg(world.cluster.data_dir()).args(["--format", format, "sso", "test"]);
        let mut tctl = Waiting::start(command.arg(draft(mappings)));
        let page = tctl.hears("Open in a browser:");
        let shown = Browser::new(world.cluster.dir(), format).get(&page);
        assert!(shown.contains("test") && !shown.contains("name=\"decision\""), "nothing is to confirm: {shown}");
        tctl.output()
    };

    let mappings = json!([
        { "claim": "groups", "value": "ssh-*", "roles": ["access"] },
        { "claim": "email", "value": "^(.*)@example\\.com$", "roles": ["auditor"] },
        { "claim": "groups", "value": "admins", "roles": ["editor"] },
    ]);
    let (status, out, said) = tested(mappings.clone(), "text");
    assert_eq!(status, Some(0), "{out}{said}");
    let logins = format!("  logins = {}", os_login());
    for line in [
        "user     ann@example.com",
        "subject  subject-1",
        "  email = ann@example.com",
        "  email_verified = true",
        "  groups = ssh-users",
        &logins,
        "  groups: ssh-* -> access: matches ssh-users, gives access",
        "  email: ^(.*)@example\\.com$ -> auditor: matches ann@example.com, gives auditor",
        "  groups: admins -> editor: matches nothing",
        "roles    access, auditor",
    ] {
        assert!(out.lines().any(|said| said == line), "{line:?} in\n{out}");
    }
    let (status, out, said) = tested(mappings, "json");
    assert_eq!(status, Some(0), "{out}{said}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["roles"], &report["claims"]["groups"]), (&json!(["access", "auditor"]), &json!(["ssh-users"])));

    // Who would be refused is told why by the exit status too, and still sees each claim.
    let (status, out, said) = tested(json!([{ "claim": "groups", "value": "guests", "roles": ["access"] }]), "text");
    assert_eq!((status, said.trim().lines().count()), (Some(1), 1), "{out}{said}");
    assert!(said.contains("the login would be refused") && said.contains("no role"), "{said}");
    assert!(
        out.contains("  groups = ssh-users") && out.contains("  groups: guests -> access: matches nothing"),
        "{out}"
    );

    assert!(!format!("{out}{said}").contains("canary"), "{out}{said}"); // I76
    let users = world.cluster.tctl_json(&["users", "ls"]);
    assert!(!users.to_string().contains("ann@example.com"), "{users}");
    let logins = world.cluster.events("user.login");
    assert!(logins.iter().all(|event| event["success"] == false), "{logins:?}");
    // The document that is stored is as it was.
    let stored = world.cluster.tctl_json(&["get", "oidc/idp"]);
    assert_eq!(stored["spec"]["claims_to_roles"].as_array().unwrap().len(), 1, "{stored}");
}

/// Roles of the login at hand.
fn roles(world: &World) -> serde_json::Value {
    let status = world.run(&["status", "--format", "json"]).ok().text();
    let mut logins: serde_json::Value = serde_json::from_str(&status).unwrap();
    logins[0]["roles"].take()
}

#[test]
fn a_group_that_the_provider_takes_away_opens_nothing_after_the_next_login() {
    // I42
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let provider = world.add_oidc(Some("subject-1"));
    let mut connector = world.cluster.tctl_json(&["get", "oidc/idp"]);
    connector["spec"]["claims_to_roles"] = json!([
        { "claim": "groups", "value": "ssh-*", "roles": ["access"] },
        { "claim": "groups", "value": "readers", "roles": ["auditor"] },
    ]);
    world.cluster.tctl_with_input(&["create", "-f"], &connector.to_string()).ok();
    let browser = Browser::new(world.cluster.dir(), "browser");
    let ssh = || world.run(&["ssh", &format!("{}@{}", os_login(), Cluster::NODE), "echo in"]);
    provider.set_claims(&claims(&["ssh-users", "readers"]));
    world.log_in(&browser);
    assert_eq!(roles(&world), json!(["access", "auditor"]));
    assert_eq!(ssh().ok().text(), "in\n");

    provider.set_claims(&claims(&["readers"]));
    // Nobody tells the cluster: what was issued is good until it ends.
    assert_eq!(ssh().ok().text(), "in\n");
    world.run(&["logout"]).ok();
    world.log_in(&browser);
    assert_eq!(roles(&world), json!(["auditor"]));
    let refused = ssh();
    assert_eq!((refused.code, refused.text().as_str()), (Some(255), ""), "{}", refused.stderr);
    assert_eq!(world.cluster.events("session.start").len(), 2);

    provider.set_claims(&claims(&[]));
    world.run(&["logout"]).ok();
    let mut tsh = world.login(&["--browser", "none"]);
    let (page, _) = tsh.page_and_code();
    let shown = browser.get(&page);
    assert!(shown.contains("no role"), "{shown}");
    let (status, said) = tsh.finish();
    assert_eq!((status, said.trim().lines().count()), (Some(1), 1), "{said}");
    assert_eq!(world.left(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_mapping_that_is_gone_and_a_connector_that_is_disabled_count_with_the_next_login() {
    // I42
    if !need_oidc_provider() {
        return;
    }
    let world = World::start("oidc", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    world.log_in(&browser);
    assert_eq!(roles(&world), json!(["access"]));
    // Nobody is let in by what was given before.
    let mut connector = world.cluster.tctl_json(&["get", "oidc/idp"]);
    let write = |connector: &serde_json::Value| {
        world.cluster.tctl_with_input(&["create", "-f"], &connector.to_string()).ok();
    };
    connector["spec"]["claims_to_roles"] = json!([{ "claim": "groups", "value": "ssh-*", "roles": ["auditor"] }]);
    write(&connector);
    world.run(&["logout"]).ok();
    world.log_in(&browser);
    assert_eq!(roles(&world), json!(["auditor"]));
    world.run(&["logout"]).ok();
    connector["spec"]["claims_to_roles"] = json!([{ "claim": "groups", "value": "gone", "roles": ["access"] }]);
    write(&connector);
    let mut tsh = world.login(&["--browser", "none"]);
    let (page, _) = tsh.page_and_code();
    let shown = browser.get(&page);
    assert!(shown.contains("no role"), "{shown}");
    let (status, said) = tsh.finish();
    assert_eq!((status, said.trim().lines().count()), (Some(1), 1), "{said}");

    connector["spec"]["disabled"] = json!(true);
    write(&connector);
    let refused = world.run(&["login", "--insecure", "--proxy", &world.address, "--auth", "idp", "--browser", "none"]);
    // The line above it is that of --insecure.
    let said: Vec<&str> = refused.stderr.lines().filter(|line| !line.contains("--insecure:")).collect();
    assert_eq!((refused.code, said.len()), (Some(1), 1), "{}", refused.stderr);
    assert_eq!(world.left(), [] as [std::path::PathBuf; 0]);
}
