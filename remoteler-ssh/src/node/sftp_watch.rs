//! What a client does to files over SFTP, read off its requests on their way to the file subsystem. The subsystem runs as the user, so
//! its word on what it did would be the user's; what passes here was sent. Owns the position in the stream and the bound on events;
//! changes no octet, holds none up, and records nothing itself.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{io::AsyncWrite, sync::mpsc};

use crate::sftp_server::wire::{Fields, MAX_PACKET, Malformed, request};

/// Something a client asked to be done to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// As it is named in the audit log.
    pub(super) action: &'static str,
    /// Path, as the client named it.
    pub(super) path: String,
    /// The second path of those that have two.
    pub(super) target_path: Option<String>,
    /// How a file is opened.
    pub(super) flags: Option<u32>,
}

/// Finds operations in a stream of requests. A pure machine; holds a part of one packet at the most.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Length, kind and as much of the body as is looked at.
    packet: Vec<u8>,
    /// Octets of the body that are passed over.
    skip: usize,
    /// The stream is no SFTP any more; the subsystem ends at the same octet.
    over: bool,
}

impl Watch {
    /// Takes the next octets of the stream, in pieces of any size.
    pub(super) fn take(&mut self, mut octets: &[u8], found: &mut impl FnMut(Operation)) {
        while !octets.is_empty() && !self.over {
            if self.skip > 0 {
                let passed = self.skip.min(octets.len());
                self.skip -= passed;
                octets = octets.get(passed..).unwrap_or_default();
                continue;
            }
            let wanted = match self.packet.first_chunk::<HEAD>() {
                None => HEAD,
                Some(head) => HEAD + body_of(head).min(LOOKED_AT),
            };
            let (taken, rest) = octets.split_at(octets.len().min(wanted - self.packet.len()));
            self.packet.extend_from_slice(taken);
            octets = rest;
            self.advance(found);
        }
    }

    /// Goes on when a head or a body has become whole.
    fn advance(&mut self, found: &mut impl FnMut(Operation)) {
        let Some(head) = self.packet.first_chunk::<HEAD>().copied() else { return };
        let [_, _, _, _, kind] = head;
        let body = body_of(&head);
        if length_of(&head) == 0 || body >= MAX_PACKET {
            self.over = true;
        } else if !changes_or_opens(kind) {
            self.skip = body;
        } else if self.packet.len() == HEAD + body.min(LOOKED_AT) {
            self.skip = body - body.min(LOOKED_AT);
            // What does not parse here does not parse there, and nothing is done.
            if let Ok(Some(operation)) = operation(kind, Fields::new(self.packet.get(HEAD..).unwrap_or_default())) {
                found(operation);
            }
        } else {
            return;
        }
        self.packet.clear();
    }
}

fn length_of(head: &[u8; HEAD]) -> usize {
    let [a, b, c, d, _] = *head;
    u32::from_be_bytes([a, b, c, d]) as usize
}

/// Octets after the kind.
fn body_of(head: &[u8; HEAD]) -> usize {
    length_of(head).saturating_sub(1)
}

const fn changes_or_opens(kind: u8) -> bool {
    matches!(
        kind,
        request::OPEN
            | request::SETSTAT
            | request::REMOVE
            | request::MKDIR
            | request::RMDIR
            | request::RENAME
            | request::SYMLINK
            | request::EXTENDED
    )
}

fn operation(kind: u8, mut fields: Fields<'_>) -> Result<Option<Operation>, Malformed> {
    let fields = &mut fields;
    let _id = fields.u32()?;
    let of = |action, path: &std::path::Path| Operation { action, path: text(path), target_path: None, flags: None };
    let operation = match kind {
        request::OPEN => Operation { flags: Some(0), ..of("open", fields.path()?) },
        request::SETSTAT => of("setstat", fields.path()?),
        request::REMOVE => of("remove", fields.path()?),
        request::MKDIR => of("mkdir", fields.path()?),
        request::RMDIR => of("rmdir", fields.path()?),
        request::RENAME => of("rename", fields.path()?),
        request::SYMLINK => of("symlink", fields.path()?),
        request::EXTENDED => match fields.string()? {
            b"posix-rename@openssh.com" => of("rename", fields.path()?),
            b"hardlink@openssh.com" => of("link", fields.path()?),
            b"lsetstat@openssh.com" => of("setstat", fields.path()?),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(match operation.action {
        "open" => Operation { flags: Some(fields.u32()?), ..operation },
        "rename" | "symlink" | "link" => Operation { target_path: Some(text(fields.path()?)), ..operation },
        _ => operation,
    }))
}

/// Longer paths than the kernel takes are not kept whole.
fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().chars().take(MAX_PATH).collect()
}

/// The way to a program's input, watched if it is the file subsystem.
pub(super) struct Watched<W> {
    inner: W,
    watcher: Option<Watcher>,
}

struct Watcher {
    watch: Watch,
    left: usize,
    listed: mpsc::Sender<Operation>,
    unlisted: Arc<AtomicU64>,
}

/// What a watcher finds: operations up to a bound, and how many more there were.
pub(super) struct Found {
    pub(super) operations: mpsc::Receiver<Operation>,
    unlisted: Arc<AtomicU64>,
}

impl Found {
    /// How many were not listed; final when [`Found::operations`] has ended.
    pub(super) fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Acquire)
    }
}

impl<W> Watched<W> {
    /// Nothing is looked at.
    pub(super) const fn unwatched(inner: W) -> Self {
        Self { inner, watcher: None }
    }

    /// Requests of SFTP pass through it. The operations end when it is dropped.
    pub(super) fn sftp(inner: W) -> (Self, Found) {
        let (listed, operations) = mpsc::channel(QUEUE);
        let unlisted = Arc::new(AtomicU64::new(0));
        let found = Found { operations, unlisted: unlisted.clone() };
        let watcher = Watcher { watch: Watch::default(), left: LISTED, listed, unlisted };
        (Self { inner, watcher: Some(watcher) }, found)
    }
}

impl Watcher {
    fn take(&mut self, octets: &[u8]) {
        let Self { watch, left, listed, unlisted } = self;
        watch.take(octets, &mut |operation| {
            // A client that is faster than the audit log, or never ends, is counted.
            if *left > 0 && listed.try_send(operation).is_ok() {
                *left -= 1;
            } else {
                unlisted.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Watched<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(context, octets))?;
        if let Some(watcher) = &mut self.watcher {
            watcher.take(octets.get(..count).unwrap_or_default());
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Length and kind of a packet.
const HEAD: usize = 5;
/// Octets of a body that are looked at: two paths of the kernel's longest, and what goes with them.
const LOOKED_AT: usize = 16 * 1024;
const MAX_PATH: usize = 4096;
/// Operations of one session that are listed; more are counted.
const LISTED: usize = 1000;
/// Operations that wait for the audit log.
const QUEUE: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &[u8]) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
    }

    fn packet(kind: u8, parts: &[Vec<u8>]) -> Vec<u8> {
        let body = [&[kind][..], &[0, 0, 0, 9], &parts.concat()].concat();
        string(&body)
    }

    fn number(value: u32) -> Vec<u8> {
        value.to_be_bytes().to_vec()
    }

    fn stream() -> Vec<u8> {
        [
            string(&[1, 0, 0, 0, 3]), // INIT
            packet(request::OPEN, &[string(b"/etc/passwd"), number(1), number(0)]),
            packet(request::WRITE, &[string(b"h"), vec![0; 8], string(&[request::REMOVE; 70_000])]),
            packet(request::RENAME, &[string(b"a"), string(b"b")]),
            packet(request::STAT, &[string(b"unseen")]),
            packet(request::EXTENDED, &[string(b"hardlink@openssh.com"), string(b"c"), string(b"d\xff")]),
            packet(request::EXTENDED, &[string(b"statvfs@openssh.com"), string(b"unseen")]),
            packet(request::MKDIR, &[string(b"dir"), number(0)]),
            packet(request::REMOVE, &[string(b"")]),
            packet(request::REMOVE, &[number(99)]),
            packet(request::SETSTAT, &[string(b"x"), vec![7; 100_000]]),
            packet(request::RMDIR, &[string(b"dir")]),
        ]
        .concat()
    }

    fn watched(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
        let (mut watch, mut found) = (Watch::default(), Vec::new());
        for piece in pieces {
            watch.take(&piece, &mut |Operation { action, path, target_path, flags }| {
                let target = target_path.map(|target| format!(" {target}")).unwrap_or_default();
                found.push(format!("{action} {path}{target}{}", flags.map(|f| format!(" {f}")).unwrap_or_default()));
            });
            assert!(watch.packet.capacity() <= 2 * (HEAD + LOOKED_AT), "what is held is bounded");
        }
        found
    }

    const SEEN: [&str; 7] =
        ["open /etc/passwd 1", "rename a b", "link c d\u{fffd}", "mkdir dir", "remove .", "setstat x", "rmdir dir"];

    #[test]
    fn what_opens_or_changes_files_is_seen_and_nothing_else() {
        assert_eq!(watched(std::iter::once(stream())), SEEN);
        assert_eq!(watched(stream().into_iter().map(|octet| vec![octet])), SEEN);
    }

    #[test]
    fn after_what_is_no_sftp_nothing_is_looked_at() {
        for wrong in [number(0), number(u32::MAX)] {
            let octets = [stream(), wrong, vec![0; 1], stream()].concat();
            assert_eq!(watched(std::iter::once(octets)), SEEN);
        }
    }

    #[tokio::test]
    async fn a_flood_is_counted_and_holds_nothing_up() {
        use tokio::io::AsyncWriteExt;
        let (mut watched, mut found) = Watched::sftp(tokio::io::sink());
        let one = packet(request::REMOVE, &[string(b"f")]);
        for _ in 0..5000 {
            watched.write_all(&one).await.unwrap();
        }
        drop(watched);
        let mut listed = 0;
        while found.operations.recv().await.is_some() {
            listed += 1;
        }
        assert_eq!((listed, found.unlisted()), (QUEUE as u64, 5000 - QUEUE as u64), "nobody listened meanwhile");

        let (mut watched, mut found) = Watched::sftp(tokio::io::sink());
        for _ in 0..5000 {
            watched.write_all(&one).await.unwrap();
            let _listed = found.operations.try_recv();
        }
        assert_eq!(found.unlisted(), 5000 - LISTED as u64);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference_and_noise_does_no_harm(noise in prop::collection::vec(any::<u8>(), 0..200), cut in 1..500_usize) {
            let octets = [stream(), noise].concat();
            let whole = watched(std::iter::once(octets.clone()));
            prop_assert_eq!(&whole[..SEEN.len()], SEEN);
            prop_assert_eq!(watched(octets.chunks(cut).map(<[u8]>::to_vec)), whole);
        }
    }
}
