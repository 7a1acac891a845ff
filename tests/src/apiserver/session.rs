//! exec, attach and port-forward: which protocol was asked for, the switch to it, and what is said in it.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};

use super::{
    Body, State, asks,
    process::{self, CLOSE, ERROR, STDERR, STDIN, STDOUT},
    spdy, values,
    websocket::{self, Message},
};

const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNELLED_PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";

/// What a session does once its connection is there.
enum Work {
    Run { command: Vec<String>, streams: Streams },
    Forward,
}

#[derive(Clone, Copy)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// Answers a request to switch protocols, and does the work in a task of its own.
pub(super) fn serve(state: &Arc<State>, mut request: Request<Incoming>) -> Result<Response<Body>, &'static str> {
    let streams = Streams {
        stdin: asks(&request, "stdin"),
        stdout: asks(&request, "stdout"),
        stderr: asks(&request, "stderr") && !asks(&request, "tty"),
        tty: asks(&request, "tty"),
    };
    let work = match request.uri().path().rsplit('/').next() {
        Some("exec") => Work::Run { command: values(&request, "command"), streams },
        // What is attached to repeats what it is told.
        Some("attach") => Work::Run { command: vec!["cat".into()], streams },
        _ => Work::Forward,
    };
    let text =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let upgraded = |request: &mut Request<Incoming>| hyper::upgrade::on(request).map(|done| done.map(TokioIo::new));
    let state = state.clone();

    if text("upgrade").eq_ignore_ascii_case("SPDY/3.1") {
        let wanted = if matches!(work, Work::Forward) { PORT_FORWARD } else { "v4.channel.k8s.io" };
        let offered = request.headers().get_all(STREAM_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        if !offered.flat_map(|value| value.split(',')).any(|offer| offer.trim() == wanted) {
            return Err("no stream protocol that is spoken here was offered");
        }
        headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(wanted));
        let upgrade = upgraded(&mut request);
        tokio::spawn(async move {
            let Ok(io) = upgrade.await else { return };
            match work {
                Work::Run { command, streams } => spdy_run(io, &command, streams, &state).await,
                Work::Forward => spdy_forward(io).await,
            }
        });
        return Ok(response);
    }
    if text("upgrade").eq_ignore_ascii_case("websocket") {
        let offered = text("sec-websocket-protocol");
        let offered: Vec<&str> = offered.split(',').map(str::trim).collect();
        let spoken: &[&'static str] = match work {
            Work::Forward => &[TUNNELLED_PORT_FORWARD],
            Work::Run { .. } => &["v5.channel.k8s.io", "v4.channel.k8s.io"],
        };
        let protocol =
            spoken.iter().find(|protocol| offered.contains(protocol)).ok_or("no sub-protocol is spoken here")?;
        let accept = websocket::accept_key(&text("sec-websocket-key"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::try_from(accept).map_err(|_| "no key")?);
        let upgrade = upgraded(&mut request);
        tokio::spawn(async move {
            let Ok(io) = upgrade.await else { return };
            match work {
                Work::Run { command, streams } => websocket_run(io, &command, streams, &state).await,
                Work::Forward => {
                    let (near, far) = tokio::io::duplex(64 * 1024);
                    tokio::join!(websocket_tunnel(io, far), spdy_forward(near));
                }
            }
        });
        return Ok(response);
    }
    Err("an upgrade to SPDY/3.1 or websocket is needed")
}

/// v4 and v5.channel.k8s.io: the first octet of a message is its channel.
async fn websocket_run(io: TokioIo<Upgraded>, command: &[String], wanted: Streams, state: &State) {
    let (mut read, mut write) = tokio::io::split(io);
    let (input, stdin) = mpsc::channel(64);
    let (output, mut produced) = mpsc::channel(64);
    let (pongs, mut pings) = mpsc::channel(64);
    let reading = async move {
        let mut input = wanted.stdin.then_some(input);
        let mut partial = Vec::new();
        loop {
            match websocket::read(&mut read, &mut partial).await {
                Ok(Message::Binary(message)) => match message.first() {
                    Some(&STDIN) => {
                        if let Some(input) = &input {
                            let _ = input.send(message.slice(1..)).await;
                        }
                    }
                    Some(&CLOSE) if message.get(1) == Some(&STDIN) => input = None,
                    _ => {}
                },
                Ok(Message::Ping(payload)) => drop(pongs.send(payload).await),
                Ok(Message::Close) | Err(_) => return,
            }
        }
    };
    let writing = async {
        let mut running = std::pin::pin!(process::run(command, state.root.path(), stdin, output));
        let status = loop {
            let frame = tokio::select! {
                Some(produced) = produced.recv() => on_channel(&produced),
                Some(payload) = pings.recv() => websocket::pong(&payload),
                ended = &mut running => break ended,
            };
            write.write_all(&frame).await?;
            write.flush().await?;
        };
        while let Some(produced) = produced.recv().await {
            write.write_all(&on_channel(&produced)).await?;
        }
        write.write_all(&on_channel(&(ERROR, status.to_string().into()))).await?;
        write.write_all(&websocket::close()).await?;
        write.flush().await
    };
    // After the last word the client may take its time to close; it is not waited for when it has gone.
    let mut reading = std::pin::pin!(reading);
    let written = tokio::select! { () = &mut reading => return, written = writing => written };
    if written.is_ok() {
        reading.await;
    }
}

fn on_channel((channel, octets): &(u8, Bytes)) -> Vec<u8> {
    let mut message = vec![*channel];
    message.extend_from_slice(octets);
    websocket::binary(&message)
}

/// Octets of a SPDY connection as binary messages.
async fn websocket_tunnel(io: TokioIo<Upgraded>, spdy: DuplexStream) {
    let (mut read, mut write) = tokio::io::split(io);
    let (mut from_spdy, mut to_spdy) = tokio::io::split(spdy);
    let inward = async {
        let mut partial = Vec::new();
        while let Ok(message) = websocket::read(&mut read, &mut partial).await {
            match message {
                Message::Binary(octets) => to_spdy.write_all(&octets).await?,
                Message::Ping(_) => {}
                Message::Close => break,
            }
        }
        to_spdy.shutdown().await
    };
    let outward = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_spdy.read(&mut buffer).await {
            write.write_all(&websocket::binary(&buffer[..count])).await?;
            write.flush().await?;
        }
        write.write_all(&websocket::close()).await
    };
    let _ = tokio::join!(inward, outward);
}

/// v4.channel.k8s.io over SPDY: one stream for each of error, stdin, stdout, stderr and resize.
async fn spdy_run(io: TokioIo<Upgraded>, command: &[String], wanted: Streams, state: &State) {
    let (writer, mut opened, reading) = spdy::serve(io);
    let Streams { stdin, stdout, stderr, tty } = wanted;
    let count = 1 + [stdin, stdout, stderr, tty].iter().filter(|wanted| **wanted).count();
    let mut streams = HashMap::new();
    while streams.len() < count {
        let Some(stream) = opened.recv().await else { return };
        streams.insert(stream.headers.get("streamtype").cloned().unwrap_or_default(), stream);
    }
    let input = streams.remove("stdin").map_or_else(|| mpsc::channel(1).1, |stream| stream.input);
    let ids: HashMap<u8, u32> = [(STDOUT, "stdout"), (STDERR, "stderr"), (ERROR, "error")]
        .iter()
        .filter_map(|(channel, name)| Some((*channel, streams.get(*name)?.id)))
        .collect();
    let (output, mut produced) = mpsc::channel::<(u8, Bytes)>(64);
    let writing = async {
        while let Some((channel, octets)) = produced.recv().await {
            if let Some(id) = ids.get(&channel) {
                writer.data(*id, &octets).await?;
            }
        }
        Ok::<(), std::io::Error>(())
    };
    let session = async {
        let (status, written) = tokio::join!(process::run(command, state.root.path(), input, output), writing);
        written?;
        if let Some(error) = ids.get(&ERROR) {
            // Success is an empty error stream or a Status that says so; v4 takes both.
            writer.data(*error, status.to_string().as_bytes()).await?;
        }
        for id in ids.values() {
            writer.finish(*id).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    let mut reading = reading;
    tokio::select! {
        _ = &mut reading => return,
        ended = session => if ended.is_err() { reading.abort(); return },
    }
    let _ = writer.shutdown().await;
    let _ = reading.await;
}

/// portforward.k8s.io: a pair of streams, error and data, for each connection to a port.
async fn spdy_forward<S>(io: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    let (writer, mut opened, reading) = spdy::serve(io);
    let mut connections = JoinSet::new();
    let mut errors = HashMap::new();
    while let Some(stream) = opened.recv().await {
        let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        let request = header("requestid");
        if header("streamtype") == "error" {
            errors.insert(request, stream.id);
            continue;
        }
        let (writer, error) = (writer.clone(), errors.remove(&request));
        let port = header("port").parse::<u16>().unwrap_or(0);
        connections.spawn(async move {
            let complaint = forward(&writer, stream, port).await.err().map(|cause| cause.to_string());
            if let Some(error) = error {
                let _ = writer.data(error, complaint.unwrap_or_default().as_bytes()).await;
                let _ = writer.finish(error).await;
            }
        });
    }
    let _ = reading.await;
}

async fn forward(writer: &spdy::Writer, mut stream: spdy::Stream, port: u16) -> std::io::Result<()> {
    let (mut read, mut write) = TcpStream::connect(("127.0.0.1", port)).await?.into_split();
    let inward = async {
        while let Some(octets) = stream.input.recv().await {
            write.write_all(&octets).await?;
        }
        write.shutdown().await
    };
    let outward = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            writer.data(stream.id, &buffer[..count]).await?;
        }
        writer.finish(stream.id).await
    };
    let (inward, outward) = tokio::join!(inward, outward);
    inward.and(outward)
}
