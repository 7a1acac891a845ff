//! Requests to web apps that no browser and no program makes: forged claims, smuggled requests, upgrades that fail, cookies of others. By both doors, the one of
//! browsers and that of `tsh proxy app`, in octets that the test writes. What counts is what reaches the app, which says what it was told.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod framing;
mod headers;
mod http2;
mod sessions;
mod upgrades;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use remoteler_tests::{AppCluster, LocalApp, RawAnswer, RawHttp, User, claims, tls_client, told};
use serde_json::Value;

/// In every claim that a client makes: nothing with it reaches the app.
const FORGED: &str = "forged";

/// What the tests share while any of them runs: ann and bob, each with a browser that has been at both apps, and with a port of `tsh` for `echo`.
struct World {
    apps: AppCluster,
    ann: Person,
    bob: Person,
}

struct Person {
    name: &'static str,
    /// Of sessions with `echo` and `other`.
    secrets: [String; 2],
    local: LocalApp,
}

impl World {
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = shared.upgrade() {
            return world;
        }
        let apps = AppCluster::start();
        let [ann, bob] = ["ann", "bob"].map(|name| Person::new(&apps, name));
        let world = Arc::new(Self { apps, ann, bob });
        *shared = Arc::downgrade(&world);
        world
    }

    /// Both doors of a person to the app `echo`.
    fn doors(&self, person: &Person) -> [Door; 2] {
        [self.front("echo", &person.secrets[0]), self.local(person)]
    }

    /// The browsers' door to an app, for a session with this secret.
    fn front(&self, app: &str, secret: &str) -> Door {
        let (address, host) = (self.apps.cluster.proxy().to_owned(), self.apps.host(app));
        let certificate = self.apps.web_certificate();
        let name = host.split(':').next().unwrap().to_owned();
        let connect = move |alpn: &str| RawHttp::tls(&address, &name, tls_client(&certificate, None, alpn));
        let cookie = Some(format!("__Host-remoteler-app={secret}"));
        Door { name: "a browser", origin: format!("https://{host}"), host, cookie, connect: Box::new(connect) }
    }

    /// The programs' door of a person to the app `echo`.
    fn local(&self, person: &Person) -> Door {
        let host = person.local.address().to_owned();
        let address = host.clone();
        let connect = move |_: &str| RawHttp::plain(&address);
        Door { name: "tsh", origin: format!("http://{host}"), host, cookie: None, connect: Box::new(connect) }
    }

    /// What the app was sent with this in its target.
    fn seen(&self, mark: &str) -> Vec<Value> {
        let mut seen = self.apps.app.seen();
        seen.retain(|request| request["target"].as_str().unwrap().contains(mark));
        seen
    }

    /// What the app was sent with this in its target, all of which it was told as requests of this person and nothing else.
    #[track_caller]
    fn truly(&self, person: &Person, mark: &str) -> Vec<Value> {
        let seen = self.seen(mark);
        for request in &seen {
            self.assert_true(person, request);
        }
        seen
    }

    #[track_caller]
    fn assert_true(&self, person: &Person, request: &Value) {
        let assertions = told(request, "remoteler-jwt-assertion");
        assert_eq!(assertions.len(), 1, "{request}");
        assert_eq!(claims(assertions[0])["sub"], person.name, "{request}");
        assert_eq!(told(request, "host"), [self.apps.app.uri().strip_prefix("http://").unwrap()], "{request}");
        for (name, truth) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", self.apps.host("echo").as_str()),
        ] {
            assert_eq!(told(request, name), [truth], "{request}");
        }
        let text = request.to_string().to_ascii_lowercase();
        for lie in [FORGED, "__host-remoteler"] {
            assert!(!text.contains(lie), "{lie}: {request}");
        }
    }
}

impl Person {
    fn new(apps: &AppCluster, name: &'static str) -> Self {
        let user = User::create(&apps.cluster, name, "access");
        let browser = apps.browser(&user, "/echo");
        let secrets = ["echo", "other"].map(|app| apps.session(&browser, app).0);
        Self { name, secrets, local: LocalApp::start(&apps.cluster, &user, "echo") }
    }
}

/// A way to an app.
struct Door {
    name: &'static str,
    host: String,
    origin: String,
    cookie: Option<String>,
    connect: Box<dyn Fn(&str) -> RawHttp>,
}

impl Door {
    fn connect(&self) -> RawHttp {
        (self.connect)("http/1.1")
    }

    /// A request line and what each request of a page of this app has, without the empty line.
    fn start(&self, line: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: {}\r\n{}", self.host, self.own_fields())
    }

    /// The headers of a page of this app, but `Host`.
    fn own_fields(&self) -> String {
        format!("Origin: {}\r\n{}", self.origin, self.cookie_field())
    }

    fn cookie_field(&self) -> String {
        self.cookie.as_ref().map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default()
    }

    /// Writes on a connection of its own and reads one answer.
    #[track_caller]
    fn send(&self, octets: impl AsRef<[u8]>) -> Option<RawAnswer> {
        let mut connection = self.connect();
        connection.write(octets);
        connection.answer()
    }

    /// `GET`; the status and what was said.
    #[track_caller]
    fn get(&self, target: &str) -> RawAnswer {
        self.send(format!("{}\r\n", self.start(&format!("GET {target}")))).expect("an answer")
    }
}

/// The status of an answer; `None` where the connection ended without one.
fn status(answer: Option<&RawAnswer>) -> Option<u16> {
    answer.map(RawAnswer::status)
}
