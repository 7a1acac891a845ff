//! A browser as far as pages go: it keeps cookies, sends forms as they stand in a page, and speaks HTTP. Owns what holds of every answer, whatever was asked.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{Extension, Router};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HeaderMap};
use http_body_util::{BodyExt, Full};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use remoteler_auth::RemoteAddr;

pub(super) const HOST: &str = "proxy.example.com";
/// The cookie of who is logged in.
pub(super) const SESSION: &str = "__Host-remoteler-session";

/// A request, before anybody has meddled with it.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) host: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) cookies: BTreeMap<String, String>,
    pub(super) fields: Vec<(String, String)>,
    /// Instead of the fields.
    pub(super) body: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) location: String,
    pub(super) set: BTreeMap<String, String>,
    pub(super) text: String,
}

/// A form of a page: where it goes, and what stands in it.
pub(super) struct Form {
    pub(super) action: String,
    pub(super) fields: Vec<(String, String)>,
}

pub(super) struct Browser {
    router: Router,
    addr: SocketAddr,
    pub(super) cookies: BTreeMap<String, String>,
}

impl Browser {
    /// One that was never here, at an address.
    pub(super) fn new(router: &Router, addr: SocketAddr) -> Self {
        Self { router: router.clone(), addr, cookies: BTreeMap::new() }
    }

    pub(super) fn get(&self, path: &str) -> Ask {
        let (method, path, cookies) = (Method::GET, path.to_owned(), self.cookies.clone());
        Ask { method, path, host: HOST, headers: Vec::new(), cookies, fields: Vec::new(), body: None }
    }

    /// A form as the browser sends it, with what the person typed.
    pub(super) fn fill(&self, form: &Form, typed: &[(&str, &str)]) -> Ask {
        let mut fields = form.fields.clone();
        for (name, value) in typed {
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some((_, field)) => *field = (*value).to_owned(),
                None => fields.push(((*name).to_owned(), (*value).to_owned())),
            }
        }
        let headers = vec![("origin", format!("https://{HOST}")), ("sec-fetch-site", "same-origin".to_owned())];
        Ask { method: Method::POST, headers, fields, ..self.get(&form.action) }
    }

    /// Sends it and keeps the cookies.
    pub(super) async fn send(&mut self, ask: Ask) -> Answer {
        let answer = self.try_out(ask).await;
        self.keep(&answer);
        answer
    }

    pub(super) fn keep(&mut self, answer: &Answer) {
        for (name, value) in &answer.set {
            self.cookies.insert(name.clone(), value.clone());
        }
        self.cookies.retain(|_, value| !value.is_empty());
    }

    /// Sends it over a connection of its own, and looks at what is right for every answer.
    pub(super) async fn try_out(&self, ask: Ask) -> Answer {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(RemoteAddr(self.addr))));
        let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        tokio::spawn(served);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        let shown = format!("{} {}", ask.method, ask.path.chars().take(80).collect::<String>());
        let (head, body) = sender.send_request(request(ask)).await.unwrap().into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        check(head.status, &head.headers, &text, &shown);
        let values = head.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        let pair = |cookie: &str| cookie.split(';').next()?.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
        let location = head.headers.get("location").map_or("", |to| to.to_str().unwrap()).to_owned();
        Answer { status: head.status, location, set: values.filter_map(pair).collect(), text }
    }
}

fn request(ask: Ask) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(ask.method).uri(&ask.path).header("host", ask.host);
    let cookies: Vec<_> = ask.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !cookies.is_empty() {
        request = request.header("cookie", cookies.join("; "));
    }
    if !ask.fields.is_empty() && !ask.headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    for (name, value) in &ask.headers {
        request = request.header(*name, value);
    }
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(&ask.fields).finish();
    request.body(Full::from(ask.body.unwrap_or(form))).unwrap()
}

/// What is right for every answer: it is none of our failures, and a page runs nothing that came with it (I54).
fn check(status: StatusCode, headers: &HeaderMap, text: &str, asked: &str) {
    assert!(!status.is_server_error(), "{asked}: {status}: {text}");
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    let html = header("content-type").starts_with("text/html");
    assert_eq!(html, text.contains("<html"), "{asked}: {text}");
    if !html {
        return;
    }
    let policy = header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{asked}: {policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{asked}: {policy}");
    assert_eq!(header("cache-control"), "no-store", "{asked}");
    for tag in text.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or_default()) {
        let name = tag.split_whitespace().next().unwrap_or_default();
        assert!(name != "style" && (name != "script" || tag.contains(" src=\"/web/")), "{asked}: <{tag}>");
        let words = tag.split_whitespace().skip(1);
        let runs = |word: &str| word.starts_with("on") && word.contains('=');
        assert!(!words.clone().any(|word| runs(word) || word.starts_with("style=")), "{asked}: <{tag}>");
        assert!(!tag.contains("javascript:"), "{asked}: <{tag}>");
    }
}

impl Form {
    /// The form of a page that goes to an address; where it has none, to that of the page itself, which is `here`.
    pub(super) fn of(page: &Answer, here: &str, to: &str) -> Self {
        let forms = page.text.split("<form").skip(1).map(|rest| rest.split("</form>").next().unwrap_or_default());
        let mut found = forms.filter_map(|form| {
            let (head, body) = form.split_once('>')?;
            let action = attribute(head, "action").unwrap_or_else(|| here.to_owned());
            (action == to).then(|| (action, body.to_owned()))
        });
        let (action, body) = found.next().unwrap_or_else(|| panic!("{} to {to}: {}", page.status, page.text));
        let inputs = body.split("<input").skip(1).map(|rest| rest.split('>').next().unwrap_or_default());
        let field = |tag: &str| Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default()));
        Self { action, fields: inputs.filter_map(field).collect() }
    }
}

/// The value of an attribute, which none of these pages has to escape.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1.split('"').next()?;
    assert!(!value.contains('&'), "{value}");
    Some(value.to_owned())
}
