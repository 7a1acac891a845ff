//! Single sign-on as a person sees it: `tsh login`, a browser, a certified OpenID provider, and then SSH.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use remoteler_tests::{
    Browser, Cluster, ClusterOptions, OidcProvider, Outcome, ProviderFiles, attribute, binary, need,
    need_oidc_provider, os_login, run,
};
use serde_json::json;

/// A cluster that logs in by a provider.
struct World {
    cluster: Cluster,
    provider: OidcProvider,
    /// The daemon reads the authority when it first needs it.
    _files: tempfile::TempDir,
}

impl World {
    fn start(account: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = ProviderFiles::make(dir.path());
        let cluster = Cluster::start_with(ClusterOptions {
            auth_config: "  authentication: { type: oidc }\n  identity_providers: { allow_internal_addresses: yes }\n"
                .into(),
            environment: vec![("SSL_CERT_FILE".into(), files.authority.display().to_string())],
            ..ClusterOptions::default()
        });
        let redirect = format!("https://{}/web/callback/idp", cluster.proxy());
        let claims = json!({
            "email": "ann@example.com", "email_verified": true, "groups": ["ssh-users"], "logins": [os_login()],
        });
        let provider = OidcProvider::start(cluster.dir(), &files, &redirect, account, &claims);
        let connector = json!({
            "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
            "spec": {
                "issuer_url": provider.issuer(), "client_id": "remoteler", "client_secret": "canary-client-secret",
                "redirect_url": redirect, "username_claim": "email",
                "claims_to_roles": [{ "claim": "groups", "value": "ssh-*", "roles": ["access"] }],
            },
        });
        cluster.tctl_with_input(&["create"], &connector.to_string()).ok();
        Self { cluster, provider, _files: dir }
    }

    fn tsh(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("tsh"));
        command.env_remove("SSH_CONNECTION").env("TSH_HOME", self.cluster.dir().join("tsh-home")).args(args);
        command.env("KUBECONFIG", self.cluster.dir().join("kubeconfig")).env_remove("SSH_AUTH_SOCK");
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        run(&mut self.tsh(args))
    }

    fn login(&self, extra: &[&str]) -> Waiting {
        let mut command = self.tsh(&["login", "--insecure", "--proxy", self.cluster.proxy()]);
        let mut child =
            command.args(extra).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Waiting { child, said }
    }
}

/// A `tsh login` that waits for a browser.
struct Waiting {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Waiting {
    /// What it says behind `mark`, as soon as it says so.
    fn hears(&mut self, mark: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "tsh ended without {mark:?}:\n{all}");
            all.push_str(&line);
            if let Some((_, rest)) = line.split_once(mark) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Its exit status and the rest of what it said.
    fn finish(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.said, &mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn a_person_logs_in_with_a_browser_gets_into_ssh_and_logs_out() {
    // I36, I41
    if !need_oidc_provider() || !need(&["ssh"]) {
        return;
    }
    let world = World::start(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    let mut tsh = world.login(&["--browser", "none"]);
    let url = tsh.hears("on this machine:");
    let code = tsh.hears("show this code:");
    let page = browser.get(&url);
    assert!(page.contains("ann@example.com") && page.contains(&code), "{page}\n{}", world.provider.log());
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
    world.run(&["logout"]).ok();
    let keys = world.cluster.dir().join("tsh-home/keys");
    let left: Vec<_> = std::fs::read_dir(keys)
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|dir| std::fs::read_dir(dir.path()).unwrap())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn on_a_machine_without_a_browser_a_code_is_typed_elsewhere() {
    if !need_oidc_provider() {
        return;
    }
    let world = World::start(Some("subject-1"));
    let browser = Browser::new(world.cluster.dir(), "browser");
    let mut tsh = world.login(&["--device"]);
    let url = tsh.hears("on any machine:");
    let code = tsh.hears("type this code:");
    let page = browser.get(&url);
    assert!(page.contains("name=\"code\""));
    let csrf = attribute(&page, "name=\"csrf\" value=\"").unwrap();
    let page = browser.post(&url, &[("csrf", &csrf), ("code", &code)]);
    let token = attribute(&page, "name=\"token\" value=\"").unwrap_or_else(|| panic!("{page}"));
    let action = attribute(&page, "action=\"").unwrap();
    let confirm = format!("https://{}{action}", world.cluster.proxy());
    let done = browser.post(&confirm, &[("token", &token), ("decision", "approve")]);
    assert!(done.contains("logged in"), "{done}");
    let (status, said) = tsh.finish();
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_refusal_of_the_provider_and_one_of_the_person_end_tsh_with_one_line() {
    if !need_oidc_provider() {
        return;
    }
    let world = World::start(None);
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
