//! The client of this crate against its node: whom it believes, and that what it carries arrives as it was.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{path::PathBuf, sync::Arc, time::Duration};

use remoteler_core::{CaSet, ClusterName, Login, SystemClock, TrustBundle, VerifyError};
use remoteler_ssh::{
    ClientConfig, ConnectError, Control, CopyError, CopyOptions, EscapeFilter, Exit, ForwardSpec, NoProgress, Program,
    PtyRequest, SessionError, SessionIo, SessionRequest, SshClient, TerminalSize, download, serve_local_forward,
    sftp_session, upload,
};
use support::{CLUSTER, Cluster, NODE, Wish, new_key, own_login, user_certificate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

fn config(cluster: &Cluster, host: &str) -> ClientConfig {
    let key = new_key();
    let certificate = user_certificate(&cluster.user_ca, &key, &Wish::default());
    let set = |keys: Vec<_>| CaSet { ssh: keys, x509: Vec::new() };
    let trust = TrustBundle::new(
        ClusterName::new(CLUSTER).unwrap(),
        set(vec![cluster.user_ca.public_key().clone()]),
        set(vec![cluster.host_ca.public_key().clone()]),
    );
    ClientConfig::new(
        Login::new(own_login()).unwrap(),
        host.to_owned(),
        Arc::new(trust),
        Arc::new(key),
        certificate,
        Arc::new(SystemClock),
    )
}

async fn connect(cluster: &Cluster, config: ClientConfig) -> Result<SshClient, ConnectError> {
    let stream = TcpStream::connect(("127.0.0.1", cluster.port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    SshClient::connect(stream, config).await
}

async fn connected(cluster: &Cluster) -> SshClient {
    connect(cluster, config(cluster, &format!("{NODE}.{CLUSTER}"))).await.unwrap()
}

fn command(line: &str) -> SessionRequest {
    SessionRequest { program: Program::Command(line.into()), pty: None, env: Vec::new() }
}

/// Runs a command with `input`; yields exit, output and error output.
async fn run(client: &SshClient, request: SessionRequest, input: &[u8]) -> (Exit, Vec<u8>, Vec<u8>) {
    let session = client.session(request).await.unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (_controls, controlled) = mpsc::channel(1);
    let io = SessionIo { stdin: input, stdout: &mut stdout, stderr: &mut stderr };
    let exit = tokio::time::timeout(Duration::from_secs(60), session.run(io, controlled, None)).await.unwrap().unwrap();
    (exit, stdout, stderr)
}

#[tokio::test]
async fn a_command_gets_its_input_and_gives_output_errors_and_status() {
    let cluster = Cluster::start().await;
    let client = connected(&cluster).await;

    let (exit, out, err) = run(&client, command("cat; echo oops >&2; exit 7"), b"a\0b\xff\r\n").await;

    assert_eq!((exit, out.as_slice(), err.as_slice()), (Exit::Status(7), &b"a\0b\xff\r\n"[..], &b"oops\n"[..]));
}

#[tokio::test]
async fn octets_arrive_unchanged_in_both_directions_at_once() {
    let cluster = Cluster::start().await;
    let client = connected(&cluster).await;
    let sent: Vec<u8> = (0..20_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();

    let (exit, received, _) = run(&client, command("cat"), &sent).await;

    assert_eq!(exit, Exit::Status(0));
    assert!(received == sent, "{} of {} octets", received.len(), sent.len());
}

#[tokio::test]
async fn a_process_that_dies_of_a_signal_is_told_as_that() {
    let cluster = Cluster::start().await;
    let client = connected(&cluster).await;

    let (exit, ..) = run(&client, command("kill -TERM $$"), b"").await;

    assert!(matches!(exit, Exit::Signal { ref name, .. } if name == "TERM"), "{exit:?}");
}

#[tokio::test]
async fn a_terminal_has_its_size_and_learns_of_a_new_one() {
    let cluster = Cluster::start().await;
    let client = connected(&cluster).await;
    let size = |cols, rows| TerminalSize { cols, rows, width_px: 0, height_px: 0 };
    let pty = PtyRequest { term: "xterm".into(), size: size(100, 30), modes: Vec::new() };
    let request = SessionRequest {
        program: Program::Command(b"stty size; read x; stty size; echo $TERM".into()),
        pty: Some(pty),
        env: Vec::new(),
    };
    let session = client.session(request).await.unwrap();
    let (controls, controlled) = mpsc::channel(1);
    let (mut keyboard, stdin) = duplex(100);
    let (stdout, mut screen) = duplex(10_000);
    let io = SessionIo { stdin, stdout, stderr: tokio::io::sink() };
    let running = tokio::spawn(session.run(io, controlled, None));

    let mut seen = String::new();
    read_until(&mut screen, &mut seen, "30 100").await;
    controls.send(Control::Resize(size(120, 40))).await.unwrap();
    // The order of messages in one channel is kept: the new size is there before the key.
    keyboard.write_all(b"\r").await.unwrap();
    read_until(&mut screen, &mut seen, "40 120").await;
    read_until(&mut screen, &mut seen, "xterm").await;

    assert_eq!(running.await.unwrap().unwrap(), Exit::Status(0));
}

#[tokio::test]
async fn the_escape_ends_a_session_that_does_not_answer() {
    let cluster = Cluster::start().await;
    let client = connected(&cluster).await;
    let session = client.session(command("cat; cat >/dev/null")).await.unwrap();
    let (_controls, controlled) = mpsc::channel(1);
    let io = SessionIo { stdin: &b"~."[..], stdout: tokio::io::sink(), stderr: tokio::io::sink() };

    let exit = session.run(io, controlled, Some(EscapeFilter::new(b'~'))).await.unwrap();

    assert_eq!(exit, Exit::Disconnected);
}

#[tokio::test]
async fn a_host_that_cannot_prove_its_name_gets_no_user_certificate() {
    // I73
    let cluster = Cluster::start().await;
    let wrong_name = connect(&cluster, config(&cluster, &format!("other.{CLUSTER}"))).await.unwrap_err();
    let matches_name = |error: &ConnectError| {
        matches!(error, ConnectError::HostCertificate { source: VerifyError::WrongHost { .. }, .. })
    };
    assert!(matches_name(&wrong_name), "{wrong_name}");

    // The authority of users signs no hosts (I1).
    let mut other_authority = config(&cluster, &format!("{NODE}.{CLUSTER}"));
    let mut trust = (*other_authority.trust).clone();
    std::mem::swap(&mut trust.user, &mut trust.host);
    other_authority.trust = Arc::new(trust);
    let error = connect(&cluster, other_authority).await.unwrap_err();
    let unknown = |error: &ConnectError| {
        matches!(error, ConnectError::HostCertificate { source: VerifyError::UnknownAuthority { .. }, .. })
    };
    assert!(unknown(&error), "{error}");
    assert!(cluster.audit.named("session.start").is_empty());
}

#[tokio::test]
async fn a_refused_login_says_why() {
    let cluster = Cluster::start().await;
    let mut refused = config(&cluster, &format!("{NODE}.{CLUSTER}"));
    refused.login = Login::new("nobody-of-this-name").unwrap();

    // The key was proven, so the node says why before it closes the connection.
    let text = match connect(&cluster, refused).await {
        Err(error) => error.to_string(),
        Ok(client) => client.session(command("true")).await.unwrap_err().to_string(),
    };

    assert!(text.contains(NODE) && text.contains("nobody-of-this-name"), "{text}");
}

#[tokio::test]
async fn a_silent_server_is_left_after_the_deadline() {
    let cluster = Cluster::start().await;
    let (near, _far) = duplex(1000);
    let mut impatient = config(&cluster, NODE);
    impatient.deadline = Duration::from_millis(20);

    let error = SshClient::connect(near, impatient).await.unwrap_err();

    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn a_forwarded_port_carries_octets_and_ends_each_direction_on_its_own() {
    let cluster = Cluster::start().await;
    let client = Arc::new(connected(&cluster).await);
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = echo.accept().await.unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await.unwrap();
        all.reverse();
        socket.write_all(&all).await.unwrap();
    });
    let spec: ForwardSpec = format!("127.0.0.1:0:127.0.0.1:{port}").parse().unwrap();
    let mut listeners = spec.listen(false).await.unwrap();
    let listener = listeners.remove(0);
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve_local_forward(client, listener, spec, Arc::new(|line: &str| panic!("{line}"))));

    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"abc").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();

    assert_eq!(answer, b"cba");
    serving.abort();
}

#[tokio::test]
async fn an_unknown_subsystem_is_refused_in_words() {
    let cluster = Cluster::start().await;
    let client = connected(&cluster).await;
    let request = SessionRequest { program: Program::Subsystem("nonsense".into()), pty: None, env: Vec::new() };

    let error = client.session(request).await.unwrap_err();

    assert!(matches!(error, SessionError::Refused { .. } | SessionError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn trees_are_copied_to_the_server_and_back() {
    let cluster = Cluster::start().await;
    let client = connected(&cluster).await;
    let sftp = sftp_session(client.subsystem("sftp").await.unwrap()).await.unwrap();
    let source = cluster.path("source");
    std::fs::create_dir_all(source.join("deep/er")).unwrap();
    let large: Vec<u8> = (0..3_000_000u32).map(|at| (at % 253) as u8).collect();
    std::fs::write(source.join("deep/large"), &large).unwrap();
    std::fs::write(source.join("deep/er/empty"), b"").unwrap();
    std::fs::write(source.join("a b"), b"x").unwrap();
    let options = CopyOptions { recursive: true, preserve: true };

    let there = cluster.path("there").display().to_string();
    upload(&sftp, std::slice::from_ref(&source), &there, options, &mut NoProgress).await.unwrap();
    let back = cluster.path("back");
    download(&sftp, std::slice::from_ref(&there), &back, options, &mut NoProgress).await.unwrap();

    assert_eq!(std::fs::read(back.join("deep/large")).unwrap(), large);
    assert_eq!(std::fs::read(back.join("a b")).unwrap(), b"x");
    assert!(back.join("deep/er/empty").exists());
    let modified = |path: PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    let whole_seconds = |path: PathBuf| modified(path).duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(whole_seconds(back.join("a b")), whole_seconds(source.join("a b")));

    // Into a directory that is there, with a wildcard, without recursion.
    let into = cluster.path("into");
    std::fs::create_dir(&into).unwrap();
    download(&sftp, &[format!("{there}/a*")], &into, CopyOptions::default(), &mut NoProgress).await.unwrap();
    assert_eq!(std::fs::read(into.join("a b")).unwrap(), b"x");
    let error = download(&sftp, &[there], &into, CopyOptions::default(), &mut NoProgress).await.unwrap_err();
    assert!(matches!(error, CopyError::IsDirectory(_)), "{error}");
}

#[tokio::test]
async fn a_download_does_not_write_through_links_below_its_target() {
    // I64
    let cluster = Cluster::start().await;
    let client = connected(&cluster).await;
    let sftp = sftp_session(client.subsystem("sftp").await.unwrap()).await.unwrap();
    let (source, target, outside) = (cluster.path("source"), cluster.path("target"), cluster.path("outside"));
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(source.join("sub/file"), b"new").unwrap();
    std::fs::create_dir_all(target.join("source")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, target.join("source/sub")).unwrap();
    let options = CopyOptions { recursive: true, preserve: false };

    let from = source.display().to_string();
    let error = download(&sftp, &[from], &target, options, &mut NoProgress).await.unwrap_err();

    assert!(matches!(error, CopyError::Local { .. }), "{error}");
    assert!(std::fs::read_dir(&outside).unwrap().next().is_none());
}

async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), seen: &mut String, wanted: &str) {
    let reading = async {
        let mut buffer = [0; 1000];
        while !seen.contains(wanted) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "{wanted:?} never came: {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("a line");
}
