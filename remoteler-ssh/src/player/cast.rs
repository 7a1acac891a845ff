//! Reads asciicast v2 (<https://docs.asciinema.org/manual/asciicast/v2/>): a header line, then one JSON array a line. What is
//! read was written by another machine: lines are bounded, times are checked, and a torn end is no failure.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CastHeader {
    /// Version; 2 is read.
    pub version: u32,
    /// Columns at the beginning.
    pub width: u32,
    /// Rows at the beginning.
    pub height: u32,
    /// Seconds since 1970 at the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Environment that was recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CastEvent {
    /// Octets went to the terminal.
    Output(String),
    /// Octets were typed.
    Input(String),
    /// The terminal has this size now: columns, rows.
    Resize(u32, u32),
    /// A kind that this program does not know.
    Other(String, String),
}

/// What happened, and when after the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedEvent {
    /// Since the beginning; never less than that of the event before.
    pub at: Duration,
    /// What.
    pub event: CastEvent,
}

impl TimedEvent {
    /// As an object: `{"time": 1.25, "type": "output", "data": "…"}`; times in seconds.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let time = self.at.as_secs_f64();
        match &self.event {
            CastEvent::Output(text) => serde_json::json!({"time": time, "type": "output", "data": text}),
            CastEvent::Input(text) => serde_json::json!({"time": time, "type": "input", "data": text}),
            CastEvent::Resize(cols, rows) => {
                serde_json::json!({"time": time, "type": "resize", "width": cols, "height": rows})
            }
            CastEvent::Other(code, text) => serde_json::json!({"time": time, "type": code, "data": text}),
        }
    }
}

/// Why a recording cannot be played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CastError {
    /// It cannot be read.
    #[error("the recording cannot be read")]
    Read(#[from] io::Error),
    /// The first line is none of a recording.
    #[error("this is no recording: its first line is not a header of asciicast version 2")]
    Header,
    /// A line that is no event.
    #[error("line {0} of the recording is damaged")]
    Line(u64),
    /// A line longer than any honest one.
    #[error("line {0} of the recording is longer than {MAX_LINE} octets")]
    LineTooLong(u64),
}

/// Reads events one by one.
#[derive(Debug)]
pub struct CastReader<R> {
    source: R,
    header: CastHeader,
    line: u64,
    last: Duration,
    torn: bool,
}

impl<R: BufRead> CastReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`CastError::Header`] for anything that is no asciicast v2.
    pub fn new(mut source: R) -> Result<Self, CastError> {
        let first = read_line(&mut source, 1)?;
        let header: CastHeader = first
            .and_then(|line| serde_json::from_slice(&line.octets).ok())
            .filter(|header: &CastHeader| header.version == 2)
            .ok_or(CastError::Header)?;
        Ok(Self { source, header, line: 1, last: Duration::ZERO, torn: false })
    }

    /// The first line.
    #[must_use]
    pub const fn header(&self) -> &CastHeader {
        &self.header
    }

    /// Whether the last line was cut off: the recorder was killed while it wrote. Known after the end is reached.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        self.torn
    }

    /// The next event, or nothing at the end.
    ///
    /// # Errors
    /// [`CastError::Line`] for a damaged line in the middle.
    pub fn next_event(&mut self) -> Result<Option<TimedEvent>, CastError> {
        loop {
            self.line += 1;
            let Some(line) = read_line(&mut self.source, self.line)? else { return Ok(None) };
            if line.octets.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let Some(event) = parse_event(&line.octets) else {
                if line.complete {
                    return Err(CastError::Line(self.line));
                }
                self.torn = true;
                return Ok(None);
            };
            // A clock that was set back while recording must not stop the replay.
            self.last = self.last.max(event.at);
            return Ok(Some(TimedEvent { at: self.last, event: event.event }));
        }
    }
}

struct Line {
    octets: Vec<u8>,
    complete: bool,
}

fn read_line(source: &mut impl BufRead, number: u64) -> Result<Option<Line>, CastError> {
    let mut octets = Vec::new();
    source.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut octets)?;
    if octets.is_empty() {
        return Ok(None);
    }
    let complete = octets.last() == Some(&b'\n');
    if !complete && octets.len() as u64 > MAX_LINE {
        return Err(CastError::LineTooLong(number));
    }
    Ok(Some(Line { octets, complete }))
}

fn parse_event(line: &[u8]) -> Option<TimedEvent> {
    let (seconds, code, text): (f64, String, String) = serde_json::from_slice(line).ok()?;
    let at = Duration::try_from_secs_f64(seconds).ok().filter(|at| *at <= MAX_TIME)?;
    let event = match code.as_str() {
        "o" => CastEvent::Output(text),
        "i" => CastEvent::Input(text),
        "r" => {
            let (cols, rows) = text.split_once('x')?;
            CastEvent::Resize(cols.parse().ok()?, rows.parse().ok()?)
        }
        _ => CastEvent::Other(code, text),
    };
    Some(TimedEvent { at, event })
}

const MAX_LINE: u64 = 4 * 1024 * 1024;
/// No session is longer than a year.
const MAX_TIME: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        r#"{"version":2,"width":80,"height":24,"timestamp":1772366400,"env":{"TERM":"xterm"},"user":"ann"}"#;

    fn read(body: &str) -> (Vec<TimedEvent>, Option<CastError>, bool) {
        let text = format!("{HEADER}\n{body}");
        let mut reader = CastReader::new(text.as_bytes()).unwrap();
        let mut events = Vec::new();
        loop {
            match reader.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => return (events, None, reader.is_torn()),
                Err(cause) => return (events, Some(cause), reader.is_torn()),
            }
        }
    }

    #[test]
    fn events_are_read_in_order_with_their_times() {
        let (events, error, torn) = read("[0.5, \"o\", \"a\\u001b[m\"]\n[1, \"r\", \"100x50\"]\n[2.0,\"x\",\"?\"]\n");
        assert!(error.is_none() && !torn);
        assert_eq!(
            events.iter().map(|event| event.event.clone()).collect::<Vec<_>>(),
            [
                CastEvent::Output("a\u{1b}[m".into()),
                CastEvent::Resize(100, 50),
                CastEvent::Other("x".into(), "?".into())
            ]
        );
        assert_eq!(events[0].at, Duration::from_millis(500));
    }

    #[test]
    fn a_torn_last_line_ends_the_recording_without_failure() {
        let (events, error, torn) = read("[0.5, \"o\", \"a\"]\n[0.7, \"o\", \"b");
        assert_eq!((events.len(), error.is_none(), torn), (1, true, true));
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_named() {
        let (_, error, _) = read("[0.5, \"o\", \"a\"]\n[oops]\n[1,\"o\",\"b\"]\n");
        assert!(matches!(error, Some(CastError::Line(3))));
    }

    #[test]
    fn times_that_cannot_be_are_refused_and_steps_back_are_evened_out() {
        for bad in ["[-1, \"o\", \"a\"]\n", "[1e300, \"o\", \"a\"]\n"] {
            assert!(matches!(read(bad).1, Some(CastError::Line(2))), "{bad}");
        }
        let (events, _, _) = read("[5, \"o\", \"a\"]\n[3, \"o\", \"b\"]\n");
        assert_eq!(events[1].at, Duration::from_secs(5));
    }

    #[test]
    fn other_files_are_no_recordings() {
        for text in ["", "hello", "{\"version\":1,\"width\":1,\"height\":1}\n"] {
            assert!(matches!(CastReader::new(text.as_bytes()), Err(CastError::Header)), "{text}");
        }
    }
}
