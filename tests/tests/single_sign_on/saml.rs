//! By SAML 2.0: two identity providers that other projects made, each by one binding of the request; and what somebody does with an answer that is not theirs.

use remoteler_tests::{
    Browser, Chromium, Cluster, ClusterOptions, SamlClients, SamlProvider, attribute, form_field, need, os_login, run,
};
use serde_json::{Value, json};

use crate::world::World;

/// A provider that the cluster believes, in a directory of its own.
pub(crate) struct Corp {
    _provider: SamlProvider,
    _dir: tempfile::TempDir,
}

impl World {
    /// Starts an identity provider that signs both the response and its assertion, and makes its connector `corp`.
    pub(crate) fn add_saml(&self, clients: &SamlClients, script: &str, binding: &str) -> Corp {
        self.add_saml_of(clients, script, binding, "both")
    }

    /// The same, with what it signs and encrypts.
    fn add_saml_of(&self, clients: &SamlClients, script: &str, binding: &str, sign: &str) -> Corp {
        let dir = tempfile::tempdir().unwrap();
        clients.make_key(dir.path(), &["rsa:2048"]);
        let provider = SamlProvider::start_tls(clients, script, dir.path(), sign, &self.files, &os_login());
        let connector = json!({
            "kind": "saml", "version": "v2", "metadata": { "name": "corp" },
            "spec": {
                "acs": self.callback("corp"), "entity_descriptor_url": format!("{}/metadata", provider.base()),
                "preferred_request_binding": binding, "encrypted_assertions": sign.starts_with("encrypted"),
                "attributes_to_roles": [{ "name": "groups", "value": "dev", "roles": self.roles }],
            },
        });
        self.cluster.tctl_with_input(&["create"], &connector.to_string()).ok();
        let ours = Browser::new(dir.path(), "nobody").get(&self.path("/web/saml/corp/metadata"));
        assert!(ours.contains(":EntityDescriptor") || ours.contains("<EntityDescriptor"), "{ours}");
        std::fs::write(dir.path().join("sp.xml"), ours).unwrap();
        Corp { _provider: provider, _dir: dir }
    }

    fn path(&self, path: &str) -> String {
        format!("https://{}{path}", self.cluster.proxy())
    }
}

/// What the identity provider has the browser post to us.
pub(crate) struct Answer {
    to: String,
    response: String,
    state: String,
}

impl Answer {
    fn of(page: &str) -> Self {
        let field = |name: &str| form_field(page, name).unwrap_or_else(|| panic!("no {name}: {page}"));
        let to = attribute(page, "action=\"").unwrap_or_else(|| panic!("{page}"));
        Self { to, response: field("SAMLResponse"), state: field("RelayState") }
    }

    /// Posted from the provider's page: our page, and where it leads.
    fn post(&self, browser: &Browser) -> (String, Option<String>) {
        browser.post_from_elsewhere(&self.to, &[("SAMLResponse", &self.response), ("RelayState", &self.state)])
    }
}

/// Takes a browser from the page that `tsh` opens through the identity provider, up to the form that it answers.
pub(crate) fn to_the_provider(browser: &Browser, login: &str) -> Answer {
    let page = browser.get(login);
    if form_field(&page, "SAMLResponse").is_some() {
        return Answer::of(&page);
    }
    // HTTP-POST: a page of ours that goes on by itself, or by its button.
    assert!(page.contains("src=\"/web/submit.js\"") && page.contains("<button>"), "{page}");
    let field = |name: &str| form_field(&page, name).unwrap_or_else(|| panic!("no {name}: {page}"));
    let to = attribute(&page, "action=\"").unwrap();
    let fields = [("SAMLRequest", field("SAMLRequest")), ("RelayState", field("RelayState"))];
    let (answer, _) = browser.post_from_elsewhere(&to, &fields.each_ref().map(|(name, value)| (*name, value.as_str())));
    Answer::of(&answer)
}

impl World {
    /// The whole way of a person by SAML, up to the page that asks whether it is them.
    pub(crate) fn prove_by_saml(&self, browser: &Browser, login: &str) -> String {
        let answer = to_the_provider(browser, login);
        let (page, back) = answer.post(browser);
        browser.get(&self.path(&back.unwrap_or_else(|| panic!("{page}"))))
    }
}

// I36 I46
#[test]
fn a_person_logs_in_by_saml_through_each_binding_gets_into_ssh_logs_out_and_in_again_by_metadata_of_a_file() {
    let Some(clients) = SamlClients::find() else { return };
    if !need(&["ssh"]) {
        return;
    }
    // pysaml2 encrypts; in the clear it answers in the tests below.
    for (script, binding, sign) in
        [("idp_pysaml2.py", "http-redirect", "encrypted"), ("idp_samlify.js", "http-post", "both")]
    {
        let world = World::start("saml", ClusterOptions::default());
        let _corp = world.add_saml_of(&clients, script, binding, sign);
        let browser = Browser::new(world.cluster.dir(), "browser");
        let mut tsh = world.login(&["--browser", "none"]);
        let (login, code) = tsh.page_and_code();
        let page = world.prove_by_saml(&browser, &login);
        assert!(page.contains("ann-1") && page.contains(&code), "{script}: {page}");
        world.confirm(&browser, &login, &page);
        let (status, said) = tsh.finish();
        assert_eq!(status, Some(0), "{script}: {said}");
        let target = format!("{}@{}", os_login(), Cluster::NODE);
        let out = world.run(&["ssh", &target, "echo", "through"]).ok().text();
        assert!(out.contains("through"), "{script}: {out}");
        let event = world.cluster.event("user.login", |event| event["success"] == true);
        assert_eq!((&event["method"], &event["connector"]), (&json!("saml"), &json!("corp")), "{script}");
        world.run(&["logout"]).ok();
        assert_eq!(world.left(), [] as [std::path::PathBuf; 0], "{script}");

        // The same with the provider's metadata in the document, as an administrator has it in a file. That may be another provider, so that our key
        // for encryption is a new one, of which whoever encrypts has to be told first.
        if sign == "encrypted" {
            continue;
        }
        let mut connector = world.cluster.tctl_json(&["get", "saml/corp"]);
        let url = connector["spec"].as_object_mut().unwrap().remove("entity_descriptor_url").unwrap();
        let metadata = Browser::new(world.cluster.dir(), "nobody").get(url.as_str().unwrap());
        connector["spec"]["entity_descriptor"] = metadata.into();
        world.cluster.tctl_with_input(&["create", "-f"], &connector.to_string()).ok();
        let mut tsh = world.login(&["--browser", "none"]);
        let (login, _) = tsh.page_and_code();
        let page = world.prove_by_saml(&browser, &login);
        world.confirm(&browser, &login, &page);
        let (status, said) = tsh.finish();
        assert_eq!(status, Some(0), "{script}, by a file: {said}");
    }
}

// I36 I41 I50 I54
#[test]
fn a_real_browser_goes_the_whole_way_by_saml_with_cookies_and_policies_as_they_are() {
    let (Some(clients), Some(chromium)) = (SamlClients::find(), Chromium::find()) else { return };
    let world = World::start("saml", ClusterOptions::default());
    let _corp = world.add_saml(&clients, "idp_pysaml2.py", "http-post");
    let mut tsh = world.login(&["--browser", "none"]);
    let (login, code) = tsh.page_and_code();
    let said = run(chromium.script("saml.mjs").args([&login, &code])).ok().text();
    assert!(said.contains("brought tsh its answer"), "{said}");
    let (status, said) = tsh.finish();
    assert_eq!(status, Some(0), "{said}");
}

// I36 I46
#[test]
fn an_answer_of_saml_counts_once_for_its_request_in_its_browser_and_else_is_audited() {
    let Some(clients) = SamlClients::find() else { return };
    let world = World::start("saml", ClusterOptions::default());
    let _corp = world.add_saml(&clients, "idp_pysaml2.py", "http-redirect");
    let refused = |kind: &str, marks: &[&str]| {
        world.cluster.event(kind, |event: &Value| {
            let error = event["error"].as_str().unwrap_or_default();
            event["success"] != true && marks.iter().all(|mark| error.contains(mark))
        })
    };

    // Another browser carries the answer: it gets nothing, nor does who waits.
    let (mallory, victim) = (Browser::new(world.cluster.dir(), "mallory"), Browser::new(world.cluster.dir(), "victim"));
    let mut waits = world.login(&["--browser", "none"]);
    let (login, _) = waits.page_and_code();
    let answer = to_the_provider(&mallory, &login);
    let (_, back) = answer.post(&victim);
    let back = world.path(&back.unwrap());
    assert!(victim.get(&back).contains("another browser"));
    refused("auth", &["another browser"]);
    assert!(mallory.get(&back).contains("was used already"));
    waits.stop();

    // In its own it is right, and afterwards nobody's.
    let browser = Browser::new(world.cluster.dir(), "browser");
    let mut tsh = world.login(&["--browser", "none"]);
    let (login, _) = tsh.page_and_code();
    let answer = to_the_provider(&browser, &login);
    let (_, back) = answer.post(&browser);
    let page = browser.get(&world.path(&back.unwrap()));
    world.confirm(&browser, &login, &page);
    assert_eq!(tsh.finish().0, Some(0));
    let (again, nowhere) = answer.post(&browser);
    assert!(again.contains("was used already") && nowhere.is_none(), "{again}");
    refused("auth", &["state that is unknown, was used", "connector corp"]);

    // With the state of the next login it is the answer to another request.
    world.run(&["logout"]).ok();
    let mut next = world.login(&["--browser", "none"]);
    let (login, _) = next.page_and_code();
    let fresh = to_the_provider(&browser, &login);
    let (said, nowhere) = Answer { state: fresh.state.clone(), ..answer }.post(&browser);
    assert!(said.contains("does not answer this login") && nowhere.is_none(), "{said}");
    refused("user.login", &["does not answer this login"]);
    let (status, said) = next.finish();
    assert_eq!((status, said.trim().lines().count()), (Some(1), 1), "{said}");
    for secret in [&fresh.state, &fresh.response] {
        let log = std::fs::read_to_string(world.cluster.dir().join("daemon.log")).unwrap();
        let events = serde_json::to_string(&world.cluster.events("user.login")).unwrap();
        assert!(!log.contains(secret.as_str()) && !events.contains(secret.as_str()), "an answer was kept"); // I76
    }
}
