//! Local users in the browser, and the page where each person chooses a way.

use remoteler_tests::{Browser, Cluster, ClusterOptions, attribute, need, need_oidc_provider, os_login};
use serde_json::json;

use crate::world::World;

const PASSWORD: &str = "correct horse battery ann";

#[test]
fn of_several_ways_on_the_page_each_leads_to_its_own_login_and_the_form_to_that_of_a_local_user() {
    // I36, I41
    if !need_oidc_provider() || !need(&["ssh"]) {
        return;
    }
    let world = World::start("local", ClusterOptions::default());
    let _provider = world.add_oidc(Some("subject-1"));
    // Another one: nobody is there, and it is only offered.
    let github = json!({
        "kind": "github", "version": "v3", "metadata": { "name": "gh" },
        "spec": {
            "client_id": "remoteler", "client_secret": "canary-github-secret", "display": "Acme <Code>",
            "redirect_url": world.callback("gh"), "endpoint_url": "https://github.example",
            "api_endpoint_url": "https://github.example/api",
            "teams_to_roles": [{ "organization": "acme", "team": "ops", "roles": ["access"] }],
        },
    });
    world.cluster.tctl_with_input(&["create"], &github.to_string()).ok();
    world.cluster.tctl(&["users", "add", "ann", "--roles", "access", "--logins", &os_login()]).ok();
    world.cluster.tctl_with_input(&["users", "passwd", "ann"], &format!("{PASSWORD}\n")).ok();

    // By the form: wrong once, then right.
    let browser = Browser::new(world.cluster.dir(), "ann");
    let mut tsh = world.login(&["--browser", "none"]);
    let (login, code) = tsh.page_and_code();
    let page = browser.get(&login);
    let path = format!("/web/login/{}", login.rsplit('/').next().unwrap());
    for (connector, shown) in [("gh", "Acme &#60;Code&#62;"), ("idp", "idp")] {
        let href = format!("href=\"{path}?connector={connector}\"");
        let link = page.split_once(&href).unwrap_or_else(|| panic!("{href} in {page}")).1;
        assert!(link.split_once("</a>").unwrap().0.contains(shown), "{page}");
    }
    let prove = |page: &str, password: &str| {
        let token = attribute(page, "name=\"token\" value=\"").unwrap_or_else(|| panic!("{page}"));
        browser.post(
            &format!("{login}/local"),
            &[("token", &token), ("user", "ann"), ("password", password), ("code", "")],
        )
    };
    let again = prove(&page, "wrong horse battery");
    assert!(again.contains("Wrong user name or password") && again.contains("?connector=idp"), "{again}");
    let shown = prove(&again, PASSWORD);
    assert!(shown.contains(&code), "{shown}");
    world.confirm(&browser, &login, &shown);
    let (status, said) = tsh.finish();
    assert_eq!(status, Some(0), "{said}");
    let status = world.run(&["status", "--format", "json"]).ok().text();
    assert!(status.contains("\"ann\""), "{status}");
    let target = format!("{}@{}", os_login(), Cluster::NODE);
    assert!(world.run(&["ssh", &target, "echo", "through"]).ok().text().contains("through"));
    let event = world.cluster.event("user.login", |event| event["success"] == true);
    assert_eq!((&event["method"], &event["user"]), (&json!("local"), &json!("ann")));
    world.run(&["logout"]).ok();
    assert_eq!(world.left(), [] as [std::path::PathBuf; 0]);

    // By a link of the same page, somebody else.
    let browser = Browser::new(world.cluster.dir(), "of-idp");
    let mut tsh = world.login(&["--browser", "none"]);
    let (login, _) = tsh.page_and_code();
    let page = browser.get(&login);
    let href = attribute(&page, "href=\"/web/login/").unwrap_or_else(|| panic!("{page}"));
    assert!(href.ends_with("?connector=gh"), "the first of them: {href}");
    let shown = browser.get(&format!("{login}?connector=idp"));
    assert!(shown.contains("ann@example.com"), "{shown}");
    world.confirm(&browser, &login, &shown);
    let (status, said) = tsh.finish();
    assert_eq!(status, Some(0), "{said}");
    let status = world.run(&["status", "--format", "json"]).ok().text();
    assert!(status.contains("ann@example.com"), "{status}");

    // Whoever says which way is asked for no other.
    world.run(&["logout"]).ok();
    let mut tsh = world.login(&["--auth", "local", "--browser", "none"]);
    let (login, _) = tsh.page_and_code();
    let page = Browser::new(world.cluster.dir(), "local").get(&login);
    assert!(page.contains("name=\"password\"") && !page.contains("connector="), "{page}");
    tsh.stop();
}
