//! Where the browser brings the answer of a login: a listener on a loopback address. Owns how many connections it serves, how long each may take, and that only
//! the user's own processes are served where the kernel tells; what an answer holds, its caller opens.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use remoteler_client::ProxyAddr;
use remoteler_core::{LoopbackUrl, OsEntropy, fill_random};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{Answer, peer};

/// How long a browser has to send its request.
const REQUEST: Duration = Duration::from_secs(5);
/// Connections at once: browsers open some ahead that they never use. The oldest gives way to one more.
const MOST: usize = 16;
/// Longest request that is read: the sealed answer and what browsers send besides.
const MAX_REQUEST: usize = 32 * 1024;

/// Where the browser brings the answer.
pub(super) struct Listener {
    listener: TcpListener,
    addr: SocketAddr,
    url: LoopbackUrl,
    /// Path that leads to the page of the login.
    start: String,
}

/// What a connection is answered by.
struct Served {
    /// Path of the answer.
    path: String,
    start: String,
    /// The page of the login.
    page: String,
    /// Where the browser goes when it has brought the answer.
    done: String,
}

impl Listener {
    pub(super) async fn bind(wanted: Option<SocketAddr>) -> anyhow::Result<Self> {
        let wanted = wanted.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let listener = TcpListener::bind(wanted).await.with_context(|| format!("{wanted} cannot be listened at"))?;
        let addr = listener.local_addr()?;
        // Who does not know the path cannot make us answer.
        let url = LoopbackUrl::new(addr, &secret_path())?;
        Ok(Self { listener, addr, url, start: secret_path() })
    }

    /// Where the proxy sends the answer.
    pub(super) const fn url(&self) -> &LoopbackUrl {
        &self.url
    }

    /// Leads this user's browser to the page of the login. Other users of the machine may read it in the list of processes.
    pub(super) fn start(&self) -> String {
        format!("http://{}/{}", self.addr, self.start)
    }

    /// The first answer that a browser brings.
    pub(super) async fn wait(&self, proxy: &ProxyAddr, page: &str) -> Answer {
        let served = Arc::new(Served {
            path: self.url.path().to_owned(),
            start: self.start.clone(),
            page: page.to_owned(),
            done: format!("https://{proxy}/web/done"),
        });
        let (mut browsers, mut order) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let Ok((stream, from)) = accepted else {
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    // Before it takes a place from anybody.
                    if !peer::is_own(from, self.addr).await {
                        continue;
                    }
                    order.retain(|browser| !browser.is_finished());
                    if order.len() >= MOST && let Some(oldest) = order.pop_front() {
                        oldest.abort();
                    }
                    let served = Arc::clone(&served);
                    order.push_back(browsers.spawn(async move {
                        timeout(REQUEST, served.serve(stream)).await.ok().flatten()
                    }));
                }
                Some(ended) = browsers.join_next() => {
                    if let Ok(Some(answer)) = ended {
                        return answer;
                    }
                }
            }
        }
    }
}

impl Served {
    async fn serve(&self, mut stream: TcpStream) -> Option<Answer> {
        let mut request = Vec::new();
        let mut part = [0; 4096];
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
            request.extend_from_slice(part.get(..read)?);
            if request.len() > MAX_REQUEST {
                return None;
            }
        }
        let line = request.split(|octet| *octet == b'\r').next().and_then(|line| std::str::from_utf8(line).ok());
        let answer = line.and_then(|line| answer_of(line, &self.path));
        let to = match &answer {
            Some(_) => Some(&self.done),
            None => line.filter(|line| is_start(line, &self.start)).map(|_| &self.page),
        };
        let head = match to {
            Some(to) => format!("HTTP/1.1 303 See Other\r\nLocation: {to}\r\n"),
            None => "HTTP/1.1 404 Not Found\r\n".to_owned(),
        };
        let head = format!(
            "{head}Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        // The browser may be gone; the answer is here.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.shutdown().await;
        answer
    }
}

fn secret_path() -> String {
    let octets: [u8; 16] = fill_random(&OsEntropy);
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn is_start(line: &str, start: &str) -> bool {
    line.strip_prefix("GET /")
        .and_then(|rest| rest.strip_prefix(start))
        .is_some_and(|rest| rest.starts_with(" HTTP/1."))
}

/// What the first line of a request brings: `GET /PATH?answer=… HTTP/1.1`.
fn answer_of(line: &str, path: &str) -> Option<Answer> {
    let target = line.strip_prefix("GET /")?.split(' ').next()?;
    let query = target.strip_prefix(path)?.strip_prefix('?')?;
    if query == "error=declined" {
        return Some(Answer::Refused("the login was declined in the browser".into()));
    }
    let sealed = query.strip_prefix("answer=")?;
    let plain = !sealed.is_empty() && sealed.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    plain.then(|| Answer::Sealed(sealed.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://proxy.example.com:443/web/login/0af9";

    #[test]
    fn the_listener_takes_an_answer_for_its_own_path_and_nothing_else() {
        let sealed = |line: &str| match answer_of(line, "abc")? {
            Answer::Sealed(sealed) => Some(sealed),
            Answer::Refused(reason) => Some(format!("refused: {reason}")),
        };
        assert_eq!(sealed("GET /abc?answer=AB-c_1 HTTP/1.1").as_deref(), Some("AB-c_1"));
        assert!(sealed("GET /abc?error=declined HTTP/1.1").unwrap().starts_with("refused"));
        for wrong in [
            "GET /abd?answer=AB HTTP/1.1",
            "GET /abcd?answer=AB HTTP/1.1",
            "GET /?answer=AB HTTP/1.1",
            "POST /abc?answer=AB HTTP/1.1",
            "GET /abc?answer= HTTP/1.1",
            "GET /abc?answer=%0a HTTP/1.1",
            "GET http://127.0.0.1/abc?answer=AB HTTP/1.1",
            "",
        ] {
            assert_eq!(sealed(wrong), None, "{wrong}");
        }
    }

    async fn ask(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_no_answer_waiting() {
        let listener = Listener::bind(None).await.unwrap();
        let (addr, path) = (listener.addr, listener.url.path().to_owned());
        let proxy: ProxyAddr = "proxy.example.com:443".parse().unwrap();
        let waiting = tokio::spawn(async move { listener.wait(&proxy, PAGE).await });
        let mut silent = Vec::new();
        for _ in 0..3 * MOST {
            silent.push(TcpStream::connect(addr).await.unwrap());
        }
        let began = tokio::time::Instant::now();
        let answer = ask(addr, &format!("{path}?answer=sealed")).await;
        assert!(answer.contains("Location: https://proxy.example.com:443/web/done\r\n"), "{answer}");
        assert!(matches!(waiting.await.unwrap(), Answer::Sealed(sealed) if sealed == "sealed"));
        assert!(began.elapsed() < 12 * REQUEST, "one after the other they would have had minutes");
    }

    #[tokio::test]
    async fn the_page_of_the_login_is_behind_a_path_of_its_own() {
        let listener = Listener::bind(None).await.unwrap();
        let (addr, start, path) = (listener.addr, listener.start(), listener.url.path().to_owned());
        assert!(!start.contains(&path) && !start.contains("0af9"));
        let start = start.rsplit('/').next().unwrap().to_owned();
        let proxy: ProxyAddr = "proxy.example.com:443".parse().unwrap();
        let waiting = tokio::spawn(async move { listener.wait(&proxy, PAGE).await });
        assert!(ask(addr, &start).await.contains(&format!("303 See Other\r\nLocation: {PAGE}\r\n")));
        for wrong in [path.as_str(), "", "x", &format!("{start}x"), &format!("{start}?answer=x")] {
            assert!(ask(addr, wrong).await.starts_with("HTTP/1.1 404"), "{wrong}");
        }
        waiting.abort();
    }
}
