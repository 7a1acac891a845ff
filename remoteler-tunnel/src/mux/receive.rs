//! The receiving side of the machine: octets of the peer become changes of streams. Everything is checked against state
//! and credit before anything is held (I25). Never answers more than the peer's budgets allow (I26).

use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::budget::Nuisance;
use super::error::{Code, ProtocolError};
use super::stream::{Opening, SendEnd, Stream, StreamError};
use super::{CHECK_EVERY, Mux, MuxEvent, Phase, Side};
use crate::frame::{DATA_LEN, FrameType, HEADER_LEN, Header, Payload};
use crate::handshake::{Hello, METERED, PROMPT, RESUME};
use crate::link::Keepalive;

impl Mux {
    /// Takes all whole frames off the front of `input`; the rest stays for the next call.
    ///
    /// # Errors
    /// The peer broke the protocol. The link must be closed then: nothing of the machine's state is meaningful to the
    /// peer any more.
    pub fn handle_input(&mut self, input: &mut BytesMut, now: Instant) -> Result<(), ProtocolError> {
        self.link.heard(now);
        loop {
            match self.phase {
                Phase::Handshaking { .. } => match Hello::take(input)? {
                    None => return Ok(()),
                    Some(hello) => self.go_up(hello, now),
                },
                Phase::Up { .. } => {
                    let Some(header) = Header::peek(input)? else { return Ok(()) };
                    self.check_announced(&header)?;
                    if input.len() < HEADER_LEN + header.length {
                        return Ok(());
                    }
                    input.advance(HEADER_LEN);
                    let payload = Payload::decode(header.kind, input.split_to(header.length).freeze())?;
                    self.link.received(&header)?;
                    self.handle_frame(header.stream, payload, now)?;
                }
                Phase::Closed { .. } => {
                    input.clear();
                    return Ok(());
                }
            }
        }
    }

    fn go_up(&mut self, peer: Hello, now: Instant) {
        self.outbound.credit = u64::from(peer.link_window);
        for (id, stream) in &mut self.streams.map {
            stream.send.credit = u64::from(peer.stream_window);
            if std::mem::take(&mut stream.send.awaited) {
                self.events.push_back(MuxEvent::Writable(*id));
            }
        }
        let metered = self.limits.metered && peer.features & METERED != 0;
        if metered {
            self.link.set_keepalive(match self.side {
                Side::Client => Keepalive::METERED_CLIENT,
                Side::Server => Keepalive::METERED_SERVER,
            });
        }
        if peer.features & PROMPT != 0 {
            self.link.agree_on_prompt();
        }
        if peer.features & RESUME == 0 {
            self.replay = None;
        } else if self.replay.is_some() {
            self.link.make_resumable(self.side == Side::Client && !metered);
        }
        self.phase = Phase::Up { peer };
        self.link.probe(now);
        self.events.push_back(MuxEvent::Up);
    }

    /// Limits that this side announced, checked before a payload is waited for.
    fn check_announced(&self, header: &Header) -> Result<(), ProtocolError> {
        let most = match header.kind {
            FrameType::Data => DATA_LEN,
            FrameType::Open => self.limits.max_metadata as usize,
            FrameType::Accept
            | FrameType::Reject
            | FrameType::Window
            | FrameType::Fin
            | FrameType::Reset
            | FrameType::GoAway
            | FrameType::Ack
            | FrameType::Ping
            | FrameType::Pong => return Ok(()),
        };
        if header.length > most {
            return Err(ProtocolError::TooLong { kind: header.kind.name(), length: header.length, most });
        }
        Ok(())
    }

    fn handle_frame(&mut self, id: u32, payload: Payload, now: Instant) -> Result<(), ProtocolError> {
        let kind = payload.kind();
        match payload {
            Payload::Open(metadata) => return self.opened(id, &metadata, now),
            Payload::Data(octets) => return self.data(id, octets, now),
            Payload::Window(increment) if id == 0 => {
                let credit = self.outbound.credit + u64::from(increment);
                if credit > MAX_CREDIT {
                    return Err(ProtocolError::CreditOverflow { stream: 0 });
                }
                self.outbound.credit = credit;
                return Ok(());
            }
            Payload::GoAway(_, reason) => {
                self.away.theirs = Some(reason.into());
                self.events.push_back(MuxEvent::GoingAway);
                return Ok(());
            }
            Payload::Ack(ack) => {
                if !self.acknowledged(ack)? {
                    return self.without_effect(now);
                }
                return Ok(());
            }
            Payload::Ping(nonce, ack) => {
                self.acknowledged(ack)?;
                self.link.pinged(nonce);
                return self.spend_ping(now);
            }
            Payload::Pong(nonce, ack) => {
                self.acknowledged(ack)?;
                return if self.link.ponged(nonce, now) { Ok(()) } else { self.spend_ping(now) };
            }
            Payload::Reset(code) => {
                if !self.budgets.spend(Nuisance::Reset, now) {
                    return Err(ProtocolError::Flood { what: "RESET frames" });
                }
                self.known(id, kind)?;
                self.fail(id, StreamError::Reset { code });
                return Ok(());
            }
            Payload::Accept | Payload::Reject(..) | Payload::Window(_) | Payload::Fin => {}
        }
        self.known(id, kind)?;
        let ours = self.is_ours(id);
        let Some(stream) = self.streams.map.get_mut(&id) else { return self.without_effect(now) };
        match payload {
            Payload::Accept | Payload::Reject(..) if !ours || stream.opening != Opening::Asked => {
                if stream.failure.is_none() {
                    return Err(ProtocolError::Unexpected { kind: kind.name(), stream: id });
                }
            }
            Payload::Accept => {
                stream.opening = Opening::Done;
                self.events.push_back(MuxEvent::Answered(id));
            }
            Payload::Reject(code, reason) => self.fail(id, StreamError::Rejected { code, reason: reason.into() }),
            Payload::Window(increment) => {
                let credit = stream.send.credit + u64::from(increment);
                if credit > MAX_CREDIT {
                    return Err(ProtocolError::CreditOverflow { stream: id });
                }
                stream.send.credit = credit;
                if stream.send.buffer.len() <= self.limits.send_buffer / 2 && std::mem::take(&mut stream.send.awaited) {
                    self.events.push_back(MuxEvent::Writable(id));
                }
            }
            // On its way when the stream ended: no end in order any more.
            Payload::Fin if stream.failure.is_some() => return self.without_effect(now),
            Payload::Fin if stream.receive.fin => {
                return Err(ProtocolError::Unexpected { kind: kind.name(), stream: id });
            }
            Payload::Fin => {
                stream.receive.fin = true;
                if std::mem::take(&mut stream.receive.awaited) {
                    self.events.push_back(MuxEvent::Readable(id));
                }
                if stream.released && stream.send.end == SendEnd::FinSent {
                    stream.send.cut = None; // both halves are closed, nothing is left to cut
                }
                if stream.is_over() {
                    self.remove(id);
                }
            }
            Payload::Open(_)
            | Payload::Data(_)
            | Payload::Reset(_)
            | Payload::GoAway(..)
            | Payload::Ack(_)
            | Payload::Ping(..)
            | Payload::Pong(..) => {} // handled above
        }
        Ok(())
    }

    fn opened(&mut self, id: u32, metadata: &Bytes, now: Instant) -> Result<(), ProtocolError> {
        if self.is_ours(id) || id <= self.streams.last_theirs {
            return Err(ProtocolError::Number { stream: id });
        }
        self.streams.last_theirs = id;
        let refusal = if let Some(reason) = &self.away.ours {
            Some((Code::GoingAway, reason.to_string()))
        } else if self.streams.theirs >= self.limits.max_streams || self.incoming.len() >= self.limits.max_backlog {
            Some((Code::Busy, "too many streams are open or wait to be taken".to_owned()))
        } else {
            None
        };
        if let Some((code, reason)) = refusal {
            if !self.budgets.spend(Nuisance::Rejected, now) || self.outbound.control.len() > self.limits.max_control() {
                return Err(ProtocolError::Flood { what: "OPEN frames" });
            }
            self.outbound.control.push_back((id, Payload::Reject(code.number(), reason)));
            return Ok(());
        }
        let credit = match &self.phase {
            Phase::Up { peer } => peer.stream_window,
            Phase::Handshaking { .. } | Phase::Closed { .. } => 0,
        };
        self.streams.theirs += 1;
        let stream = Stream::new(Opening::Offered, self.limits.stream_window, credit, now);
        self.streams.map.insert(id, Box::new(stream));
        // A copy: a slice would hold the whole read buffer for as long as nobody takes the stream.
        self.incoming.push_back((id, Bytes::copy_from_slice(metadata)));
        self.events.push_back(MuxEvent::Incoming);
        Ok(())
    }

    fn data(&mut self, id: u32, octets: Bytes, now: Instant) -> Result<(), ProtocolError> {
        self.known(id, FrameType::Data)?;
        let length = octets.len() as u32;
        let Some(credit) = self.inbound.credit.checked_sub(length) else {
            return Err(ProtocolError::Credit { stream: id, length: octets.len(), credit: self.inbound.credit });
        };
        self.inbound.credit = credit;
        // On their way when the stream ended here: their link credit is given back, for they are not held.
        let Some(stream) = self.streams.map.get_mut(&id) else { return Ok(()) };
        let receive = &mut stream.receive;
        if receive.fin {
            return Err(ProtocolError::Unexpected { kind: FrameType::Data.name(), stream: id });
        }
        let Some(credit) = receive.credit.checked_sub(length) else {
            return Err(ProtocolError::Credit { stream: id, length: octets.len(), credit: receive.credit });
        };
        receive.credit = credit;
        if stream.released || stream.failure.is_some() {
            return Ok(());
        }
        if receive.queue.len() == 0 {
            receive.moved = now;
        }
        self.inbound.buffered += octets.len();
        receive.queue.push(octets);
        if std::mem::take(&mut receive.awaited) {
            self.events.push_back(MuxEvent::Readable(id));
        }
        if self.inbound.check_at.is_none() && self.is_nearly_full() {
            self.inbound.check_at = Some(now + CHECK_EVERY);
        }
        Ok(())
    }

    /// Whether the stream exists or existed.
    fn known(&self, id: u32, kind: FrameType) -> Result<(), ProtocolError> {
        let opened = if self.is_ours(id) {
            self.streams.next.is_none_or(|next| id < next)
        } else {
            id <= self.streams.last_theirs
        };
        if opened { Ok(()) } else { Err(ProtocolError::NeverOpened { kind: kind.name(), stream: id }) }
    }

    fn without_effect(&mut self, now: Instant) -> Result<(), ProtocolError> {
        if self.budgets.spend(Nuisance::Idle, now) {
            Ok(())
        } else {
            Err(ProtocolError::Flood { what: "frames without effect" })
        }
    }

    fn spend_ping(&mut self, now: Instant) -> Result<(), ProtocolError> {
        if self.budgets.spend(Nuisance::Ping, now) {
            Ok(())
        } else {
            Err(ProtocolError::Flood { what: "PING or PONG frames" })
        }
    }
}

/// Credit is counted in 31 bits on both sides.
const MAX_CREDIT: u64 = i32::MAX as u64;
