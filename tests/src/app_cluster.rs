//! A cluster before a web app, whose proxy is reached at `proxy.localhost`, and the ways to it: a browser's, and that of `tsh proxy app`.

use std::{path::PathBuf, process::Command, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::{
    Browser, Cluster, ClusterOptions, EchoApp, Outcome, Process, User, attribute, eventually, eventually_within, run,
};

/// The apps `echo` and `other`, which are one program.
#[derive(Debug)]
pub struct AppCluster {
    /// With auth service, proxy and app service in one process.
    pub cluster: Cluster,
    /// Behind the service.
    pub app: EchoApp,
    port: String,
}

impl AppCluster {
    /// Starts it with a proxy that is reached by a number only.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn without_a_name() -> Self {
        let app = EchoApp::start();
        let uri = app.uri();
        let extra_config = format!(
            "app_service:\n  apps:\n    - {{ name: echo, uri: \"{uri}\" }}\n    - {{ name: other, uri: \"{uri}\" }}\n"
        );
        let cluster = Cluster::start_with(ClusterOptions { extra_config, ..ClusterOptions::default() });
        let port = cluster.proxy().rsplit(':').next().expect("an address has a port").to_owned();
        Self { cluster, app, port }
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start() -> Self {
        let Self { mut cluster, app, port } = Self::without_a_name();
        cluster.configure_proxy(&format!("  public_addr: \"proxy.localhost:{port}\"\n"));
        cluster.kill_daemon();
        // Made anew it covers the apps' names.
        for file in ["web.crt", "web.key"] {
            std::fs::remove_file(cluster.data_dir().join(file)).expect("the proxy had a certificate of its own");
        }
        cluster.start_daemon();
        cluster.wait_ready();
        Self { cluster, app, port }
    }

    /// `host:port` of an app, for browsers.
    #[must_use]
    pub fn host(&self, app: &str) -> String {
        format!("{app}.proxy.localhost:{}", self.port)
    }

    /// Of an app, for browsers.
    #[must_use]
    pub fn url(&self, app: &str, path: &str) -> String {
        format!("https://{}{path}", self.host(app))
    }

    /// Of the proxy.
    #[must_use]
    pub fn public_addr(&self) -> String {
        format!("proxy.localhost:{}", self.port)
    }

    /// What the proxy shows to browsers.
    #[must_use]
    pub fn web_certificate(&self) -> PathBuf {
        self.cluster.data_dir().join("web.crt")
    }

    /// A browser of this user that has been at `path` of both apps, by one login.
    ///
    /// # Panics
    /// When it does not get there.
    #[must_use]
    #[track_caller]
    pub fn browser(&self, user: &User, path: &str) -> Browser {
        let browser = Browser::new(self.cluster.dir(), user.name());
        let [echo, other] = ["echo", "other"].map(|app| format!("https://{}{path}", self.host(app)));
        let base = format!("https://{}", self.public_addr());
        let marked =
            |page: &str, mark: &str| attribute(page, mark).unwrap_or_else(|| panic!("{mark} was expected: {page}"));
        let gate = eventually("the app has its front door", || {
            let page = browser.get(&echo);
            if page.contains("/web/account/login") { Ok(page) } else { Err(page) }
        });
        let csrf = marked(&gate, "name=\"csrf\" value=\"");
        let onward = browser.post(&format!("{base}/web/account/login"), &[("csrf", &csrf)]);
        let login = format!("{base}{}", marked(&onward, "url="));
        let token = marked(&browser.get(&login), "name=\"token\" value=\"");
        let fields = [("token", token.as_str()), ("user", user.name()), ("password", user.password()), ("code", "")];
        let back = browser.post(&format!("{login}/local"), &fields);
        for app in [format!("{base}{}", marked(&back, "url=")), other] {
            let page = browser.get(&app);
            assert!(page.contains("remoteler-jwt-assertion"), "{page}");
        }
        browser
    }

    /// The secret of a browser's session with an app, and when it ends, in seconds since 1970.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn session(&self, browser: &Browser, app: &str) -> (String, u64) {
        let host = self.host(app);
        let host = host.split(':').next().unwrap_or_default();
        browser.cookie(host, "__Host-remoteler-app").unwrap_or_else(|| panic!("no session with {app}"))
    }
}

/// `tsh proxy app`, and where it listens.
#[derive(Debug)]
pub struct LocalApp {
    tsh: Process,
    address: String,
}

impl LocalApp {
    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it ends.
    #[must_use]
    #[track_caller]
    pub fn start(cluster: &Cluster, user: &User, app: &str) -> Self {
        eventually_within(Duration::from_secs(60), "the app is announced", || {
            let listed = run(user.tsh_command().args(["apps", "ls"]));
            if listed.text().contains(app) { Ok(()) } else { Err(listed.text() + &listed.stderr) }
        });
        let log = cluster.dir().join(format!("proxy-{app}-{}.log", user.name()));
        let mut tsh = Process::start(user.tsh_command().args(["proxy", "app", app]), &log);
        let address = eventually("tsh proxy app listens", || {
            assert!(tsh.runs(), "{}", tsh.log());
            let said = tsh.log();
            said.split_whitespace().find_map(|word| word.strip_prefix("http://")).map(str::to_owned).ok_or(said)
        });
        Self { tsh, address }
    }

    /// `IP:PORT` of this machine.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Of a path there.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What `tsh` has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.tsh.log()
    }
}

/// Stock curl, which believes any certificate.
#[must_use]
#[track_caller]
pub fn curl(url: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--insecure", "--max-time", "60"]).args(args).arg(url);
    run(&mut command)
}

/// What an app was told in a header, whose name may be written with underscores.
///
/// # Panics
/// When `request` is none that [`EchoApp`] has seen.
#[must_use]
pub fn told<'a>(request: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = request["headers"].as_array().expect("a list of headers").iter();
    let fields = fields.map(|field| (field[0].as_str().expect("a name"), field[1].as_str().expect("a value")));
    fields.filter(|(field, _)| field.replace('_', "-") == name).map(|(_, value)| value).collect()
}

/// The claims of a token, whose signature is not looked at.
///
/// # Panics
/// When it is no token.
#[must_use]
#[track_caller]
pub fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
    claims.unwrap_or_else(|| panic!("no token: {token}"))
}
