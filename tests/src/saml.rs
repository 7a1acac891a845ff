//! Identity providers and verifiers of SAML that other projects made: where they are, and running them.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{Outcome, ProviderFiles, client, need, run};

/// pysaml2, signxml and samlify, where `cargo xtask test` puts them, and the programs that they need.
#[derive(Clone, Debug)]
pub struct SamlClients {
    installed: PathBuf,
    scripts: PathBuf,
}

impl SamlClients {
    /// Finds them. `None`, with a word about it, when one is missing.
    ///
    /// # Panics
    /// In the full check, when one is missing.
    #[must_use]
    pub fn find() -> Option<Self> {
        if !need(&["xmlsec1", "python3", "node", "openssl", "curl"]) {
            return None;
        }
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tests.join("../target"), PathBuf::from);
        let installed = target.join("clients/saml");
        if !installed.join("installed").is_file() {
            let said = "needs the providers of tests/saml, which `cargo xtask test` installs";
            assert!(std::env::var_os("REMOTELER_FULL_CHECK").is_none(), "{said}");
            eprintln!("SKIPPED: {said}");
            return None;
        }
        Some(Self { installed, scripts: tests.join("saml") })
    }

    /// A script of `tests/saml`, to be run with arguments.
    ///
    /// # Panics
    /// When its interpreter has gone.
    #[must_use]
    pub fn script(&self, name: &str) -> Command {
        let interpreter = if name.ends_with(".py") { "python3" } else { "node" };
        let mut command = Command::new(client(interpreter).expect("it was there a moment ago").path());
        command.arg(self.scripts.join(name));
        command.env("PYTHONPATH", self.installed.join("python")).env("PYTHONWARNINGS", "ignore");
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("NODE_PATH", self.installed.join("node_modules"));
        command
    }

    /// Makes a key and a certificate of the provider: `key.pem` and `certificate.pem` in `dir`. `kind` is what `openssl -newkey` takes.
    ///
    /// # Panics
    /// When openssl does not.
    pub fn make_key(&self, dir: &Path, kind: &[&str]) {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=idp", "-newkey"]).args(kind);
        run(openssl.args(["-keyout", "key.pem", "-out", "certificate.pem"]).current_dir(dir)).ok();
    }
}

/// An identity provider that runs. Ended when dropped.
#[derive(Debug)]
pub struct SamlProvider {
    child: Child,
    base: String,
}

impl SamlProvider {
    /// Starts `script` with its files in `dir`, among them our metadata as `sp.xml`; `sign` says what it signs.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(clients: &SamlClients, script: &str, dir: &Path, sign: &str) -> Self {
        Self::start_with(clients, script, dir, &[sign.to_owned()])
    }

    /// The same over TLS, with users who have this login at nodes. Our metadata is asked for when somebody logs in.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_tls(
        clients: &SamlClients,
        script: &str,
        dir: &Path,
        sign: &str,
        files: &ProviderFiles,
        login: &str,
    ) -> Self {
        let tls = serde_json::json!({ "cert": files.certificate, "key": files.key, "logins": login });
        Self::start_with(clients, script, dir, &[sign.to_owned(), tls.to_string()])
    }

    fn start_with(clients: &SamlClients, script: &str, dir: &Path, arguments: &[String]) -> Self {
        let log = std::fs::File::create(dir.join("provider.log")).expect("a file can be made");
        let mut command = clients.script(script);
        command.arg(dir).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the interpreter starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a pipe reads");
        let provider = Self { child, base: line.trim().to_owned() };
        let said = || std::fs::read_to_string(dir.join("provider.log")).unwrap_or_default();
        let listens = ["http://127.0.0.1:", "https://localhost:"].iter().any(|start| provider.base.starts_with(start));
        assert!(listens, "{script} did not start: {}", said());
        provider
    }

    /// Where it listens.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Its metadata.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn metadata(&self) -> Vec<u8> {
        self.curl(&[&format!("{}/metadata", self.base)]).ok().stdout
    }

    /// What a browser gets: the fields `SAMLResponse` and `RelayState` of the form that it is to post to us.
    ///
    /// # Panics
    /// When there is no such form.
    #[must_use]
    #[track_caller]
    pub fn answer(&self, arguments: &[&str]) -> (String, String) {
        let page = self.curl(arguments).ok().text();
        let (Some(response), Some(state)) = (form_field(&page, "SAMLResponse"), form_field(&page, "RelayState")) else {
            panic!("the provider answered no form: {page}")
        };
        (response, state)
    }

    fn curl(&self, arguments: &[&str]) -> Outcome {
        run(Command::new("curl").args(["--silent", "--max-time", "60"]).args(arguments))
    }
}

impl Drop for SamlProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of a hidden field of a page's form.
#[must_use]
pub fn form_field(page: &str, name: &str) -> Option<String> {
    let mut tags = page.split('<').filter(|tag| tag.starts_with("input"));
    let tag = tags.find(|tag| tag.contains(&format!("name=\"{name}\"")))?;
    let value = tag.split("value=\"").nth(1)?.split('"').next()?;
    let value = value.replace("&#34;", "\"").replace("&quot;", "\"").replace("&lt;", "<");
    Some(value.replace("&#61;", "=").replace("&#38;", "&").replace("&amp;", "&"))
}
