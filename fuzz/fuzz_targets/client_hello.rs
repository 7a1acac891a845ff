//! The first octets on the one port. Input: what a client sends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remoteler_tunnel::{MAX_CLIENT_HELLO, read_client_hello};
use tokio::io::{AsyncWriteExt, duplex};

fuzz_target!(|octets: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    runtime.block_on(async {
        let (mut client, server) = duplex(2 * MAX_CLIENT_HELLO);
        let sent = octets.get(..2 * MAX_CLIENT_HELLO).unwrap_or(octets);
        client.write_all(sent).await.expect("it fits");
        client.shutdown().await.expect("nobody has closed it");
        let _ = read_client_hello(server).await;
    });
});
