//! The sending side of the machine: what goes out next, and how much credit the peer gets. Control frames go before data,
//! quiet streams before busy ones. Decides as late as the caller asks, so that what comes last can still go first.

use std::time::{Duration, Instant};

use super::outbox::Outbox;
use super::stream::{ReceiveHalf, SendEnd};
use super::{Mux, MuxEvent, Phase};
use crate::frame::{DATA_LEN, HEADER_LEN, Header, Payload};
use crate::handshake::{METERED, PROMPT, RESUME};
use crate::link::Sequence;
use crate::replay::Replay;

impl Mux {
    /// Adds frames to `out` until it holds `enough` octets (by less than a frame more) or nothing is left that may be
    /// sent now.
    pub fn poll_transmit(&mut self, out: &mut Outbox, enough: usize, now: Instant) {
        if matches!(self.phase, Phase::Closed { .. }) {
            return;
        }
        // Before everything else, also when the peer's was here first.
        if !std::mem::replace(&mut self.hello_sent, true) {
            let resume = if self.replay.is_some() { RESUME } else { 0 };
            let hello = self.limits.hello(PROMPT | resume | if self.limits.metered { METERED } else { 0 });
            out.push_raw(|octets| hello.put(octets));
        }
        if matches!(self.phase, Phase::Handshaking { .. }) {
            return;
        }
        while out.len() < enough {
            let sent = if let Some(payload) = self.link.poll_output(now) {
                push_unsequenced(out, payload);
                true
            } else if self.transmit_again(out, enough) {
                true
            } else if !self.outbound.control.is_empty() {
                self.transmit_control(out) // never passed by data: an OPEN must not come after its stream's octets
            } else {
                self.transmit_window(out, now) || self.transmit_stream(out, enough, now)
            };
            if !sent {
                break;
            }
        }
        self.link.transmitted(now);
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) may have something to send.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        match &self.phase {
            Phase::Handshaking { .. } => !self.hello_sent,
            Phase::Up { .. } => {
                !self.hello_sent
                    || self.link.has_output()
                    || self.replay.as_ref().is_some_and(|replay| replay.has_again())
                    || !self.outbound.control.is_empty()
                    || !self.outbound.windows.is_empty()
                    || self.missing_link_credit().is_some()
                    || self.outbound.schedule.first().is_some()
            }
            Phase::Closed { .. } => false,
        }
    }

    /// Sends what was lost with a connection, before anything new that is numbered.
    fn transmit_again(&mut self, out: &mut Outbox, enough: usize) -> bool {
        let before = out.len();
        // A question that follows waits behind the first frame alone.
        let most = if self.link.must_repeat_first() { 0 } else { enough.saturating_sub(before) };
        let next = self.replay.as_mut().and_then(|replay| replay.next_again(most));
        let Some((frames, payload)) = next else { return false };
        out.push_octets(frames);
        payload.into_iter().for_each(|payload| out.push_octets(payload));
        self.link.went_again((out.len() - before) as u64);
        true
    }

    fn transmit_control(&mut self, out: &mut Outbox) -> bool {
        let Some((_, payload)) = self.outbound.control.front() else { return false };
        if self.room() < HEADER_LEN + payload.wire_len() {
            return false;
        }
        let Some((id, payload)) = self.outbound.control.pop_front() else { return false };
        push_sequenced(out, &mut self.link, self.replay.as_deref_mut(), id, payload);
        true
    }

    fn transmit_window(&mut self, out: &mut Outbox, now: Instant) -> bool {
        if self.room() < HEADER_LEN + 4 {
            return false;
        }
        if let Some(missing) = self.missing_link_credit() {
            self.inbound.credit += missing;
            push_sequenced(out, &mut self.link, self.replay.as_deref_mut(), 0, Payload::Window(missing));
            return true;
        }
        while let Some(id) = self.outbound.windows.pop_front() {
            let Some(stream) = self.streams.map.get_mut(&id) else { continue };
            stream.receive.window_due = false;
            if stream.failure.is_some() || stream.released || stream.receive.missing_credit().is_none() {
                continue;
            }
            let spare = u64::from(self.limits.link_window / 2).saturating_sub(self.inbound.grown);
            let most = self
                .limits
                .max_stream_window
                .min(stream.receive.window.saturating_add(u32::try_from(spare).unwrap_or(u32::MAX)));
            let before = stream.receive.window;
            resize(&mut stream.receive, self.limits.stream_window, most, self.link.round_trip(), now);
            self.inbound.grown = (self.inbound.grown + u64::from(stream.receive.window)) - u64::from(before);
            self.link.probe(now);
            let Some(missing) = stream.receive.missing_credit() else { continue };
            stream.receive.credit += missing;
            push_sequenced(out, &mut self.link, self.replay.as_deref_mut(), id, Payload::Window(missing));
            return true;
        }
        false
    }

    /// Credit of the link that is missing, if so much is missing that a WINDOW frame is worth it.
    fn missing_link_credit(&self) -> Option<u32> {
        let held = u64::from(self.inbound.credit) + self.inbound.buffered as u64;
        let missing = u64::from(self.limits.link_window).saturating_sub(held);
        (missing >= u64::from(self.limits.link_window / 4).max(1)).then(|| u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// Sends a frame of the stream whose turn it is; false when no stream may send anything now.
    fn transmit_stream(&mut self, out: &mut Outbox, enough: usize, now: Instant) -> bool {
        let Phase::Up { peer } = &self.phase else { return false };
        let most = DATA_LEN.min(peer.max_data as usize).min(enough.max(1));
        let (room, bulk_room) = (self.room(), self.link.bulk_room(now));
        if bulk_room < HEADER_LEN + 1 {
            self.pass_over_bulk();
        }
        let Some(id) = self.outbound.schedule.first() else { return false };
        let Some(stream) = self.streams.map.get_mut(&id) else {
            self.outbound.schedule.forget_first();
            return true;
        };
        let send = &mut stream.send;
        if !send.has_output() {
            if send.has_typed() {
                self.link.typed(now);
                self.outbound.typist = Some(id);
            }
            self.outbound.schedule.drained(send);
            return true;
        }
        if !send.buffer.is_empty() {
            let credit = usize::try_from(self.outbound.credit).unwrap_or(usize::MAX);
            let room = if send.is_bulk() { room.min(bulk_room) } else { room };
            let length = most.min(credit).min(room.saturating_sub(HEADER_LEN));
            if length == 0 {
                return false;
            }
            let octets = send.buffer.take(length);
            let length = octets.len();
            send.credit -= length as u64;
            send.quantum = send.quantum.saturating_sub(length);
            self.outbound.credit -= length as u64;
            self.outbound.buffered -= length;
            let prompt = self.link.asks(length, now);
            push(out, &mut self.link, self.replay.as_deref_mut(), id, Payload::Data(octets), prompt);
            if send.awaited && send.buffer.len() <= self.limits.send_buffer / 2 {
                send.awaited = false;
                self.events.push_back(MuxEvent::Writable(id));
            }
            if send.quantum == 0 {
                self.outbound.schedule.rotate(send);
                if self.outbound.typist.take_if(|typist| *typist == id).is_some() {
                    self.link.typed_nothing();
                }
            }
            self.uncrowd();
            return true;
        }
        if room < HEADER_LEN + 2 {
            return false;
        }
        if send.end == SendEnd::FinDue {
            send.end = SendEnd::FinSent;
            push_sequenced(out, &mut self.link, self.replay.as_deref_mut(), id, Payload::Fin);
            if stream.receive.fin && stream.released {
                stream.send.cut = None;
            }
        } else if let Some(code) = send.cut.take() {
            push_sequenced(out, &mut self.link, self.replay.as_deref_mut(), id, Payload::Reset(code));
            self.remove(id);
            return true;
        }
        if stream.is_over() {
            self.remove(id);
        }
        true
    }

    /// Bulk data waits: whoever has little to say, or nothing but its end, does not wait behind it. Looks at a few, and at others the next time.
    fn pass_over_bulk(&mut self) {
        for _ in 0..self.outbound.schedule.bulk_count().min(MOST_PASSED_OVER) {
            let first = self.outbound.schedule.first();
            let Some(stream) = first.and_then(|id| self.streams.map.get(&id)) else { return };
            if !stream.send.is_bulk() || stream.send.buffer.is_empty() {
                return;
            }
            self.outbound.schedule.pass_over();
        }
    }

    /// Calls the writers that wait for the link's send buffer once it is half empty.
    pub(super) fn uncrowd(&mut self) {
        if self.outbound.buffered > self.limits.link_send_buffer / 2 {
            return;
        }
        while let Some(id) = self.outbound.crowd.pop_front() {
            if let Some(stream) = self.streams.map.get_mut(&id) {
                stream.send.crowded = false;
                stream.send.awaited = false;
                self.events.push_back(MuxEvent::Writable(id));
            }
        }
    }
}

/// A window of which half was read within a round trip holds the stream back: it doubles, up to `most`. One that took
/// long to be read shrinks towards `least`, by giving less credit.
fn resize(receive: &mut ReceiveHalf, least: u32, most: u32, round_trip: Option<Duration>, now: Instant) {
    let took = now.saturating_duration_since(receive.credited);
    receive.credited = now;
    if round_trip.is_some_and(|round_trip| took <= round_trip.max(SHORTEST_TRIP)) {
        receive.window = receive.window.saturating_mul(2).min(most).max(receive.window);
    } else if took > SHRINK_AFTER {
        receive.window = (receive.window / 2).max(least);
    }
}

const MOST_PASSED_OVER: usize = 64;
/// Below this, scheduling and not distance is what a round trip measures.
const SHORTEST_TRIP: Duration = Duration::from_micros(500);
const SHRINK_AFTER: Duration = Duration::from_secs(10);

fn push_sequenced(out: &mut Outbox, link: &mut Sequence, replay: Option<&mut Replay>, stream: u32, payload: Payload) {
    push(out, link, replay, stream, payload, false);
}

/// Adds a frame, which asks for an acknowledgement if it is `prompt`.
fn push(
    out: &mut Outbox,
    link: &mut Sequence,
    replay: Option<&mut Replay>,
    stream: u32,
    payload: Payload,
    prompt: bool,
) {
    let length = payload.wire_len();
    let header = Header { kind: payload.kind(), length, stream, sequence: link.next(length), prompt };
    if let Some(replay) = replay {
        replay.keep(&header, &payload);
    }
    out.push(&header, payload);
}

fn push_unsequenced(out: &mut Outbox, payload: Payload) {
    let header = Header { kind: payload.kind(), length: payload.wire_len(), stream: 0, sequence: 0, prompt: false };
    out.push(&header, payload);
}
