//! A cluster that logs in by identity providers, and a `tsh` that waits for a browser.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use remoteler_tests::{
    Browser, Cluster, ClusterOptions, OidcProvider, Outcome, ProviderFiles, attribute, binary, os_login, run,
};
use serde_json::json;

/// A cluster that believes the providers of a test.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) files: ProviderFiles,
    /// Where people reach the proxy.
    pub(crate) address: String,
    /// What the connectors give to who comes.
    pub(crate) roles: Vec<String>,
    /// The daemon reads the authority when it first needs it.
    _files: tempfile::TempDir,
}

impl World {
    /// One where people log in by `kind` when they say nothing else.
    pub(crate) fn start(kind: &str, options: ClusterOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = ProviderFiles::make(dir.path());
        let auth_config = format!(
            "  authentication: {{ type: {kind} }}\n  identity_providers: {{ allow_internal_addresses: yes }}\n{}",
            options.auth_config
        );
        let environment = vec![("SSL_CERT_FILE".into(), files.authority.display().to_string())];
        let cluster = Cluster::start_with(ClusterOptions { auth_config, environment, ..options });
        let address = cluster.proxy().to_owned();
        Self { cluster, files, address, roles: vec!["access".into()], _files: dir }
    }

    /// The same, whose proxy has a name, as security keys need one.
    pub(crate) fn under_a_name(mut self) -> Self {
        let (_, port) = self.cluster.proxy().rsplit_once(':').unwrap();
        self.address = format!("localhost:{port}");
        self.cluster.configure_proxy(&format!("  public_addr: {}\n", self.address));
        self.restart(|_| ());
        self
    }

    /// Kills the daemon, does something to what it left, and starts it again.
    pub(crate) fn restart(&mut self, meanwhile: impl FnOnce(&Cluster)) {
        self.cluster.kill_daemon();
        meanwhile(&self.cluster);
        self.cluster.start_daemon();
        self.cluster.wait_ready();
    }

    /// Starts an OpenID provider and makes its connector `idp`. Who comes is `account`, or nobody.
    pub(crate) fn add_oidc(&self, account: Option<&str>) -> OidcProvider {
        let redirect = self.callback("idp");
        let claims = claims(&["ssh-users"]);
        let provider = OidcProvider::start(self.cluster.dir(), &self.files, &redirect, account, &claims);
        let connector = json!({
            "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
            "spec": {
                "issuer_url": provider.issuer(), "client_id": "remoteler", "client_secret": "canary-client-secret",
                "redirect_url": redirect, "username_claim": "email",
                "claims_to_roles": [{ "claim": "groups", "value": "ssh-*", "roles": self.roles }],
            },
        });
        self.cluster.tctl_with_input(&["create"], &connector.to_string()).ok();
        provider
    }

    /// Where a connector's provider sends browsers back to.
    pub(crate) fn callback(&self, connector: &str) -> String {
        format!("https://{}/web/callback/{connector}", self.address)
    }

    pub(crate) fn tsh(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("tsh"));
        command.env_remove("SSH_CONNECTION").env("TSH_HOME", self.cluster.dir().join("tsh-home")).args(args);
        command.env("KUBECONFIG", self.cluster.dir().join("kubeconfig")).env_remove("SSH_AUTH_SOCK");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        run(&mut self.tsh(args))
    }

    /// `tsh login` with these words, as it waits for a browser.
    pub(crate) fn login(&self, extra: &[&str]) -> Waiting {
        let mut command = self.tsh(&["login", "--insecure", "--proxy", &self.address]);
        Waiting::start(command.args(extra))
    }

    /// Logs `tsh` in by the provider, in this browser.
    pub(crate) fn log_in(&self, browser: &Browser) {
        let mut tsh = self.login(&["--browser", "none"]);
        let (page, _) = tsh.page_and_code();
        let shown = browser.get(&page);
        self.confirm(browser, &page, &shown);
        let (status, said) = tsh.finish();
        assert_eq!(status, Some(0), "{said}");
    }

    /// Confirms the login whose page is shown: the whole way to the listener of `tsh`.
    pub(crate) fn confirm(&self, browser: &Browser, login: &str, page: &str) {
        let answer = self.decide(browser, login, page, "approve");
        assert!(answer.starts_with("http://127.0.0.1:"), "{answer}");
        assert!(browser.get(&answer).contains("close this tab"));
    }

    /// Decides about the login whose page is shown: where the browser is to bring the answer.
    pub(crate) fn decide(&self, browser: &Browser, login: &str, page: &str, decision: &str) -> String {
        let token = attribute(page, "name=\"token\" value=\"").unwrap_or_else(|| panic!("{page}"));
        let delivered = browser.post(&format!("{login}/confirm"), &[("token", &token), ("decision", decision)]);
        attribute(&delivered, "content=\"0;url=").unwrap_or_else(|| panic!("{delivered}"))
    }

    /// Types the code of a login on another machine, proves there who it is, and decides: the last page.
    pub(crate) fn decide_elsewhere(&self, browser: &Browser, url: &str, code: &str, decision: &str) -> String {
        let page = browser.get(url);
        assert!(page.contains("name=\"code\""));
        let csrf = attribute(&page, "name=\"csrf\" value=\"").unwrap();
        // Browsers take no redirect of a form's answer to another site, so the answer is a page that leads on.
        let page = browser.post(url, &[("csrf", &csrf), ("code", code)]);
        let onward = attribute(&page, "href=\"/web/login/").unwrap_or_else(|| panic!("{page}"));
        let page = browser.get(&format!("https://{}/web/login/{onward}", self.address));
        let token = attribute(&page, "name=\"token\" value=\"").unwrap_or_else(|| panic!("{page}"));
        let action = attribute(&page, "action=\"").unwrap();
        browser.post(&format!("https://{}{action}", self.address), &[("token", &token), ("decision", decision)])
    }

    /// Files with keys or certificates that `tsh` has left.
    pub(crate) fn left(&self) -> Vec<std::path::PathBuf> {
        let keys = self.cluster.dir().join("tsh-home/keys");
        let homes = std::fs::read_dir(keys).into_iter().flatten().flatten();
        homes.flat_map(|dir| std::fs::read_dir(dir.path()).unwrap()).map(|file| file.unwrap().path()).collect()
    }
}

/// What an OpenID provider says of who comes, who is in these groups.
pub(crate) fn claims(groups: &[&str]) -> serde_json::Value {
    json!({ "email": "ann@example.com", "email_verified": true, "groups": groups, "logins": [os_login()] })
}

/// A `tsh login` that waits for a browser.
pub(crate) struct Waiting {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Waiting {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    /// What it says behind `mark`, as soon as it says so.
    pub(crate) fn hears(&mut self, mark: &str) -> String {
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

    /// The page to open, and the code that is shown.
    pub(crate) fn page_and_code(&mut self) -> (String, String) {
        (self.hears("on this machine:"), self.hears("show this code:"))
    }

    /// Ends it before it is done.
    pub(crate) fn stop(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its exit status and the rest of what it said.
    pub(crate) fn finish(self) -> (Option<i32>, String) {
        let (status, _, rest) = self.output();
        (status, rest)
    }

    /// Its exit status, its result, and the rest of what it said.
    pub(crate) fn output(mut self) -> (Option<i32>, String, String) {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), rest)
    }
}
