//! What a client is told when the rules end what it has: an event of a watch, frames of a WebSocket. Owns where in a stream something may be said:
//! between two events, between two frames. Says nothing where that cannot be known.

use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use crate::status::status_object;

/// The end of a watch as the API server would put it (meta/v1 WatchEvent), a line of its own.
pub(crate) fn watch_event(message: &str) -> Vec<u8> {
    let event = json!({ "type": "ERROR", "object": status_object(StatusCode::FORBIDDEN, "Forbidden", message) });
    format!("{event}\n").into_bytes()
}

/// Whether an answer is a sequence of lines of JSON, so that its events end where lines do.
pub(crate) fn is_lines_of_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.trim_start().starts_with("application/json") && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Where a WebSocket's stream from the server stands (RFC 6455 section 5.2).
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Of the header under way.
    header: Vec<u8>,
    /// Of the payload.
    left: u64,
    /// A message of several frames is under way.
    fragmented: bool,
}

impl Frames {
    /// Follows what was sent.
    pub(crate) fn follow(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            if self.left > 0 {
                let skip = usize::try_from(self.left).unwrap_or(usize::MAX).min(octets.len());
                self.left -= skip as u64;
                octets = octets.get(skip..).unwrap_or_default();
                continue;
            }
            let Some((first, rest)) = octets.split_first() else { return };
            self.header.push(*first);
            octets = rest;
            if let Some(length) = payload(&self.header) {
                let opening = self.header.first().copied().unwrap_or_default();
                // Control frames come between the frames of a message.
                if opening & 0x08 == 0 {
                    self.fragmented = opening & 0x80 == 0;
                }
                self.left = length;
                self.header.clear();
            }
        }
    }

    /// Whether a message may begin here.
    pub(crate) fn between_messages(&self) -> bool {
        self.left == 0 && self.header.is_empty() && !self.fragmented
    }
}

/// The length of a frame's payload, once its header is whole.
fn payload(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (size, length) = match second & 0x7f {
        126 => (2, u64::from(u16::from_be_bytes(header.get(2..4)?.try_into().ok()?))),
        127 => (8, u64::from_be_bytes(header.get(2..10)?.try_into().ok()?)),
        short => (0, u64::from(short)),
    };
    (header.len() >= 2 + size + mask).then_some(length)
}

/// The last frames of a WebSocket: on Kubernetes' streams the status that `kubectl` prints, then the close.
pub(crate) fn last_frames(protocol: &str, message: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    if protocol.ends_with("channel.k8s.io") && !protocol.starts_with("base64") {
        let mut status = vec![ERROR_CHANNEL];
        status.extend(status_object(StatusCode::FORBIDDEN, "Forbidden", message).to_string().into_bytes());
        frame(&mut octets, BINARY, &status);
    }
    let mut close = POLICY_VIOLATION.to_be_bytes().to_vec();
    let end = message.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_REASON).last();
    close.extend(message.as_bytes().get(..end.unwrap_or_default()).unwrap_or_default());
    frame(&mut octets, CLOSE, &close);
    octets
}

fn frame(octets: &mut Vec<u8>, opening: u8, payload: &[u8]) {
    octets.push(opening);
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => octets.push(length.to_be_bytes()[1]),
        Ok(length) => {
            octets.push(126);
            octets.extend(length.to_be_bytes());
        }
        Err(_) => {
            octets.push(127);
            octets.extend((payload.len() as u64).to_be_bytes());
        }
    }
    octets.extend(payload);
}

/// The stream of errors in `v4.channel.k8s.io` and later.
const ERROR_CHANNEL: u8 = 3;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
/// RFC 6455 section 7.4.1.
const POLICY_VIOLATION: u16 = 1008;
/// A control frame has at most 125 octets, the code included.
const MAX_REASON: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(payloads: &[(u8, usize)]) -> Vec<u8> {
        let mut octets = Vec::new();
        for (opening, length) in payloads {
            frame(&mut octets, *opening, &vec![0x81; *length]);
        }
        octets
    }

    #[test]
    fn the_gaps_between_messages_are_found_however_the_octets_come() {
        // A short message, one of two frames with a ping between them, long ones.
        let octets = sent(&[(BINARY, 3), (0x02, 5), (0x89, 0), (0x80, 2), (BINARY, 126), (BINARY, 70_000)]);
        let gaps = [5, 5 + 7 + 2 + 4, 18 + 4 + 126, 148 + 10 + 70_000];
        for step in [1, 2, 7, 4096] {
            let mut frames = Frames::default();
            let mut at = 0;
            for piece in octets.chunks(step) {
                frames.follow(piece);
                at += piece.len();
                assert_eq!(frames.between_messages(), gaps.contains(&at), "at {at} in steps of {step}");
            }
        }
    }

    #[test]
    fn the_last_frames_are_whole_and_a_reason_is_cut_between_letters() {
        let long = "ü".repeat(200);
        for (protocol, messages) in [("v5.channel.k8s.io", 2), ("SPDY/3.1+portforward.k8s.io", 1)] {
            let octets = last_frames(protocol, &long);
            let mut frames = Frames::default();
            let ends = octets.iter().filter(|octet| {
                frames.follow(&[**octet]);
                frames.between_messages()
            });
            assert_eq!(ends.count(), messages);
            assert!(octets.ends_with("ü".repeat(61).as_bytes()));
        }
    }
}
