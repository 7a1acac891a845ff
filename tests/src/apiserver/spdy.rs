//! SPDY/3.1, server side, as Kubernetes clients speak it: streams opened by the client, header blocks compressed with the draft's
//! dictionary, data, half-close, reset, ping. Written from draft-mbelshe-httpbis-spdy-00. Clients keep no flow-control windows, so
//! neither does this.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::Arc,
};

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Mutex, mpsc},
    task::JoinHandle,
};

/// A stream that the client opened.
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) headers: BTreeMap<String, String>,
    /// Data until the client's FIN or RST.
    pub(super) input: mpsc::Receiver<Bytes>,
}

/// Writes frames; shared by all streams.
#[derive(Clone)]
pub(super) struct Writer(Arc<Mutex<Outgoing>>);

struct Outgoing {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    compress: Compress,
}

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;
const MAX_FRAME: usize = 0x00ff_ffff;

impl Writer {
    /// Data, in frames of moderate size.
    pub(super) async fn data(&self, stream: u32, octets: &[u8]) -> io::Result<()> {
        for chunk in octets.chunks(32 * 1024) {
            self.data_frame(stream, chunk, 0).await?;
        }
        Ok(())
    }

    /// The end of our side of a stream.
    pub(super) async fn finish(&self, stream: u32) -> io::Result<()> {
        self.data_frame(stream, &[], FLAG_FIN).await
    }

    /// The end of the connection.
    pub(super) async fn shutdown(&self) -> io::Result<()> {
        self.0.lock().await.io.shutdown().await
    }

    async fn data_frame(&self, stream: u32, octets: &[u8], flags: u8) -> io::Result<()> {
        let mut frame = stream.to_be_bytes().to_vec();
        frame.extend_from_slice(&length(flags, octets.len()));
        frame.extend_from_slice(octets);
        self.write(&frame).await
    }

    async fn control(&self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let mut outgoing = self.0.lock().await;
        outgoing.control(kind, payload).await
    }

    /// Accepts a stream, with no headers.
    async fn reply(&self, stream: u32) -> io::Result<()> {
        let mut outgoing = self.0.lock().await;
        let block = outgoing.header_block()?;
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend_from_slice(&block);
        outgoing.control(SYN_REPLY, &payload).await
    }

    async fn write(&self, frame: &[u8]) -> io::Result<()> {
        let mut outgoing = self.0.lock().await;
        outgoing.io.write_all(frame).await?;
        outgoing.io.flush().await
    }
}

impl Outgoing {
    async fn control(&mut self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let mut frame = 0x8003_u16.to_be_bytes().to_vec();
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(&length(0, payload.len()));
        frame.extend_from_slice(payload);
        self.io.write_all(&frame).await?;
        self.io.flush().await
    }

    /// A block of no headers: all blocks of a connection are one compressed stream (section 2.6.10).
    fn header_block(&mut self) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(256);
        self.compress.compress_vec(&0_u32.to_be_bytes(), &mut block, FlushCompress::Sync).map_err(io::Error::other)?;
        Ok(block)
    }
}

fn length(flags: u8, octets: usize) -> [u8; 4] {
    let [_, a, b, c] = u32::try_from(octets.min(MAX_FRAME)).unwrap_or(0).to_be_bytes();
    [flags, a, b, c]
}

/// Serves a connection. New streams come out of the receiver, which ends with the connection.
pub(super) fn serve<S>(io: S) -> (Writer, mpsc::Receiver<Stream>, JoinHandle<io::Result<()>>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let mut compress = Compress::new(Compression::default(), true);
    compress.set_dictionary(&dictionary()).expect("a fresh compressor takes a dictionary");
    let writer = Writer(Arc::new(Mutex::new(Outgoing { io: Box::new(write), compress })));
    let (opened, streams) = mpsc::channel(64);
    let reading = tokio::spawn(incoming(read, writer.clone(), opened));
    (writer, streams, reading)
}

async fn incoming<R>(mut from: R, writer: Writer, opened: mpsc::Sender<Stream>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
{
    let mut inflate = Inflate(Decompress::new(true));
    let mut inputs: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    loop {
        let mut head = [0; 8];
        if from.read_exact(&mut head).await.is_err() {
            return Ok(());
        }
        let [a, b, c, d, flags, l1, l2, l3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l1, l2, l3]) as usize];
        from.read_exact(&mut payload).await?;
        if a & 0x80 == 0 {
            let id = u32::from_be_bytes([a, b, c, d]);
            if !payload.is_empty()
                && let Some(input) = inputs.get(&id)
            {
                let _ = input.send(payload.into()).await;
            }
            if flags & FLAG_FIN != 0 {
                inputs.remove(&id);
            }
            continue;
        }
        let field =
            |at: usize| payload.get(at..at + 4).and_then(|octets| octets.try_into().ok()).map_or(0, u32::from_be_bytes);
        match u16::from_be_bytes([c, d]) {
            SYN_STREAM => {
                let id = field(0);
                let headers = inflate.headers(payload.get(10..).unwrap_or_default())?;
                let (sender, input) = mpsc::channel(64);
                if flags & FLAG_FIN == 0 {
                    inputs.insert(id, sender);
                }
                writer.reply(id).await?;
                let _ = opened.send(Stream { id, headers, input }).await;
            }
            RST_STREAM => drop(inputs.remove(&field(0))),
            PING => writer.control(PING, &payload).await?,
            GOAWAY => {}
            _ => {}
        }
    }
}

/// The decompressor of a connection's header blocks.
struct Inflate(Decompress);

impl Inflate {
    /// Section 2.6.10: a count, then names and values, each with its length, all numbers of 32 bits.
    fn headers(&mut self, mut block: &[u8]) -> io::Result<BTreeMap<String, String>> {
        let mut plain = Vec::with_capacity(8 * 1024);
        while !block.is_empty() {
            let before = self.0.total_in();
            match self.0.decompress_vec(block, &mut plain, FlushDecompress::Sync) {
                Ok(Status::BufError) => break,
                Ok(_) => {}
                Err(cause) if cause.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(io::Error::other)?;
                }
                Err(cause) => return Err(io::Error::other(cause)),
            }
            block = block.get(usize::try_from(self.0.total_in() - before).unwrap_or(0)..).unwrap_or_default();
        }
        parse(&plain).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "header block is cut short"))
    }
}

fn parse(plain: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut rest = plain;
    let number = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        Some(u32::from_be_bytes(*head) as usize)
    };
    let count = number(&mut rest)?;
    let mut headers = BTreeMap::new();
    for _ in 0..count {
        let mut text = || {
            let length = number(&mut rest)?;
            let (text, tail) = rest.split_at_checked(length)?;
            rest = tail;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        headers.insert(text()?, text()?);
    }
    Some(headers)
}

/// Section 2.6.10.1: header names and values with their lengths, then texts that are frequent in values.
fn dictionary() -> Vec<u8> {
    const NAMES: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age \
        allow authorization cache-control connection content-base content-encoding content-language content-length \
        content-location content-md5 content-range content-type date etag expect expires from host if-match \
        if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
        proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
        user-agent vary via warning www-authenticate method get status";
    const MORE: &[&str] = &["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"];
    const VALUES: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
        Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
        Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
        00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
        application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,\
        utf-,*,enq=0.";
    let mut octets = Vec::with_capacity(1423);
    for name in NAMES.split_whitespace().chain(MORE.iter().copied()) {
        octets.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
        octets.extend_from_slice(name.as_bytes());
    }
    octets.extend_from_slice(VALUES.as_bytes());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_draft() {
        let dictionary = dictionary();
        assert_eq!(dictionary.len(), 1423);
        let (a, b) = dictionary.iter().fold((1_u32, 0_u32), |(a, b), octet| {
            let a = (a + u32::from(*octet)) % 65_521;
            (a, (b + a) % 65_521)
        });
        assert_eq!((b << 16) | a, 0xe3c6_a7c2); // Adler-32, as every zlib stream of SPDY/3 names it
    }

    #[test]
    fn header_blocks_of_one_connection_are_read_one_after_the_other() {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&dictionary()).unwrap();
        let mut inflate = Inflate(Decompress::new(true));
        for value in ["stdin", "stdout", "stderr"] {
            let mut plain = 1_u32.to_be_bytes().to_vec();
            for text in ["streamtype", value] {
                plain.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                plain.extend_from_slice(text.as_bytes());
            }
            let mut block = Vec::with_capacity(512);
            compress.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
            assert_eq!(inflate.headers(&block).unwrap()["streamtype"], value);
        }
    }
}
