//! A real OpenID provider beside a cluster: `oidc-provider` from npm, under TLS with an authority of the test's own, and a browser made of curl.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::{Outcome, Process, client, eventually, run};

/// Where the provider's program and what it needs are installed (bins/xtask/src/clients.rs).
fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/oidc")
}

/// Whether the provider can be started. When not: says so, and fails in the full check.
///
/// # Panics
/// In the full check, when it is missing.
#[must_use]
pub fn need_oidc_provider() -> bool {
    if installed().join("node_modules/oidc-provider").is_dir() && client("node").is_some() && client("curl").is_some() {
        return true;
    }
    let said = "needs npm's oidc-provider, node and curl, which are not here; cargo xtask test installs the first";
    assert!(env::var_os("REMOTELER_FULL_CHECK").is_none(), "{said}");
    eprintln!("SKIPPED: {said}");
    false
}

/// Files of an authority that the daemon is to believe, and of the provider's certificate.
#[derive(Debug)]
pub struct ProviderFiles {
    /// PEM of the authority, for `SSL_CERT_FILE`.
    pub authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl ProviderFiles {
    /// PEM of the certificate of providers on `localhost`.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// PEM of its key.
    #[must_use]
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// Makes them in `dir`.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn make(dir: &Path) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("a certificate can be made");
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().expect("a key can be made");
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&leaf_key, &issuer).expect("a certificate can be made");
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).expect("the file can be written");
            path
        };
        Self {
            authority: write("idp-authority.pem", authority.pem()),
            certificate: write("idp.pem", leaf.pem()),
            key: write("idp.key", leaf_key.serialize_pem()),
        }
    }
}

/// A running provider.
#[derive(Debug)]
pub struct OidcProvider {
    process: Process,
    issuer: String,
    claims: PathBuf,
}

impl OidcProvider {
    /// Starts one with `account` for whoever comes, or that refuses everybody; browsers come back to `redirect`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(dir: &Path, files: &ProviderFiles, redirect: &str, account: Option<&str>, claims: &Value) -> Self {
        let said = dir.join("idp-claims.json");
        fs::write(&said, claims.to_string()).expect("the file can be written");
        let settings = json!({
            "cert": files.certificate, "key": files.key, "redirect": redirect, "account": account, "claims": said,
        });
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("providers/oidc/provider.mjs");
        let here = installed().join("provider.mjs");
        // Beside its packages, where node looks for them.
        if fs::read(&here).ok() != fs::read(&program).ok() {
            fs::copy(&program, &here).expect("the provider's program can be copied");
        }
        let mut command = Command::new(client("node").expect("was asked for").path());
        command.arg(&here).arg(settings.to_string());
        let mut process = Process::start(&mut command, &dir.join("idp.log"));
        let issuer = eventually("the identity provider listens", || {
            assert!(process.runs(), "the provider ended:\n{}", process.log());
            let log = process.log();
            log.lines().find(|line| line.starts_with("https://localhost:")).map(str::to_owned).ok_or(log)
        });
        Self { process, issuer, claims: said }
    }

    /// What it says from now on of whoever logs in.
    ///
    /// # Panics
    /// When it cannot be told.
    pub fn set_claims(&self, claims: &Value) {
        fs::write(&self.claims, claims.to_string()).expect("the file can be written");
    }

    /// Its issuer.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What it printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// A browser with a cookie jar of its own, which follows redirects and believes every certificate.
#[derive(Debug)]
pub struct Browser {
    jar: PathBuf,
}

impl Browser {
    /// One without cookies.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { jar: dir.join(format!("{name}.jar")) }
    }

    /// Goes to an address; the last page.
    #[must_use]
    pub fn get(&self, url: &str) -> String {
        self.curl(&["--location", url]).text()
    }

    /// Sends a form to an address, as a page of the same origin does.
    #[must_use]
    pub fn post(&self, url: &str, fields: &[(&str, &str)]) -> String {
        let mut args = vec!["--location".to_owned()];
        for (name, value) in fields {
            args.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        args.extend(["--header".to_owned(), format!("Origin: {origin}"), url.to_owned()]);
        self.curl(&args.iter().map(String::as_str).collect::<Vec<_>>()).text()
    }

    /// Sends a form as a page of another site does: without cookies, which are SameSite. What came back, and where it leads.
    ///
    /// # Panics
    /// When nothing comes back.
    #[must_use]
    pub fn post_from_elsewhere(&self, url: &str, fields: &[(&str, &str)]) -> (String, Option<String>) {
        let mut command = Command::new(client("curl").expect("was asked for").path());
        command.args(["--silent", "--show-error", "--insecure", "--max-time", "60", "--include", "--http1.1"]);
        command.args(["--header", "Origin: null", "--header", "Sec-Fetch-Site: cross-site"]);
        for (name, value) in fields {
            command.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        let answer = run(command.args(["--header", "Expect:"]).arg(url).stdin(Stdio::null())).text();
        let (head, page) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{url} answered: {answer}"));
        let location = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        };
        (page.to_owned(), head.lines().find_map(location))
    }

    /// The value of a cookie that `host` has set for itself, and when it ends, in seconds since 1970.
    #[must_use]
    pub fn cookie(&self, host: &str, name: &str) -> Option<(String, u64)> {
        let jar = fs::read_to_string(&self.jar).ok()?;
        let mut cookies = jar.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        cookies.find_map(|cookie| match *cookie.as_slice() {
            [of, _, _, _, ends, named, value] if of.trim_start_matches("#HttpOnly_") == host && named == name => {
                Some((value.to_owned(), ends.parse().ok()?))
            }
            _ => None,
        })
    }

    fn curl(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(client("curl").expect("was asked for").path());
        command.args(["--silent", "--show-error", "--insecure", "--max-time", "60", "--cookie-jar"]).arg(&self.jar);
        command.arg("--cookie").arg(&self.jar).args(args).stdin(Stdio::null());
        run(&mut command)
    }
}

/// The value of an attribute behind `mark` in a page, its references to characters read.
#[must_use]
pub fn attribute(page: &str, mark: &str) -> Option<String> {
    let value = page.split_once(mark)?.1.split('"').next()?;
    Some(value.replace("&#38;", "&").replace("&amp;", "&").replace("&#61;", "="))
}
