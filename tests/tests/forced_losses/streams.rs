//! The streams: what stock clients carry, line by numbered line, until they shall end. Owns the clients and what they are compared with.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response, body::Frame, service::service_fn};
use hyper_util::rt::TokioIo;
use remoteler_client::{
    Store,
    sdk::{Agent, Client},
};
use remoteler_tests::{User, run};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixStream},
    process,
    sync::{Mutex, OwnedMutexGuard},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{SOON, Shared};

/// Between two lines of a stream.
const TICK: Duration = Duration::from_millis(50);
/// Streams that one port forward carries.
const FORWARDED: usize = 4;
/// Sessions that are opened at a time.
const AT_ONCE: usize = 6;

/// What runs.
pub(crate) struct Streams {
    course: Shared,
    dir: PathBuf,
    running: Vec<JoinHandle<()>>,
    copying: Vec<JoinHandle<(usize, u64)>>,
    forwards: Vec<process::Child>,
    kept: Vec<AbortOnDropHandle<()>>,
    /// Held by whoever logs in, for a node gives nobody much time for that.
    logins: Arc<Mutex<()>>,
}

/// What there was in the end.
pub(crate) struct Ended {
    pub(crate) streams: usize,
    pub(crate) copies: usize,
    pub(crate) octets: u64,
}

impl Streams {
    pub(crate) fn new(course: &Shared, dir: &Path) -> Self {
        let (running, copying, forwards, kept, logins) = Default::default();
        Self { course: course.clone(), dir: dir.to_owned(), running, copying, forwards, kept, logins }
    }

    /// How many report their lines.
    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }

    /// Sessions of stock `ssh` with a shell that says again what it is told.
    pub(crate) async fn shells(&mut self, user: &User, count: usize) {
        let (first, dir) = (self.running.len(), self.dir.clone());
        let opened = stream::iter(first..first + count).map(|index| {
            let (course, mut ssh) = (self.course.clone(), process::Command::from(user.openssh("ssh")));
            let log = std::fs::File::create(dir.join(format!("shell-{index}.log"))).unwrap();
            async move {
                ssh.args(["-o", "BatchMode=yes", "edge-1", "while read -r line; do echo \"$line\"; done"]);
                ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
                let mut child = ssh.spawn().unwrap();
                let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
                let mut from = BufReader::new(from);
                let to = greet(to, &mut from).await;
                (course, index, child, to, from)
            }
        });
        let opened: Vec<_> = opened.buffered(AT_ONCE).collect().await;
        self.running.extend(opened.into_iter().map(|(course, index, mut child, to, from)| {
            tokio::spawn(async move {
                echo(&course, index, to, from).await;
                let status = timeout(SOON, child.wait()).await.expect("ssh ends").unwrap();
                assert!(status.success(), "shell {index}: {status}");
            })
        }));
    }

    /// Connections through `ssh -L` to a server that the edge node reaches.
    pub(crate) async fn forwards(&mut self, user: &User, count: usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    // Its end is checked at the other side.
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    let _ = to.shutdown().await;
                });
            }
        });
        self.kept.push(AbortOnDropHandle::new(serving));
        let mut left = count;
        while left > 0 {
            let path = self.dir.join(format!("forward-{left}"));
            let mut ssh = process::Command::from(user.openssh("ssh"));
            ssh.args(["-N", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-L"]);
            ssh.arg(format!("{}:{server}", path.display())).arg("edge-1");
            ssh.stdin(Stdio::null()).kill_on_drop(true);
            self.forwards.push(ssh.spawn().unwrap());
            for _ in 0..FORWARDED.min(left) {
                let (from, to) = connect(&path).await.into_split();
                let mut from = BufReader::new(from);
                let to = greet(to, &mut from).await;
                let (course, index) = (self.course.clone(), self.running.len());
                self.running.push(tokio::spawn(async move { echo(&course, index, to, from).await }));
                left -= 1;
            }
        }
    }

    /// Downloads over HTTP through a named service of `device`.
    pub(crate) async fn downloads(&mut self, user: &User, device: &Agent, count: usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        self.kept.push(device.forward("files", &address).unwrap());
        self.kept.push(AbortOnDropHandle::new(tokio::spawn(serve_files(listener, self.course.clone()))));
        let client = Client::logged_in(&Store::new(user.tsh_home())).unwrap();
        for _ in 0..count {
            let (course, index) = (self.course.clone(), self.running.len());
            let uri = format!("http://files.device/{index}").parse().unwrap();
            let response = timeout(SOON, client.get(uri)).await.expect("the download begins").unwrap();
            self.running.push(tokio::spawn(async move {
                let mut body = response.into_body();
                let (mut pending, mut expected) = (Vec::new(), 0);
                while let Some(frame) = body.frame().await {
                    let frame = frame.unwrap_or_else(|cause| panic!("download {index} after {expected}: {cause}"));
                    pending.extend_from_slice(&frame.into_data().unwrap_or_default());
                    while let Some(end) = pending.iter().position(|octet| *octet == b'\n') {
                        let line: Vec<u8> = pending.drain(..=end).collect();
                        let sent = stamp(&line, index, expected);
                        course.arrived(index, sent, line.len());
                        expected += 1;
                    }
                }
                assert!(pending.is_empty() && course.stop.is_cancelled(), "download {index} ended early");
            }));
        }
    }

    /// Copies by `scp`, one after the other, until the others end. Each is compared with its source.
    pub(crate) fn copies(&mut self, user: &User, mebibytes: usize) {
        let (source, copy) = (self.dir.join("source"), self.dir.join("copy"));
        let make = format!("head -c {mebibytes}M /dev/urandom > {}", source.display());
        run(Command::new("sh").args(["-c", &make])).ok();
        let mut scp = user.openssh("scp");
        scp.args(["-o", "LogLevel=VERBOSE", "-o", "BatchMode=yes"])
            .arg(&source)
            .arg(format!("edge-1:{}", copy.display()));
        let (mut scp, stop, logins) = (process::Command::from(scp), self.course.stop.clone(), self.logins.clone());
        scp.stderr(Stdio::piped()).kill_on_drop(true);
        self.copying.push(tokio::spawn(async move {
            let mut copies = 0;
            while copies == 0 || !stop.is_cancelled() {
                let login = logins.lock().await;
                let mut scp = scp.spawn().unwrap();
                let mut said = BufReader::new(scp.stderr.take().unwrap());
                let mut words = String::new();
                while !words.contains("Authenticated to") && said.read_line(&mut words).await.unwrap() > 0 {}
                drop(login);
                said.read_to_string(&mut words).await.unwrap();
                let status = scp.wait().await.unwrap();
                assert!(status.success(), "copy {copies}: {status}: {words}");
                let same = Command::new("cmp").arg(&source).arg(&copy).status().unwrap();
                assert!(same.success(), "copy {copies} differs");
                std::fs::remove_file(&copy).unwrap();
                copies += 1;
            }
            (copies, (copies * mebibytes) as u64 * 1024 * 1024)
        }));
    }

    /// Waits until nobody is on the way to a node, and lets nobody begin, until it is dropped.
    pub(crate) async fn nobody_logs_in(&self) -> OwnedMutexGuard<()> {
        self.logins.clone().lock_owned().await
    }

    /// Lets every stream come to its end, and looks whether it did.
    pub(crate) async fn finish(mut self) -> Ended {
        self.course.stop.cancel();
        let mut ended = Ended { streams: self.running.len(), copies: 0, octets: 0 };
        for running in self.running.drain(..) {
            timeout(SOON, running).await.expect("a stream ends").expect("a stream ends well");
        }
        for copying in self.copying.drain(..) {
            let (copies, octets) = timeout(3 * SOON, copying).await.expect("a copy ends").expect("a copy ends well");
            ended.copies += copies;
            ended.octets += octets;
        }
        for forward in &mut self.forwards {
            assert!(forward.try_wait().unwrap().is_none(), "a port forward is there to the end");
        }
        ended.octets += self.course.octets();
        ended
    }
}

/// Waits until the other end answers.
async fn greet<W: AsyncWrite + Unpin, R: AsyncRead + Unpin>(mut to: W, from: &mut BufReader<R>) -> W {
    to.write_all(b"hello\n").await.unwrap();
    let mut heard = String::new();
    let answered = timeout(SOON, from.read_line(&mut heard)).await;
    answered.expect("the other end answers").unwrap();
    assert_eq!(heard, "hello\n");
    to
}

/// Says numbered lines and hears each of them once, in order and whole, until its end in order.
async fn echo<W: AsyncWrite + Unpin, R: AsyncRead + Unpin>(
    course: &Shared,
    index: usize,
    mut to: W,
    from: BufReader<R>,
) {
    let saying = async move {
        let mut said = 0;
        while !course.stop.is_cancelled() {
            to.write_all(&line(index, said, course.now())).await.unwrap();
            to.flush().await.unwrap();
            said += 1;
            sleep(TICK).await;
        }
        to.shutdown().await.unwrap();
        said
    };
    let hearing = async move {
        let (mut from, mut heard) = (from, 0);
        let mut octets = Vec::new();
        loop {
            octets.clear();
            let length = from.read_until(b'\n', &mut octets).await;
            let length = length.unwrap_or_else(|cause| panic!("stream {index} is lost after {heard} lines: {cause}"));
            if length == 0 {
                return heard;
            }
            course.arrived(index, stamp(&octets, index, heard), length);
            heard += 1;
        }
    };
    let (said, heard) = tokio::join!(saying, hearing);
    assert_eq!(heard, said, "stream {index}: lines that were said and heard");
}

/// A line: whose it is, its number, when it was said, and more that depends on these.
fn line(index: usize, number: u64, now: u64) -> Vec<u8> {
    let filler: String = (0..200).map(|at| char::from(b'a' + ((number + at + index as u64) % 26) as u8)).collect();
    format!("{index} {number} {now} {filler}\n").into_bytes()
}

/// When a line was said, which must be the expected one.
#[track_caller]
fn stamp(octets: &[u8], index: usize, expected: u64) -> u64 {
    let text = std::str::from_utf8(octets).expect("text");
    let sent = text.split(' ').nth(2).and_then(|field| field.parse().ok());
    let sent = sent.unwrap_or_else(|| panic!("stream {index}, line {expected}: {text:?}"));
    assert!(octets == line(index, expected, sent), "stream {index}, line {expected}: {text:?}");
    sent
}

async fn connect(path: &Path) -> UnixStream {
    let end = Instant::now() + SOON;
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return stream,
            Err(cause) => assert!(Instant::now() < end, "the port forward does not listen: {cause}"),
        }
        sleep(Duration::from_millis(20)).await; // the time between two looks
    }
}

/// Answers each request with numbered lines until the end of the test.
async fn serve_files(listener: TcpListener, course: Shared) {
    while let Ok((socket, _)) = listener.accept().await {
        let course = course.clone();
        let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
            let (course, index) = (course.clone(), request.uri().path()[1..].parse().unwrap());
            let lines = stream::unfold(0, move |number| {
                let course = course.clone();
                async move {
                    if number > 0 {
                        sleep(TICK).await;
                    }
                    if course.stop.is_cancelled() {
                        return None;
                    }
                    let octets = Bytes::from(line(index, number, course.now()));
                    Some((Ok::<_, Infallible>(Frame::data(octets)), number + 1))
                }
            });
            async move { Ok::<_, Infallible>(Response::new(StreamBody::new(lines))) }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
            // What is wrong with it is seen at the other side.
            let _ = connection.await;
        });
    }
}
