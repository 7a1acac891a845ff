//! `tsh play`: replays a recorded session in the terminal, or prints it. Owns the keys and the waiting; when an event is due is
//! decided by [`Clockwork`].

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use remoteler_client::RemoteAuth;
use remoteler_core::{AuthApi, SessionId};
use remoteler_ssh::{CastEvent, CastReader, Clockwork, PlainText};
use tokio::runtime::Runtime;

use crate::{
    cli::{self, PlayFormat},
    context::{Context, remote_auth},
    output::say,
    terminal::{self, RawMode},
};

pub(crate) fn run(context: &Context, options: &cli::Play) -> anyhow::Result<()> {
    let source = open(context, &options.source)?;
    let done = match options.format {
        PlayFormat::Cast => copy(source),
        PlayFormat::Json => CastReader::new(source).map_err(Into::into).and_then(json),
        PlayFormat::Text => CastReader::new(source).map_err(Into::into).and_then(text),
        PlayFormat::Pty => CastReader::new(source).map_err(Into::into).and_then(|reader| replay(reader, options)),
    };
    match done {
        // Whoever read has seen enough: `tsh play … | head`.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// A session id is fetched from the cluster; everything else is a file.
fn open(context: &Context, source: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    let id = source.to_str().and_then(|text| text.parse::<SessionId>().ok()).filter(|_| !source.exists());
    match id {
        Some(session) => Ok(Box::new(BufReader::with_capacity(BUFFER, fetch(context, session)?))),
        None => {
            let file = File::open(source)
                .with_context(|| format!("{} is neither a session id nor a file that can be read", source.display()))?;
            Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
        }
    }
}

fn fetch(context: &Context, session: SessionId) -> anyhow::Result<Remote> {
    let login = context.login()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let auth = remote_auth(&login)?;
    // The first part at once: that there is no such recording must not look like a broken file.
    let first = runtime.block_on(auth.read_recording(session, 0))?;
    Ok(Remote { runtime, auth, session, offset: first.len() as u64, part: io::Cursor::new(first) })
}

/// A recording in the cluster, read part by part.
struct Remote {
    runtime: Runtime,
    auth: RemoteAuth,
    session: SessionId,
    offset: u64,
    part: io::Cursor<Vec<u8>>,
}

impl Read for Remote {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.part.read(buf)?;
        if count > 0 || buf.is_empty() {
            return Ok(count);
        }
        let part =
            self.runtime.block_on(self.auth.read_recording(self.session, self.offset)).map_err(io::Error::other)?;
        self.offset += part.len() as u64;
        self.part = io::Cursor::new(part);
        self.part.read(buf)
    }
}

fn copy(mut source: Box<dyn BufRead>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    io::copy(&mut source, &mut out)?;
    Ok(out.flush()?)
}

/// One object: the header's fields and an array of events. Written piece by piece, because a recording may be large.
fn json(mut reader: CastReader<Box<dyn BufRead>>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let header = serde_json::to_string(reader.header())?;
    write!(out, "{{\"header\":{header},\"events\":[")?;
    let mut separator = "\n";
    while let Some(event) = reader.next_event()? {
        write!(out, "{separator}{}", event.to_json())?;
        separator = ",\n";
    }
    writeln!(out, "\n]}}")?;
    out.flush()?;
    note_torn(&reader);
    Ok(())
}

fn text(mut reader: CastReader<Box<dyn BufRead>>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut filter = PlainText::default();
    let mut plain = String::new();
    while let Some(event) = reader.next_event()? {
        if let CastEvent::Output(output) = event.event {
            filter.push(&output, &mut plain);
            out.write_all(plain.as_bytes())?;
            plain.clear();
        }
    }
    filter.finish(&mut plain);
    out.write_all(plain.as_bytes())?;
    out.flush()?;
    note_torn(&reader);
    Ok(())
}

fn note_torn<R: BufRead>(reader: &CastReader<R>) {
    if reader.is_torn() {
        say("tsh: the recording ends in the middle of an event: its recorder was stopped");
    }
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Pause,
    Quit,
    Faster,
    Slower,
}

const fn key(octet: u8) -> Option<Key> {
    match octet {
        b' ' => Some(Key::Pause),
        b'q' | 0x03 | 0x04 => Some(Key::Quit),
        b'+' | b'=' | b'>' => Some(Key::Faster),
        b'-' | b'<' => Some(Key::Slower),
        _ => None,
    }
}

fn replay(mut reader: CastReader<Box<dyn BufRead>>, options: &cli::Play) -> anyhow::Result<()> {
    let keys = terminal::stdin_is_terminal() && terminal::stdout_is_terminal();
    let header = reader.header();
    let size = terminal::size();
    if terminal::stdout_is_terminal() && (size.cols < header.width || size.rows < header.height) {
        say(&format!(
            "tsh: the session had {}x{} characters, this terminal has {}x{}; space pauses, q quits, + and - change the speed",
            header.width, header.height, size.cols, size.rows
        ));
    }
    let raw = if keys { Some(RawMode::enter_keys().context("the terminal cannot be read key by key")?) } else { None };
    // Without keys the sender stays here, and nothing ever comes.
    let (mut typed, keys) = (None, mpsc::channel());
    if raw.is_some() {
        typed_keys(keys.0)
    } else {
        typed = Some(keys.0)
    }
    let played = play(&mut reader, options, &keys.1);
    drop(typed);
    if raw.is_some() {
        // Whatever the session left behind: attributes, character set, cursor, alternate screen, mouse and paste modes.
        let mut out = io::stdout().lock();
        let _ = out.write_all(RESET).and_then(|()| out.flush());
    }
    drop(raw);
    played?;
    note_torn(&reader);
    Ok(())
}

/// Soft reset (DECSTR), main screen, no mouse reports, no bracketed paste, cursor shown, new line.
const RESET: &[u8] = b"\x1b[!p\x1b[?1049l\x1b[?1000;1002;1003;1006l\x1b[?2004l\x1b[?25h\x1b[0m\r\n";

fn play(reader: &mut CastReader<Box<dyn BufRead>>, options: &cli::Play, keys: &Receiver<u8>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut clockwork = Clockwork::new(options.speed);
    let mut out = io::stdout().lock();
    while let Some(event) = reader.next_event()? {
        if let Some(most) = options.idle_limit {
            clockwork.skip_idle(event.at, most, begun.elapsed());
        }
        loop {
            let now = begun.elapsed();
            let due = clockwork.due(event.at);
            if due.is_some_and(|due| due <= now) {
                break;
            }
            let wait = due.map(|due| due.saturating_sub(now));
            match (next_key(keys, wait), begun.elapsed()) {
                (Some(Key::Quit), _) => return Ok(()),
                (Some(Key::Pause), now) => clockwork.toggle_pause(now),
                (Some(Key::Faster), now) => clockwork.set_speed(clockwork.speed().faster(), now),
                (Some(Key::Slower), now) => clockwork.set_speed(clockwork.speed().slower(), now),
                (None, _) => {}
            }
        }
        if let CastEvent::Output(output) = &event.event {
            out.write_all(output.as_bytes())?;
            out.flush()?;
        }
    }
    Ok(())
}

/// What is typed, read by a thread that ends with the process.
fn typed_keys(typed: Sender<u8>) {
    thread::spawn(move || {
        let mut octet = [0; 1];
        while matches!(rustix::io::read(rustix::stdio::stdin(), &mut octet), Ok(1)) {
            let [octet] = octet;
            if typed.send(octet).is_err() {
                return;
            }
        }
    });
}

/// Waits until `wait` is over (for ever without it) or a key is typed.
fn next_key(keys: &Receiver<u8>, wait: Option<Duration>) -> Option<Key> {
    let typed = match wait {
        Some(wait) => keys.recv_timeout(wait),
        None => keys.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match typed {
        Ok(octet) => key(octet),
        Err(RecvTimeoutError::Timeout) => None,
        // The terminal is gone.
        Err(RecvTimeoutError::Disconnected) => Some(Key::Quit),
    }
}

const BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_help_says() {
        assert_eq!(
            [b' ', b'q', b'+', b'-', b'x'].map(key),
            [Some(Key::Pause), Some(Key::Quit), Some(Key::Faster), Some(Key::Slower), None]
        );
        assert_eq!(key(0x03), Some(Key::Quit), "Ctrl-C");
    }
}
