//! Two ends of a link over an in-memory pipe: one opens a stream and speaks, the other answers. The pipe stands for any byte stream.

use anyhow::Context;
use remoteler_tunnel::{Limits, Link, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = Link::start(near, Side::Server, Limits::server());
    let client = Link::start(far, Side::Client, Limits::client());

    let answering = tokio::spawn(async move {
        let incoming = server.accept().await.context("the link ended")?;
        println!("stream opened with metadata {:?}", String::from_utf8_lossy(incoming.metadata()));
        let mut stream = incoming.accept()?;
        let mut question = String::new();
        stream.read_to_string(&mut question).await?;
        stream.write_all(question.to_uppercase().as_bytes()).await?;
        stream.shutdown().await?;
        anyhow::Ok(server)
    });

    // Data may follow the open at once: opening costs no round trip.
    client.ready().await?;
    let mut stream = client.open("a name, a dial header, whatever the two agree on")?;
    stream.write_all(b"hello through the link").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("answer: {answer}");
    answering.await??;
    Ok(())
}
