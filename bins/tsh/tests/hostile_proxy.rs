//! A proxy that wishes its users ill (I70, I72): `tsh` takes no answer that cannot be one, shows nothing that steers a terminal, keeps nothing, and ends
//! with one line.
#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use remoteler_core::wire;
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::{Value, json};

/// The proxy. What it answers is a function of the path.
struct Proxy {
    addr: SocketAddr,
}

type Answer = (u16, Vec<u8>);

impl Proxy {
    fn start(answers: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (config, answers) = (Arc::new(config), Arc::new(answers));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let (config, answers) = (Arc::clone(&config), Arc::clone(&answers));
                std::thread::spawn(move || serve(tcp.unwrap(), config, &*answers));
            }
        });
        Self { addr }
    }

    /// Answers as a proxy does, but for one path.
    fn but_for(path: &'static str, status: u16, body: Vec<u8>) -> Self {
        Self::start(move |asked| if asked == path { (status, body.clone()) } else { usual(asked) })
    }

    fn tsh(&self, home: &Path, words: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tsh"));
        command.env_clear().env("TSH_HOME", home).env("HOME", home).env("PATH", "/usr/bin:/bin").args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end without a look at it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// `tsh login` ends with exit code 1 and these words in its last line.
    #[track_caller]
    fn fails(&self, words: &[&str], said: &str) {
        let proxy = self.addr.to_string();
        let all = [&["login", "--insecure", "--proxy", &proxy, "--user", "ann"], words].concat();
        self.ends(&all, said);
    }

    #[track_caller]
    fn ends(&self, words: &[&str], said: &str) {
        let home = tempfile::tempdir().unwrap();
        let output = self.tsh(home.path(), words, "correct horse battery\n");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {text:.500}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("tsh: ") && last.contains(said), "{words:?}: {text:.500}");
        assert!(text.len() < 64 * 1024, "{}", text.len());
        let steers = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.contains(steers) && output.stdout.is_empty(), "{text:?}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is kept");
    }
}

fn serve(tcp: TcpStream, config: Arc<ServerConfig>, answers: &(impl Fn(&str) -> Answer + ?Sized)) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
    let mut request = Vec::new();
    let mut part = [0; 4096];
    loop {
        let head = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = head.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        match stream.read(&mut part) {
            Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
            Ok(_) | Err(_) => return,
        }
    }
    let line = String::from_utf8_lossy(&request).lines().next().unwrap().to_owned();
    let (status, body) = answers(line.split(' ').nth(1).unwrap());
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A client that has heard enough goes away.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn usual(path: &str) -> Answer {
    let value = match path {
        wire::WEB_PING => ping("root"),
        wire::WEB_LOGIN_METHODS => json!({ "kind": "oidc" }),
        wire::WEB_LOGINS => begun("0af9", "K7QM-3XPD"),
        wire::WEB_LOGIN_POLL => json!({ "state": "refused", "reason": "as usual" }),
        wire::WEB_INVITED_USER => json!({ "user": "ann", "second_factor": "off" }),
        other => panic!("{other}"),
    };
    (200, value.to_string().into_bytes())
}

fn ping(cluster: &str) -> Value {
    json!({ "cluster_name": cluster, "server_version": "0.1.0", "server_time": "2030-01-01T00:00:00.000Z" })
}

fn begun(id: &str, code: &str) -> Value {
    let expires = "2030-01-01T00:00:00.000Z";
    json!({ "id": id, "secret": "5ec2e7", "code": code, "expires": expires, "interval_seconds": 1 })
}

fn octets(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

const STEERING: &str = "\u{1b}]0;mine\u{7}\u{1b}[2J\r\n\u{202e}tsh: all is well\n";

// I70
#[test]
fn the_address_of_a_login_holds_nothing_that_the_proxy_chose_freely() {
    let long = "a".repeat(10_000);
    let ids =
        ["", "../account", "-x", "0af9/confirm", "0af9?x=1", "0af9#x", "@evil.example", "0af9\u{1b}[2J", "é", &long];
    for id in ids {
        let proxy = Proxy::but_for(wire::WEB_LOGINS, 200, octets(&begun(id, "K7QM-3XPD")));
        for way in [&["--browser", "none"][..], &["--device"]] {
            proxy.fails(way, "names a login that cannot be one");
        }
    }
    // A code is compared and typed by people.
    for code in [STEERING, "", &long] {
        let proxy = Proxy::but_for(wire::WEB_LOGINS, 200, octets(&begun("0af9", code)));
        proxy.fails(&["--device"], "names a login that cannot be one");
    }
    Proxy::start(usual).fails(&["--device"], "refuses the login: as usual");
}

// I70, I72
#[test]
fn what_a_proxy_says_steers_no_terminal() {
    let error = |kind: &str| octets(&json!({ "kind": kind, "message": STEERING }));
    for path in [wire::WEB_PING, wire::WEB_LOGIN_METHODS, wire::WEB_LOGINS] {
        Proxy::but_for(path, 500, error("internal")).fails(&[], "all is well");
    }
    let endless = octets(&json!({ "kind": "internal", "message": STEERING.repeat(100_000) }));
    Proxy::but_for(wire::WEB_PING, 500, endless).fails(&[], "all is well");
    for reason in [STEERING, &STEERING.repeat(100_000)] {
        let refused = octets(&json!({ "state": "refused", "reason": reason }));
        Proxy::but_for(wire::WEB_LOGIN_POLL, 200, refused).fails(&["--device"], "refuses the login: ");
    }
    let local = |path: &str| match path {
        wire::WEB_LOGIN_METHODS => (200, octets(&json!({ "kind": "local" }))),
        wire::WEB_LOGIN => (401, octets(&json!({ "kind": "unauthenticated", "message": STEERING }))),
        other => usual(other),
    };
    Proxy::start(local).fails(&[], "refuses the login of ann: ");
    let link = |proxy: &Proxy| format!("https://{}/web/invite/f00d", proxy.addr);
    let proxy = Proxy::but_for(wire::WEB_SIGN_UP, 400, error("bad_request"));
    proxy.ends(&["--insecure", "signup", &link(&proxy)], "all is well");
    let invited = octets(&json!({ "user": "ann\u{1b}[2J", "second_factor": "off" }));
    let proxy = Proxy::but_for(wire::WEB_INVITED_USER, 200, invited);
    proxy.ends(&["--insecure", "signup", &link(&proxy)], "not as a proxy of this product does");
}

#[test]
fn what_is_no_answer_is_refused() {
    let no_answers = [
        Vec::new(),
        b"<html>a captive portal</html>".to_vec(),
        b"{".to_vec(),
        b"[[[[".repeat(100_000),
        vec![0xff; 64],
        octets(&json!({})),
        octets(&ping("-x")),
        octets(&ping("a\u{1b}[2Jb")),
        octets(&ping("../../x")),
    ];
    for body in no_answers {
        Proxy::but_for(wire::WEB_PING, 200, body).fails(&[], "not as a proxy of this product does");
    }
    // What is sealed and was sealed by somebody else.
    let ready = octets(&json!({ "state": "ready", "answer": "AAAA" }));
    Proxy::but_for(wire::WEB_LOGIN_POLL, 200, ready).fails(&["--device"], "tsh: ");
    let endless = vec![b' '; 33 * 1024 * 1024];
    Proxy::but_for(wire::WEB_PING, 200, endless).fails(&[], "answers with more than");
}
