//! What our own client lets a server bring to the user's machine: what was asked for, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use remoteler_core::{CaSet, ClusterName, Login, SystemClock, TrustBundle};
use remoteler_ssh::{ClientConfig, Exit, ForwardSpec, Program, SessionError, SessionIo, SessionRequest, SshClient};
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, Session};
use support::{CLUSTER, Cluster, NODE, Wish, host_certificate, host_identity, new_key, own_login, user_certificate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    sync::mpsc,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn config(cluster: &Cluster, wish: &Wish) -> ClientConfig {
    let key = new_key();
    let certificate = user_certificate(&cluster.user_ca, &key, wish);
    let set = |keys: Vec<_>| CaSet { ssh: keys, x509: Vec::new() };
    let name = ClusterName::new(CLUSTER).unwrap();
    let trust = TrustBundle::new(name, set(Vec::new()), set(vec![cluster.host_ca.public_key().clone()]));
    let (login, host) = (Login::new(own_login()).unwrap(), format!("{NODE}.{CLUSTER}"));
    ClientConfig::new(login, host, Arc::new(trust), Arc::new(key), certificate, Arc::new(SystemClock))
}

async fn connected(port: u16, config: ClientConfig) -> SshClient {
    SshClient::connect(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), config).await.unwrap()
}

fn with_role(role: &str) -> Wish {
    Wish { roles: vec![role.into()], ..Wish::default() }
}

async fn output_of(client: &SshClient, command: &str) -> (Exit, String, String) {
    let request = SessionRequest { program: Program::Command(command.into()), pty: None, env: Vec::new() };
    let session = client.session(request).await.unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (_controls, controlled) = mpsc::channel(1);
    let io = SessionIo { stdin: &b""[..], stdout: &mut stdout, stderr: &mut stderr };
    let exit = timeout(PATIENCE, session.run(io, controlled, None)).await.unwrap().unwrap();
    (exit, support::text(&stdout), support::text(&stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_port_of_the_server_come_to_the_target_that_was_named() {
    let cluster = Cluster::start().await;
    let client = connected(cluster.port, config(&cluster, &Wish::default())).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spec = |port| format!("{port}:{}", target.local_addr().unwrap()).parse::<ForwardSpec>().unwrap();
    let port = client.remote_forward(&spec(0)).await.unwrap();
    let mut near = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut far, _) = timeout(PATIENCE, target.accept()).await.unwrap().unwrap();
    near.write_all(b"there").await.unwrap();
    near.shutdown().await.unwrap();
    let mut there = String::new();
    timeout(PATIENCE, far.read_to_string(&mut there)).await.unwrap().unwrap();
    far.write_all(b"and back").await.unwrap();
    drop(far);
    let mut back = String::new();
    timeout(PATIENCE, near.read_to_string(&mut back)).await.unwrap().unwrap();
    assert_eq!((there.as_str(), back.as_str()), ("there", "and back"));

    let twice = client.remote_forward(&spec(port)).await.unwrap_err();
    assert!(matches!(twice, SessionError::Refused { .. }), "{twice}");
    TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    timeout(PATIENCE, target.accept()).await.expect("the first one goes on").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_roles_do_not_allow_it_is_heard() {
    let cluster = Cluster::start().await;
    let client = connected(cluster.port, config(&cluster, &with_role("no-remote"))).await;
    let refused = client.remote_forward(&"0:127.0.0.1:1".parse().unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("0:127.0.0.1:1") && refused.contains("roles"), "{refused}");
    let (exit, _, said) = output_of(&client, "true").await;
    assert_eq!(exit, Exit::Status(0));
    assert!(said.contains("no role of ann allows remote port forwarding"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_that_was_named_is_asked_from_the_server_and_only_then() {
    let cluster = Cluster::start().await;
    let path = cluster.path("own-agent");
    let agent = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = agent.accept().await {
            let mut request = [0; 5];
            let _read = stream.read_exact(&mut request).await;
            // SSH_AGENT_IDENTITIES_ANSWER, of none.
            let _written = stream.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).await;
            let _rest = stream.read(&mut request).await;
        }
    });
    let list = "ssh-add -l; echo [${SSH_AUTH_SOCK:+set}]";
    let with = ClientConfig { agent: Some(path.clone()), ..config(&cluster, &with_role("agent")) };
    let (_, said, _) = output_of(&connected(cluster.port, with).await, list).await;
    assert_eq!(said, "The agent has no identities.\n[set]\n");
    let (_, said, _) = output_of(&connected(cluster.port, config(&cluster, &with_role("agent"))).await, list).await;
    assert_eq!(said, "[]\n");
    let refused = ClientConfig { agent: Some(path), ..config(&cluster, &Wish::default()) };
    let (exit, said, why) = output_of(&connected(cluster.port, refused).await, list).await;
    assert_eq!((exit, said.as_str()), (Exit::Status(0), "[]\n"));
    assert!(why.contains("no role of ann allows agent forwarding"), "{why}");
}

/// Lets everybody in, and hands out its handle.
struct Hostile(Arc<Mutex<Option<Handle>>>);

impl Handler for Hostile {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, _: &str, _: &russh::keys::Certificate) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        *self.0.lock().unwrap() = Some(session.handle());
        reply.reject(russh::ChannelOpenFailure::ConnectFailed).await;
        Ok(())
    }

    async fn tcpip_forward(&mut self, _: &str, _: &mut u32, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

// I74
#[tokio::test(flavor = "multi_thread")]
async fn a_server_reaches_nothing_of_the_users_machine_that_it_was_not_asked_to() {
    let cluster = Cluster::start().await;
    let key = new_key();
    let certificate = host_certificate(&cluster.host_ca, &key, &host_identity());
    let server = russh::server::Config { keys: vec![key], certificates: vec![certificate], ..Default::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = Arc::new(Mutex::new(None));
    let hostile = Hostile(handle.clone());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let running = russh::server::run_stream(Arc::new(server), stream, hostile).await.unwrap();
        let _ended = running.await;
    });
    let client = connected(port, config(&cluster, &Wish::default())).await;
    let request = SessionRequest { program: Program::Shell, pty: None, env: Vec::new() };
    assert!(client.session(request).await.is_err());
    let server: Handle = handle.lock().unwrap().clone().unwrap();
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked =
        client.remote_forward(&format!("8080:{}", target.local_addr().unwrap()).parse().unwrap()).await.unwrap();
    assert_eq!(asked, 8080);

    let refused = async {
        assert!(server.channel_open_agent().await.is_err());
        assert!(server.channel_open_x11("127.0.0.1", 6000).await.is_err());
        assert!(server.channel_open_session().await.is_err());
        assert!(server.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_err());
        assert!(server.channel_open_forwarded_streamlocal("/run/x").await.is_err());
        for (address, port) in [("localhost", 22), ("localhost", 8081), ("127.0.0.1", 8080), ("", 8080)] {
            assert!(
                server.channel_open_forwarded_tcpip(address, port, "127.0.0.1", 1).await.is_err(),
                "{address}:{port}"
            );
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    timeout(PATIENCE, server.channel_open_forwarded_tcpip("localhost", 8080, "127.0.0.1", 1)).await.unwrap().unwrap();
    timeout(PATIENCE, target.accept()).await.unwrap().unwrap();
}
