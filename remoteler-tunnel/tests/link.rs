//! Links over connections in memory: ends, losses and silence.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::time::Duration;

use remoteler_tunnel::{CloseReason, Code, Limits, Link, LinkState, MuxStream, OpenError, Side, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

fn pair() -> (Link, Link) {
    let (near, far) = duplex(64 * 1024);
    (Link::start(near, Side::Client, Limits::client()), Link::start(far, Side::Server, Limits::server()))
}

async fn stream(client: &Link, server: &Link) -> (MuxStream, MuxStream) {
    let mut near = client.open("metadata").unwrap();
    let incoming = server.accept().await.unwrap();
    assert_eq!(incoming.metadata(), "metadata");
    let far = incoming.accept().unwrap();
    near.accepted().await.unwrap();
    (near, far)
}

#[tokio::test]
async fn a_stream_may_be_written_before_the_link_is_up() {
    let (client, server) = pair();
    let mut near = client.open("m").unwrap();
    near.write_all(b"early").await.unwrap();

    let mut far = server.accept().await.unwrap().accept().unwrap();
    let mut heard = [0; 5];
    far.read_exact(&mut heard).await.unwrap();

    assert_eq!(&heard, b"early");
}

#[tokio::test]
async fn a_refusal_and_a_drop_tell_the_opener_why() {
    let (client, server) = pair();
    let mut refused = client.open("m").unwrap();
    server.accept().await.unwrap().reject(Code::NotOffered, "no such service");
    let told = refused.accepted().await.unwrap_err();
    assert_eq!(told.to_string(), "the peer refused the stream: no such service");

    let mut dropped = client.open("m").unwrap();
    drop(server.accept().await.unwrap());
    assert!(matches!(dropped.accepted().await, Err(StreamError::Rejected { .. })));
}

#[tokio::test]
async fn a_dropped_stream_is_an_error_for_its_reader_and_a_finished_one_is_not() {
    let (client, server) = pair();
    let (mut near, mut far) = stream(&client, &server).await;
    near.write_all(b"half a").await.unwrap();
    drop(near);
    let mut heard = Vec::new();
    assert!(far.read_to_end(&mut heard).await.is_err());
    assert_eq!(heard, b"half a");

    let (mut near, mut far) = stream(&client, &server).await;
    near.write_all(b"all of it").await.unwrap();
    near.shutdown().await.unwrap();
    drop(near);
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"all of it");
}

#[tokio::test]
async fn who_writes_to_a_stream_that_was_reset_is_told() {
    let (client, server) = pair();
    let (mut near, far) = stream(&client, &server).await;
    far.reset(300);
    let mut octet = [0];
    let error = near.read(&mut octet).await.unwrap_err();
    let source = error.get_ref().unwrap().downcast_ref::<StreamError>().unwrap();

    assert_eq!(*source, StreamError::Reset { code: 300 });
    assert!(near.write(&octet).await.is_err());
}

#[tokio::test]
async fn a_lost_connection_ends_every_stream_with_the_reason() {
    let (near, far) = duplex(64 * 1024);
    let client = Link::start(near, Side::Client, Limits::client());
    let (mut wire, link_end) = duplex(64 * 1024);
    let server = Link::start(link_end, Side::Server, Limits::server());
    let mut far = far;
    let carrying = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut far, &mut wire).await });
    let (mut near, _far) = stream(&client, &server).await;

    carrying.abort();
    let error = near.read_u8().await.unwrap_err();

    assert!(error.to_string().contains("the link was closed"), "{error}");
    assert!(matches!(client.closed().await, CloseReason::Broken { .. }));
    assert!(matches!(client.open("m"), Err(OpenError::Closed { .. })));
    assert!(server.accept().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_lives_and_a_silent_peer_is_given_up_within_30_seconds() {
    let (client, server) = pair();
    client.ready().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await; // of paused time
    assert!(matches!(client.state(), LinkState::Up) && matches!(server.state(), LinkState::Up));
    assert!(client.round_trip().is_some());

    let (near, mut silent) = duplex(64 * 1024);
    let alone = Link::start(near, Side::Client, Limits::client());
    let hello = hello_of(&mut silent).await;
    silent.write_all(&hello).await.unwrap();
    alone.ready().await.unwrap();
    let since = Instant::now();

    let reason = alone.closed().await;

    assert_eq!(reason.to_string(), "the peer was silent for 30 s");
    assert_eq!(since.elapsed().as_secs(), 30);
}

/// What a link says first; said back to it, it is a good hello.
async fn hello_of(wire: &mut DuplexStream) -> Vec<u8> {
    let mut hello = vec![0; 36];
    wire.read_exact(&mut hello).await.unwrap();
    hello
}

#[tokio::test]
async fn a_peer_of_another_version_is_refused_by_both_with_a_clear_reason() {
    let (near, mut far) = duplex(64 * 1024);
    let link = Link::start(near, Side::Client, Limits::client());
    let mut hello = hello_of(&mut far).await;
    hello[4] = 9;
    far.write_all(&hello).await.unwrap();

    let reason = link.closed().await.to_string();

    assert!(reason.contains("speaks version 9") && reason.contains("upgrade"), "{reason}");
    assert!(link.ready().await.is_err());
}

#[tokio::test]
async fn an_orderly_end_waits_for_streams_and_is_told_to_the_peer() {
    let (client, server) = pair();
    let (mut near, mut far) = stream(&client, &server).await;
    let stopping = server.clone();
    let stopped = tokio::spawn(async move { stopping.shutdown("maintenance", Duration::from_secs(60)).await });
    client.going_away().await;
    assert!(!client.is_open());

    near.write_all(b"x").await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'x');
    drop((near, far));

    stopped.await.unwrap();
    let CloseReason::Peer { reason } = client.closed().await else { panic!("closed otherwise") };
    assert_eq!(&*reason, "maintenance");
}

#[tokio::test]
async fn the_last_handle_dropped_lets_the_streams_end_first() {
    let (client, server) = pair();
    let (mut near, mut far) = stream(&client, &server).await;
    drop(client);
    near.write_all(b"x").await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'x');

    drop((near, far));

    assert!(matches!(server.closed().await, CloseReason::Peer { .. }));
}
